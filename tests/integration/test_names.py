"""What requests are called and what they come to, with the frameworks themselves."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import sentry_sdk
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

import otel_sentry_asgi
from otel_sentry_asgi.testing import RecordingExporter
from tests.support.kent import Kent
from tests.support.server import serve

Init = Callable[..., None]
Got = Callable[..., Any]


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(shutdown_on_exit=False)


@pytest.fixture
def exporter(init: Init, provider: TracerProvider) -> RecordingExporter:
    init()
    kept = RecordingExporter()
    otel_sentry_asgi.instrument(tracer_provider=provider, exporter=kept, settle=0.0, linger=0.5)
    return kept


def get(app: Any, path: str, root_path: str = "", method: str = "GET") -> int:
    async def once() -> int:
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return (await client.request(method, path)).status_code

    return asyncio.run(once())


def the_only(exporter: RecordingExporter, provider: TracerProvider) -> Any:
    provider.force_flush()
    (transaction,) = exporter.transactions
    return transaction


# -- templates ------------------------------------------------------------------------------------


def fastapi() -> FastAPI:
    """An application with prefixes of routers, a mounted application, and one below a parameter."""
    app, below = FastAPI(), FastAPI()
    inner, outer = APIRouter(prefix="/v1"), APIRouter(prefix="/api")

    @inner.get("/things/{thing}")
    async def thing(thing: str) -> str:
        return thing

    outer.include_router(inner)
    for one in (app, below):
        one.include_router(outer)
        one.get("/items/{item}")(thing_of)
    app.mount("/sub", below)
    app.mount("/orgs/{org}", below)
    return app


async def thing_of(item: str) -> str:
    return item


def starlette() -> Starlette:
    async def view(_: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    routes = [
        Route("/items/{item}", view),
        Mount("/sub", routes=[Route("/items/{item}", view)]),
        Mount("/orgs/{org}", routes=[Mount("/sub", routes=[Route("/items/{item:int}", view)])]),
        Route("/files/{path:path}", view),
        Mount("/of/{org:int}", routes=[Mount("/raw", PlainTextResponse("x"))]),
    ]
    return Starlette(routes=routes)


FASTAPI = [
    ("/items/5", "/items/{item}"),
    ("/api/v1/things/5", "/api/v1/things/{thing}"),
    ("/sub/items/5", "/sub/items/{item}"),
    ("/sub/api/v1/things/5", "/sub/api/v1/things/{thing}"),
    ("/orgs/acme/items/5", "/orgs/{org}/items/{item}"),
    ("/orgs/acme/api/v1/things/5", "/orgs/{org}/api/v1/things/{thing}"),
]
STARLETTE = [
    ("/items/5", "/items/{item}"),
    ("/sub/items/5", "/sub/items/{item}"),
    ("/orgs/acme/sub/items/5", "/orgs/{org}/sub/items/{item}"),
    ("/files/a/b", "/files/{path}"),
    ("/of/7/raw/x/5", "/of/{org}/raw/{path}"),
]
CASES = [
    *((fastapi, FastAPIInstrumentor, *case) for case in FASTAPI),
    *((starlette, StarletteInstrumentor, *case) for case in STARLETTE),
]


@pytest.mark.parametrize("root_path", ["", "/shop"])
@pytest.mark.parametrize("framework_instrumentation", [True, False])
@pytest.mark.parametrize(("build", "instrumentor", "path", "template"), CASES)
def test_a_request_is_called_by_the_template_of_its_whole_path(
    build: Callable[[], Any],
    instrumentor: Any,
    path: str,
    template: str,
    framework_instrumentation: bool,
    root_path: str,
    exporter: RecordingExporter,
    provider: TracerProvider,
) -> None:
    """Routers' prefixes, mounts, their parameters, and what lies before the application: whether
    the span's own `http.route` has the whole of it, a part, or nothing."""
    app = build()
    if framework_instrumentation:
        instrumentor.instrument_app(app, tracer_provider=provider)
    else:
        app = OpenTelemetryMiddleware(app, tracer_provider=provider)

    assert get(app, f"{root_path}{path}?token=x", root_path) == 200

    made = the_only(exporter, provider)
    # Some instrumentations leave the convertors of Starlette in.
    assert re.sub(r":\w+}", "}", made["transaction"]) == f"GET {root_path}{template}"
    assert made["transaction_info"] == {"source": "route"}


def test_a_server_span_further_in_may_know_the_route(
    exporter: RecordingExporter, provider: TracerProvider
) -> None:
    tracer = provider.get_tracer("fastapi")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        attributes = {"http.request.method": "GET", "url.path": scope["path"]}
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=attributes) as it:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            it.set_attribute("http.route", "/items/{item}")
        await send({"type": "http.response.body"})

    get(OpenTelemetryMiddleware(app, tracer_provider=provider), "/items/5")
    assert the_only(exporter, provider)["transaction"] == "GET /items/{item}"


