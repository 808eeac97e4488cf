"""Typical code of users. It is never run, but it has to type-check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.propagate import set_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_sentry_asgi
from otel_sentry_asgi import (
    SentryInstrumentor,
    SentryMiddleware,
    SentryPropagator,
    SentrySampler,
    SentrySpanProcessor,
    Settings,
    SettingsError,
    instrument,
    stats,
    trace_propagation_meta,
    uninstrument,
)
from otel_sentry_asgi.cleaning import CleaningSpanExporter, clean_log
from otel_sentry_asgi.export import Clean, Exporter, Origin, SpanPayload, Transaction
from otel_sentry_asgi.span_exporter import SentrySpanExporter
from otel_sentry_asgi.testing import (
    EPOCH,
    CountingIds,
    HandClock,
    RecordingExporter,
    span,
    span_context,
)
from otel_sentry_exporters.sdk import SdkExporter

# -- set-up ---------------------------------------------------------------------------------------


def set_up_all_at_once() -> None:
    instrument()
    instrument(linger=2.0, sensitive_terms=("iban",))
    instrument(settings=Settings(errors="all"), exporter=SdkExporter(), create_provider=True)
    instrument(tracer_provider=TracerProvider())
    uninstrument()


def mistakes_are_found() -> None:
    instrument(lingr=5)  # type: ignore[call-arg]
    instrument(linger="x")  # type: ignore[arg-type]
    instrument(errors="bogus")  # type: ignore[arg-type]
    instrument(exporter=SdkExporter)  # type: ignore[arg-type]
    SentryInstrumentor().instrument(lingr=5)  # type: ignore[call-arg]
    SentrySpanExporter(exporter=SdkExporter())  # type: ignore[call-arg]
    Settings.from_env({}, max_spans="9")  # type: ignore[arg-type]


def collections_may_be_any(paths: list[str], codes: set[int]) -> None:
    instrument(ignored_paths=paths, trace_ignore_status_codes=codes, ignored_errors=[KeyError])
    instrument(attribute_actions=["user.id=hash"], hash_key="pepper")


def set_up_as_otel_does() -> None:
    SentryInstrumentor().instrument(skip_dep_check=True)
    SentryInstrumentor().uninstrument()


def set_up_by_hand() -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SentrySpanProcessor())
    provider.add_span_processor(SentrySpanProcessor(Settings(), exporter=SdkExporter()))
    return provider


def let_sentry_decide_for_otel() -> TracerProvider:
    return TracerProvider(sampler=SentrySampler(ParentBasedTraceIdRatio(0.5)))


def propagate_by_hand() -> None:
    ours = SentryPropagator(incoming_trace="sentry")
    set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), ours]))


def page() -> str:
    return f"<head>{trace_propagation_meta()}</head>"


def read_settings(environ: dict[str, str]) -> Settings:
    try:
        return Settings.from_env(environ, keep_asgi_spans=True)
    except SettingsError as error:
        raise SystemExit(str(error)) from error


def settings_are_typed(settings: Settings) -> tuple[float, int, bool, str, tuple[str, ...]]:
    return (
        settings.linger,
        settings.max_spans,
        settings.keep_asgi_spans,
        settings.errors,
        settings.sensitive_terms,
    )


# -- the middleware -------------------------------------------------------------------------------


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


wrapped = SentryMiddleware(application)
twice = SentryMiddleware(app=wrapped)


async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await wrapped(scope, receive, send)


# -- an exporter of one's own ---------------------------------------------------------------------


class Notes:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        payload: Transaction = transaction.payload
        name: str = payload["transaction"]
        children: list[SpanPayload] = payload["spans"]
        durations = [child["timestamp"] - child["start_timestamp"] for child in children]
        if origin.isolation_scope is not None:
            self.seconds[name] = sum(durations)

    def force_flush(self, timeout: float) -> bool:
        return timeout > 0

    def shutdown(self) -> None: ...


def export_to_notes() -> Exporter:
    notes = Notes()
    instrument(exporter=notes)
    return notes


# -- the other leg --------------------------------------------------------------------------------


def clean_the_other_leg(provider: TracerProvider, exporter: SpanExporter) -> None:
    settings = Settings(attribute_actions={"user.id": "hash"}, hash_key="pepper")
    provider.add_span_processor(BatchSpanProcessor(CleaningSpanExporter(exporter)))
    provider.add_span_processor(BatchSpanProcessor(CleaningSpanExporter(exporter, settings)))
    before: Callable[[Any, Any], Any] = clean_log
    before({"body": "x", "attributes": {}}, {})


def look(payload: dict[str, Any]) -> dict[str, Any] | None:
    return None if "health" in str(payload.get("transaction")) else payload


def look_at_each_payload() -> None:
    instrument(on_payload=look, allowed_attributes=("app.*",))


# -- what went on ---------------------------------------------------------------------------------


def how_much_was_sent() -> int:
    counts: dict[str, int] = stats()
    return counts.get("transactions", 0) + otel_sentry_asgi.stats()["errors"]


# -- tests ----------------------------------------------------------------------------------------


def test_of_a_user() -> None:
    exporter, clock = RecordingExporter(), HandClock()
    provider = TracerProvider(id_generator=CountingIds())
    provider.add_span_processor(SentrySpanProcessor(exporter=exporter))
    clock.advance(1.5)
    root: ReadableSpan = span("GET /", kind=SpanKind.SERVER, status=StatusCode.OK)
    child = span(
        "work",
        span_id=2,
        parent=root,
        start=0.25,
        end=clock(),
        attributes={"items": [1, 2]},
        status=Status(StatusCode.ERROR),
        links=[Link(span_context(9))],
        scope="shop",
    )
    assert child.parent is not None
    assert (child.start_time or 0) >= EPOCH
    transactions: list[Transaction] = exporter.transactions
    assert transactions == []
