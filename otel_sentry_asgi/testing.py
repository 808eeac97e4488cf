"""For tests of code that uses this package: time and ids by hand, spans without a provider, an
exporter that keeps what it is given.

A test that builds its spans here does not depend on the wall clock, on chance, or on a global
tracer provider:

    exporter = RecordingExporter()
    provider = TracerProvider(id_generator=CountingIds())
    provider.add_span_processor(SentrySpanProcessor(exporter=exporter))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otel_sentry_asgi.export import Clean, Origin, Transaction

__all__ = ["EPOCH", "CountingIds", "HandClock", "RecordingExporter", "span", "span_context"]

EPOCH = 1_767_225_600
"""The time 0 of spans made here, in seconds since 1970: the first of January 2026, UTC."""


class HandClock:
    """A clock that stands still until it is told to go on. Call it for the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let *seconds* pass; return the new time."""
        self.now += seconds
        return self.now


class CountingIds(IdGenerator):
    """Trace ids and span ids that count from 1, for `TracerProvider(id_generator=...)`.

    Such trace ids have the smallest `sample_rand` there is, so any rate above 0 keeps them.
    """

    def __init__(self) -> None:
        self._traces = 0
        self._spans = 0

    def generate_trace_id(self) -> int:
        """The next trace id."""
        self._traces += 1
        return self._traces

    def generate_span_id(self) -> int:
        """The next span id."""
        self._spans += 1
        return self._spans


class RecordingExporter:
    """An exporter that sends nothing and keeps what it was given, in order."""

    def __init__(self) -> None:
        self.exported: list[tuple[Clean[Transaction], Origin]] = []
        self.flushes = 0
        self.is_shut_down = False

    @property
    def transactions(self) -> list[Transaction]:
        """The payloads, as they would have left."""
        return [clean.payload for clean, _ in self.exported]

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Keep the transaction."""
        self.exported.append((transaction, origin))

    def force_flush(self, timeout: float) -> bool:
        """Count the call."""
        self.flushes += 1
        return True

    def shutdown(self) -> None:
        """Note the call."""
        self.is_shut_down = True


def span_context(
    span_id: int = 1, trace_id: int = 1, *, is_remote: bool = False, sampled: bool = True
) -> SpanContext:
    """The identity of a span."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, span_id, is_remote, flags)


def span(
    name: str = "span",
    *,
    span_id: int = 1,
    trace_id: int = 1,
    parent: SpanContext | ReadableSpan | int | None = None,
    start: float = 0.0,
    end: float = 1.0,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, Any] | None = None,
    status: Status | StatusCode = StatusCode.UNSET,
    links: Sequence[Link] = (),
    events: Sequence[Event] = (),
    resource: Resource | None = None,
    scope: str | InstrumentationScope | None = None,
) -> ReadableSpan:
    """A span that has ended, as a span processor's `on_end` gets it.

    Args:
        parent: The parent's context, the parent, or the id of a local parent in the same trace.
        start: Seconds after `EPOCH`; so is *end*.
        resource: By default an empty one.
        scope: The instrumentation scope, or its name.
    """
    if isinstance(parent, int):
        parent = span_context(parent, trace_id)
    elif isinstance(parent, ReadableSpan):
        parent = parent.get_span_context()
    return ReadableSpan(
        name,
        context=span_context(span_id, trace_id),
        parent=parent,
        resource=Resource({}) if resource is None else resource,
        attributes=dict(attributes or {}),
        links=links,
        events=events,
        kind=kind,
        status=status if isinstance(status, Status) else Status(status),
        start_time=_nanoseconds(start),
        end_time=_nanoseconds(end),
        instrumentation_scope=InstrumentationScope(scope) if isinstance(scope, str) else scope,
    )


def _nanoseconds(seconds: float) -> int:
    return EPOCH * 1_000_000_000 + round(seconds * 1_000_000_000)
