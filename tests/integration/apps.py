"""One set of handlers, as applications of every kind, under every way that OTel reaches them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sentry_sdk
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteOpenTelemetry
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from otel_sentry_asgi import SentryMiddleware

logger = logging.getLogger("shop")

Handler = Callable[[Request], Awaitable[Response]]
App = Any

AT_ONCE = 8


class ShopError(Exception):
    """What the handlers raise."""


@dataclass
class Shop:
    """The handlers, and what they share."""

    provider: TracerProvider
    waiting: int = 0
    all_here: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracer = self.provider.get_tracer("shop")

    async def order(self, request: Request) -> Response:
        sentry_sdk.set_tag("order", request.path_params["id"])
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER, customer TEXT)")
            traced = SQLite3Instrumentor().instrument_connection(connection, self.provider)
            traced.cursor().execute("SELECT id FROM orders WHERE customer = 'ann@example.org'")
        return PlainTextResponse("ok")

    async def failing(self, request: Request) -> Response:
        return PlainTextResponse("sorry", 500)

    async def boom(self, request: Request) -> Response:
        sentry_sdk.set_tag("from", "boom")
        raise ShopError("no open span")

    async def boom_in_span(self, request: Request) -> Response:
        sentry_sdk.set_tag("from", "boom_in_span")
        with self.tracer.start_as_current_span("price"):
            try:
                raise KeyError("sku")
            except KeyError as error:
                raise ShopError("cannot price") from error

    async def recorded(self, request: Request) -> Response:
        with self.tracer.start_as_current_span("mail") as span:
            try:
                raise ShopError("dealt with")
            except ShopError as error:
                span.record_exception(error)
        return PlainTextResponse("ok")

    async def recorded_thrice(self, request: Request) -> Response:
        with self.tracer.start_as_current_span("mail") as span:
            try:
                raise ShopError("thrice")
            except ShopError as error:
                span.record_exception(error)
                sentry_sdk.capture_exception(error)
                logger.exception("could not send")
                raise

    async def background(self, request: Request) -> Response:
        sentry_sdk.set_tag("from", "background")

        async def late() -> None:
            with self.tracer.start_as_current_span("late"):
                raise ShopError("after the response")

        return PlainTextResponse("ok", background=BackgroundTask(late))

    async def task(self, request: Request) -> Response:
        sentry_sdk.set_tag("from", "task")

        async def outliving() -> None:
            await self.released.wait()
            with self.tracer.start_as_current_span("outliving"):
                raise ShopError("from a task")

        self.tasks.append(asyncio.create_task(outliving()))
        return PlainTextResponse("ok")

    async def release(self, request: Request) -> Response:
        self.released.set()
        await asyncio.wait(self.tasks)
        self.tasks.clear()
        return PlainTextResponse("ok")

    async def log(self, request: Request) -> Response:
        sentry_sdk.set_tag("from", "log")
        logger.error("stock is low")
        return PlainTextResponse("ok")

    async def together(self, request: Request) -> Response:
        number = request.path_params["id"]
        sentry_sdk.set_tag("number", number)
        sentry_sdk.set_user({"id": f"user-{number}"})
        self.waiting += 1
        if self.waiting == AT_ONCE:
            self.all_here.set()
        await self.all_here.wait()
        with self.tracer.start_as_current_span(f"work {number}"):
            await asyncio.sleep(0)
        return PlainTextResponse("ok")

    async def ids(self, request: Request) -> Response:
        """What the request's isolation scope holds of others: nothing."""
        tags = sentry_sdk.get_isolation_scope()._tags
        return PlainTextResponse(",".join(sorted(map(str, tags))))

    async def echo(self, websocket: WebSocket) -> None:
        sentry_sdk.set_tag("room", websocket.path_params["id"])
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async def echo_boom(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        raise ShopError("in a websocket")

    @property
    def routes(self) -> dict[str, Handler]:
        return {
            "/orders/{id}": self.order,
            "/failing": self.failing,
            "/boom": self.boom,
            "/boom-in-span": self.boom_in_span,
            "/recorded": self.recorded,
            "/recorded-thrice": self.recorded_thrice,
            "/background": self.background,
            "/task": self.task,
            "/release": self.release,
            "/log": self.log,
            "/together/{id}": self.together,
            "/ids": self.ids,
        }

    def plain(self) -> App:
        """Without a framework: nothing catches, nothing answers 500, nothing knows a route."""
        return _Plain(self)

    def starlette(self, **options: Any) -> App:
        routes: list[Any] = [Route(path, handler) for path, handler in self.routes.items()]
        routes += [
            WebSocketRoute("/ws/{id}", self.echo),
            WebSocketRoute("/boom/ws", self.echo_boom),
        ]
        return Starlette(routes=routes, **options)

    def fastapi(self, *, native: bool) -> FastAPI:
        app = FastAPI(telemetry={"tracing": native, "tracer_provider": self.provider})
        for path, handler in self.routes.items():
            app.add_api_route(path, handler)
        app.add_api_websocket_route("/ws/{id}", self.echo)
        app.add_api_websocket_route("/boom/ws", self.echo_boom)
        return app


class _Plain:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            handler = self._shop.echo_boom if scope["path"] == "/boom/ws" else self._shop.echo
            copy = {**scope, "path_params": {"id": scope["path"].rpartition("/")[2]}}
            await handler(WebSocket(copy, receive, send))
        else:
            copy = {**scope, "path_params": {"id": scope["path"].rpartition("/")[2]}}
            response = await self._answer(Request(copy, receive))
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        for path, handler in self._shop.routes.items():
            prefix = path.partition("{")[0]
            if request.url.path == path or (prefix != path and request.url.path.startswith(prefix)):
                return await handler(request)
        return PlainTextResponse("no such page", 404)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def contrib_plain(shop: Shop) -> App:
    return OpenTelemetryMiddleware(shop.plain(), tracer_provider=shop.provider)


def contrib_starlette(shop: Shop) -> App:
    return OpenTelemetryMiddleware(shop.starlette(), tracer_provider=shop.provider)


def contrib_in_starlette(shop: Shop) -> App:
    middleware = Middleware(OpenTelemetryMiddleware, tracer_provider=shop.provider)
    return shop.starlette(middleware=[middleware])


def contrib_fastapi(shop: Shop) -> App:
    return OpenTelemetryMiddleware(shop.fastapi(native=False), tracer_provider=shop.provider)


def contrib_around_native(shop: Shop) -> App:
    return OpenTelemetryMiddleware(shop.fastapi(native=True), tracer_provider=shop.provider)


def fastapi_instrumentor(shop: Shop) -> App:
    app = shop.fastapi(native=True)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=shop.provider)
    return app


def fastapi_native(shop: Shop) -> App:
    return shop.fastapi(native=True)


def starlette_native(shop: Shop) -> App:
    middleware = Middleware(StarletteOpenTelemetry, tracer_provider=shop.provider)
    return shop.starlette(middleware=[middleware])


def by_hand_outside(shop: Shop) -> App:
    return SentryMiddleware(contrib_starlette(shop))


def by_hand_inside(shop: Shop) -> App:
    return OpenTelemetryMiddleware(
        SentryMiddleware(shop.starlette()), tracer_provider=shop.provider
    )


def by_hand_plain(shop: Shop) -> App:
    return SentryMiddleware(contrib_plain(shop))


INSTRUMENTED = {
    build.__name__: build
    for build in (
        contrib_plain,
        contrib_starlette,
        contrib_in_starlette,
        contrib_fastapi,
        contrib_around_native,
        fastapi_instrumentor,
        fastapi_native,
        starlette_native,
    )
}
BY_HAND = {build.__name__: build for build in (by_hand_outside, by_hand_inside, by_hand_plain)}
