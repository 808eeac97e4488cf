"""What `instrument()` and its kin take as keyword arguments, for type checkers only: nothing
imports it at run time."""

from collections.abc import Iterable, Mapping
from re import Pattern
from typing import TypedDict

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from otel_sentry_asgi._settings import (
    ErrorMode,
    IgnoredError,
    IncomingTrace,
    OnPayload,
    Settings,
    SpanRule,
)
from otel_sentry_asgi.export import Exporter


class SettingsArguments(TypedDict, total=False):
    """The fields of `Settings`, as they may be given: collections as any iterable."""

    settle: float
    linger: float
    max_age: float
    max_spans: int
    max_queue: int
    max_buffered: int
    keep_asgi_spans: bool
    keep_failed: bool
    propagate: bool
    incoming_trace: IncomingTrace
    errors: ErrorMode
    failed_request_status_codes: Iterable[int]
    ignored_errors: Iterable[IgnoredError]
    flush_provider: bool
    ignore_spans: Iterable[SpanRule]
    trace_ignore_status_codes: Iterable[int]
    ignored_methods: Iterable[str]
    ignored_paths: Iterable[str | Pattern[str]]
    ignore_orphan_clients: bool
    send_logs: bool
    sensitive_terms: Iterable[str]
    allowed_attributes: Iterable[str]
    attribute_actions: Mapping[str, str] | Iterable[str | tuple[str, str]]
    hash_key: str
    on_payload: OnPayload | None


class Arguments(SettingsArguments, total=False):
    """Those of `instrument()`."""

    tracer_provider: TracerProvider | None
    logger_provider: LoggerProvider | None
    meter_provider: MeterProvider | None
    create_provider: bool
    exporter: Exporter | None
    settings: Settings | None


class InstrumentorArguments(Arguments, total=False):
    """Those of `SentryInstrumentor.instrument()`."""

    unattended: bool
    skip_dep_check: bool
    raise_exception_on_conflict: bool