def test_a_call_of_ones_own_other_route_names_only_itself(
    exporter: RecordingExporter, provider: TracerProvider
) -> None:
    """A service that calls itself without leaving the process."""
    inner = starlette()
    StarletteInstrumentor.instrument_app(inner, tracer_provider=provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(inner), base_url="http://shop"
        ) as client:
            await client.get("/items/5")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    get(OpenTelemetryMiddleware(app, tracer_provider=provider), "/orders/7")
    assert the_only(exporter, provider)["transaction"] == "GET /orders/7"


def test_a_method_that_nobody_knows_is_not_in_the_name(
    exporter: RecordingExporter, provider: TracerProvider
) -> None:
    get(OpenTelemetryMiddleware(starlette(), tracer_provider=provider), "/items/5", method="BREW")
    made = the_only(exporter, provider)
    assert made["transaction"].startswith("HTTP /items/")


# -- where it runs --------------------------------------------------------------------------------


def test_an_error_says_where_it_happened_as_its_transaction_does(init: Init, kent: Kent) -> None:
    init()
    resource = Resource({"k8s.pod.name": "web-1", "container.command": "serve --key=secret"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    otel_sentry_asgi.instrument(tracer_provider=provider)

    async def boom(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        get(OpenTelemetryMiddleware(boom, tracer_provider=provider), "/items/5")
    provider.force_flush()
    sentry_sdk.flush()

    (error,), (transaction,) = kent.errors(), kent.transactions()
    for event in (error.body, transaction.body):
        assert event["contexts"]["kubernetes"] == {"k8s.pod.name": "web-1"}
        assert "secret" not in json.dumps(event["contexts"])


# -- what requests come to ------------------------------------------------------------------------


def run(app: Any, provider: TracerProvider, *, cancel_after: float | None = None) -> None:
    """One request whose client is gone after what the application sends."""
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b""}

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    async def whole() -> None:
        task = asyncio.ensure_future(
            OpenTelemetryMiddleware(app, tracer_provider=provider)(scope, receive, send)
        )
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()

    asyncio.run(whole())


def begin(kind: bytes = b"text/plain") -> Any:
    headers = [(b"content-type", kind)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def given_up(scope: Any, receive: Any, send: Any) -> None:
    await send(begin())
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def given_up_after_a_push(scope: Any, receive: Any, send: Any) -> None:
    await given_up(scope, receive, send)
    await send({"type": "http.response.push", "path": "/style.css", "headers": []})


async def given_up_in_a_copy(scope: Any, receive: Any, send: Any) -> None:
    await send(begin())
    await send({"type": "http.response.zerocopysend", "file": 0, "more_body": True})


async def file(scope: Any, receive: Any, send: Any) -> None:
    await send(begin())
    await send({"type": "http.response.pathsend", "path": "/x"})


async def copied(scope: Any, receive: Any, send: Any) -> None:
    await given_up_in_a_copy(scope, receive, send)
    await send({"type": "http.response.zerocopysend", "file": 0})


async def cancelled(scope: Any, receive: Any, send: Any) -> None:
    await send(begin())
    await asyncio.sleep(60)


async def refused(scope: Any, receive: Any, send: Any) -> None:
    class ClientDisconnect(Exception):
        pass

    raise ClientDisconnect


async def unanswered(scope: Any, receive: Any, send: Any) -> None:
    """As Django does when the client leaves while a view is at work."""


async def whole(scope: Any, receive: Any, send: Any) -> None:
    await send(begin())
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await send({"type": "http.response.body", "body": b"half"})


async def events(scope: Any, receive: Any, send: Any) -> None:
    await send(begin(b"text/event-stream; charset=utf-8"))
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})


@pytest.mark.parametrize(
    ("app", "cancel_after", "op", "status"),
    [
        (given_up, None, "http.server", "cancelled"),
        (given_up_after_a_push, None, "http.server", "cancelled"),
        (given_up_in_a_copy, None, "http.server", "cancelled"),
        (cancelled, 0, "http.server", "cancelled"),
        (refused, None, "http.server", "cancelled"),
        (unanswered, None, "http.server", "cancelled"),
        (whole, None, "http.server", "ok"),
        (file, None, "http.server", "ok"),
        (copied, None, "http.server", "ok"),
        (events, None, "http.server.stream", "ok"),
    ],
)
def test_a_response_that_the_client_did_not_wait_for_is_cancelled(
    app: Any,
    cancel_after: float | None,
    op: str,
    status: str,
    exporter: RecordingExporter,
    provider: TracerProvider,
) -> None:
    """But server-sent events go on until the client leaves."""
    run(app, provider, cancel_after=cancel_after)
    trace = the_only(exporter, provider)["contexts"]["trace"]
    assert (trace["op"], trace["status"]) == (op, status)


def crashing(telemetry: Any) -> FastAPI:
    """An application that fails when its response has begun, or is over."""
    app = FastAPI(telemetry=telemetry)

    async def failing() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("late")

    async def torn_down() -> AsyncIterator[None]:
        yield
        raise ValueError("late")

    def work() -> None:
        raise ValueError("late")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(failing())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    @app.get("/teardown", dependencies=[Depends(torn_down)])
    async def teardown() -> None:
        pass

    return app


@pytest.mark.parametrize("path", ["/stream", "/background", "/teardown"])
@pytest.mark.parametrize("instrumentation", ["contrib", "instrumentor", "native"])
def test_what_crashed_after_its_response_began_failed(
    instrumentation: str, path: str, init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init(release="shop@1")
    otel_sentry_asgi.instrument(tracer_provider=provider)
    native = instrumentation == "native"
    app: Any = crashing({"tracing": native, "tracer_provider": provider})
    if instrumentation == "instrumentor":
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    elif instrumentation == "contrib":
        app = OpenTelemetryMiddleware(app, tracer_provider=provider)

    with serve(app) as url, suppress(httpx.RemoteProtocolError):
        assert httpx.get(f"{url}{path}").status_code == 200
    provider.force_flush()
    otel_sentry_asgi.uninstrument()

    (transaction,) = kent.transactions()
    (error,) = kent.errors()
    assert error.body["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert transaction.body["contexts"]["trace"]["status"] == "internal_error"
    assert kent.session_counts() == {"crashed": 1}


def refusing() -> Starlette:
    """An application that accepts no websocket but one, each in another way."""

    async def close(websocket: WebSocket) -> None:
        await websocket.close()

    async def policy(websocket: WebSocket) -> None:
        raise WebSocketException(1008)

    async def denial(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("who are you?", 401))

    async def moved(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("elsewhere", 307))

    async def busy(websocket: WebSocket) -> None:
        raise HTTPException(503)

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1011)

    async def silent(websocket: WebSocket) -> None:
        """Servers answer 500 then, and say so in their log."""

    views = (close, policy, denial, moved, busy, accept, silent)
    return Starlette(routes=[WebSocketRoute(f"/{view.__name__}/{{x}}", view) for view in views])


@pytest.mark.parametrize("integrations", [True, False])
@pytest.mark.parametrize(
    ("path", "status", "code", "issues"),
    [
        ("/close", "permission_denied", 403, 0),
        ("/policy", "permission_denied", 403, 0),
        ("/denial", "unauthenticated", 401, 0),
        ("/moved", "ok", 307, 0),
        ("/busy", "unavailable", 503, 1),
        ("/accept", "ok", None, 0),
        ("/silent", "internal_error", 500, 0),
    ],
)
def test_a_websocket_that_is_refused_has_the_status_of_the_refusal(
    path: str,
    status: str,
    code: int | None,
    issues: int,
    integrations: bool,
    init: Init,
    provider: TracerProvider,
    kent: Kent,
) -> None:
    init(auto_enabling_integrations=integrations)
    otel_sentry_asgi.instrument(tracer_provider=provider)

    app = OpenTelemetryMiddleware(refusing(), tracer_provider=provider)
    with serve(app, ws="wsproto") as url:
        address = url.replace("http://", "ws://")
        with suppress(InvalidHandshake), connect(f"{address}{path}/5"):
            pass
    provider.force_flush()
    sentry_sdk.flush()

    (made,) = [item.body for item in kent.transactions()]
    trace = made["contexts"]["trace"]
    assert (made["transaction"], trace["op"]) == (f"{path}/{{x}}", "websocket.server")
    assert trace["status"] == status
    assert trace["data"].get("http.response.status_code") == code
    handled = [
        item.body["exception"]["values"][-1]["mechanism"]["handled"]
        for item in kent.errors()
        if "exception" in item.body
    ]
    assert handled == [True] * issues


def test_a_websocket_that_the_client_closes_is_ok(
    exporter: RecordingExporter, provider: TracerProvider
) -> None:
    async def echo(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive_text()

    app = OpenTelemetryMiddleware(
        Starlette(routes=[WebSocketRoute("/rooms/{room}", echo)]), tracer_provider=provider
    )
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        pass

    scope = {"type": "websocket", "path": "/rooms/5", "headers": [], "query_string": b""}
    with pytest.raises(Exception, match="1000"):
        asyncio.run(app(scope, receive, send))
    made = the_only(exporter, provider)
    assert made["transaction"] == "/rooms/{room}"
    trace = made["contexts"]["trace"]
    assert trace["op"] == "websocket.server"
    assert trace["status"] != "cancelled"
