"""Quart leaves no route in the ASGI scope: its signals tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import sentry_sdk
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from quart import Quart, websocket
from quart.signals import request_started, websocket_started
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import otel_sentry_asgi
from otel_sentry_asgi import SentryMiddleware, SentrySpanProcessor, trace_propagation_meta
from tests.integration.conftest import title
from tests.support.kent import Kent
from tests.support.scenario import scenario
from tests.support.server import serve

Init = Callable[..., None]


def quart(inner: Any = None) -> Any:
    app = Quart("shop")

    @app.get("/items/<int:number>")
    async def item(number: int) -> str:
        return trace_propagation_meta()

    @app.get("/boom/<int:number>")
    async def boom(number: int) -> str:
        raise ValueError("in the view")

    @app.get("/calls/<int:number>")
    async def calls(number: int) -> str:
        transport = httpx.ASGITransport(inner)
        async with httpx.AsyncClient(transport=transport, base_url="http://other") as client:
            return (await client.get(f"/items/{number}")).text

    @app.websocket("/rooms/<room>")
    async def room(room: str) -> None:
        await websocket.accept()
        await websocket.send(room)

    return app


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(shutdown_on_exit=False)


@pytest.fixture(params=[True, False], ids=["integration", "bare"])
def instrumented(request: pytest.FixtureRequest, init: Init, provider: TracerProvider) -> None:
    init(auto_enabling_integrations=request.param)
    otel_sentry_asgi.instrument(tracer_provider=provider)


def get(app: Any, *paths: str, root_path: str = "") -> list[str]:
    async def once() -> list[str]:
        transport = httpx.ASGITransport(app, root_path=root_path, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return [(await client.get(path)).text for path in paths]

    return asyncio.run(once())


def names(kent: Kent, provider: TracerProvider) -> list[tuple[str, str]]:
    provider.force_flush()
    sentry_sdk.flush()
    made = [item.body for item in kent.transactions()]
    return [(one["transaction"], one["transaction_info"]["source"]) for one in made]


@pytest.mark.usefixtures("instrumented")
def test_a_request_is_called_by_its_rule(provider: TracerProvider, kent: Kent) -> None:
    """So is its error, and what is said of the trace to others."""
    app = OpenTelemetryMiddleware(quart(), tracer_provider=provider)

    page, *_ = get(app, "/items/5", "/boom/5", "/nowhere/5")

    assert names(kent, provider) == [
        ("GET /items/<int:number>", "route"),
        ("GET /boom/<int:number>", "route"),
        ("GET /nowhere/5", "url"),
    ]
    (error,) = [item.body for item in kent.errors()]
    assert title(error) == "ValueError: in the view"
    assert error["transaction"] == "GET /boom/<int:number>"
    assert error["transaction_info"] == {"source": "route"}
    assert "sentry-transaction=GET%20%2Fitems%2F%3Cint%3Anumber%3E" in page


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize(
    ("prefix", "path", "name"),
    [
        ("/shop", "/shop/items/5", "GET /shop/items/<int:number>"),
        ("", "/orgs/acme/items/5", "GET /orgs/{org}/items/<int:number>"),
    ],
)
def test_with_what_lies_before_it(
    prefix: str, path: str, name: str, provider: TracerProvider, kent: Kent
) -> None:
    app: Any = quart() if prefix else Starlette(routes=[Mount("/orgs/{org}", quart())])

    get(OpenTelemetryMiddleware(app, tracer_provider=provider), path, root_path=prefix)

    assert names(kent, provider) == [(name, "route")]


@pytest.mark.usefixtures("instrumented")
def test_a_websocket(provider: TracerProvider, kent: Kent) -> None:
    with serve(OpenTelemetryMiddleware(quart(), tracer_provider=provider)) as url:
        address = url.replace("http://", "ws://")
        with connect(f"{address}/rooms/5") as connection, suppress(ConnectionClosed):
            assert connection.recv() == "5"
            connection.recv()

    assert names(kent, provider) == [("/rooms/<room>", "route")]


def test_an_application_that_it_calls_in_the_same_process_names_only_itself(
    init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init(auto_enabling_integrations=False)
    otel_sentry_asgi.instrument(tracer_provider=provider)

    get(OpenTelemetryMiddleware(quart(quart()), tracer_provider=provider), "/calls/5")

    assert names(kent, provider) == [("GET /calls/<int:number>", "route")]


def test_without_any_layer_of_ours_nobody_asks(init: Init, provider: TracerProvider) -> None:
    init(auto_enabling_integrations=False)
    otel_sentry_asgi.instrument(tracer_provider=provider)

    assert get(quart(), "/items/5") == [""]


def test_by_hand(init: Init, provider: TracerProvider, kent: Kent) -> None:
    init(auto_enabling_integrations=False)
    provider.add_span_processor(SentrySpanProcessor())
    app = SentryMiddleware(OpenTelemetryMiddleware(quart(), tracer_provider=provider))

    get(app, "/items/5")

    assert names(kent, provider) == [("GET /items/<int:number>", "route")]


@pytest.mark.usefixtures("instrumented")
def test_nothing_listens_any_more_when_it_is_taken_away() -> None:
    otel_sentry_asgi.uninstrument()

    for signal in (request_started, websocket_started):
        ours = [one for one in signal.receivers_for(None) if "otel_sentry" in one.__module__]
        assert ours == []


def test_a_quart_that_is_imported_later() -> None:
    facts = scenario(
        """
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider

        init(auto_enabling_integrations=False)
        trace.set_tracer_provider(TracerProvider())
        otel_sentry_asgi.instrument()
        assert "quart" not in sys.modules
        from quart import Quart

        app = Quart("shop")

        @app.get("/items/<int:number>")
        async def item(number):
            return str(number)

        asyncio.run(get_async(OpenTelemetryMiddleware(app), "/items/5"))
        report(names=names())
        """
    )
    assert facts["names"] == ["GET /items/<int:number>"]
