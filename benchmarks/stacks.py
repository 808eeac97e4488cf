"""The stacks that are compared: one application, instrumented by OpenTelemetry, and what is added.

Each has the same spans: OTel's ASGI middleware with its own, and children as a database
instrumentation writes them. Where Sentry's own SDK does the tracing, its middleware and its spans
come on top, which is what a team that keeps OpenTelemetry has to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import SpanKind

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

STATEMENT = "SELECT id, name, price FROM items WHERE order_id = $1 AND state = 'open'"
ATTRIBUTES: dict[str, str | int] = {
    "db.system": "postgresql",
    "db.name": "shop",
    "db.user": "shop",
    "db.statement": STATEMENT,
    "net.peer.name": "db.internal",
    "net.peer.port": 5432,
}
SCOPE: Scope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/orders/77",
    "raw_path": b"/orders/77",
    "root_path": "",
    "query_string": b"expand=items&page=2",
    "server": ("127.0.0.1", 8000),
    "client": ("127.0.0.1", 51234),
    "headers": [
        (b"host", b"shop.example"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (b"accept", b"application/json"),
        (b"accept-language", b"en-GB,en;q=0.7"),
        (b"accept-encoding", b"gzip, deflate, br"),
        (b"referer", b"http://shop.example/orders"),
        (b"authorization", b"Bearer 6b1f0f2c9f"),
        (b"cookie", b"session=8f2d; theme=dark"),
        (b"x-request-id", b"9f1c2a7e"),
        (b"connection", b"keep-alive"),
    ],
}


@dataclass(frozen=True, slots=True)
class Stack:
    """An application, and how to have all that it has produced sent."""

    app: App
    flush: Callable[[], object]


class Discard(SpanExporter):
    """What the batch processor itself costs."""

    def export(self, spans: Any) -> SpanExportResult:
        """Throw the spans away."""
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held."""


def otel(spans: int, port: int) -> Stack:
    """OpenTelemetry alone, with no processor: what the others are compared with."""
    provider = TracerProvider()
    return Stack(_instrumented(provider, spans), lambda: None)


def discard(spans: int, port: int) -> Stack:
    """OTel's batch processor with an exporter that discards."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Discard()))
    return Stack(_instrumented(provider, spans), provider.force_flush)


def otlp(spans: int, port: int) -> Stack:
    """OTLP over HTTP in batches: an OTel backend and no Sentry."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Stack(_instrumented(provider, spans), provider.force_flush)


def ours(spans: int, port: int, max_bytes: int | None = None, **options: Any) -> Stack:
    """otel-sentry-asgi as it comes, or with another size of the queue of uploads, or *options*."""
    from otel_sentry_exporters.envelope import EnvelopeExporter

    exporter = None if max_bytes is None else EnvelopeExporter(max_bytes=max_bytes)
    return _ours(spans, port, exporter=exporter, traces_sample_rate=1.0, **options)


def ours_sdk(spans: int, port: int) -> Stack:
    """otel-sentry-asgi with the exporter that goes through the sentry-sdk client."""
    from otel_sentry_exporters.sdk import SdkExporter

    return _ours(spans, port, traces_sample_rate=1.0, exporter=SdkExporter())


def ours_unsampled(spans: int, port: int) -> Stack:
    """otel-sentry-asgi when Sentry samples nothing."""
    return _ours(spans, port, traces_sample_rate=0.0)


def sentry_asgi(spans: int, port: int) -> Stack:
    """Sentry's own ASGI middleware and spans."""
    return _sentry_asgi(spans, port)


def sentry_asgi_stream(spans: int, port: int) -> Stack:
    """The same, with streamed spans."""
    return _sentry_asgi(spans, port, trace_lifecycle="stream")


def legacy(spans: int, port: int) -> Stack:
    """sentry-sdk's own bridge, which it deprecates."""
    from sentry_sdk.integrations.opentelemetry import SentrySpanProcessor

    _init(port, traces_sample_rate=1.0, instrumenter="otel")
    provider = TracerProvider()
    provider.add_span_processor(SentrySpanProcessor())
    return Stack(_instrumented(provider, spans), sentry_sdk.flush)


def otlp_integration(spans: int, port: int) -> Stack:
    """sentry-sdk's OTLPIntegration, with its ASGI middleware inside for errors and scope."""
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
    from sentry_sdk.integrations.otlp import OTLPIntegration

    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    _init(port, integrations=[OTLPIntegration()])
    app = SentryAsgiMiddleware(_application(spans, provider))

    def flush() -> None:
        provider.force_flush()
        sentry_sdk.flush()

    return Stack(OpenTelemetryMiddleware(app, tracer_provider=provider), flush)


STACKS: dict[str, Callable[[int, int], Stack]] = {
    "otel": otel,
    "discard": discard,
    "otlp": otlp,
    "sentry_asgi": sentry_asgi,
    "sentry_asgi_stream": sentry_asgi_stream,
    "legacy": legacy,
    "otlp_integration": otlp_integration,
    "ours_sdk": ours_sdk,
    "ours": ours,
    "ours_unsampled": ours_unsampled,
}


def _init(port: int, **options: Any) -> None:
    sentry_sdk.init(
        dsn=f"http://public@127.0.0.1:{port}/1",
        release="shop@1.0",
        auto_enabling_integrations=False,
        **options,
    )


def _ours(spans: int, port: int, *, exporter: Any = None, **options: Any) -> Stack:
    import otel_sentry_asgi

    _init(port, **options)
    provider = TracerProvider()
    otel_sentry_asgi.instrument(tracer_provider=provider, exporter=exporter)
    return Stack(_instrumented(provider, spans), provider.force_flush)


def _sentry_asgi(spans: int, port: int, **options: Any) -> Stack:
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    _init(port, traces_sample_rate=1.0, **options)
    provider = TracerProvider()
    start = _streamed_span if options else _sentry_span
    app = SentryAsgiMiddleware(_application(spans, provider, start))
    return Stack(OpenTelemetryMiddleware(app, tracer_provider=provider), sentry_sdk.flush)


def _sentry_span() -> Any:
    span = sentry_sdk.start_span(op="db", name=STATEMENT)
    for key, value in ATTRIBUTES.items():
        span.set_data(key, value)
    return span


def _streamed_span() -> Any:
    from sentry_sdk.traces import start_span

    return start_span(name=STATEMENT, attributes={"sentry.op": "db", **ATTRIBUTES})


def _instrumented(provider: TracerProvider, spans: int) -> App:
    app: App = OpenTelemetryMiddleware(_application(spans, provider), tracer_provider=provider)
    return app


def _application(
    spans: int, provider: TracerProvider, sentry_span: Callable[[], Any] | None = None
) -> App:
    tracer = provider.get_tracer("opentelemetry.instrumentation.asyncpg", "0.66b1")

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(spans):
            with tracer.start_as_current_span(
                "SELECT", kind=SpanKind.CLIENT, attributes=ATTRIBUTES
            ):
                if sentry_span is not None:
                    with sentry_span():
                        pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    return app
