"""Span events as breadcrumbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opentelemetry.sdk.trace import Event, ReadableSpan

from otel_sentry_asgi._ids import span_hex
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._translate.attributes import to_json_values
from otel_sentry_asgi._translate.own import EVENT_VALUE
from otel_sentry_asgi._translate.span import seconds
from otel_sentry_asgi._translate.text import to_text

MAX_CRUMBS = 100
"""Breadcrumbs of one transaction (sentry-sdk's default for errors); the latest stay."""


def to_crumb(event: Event) -> Data:
    """One span event that is no exception, not cleaned."""
    crumb: Data = {
        "type": "default",
        "category": "event",
        "level": "info",
        "message": to_text(str(event.name)),
        "timestamp": seconds(event.timestamp),
    }
    if event.attributes:
        crumb["data"] = to_json_values(event.attributes)
    return crumb


def crumbs_of(span: ReadableSpan, events: Sequence[Event]) -> Iterator[Data]:
    """The *events* of *span*, each with the span's id. Exceptions are issues, or part of one, and
    measurements are measurements."""
    for event in events:
        if event.name != "exception" and EVENT_VALUE not in (event.attributes or {}):
            crumb = to_crumb(event)
            crumb["data"] = {"span_id": span_hex(span.context.span_id), **crumb.get("data", {})}
            yield crumb
