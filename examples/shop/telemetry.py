"""OpenTelemetry and Sentry for the shop."""

from typing import Any

import sentry_sdk
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.propagators import (
    TraceResponsePropagator,
    set_global_response_propagator,
)
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_sentry_asgi import instrument


def set_up() -> TracerProvider:
    """Spans to the OTLP endpoint and to Sentry; both addresses come from the environment."""
    resource = Resource.create({"service.name": "shop", "service.version": "1.4.0"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    SQLite3Instrumentor().instrument()
    # Callers find the trace id of their request in the `traceresponse` header.
    set_global_response_propagator(TraceResponsePropagator())  # type: ignore[no-untyped-call]
    sentry_sdk.init(
        traces_sample_rate=1.0,
        profiles_sampler=is_slow,
        release="shop@1.4.0",
        environment="demo",
        max_request_body_size="never",  # sentry-sdk sends bodies by default: customers' e-mails
    )
    instrument()
    return provider


def is_slow(context: dict[str, Any]) -> float:
    """The rate of profiles: only what is known to be slow has one."""
    return float("/search/" in context["transaction_context"]["name"])


def observe(app: FastAPI) -> None:
    """A server span for each request, with its headers, cookies and keys included: an OTLP backend
    in the company's own house may have them, Sentry gets what the policy allows."""
    FastAPIInstrumentor.instrument_app(app, http_capture_headers_server_request=[".*"])
