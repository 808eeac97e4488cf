"""What the garbage collector has to go over because of us: its full pass is the longest pause."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Span

import otel_sentry_asgi
from otel_sentry_asgi import Settings
from otel_sentry_asgi._active import active
from otel_sentry_asgi.export import Clean, Exporter, Origin
from otel_sentry_exporters.envelope import EnvelopeExporter
from tests.integration.conftest import Service
from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver

Init = Callable[..., None]
REQUESTS = 100


class Discard:
    def export(self, transaction: Clean[Any], origin: Origin) -> None:
        """Nothing is kept."""

    def force_flush(self, timeout: float) -> bool:
        return True

    def shutdown(self) -> None:
        """Nothing is held."""


class Running:
    """An application of two child spans and a tag a request, with a provider of its own."""

    def __init__(self, exporter: Exporter | None = None, **settings: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.left_open: list[Span] = []
        self.held: list[contextvars.Context] | None = None
        """If a list: the contexts of requests, as servers hold them in timers of connections."""
        otel_sentry_asgi.instrument(
            tracer_provider=self.provider,
            exporter=exporter or Discard(),
            settings=Settings(**settings),
        )
        self._app = OpenTelemetryMiddleware(self._answer, tracer_provider=self.provider)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        sentry_sdk.set_tag("shop", "north")
        tracer = self.provider.get_tracer("shop")
        for name in ("price", "stock"):
            with tracer.start_as_current_span(name) as span:
                if scope["path"] == "/told":
                    span.add_event("exception", {"exception.type": "E", "exception.message": name})
        if scope["path"] == "/late":
            self.left_open.append(tracer.start_span("late"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})
        if self.held is not None:
            self.held.append(contextvars.copy_context())

    async def request(self, path: str = "/orders") -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            """To nobody."""

        headers = [(b"host", b"shop.example"), (b"user-agent", b"tests")]
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
        await asyncio.create_task(self._app(scope, receive, send))

    def requests(self, number: int) -> None:
        async def main() -> None:
            for _ in range(number):
                await self.request()

        asyncio.run(main())

    def kept(self) -> float:
        """Objects for each of `REQUESTS` that are kept when all has been sent."""
        counts = []
        for number in (20, REQUESTS):
            self.requests(number)
            assert self.provider.force_flush()
            gc.collect()
            gc.collect()  # What is in a tuple is untracked after the tuple.
            counts.append(len(gc.get_objects()))
        return (counts[1] - counts[0]) / REQUESTS

    def ended_spans(self) -> int:
        """Those of its provider that are kept."""
        gc.collect()
        spans = [one for one in gc.get_objects() if type(one) is ReadableSpan]
        return sum(one.resource is self.provider.resource for one in spans)


def test_of_a_request_that_was_sent_little_is_kept(init: Init) -> None:
    """Two scopes of sentry-sdk's are 10 of them: the application may have put anything there."""
    init()
    assert Running().kept() < 25


def test_of_a_request_that_is_not_sampled_nothing_is_kept(init: Init) -> None:
    init(traces_sample_rate=0.0)
    assert Running().kept() < 2


def test_a_context_that_a_server_holds_keeps_no_spans_of_a_request_that_is_not_sampled(
    init: Init,
) -> None:
    """asyncio does not let go of the context of a timer that was cancelled, and uvicorn has one for
    each response: a hundred requests, and more."""
    init(traces_sample_rate=0.0)
    running = Running()
    running.held = []
    running.requests(20)
    assert running.provider.force_flush()
    assert running.ended_spans() == 0


def test_an_exception_that_the_worker_reports_later_has_the_spans_before_it(
    init: Init, kent: Kent, otlp: OtlpReceiver
) -> None:
    init(traces_sample_rate=0.0)
    running, bridge = Running(EnvelopeExporter()), active()
    assert bridge is not None
    with bridge.pipeline._worker._turn_lock:
        asyncio.run(running.request("/told"))
    assert running.provider.force_flush()
    told = [one["breadcrumbs"]["values"] for one in Service(kent, otlp).errors]
    assert len(told) == 2
    assert all({"price", "stock"} <= {crumb["message"] for crumb in crumbs} for crumbs in told)


@pytest.mark.parametrize(("keep", "spans"), [(False, 3), (True, 6)])
def test_of_a_request_that_waits_only_the_spans_that_are_sent_are_kept(
    keep: bool, spans: int, init: Init
) -> None:
    """Its own and two children; OTel's ASGI middleware makes one for each message."""
    init()
    running = Running(settle=60.0, keep_asgi_spans=keep)
    running.requests(10)
    assert running.ended_spans() == 10 * spans


@pytest.mark.parametrize("ignored", [False, True])
def test_a_late_span_without_context_has_what_the_request_left(
    ignored: bool, init: Init, kent: Kent, otlp: OtlpReceiver
) -> None:
    init()
    service = Service(kent, otlp)
    running = Running(EnvelopeExporter(), ignored_paths=("/late",) if ignored else ())
    asyncio.run(running.request("/late"))
    assert running.provider.force_flush()
    [late] = running.left_open
    contextvars.Context().run(late.end)
    assert running.provider.force_flush()
    if ignored:
        assert service.transactions == []
        return
    follow_up = service.transaction(late=True)
    assert follow_up["transaction"] == "late"
    assert follow_up["tags"] == {"shop": "north"}
    assert follow_up["request"]["url"] == "http://shop.example/late"
    assert follow_up["request"] == service.transaction()["request"]
