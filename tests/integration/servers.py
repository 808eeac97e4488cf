"""A plain application, or with `FRAMEWORK` that framework's, for servers that run in processes of
their own."""

from __future__ import annotations

import os
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import otel_sentry_asgi
from tests.integration.frameworks import FRAMEWORKS

sentry_sdk.init(
    traces_sample_rate=1.0,
    shutdown_timeout=float(os.environ.get("SHUTDOWN_TIMEOUT", 2)),
    _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
)
provider = TracerProvider()
if "OTLP_ENDPOINT" in os.environ:
    exporter = OTLPSpanExporter(endpoint=os.environ["OTLP_ENDPOINT"])
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
trace.set_tracer_provider(provider)
otel_sentry_asgi.instrument()


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """`/boom` raises, with nothing that answers for it."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/boom":
        raise ValueError("boom")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


framework = os.environ.get("FRAMEWORK")
app = OpenTelemetryMiddleware(FRAMEWORKS[framework]() if framework else plain)
