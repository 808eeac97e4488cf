"""One OTel span as one of a transaction's spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data, SpanPayload
from otel_sentry_asgi._semconv import (
    ASGI_EVENT,
    KIND,
    SCOPE_NAME,
    SCOPE_VERSION,
    STATUS_MESSAGE,
)
from otel_sentry_asgi._translate.attributes import to_json_values
from otel_sentry_asgi._translate.naming import to_description
from otel_sentry_asgi._translate.op import scope_name_of, to_op, to_origin
from otel_sentry_asgi._translate.own import to_measurements, to_tags
from otel_sentry_asgi._translate.reading import CLIENT, Reading, name_of
from otel_sentry_asgi._translate.status import to_status
from otel_sentry_asgi._translate.text import to_text

_INTERNAL: Final = SpanKind.INTERNAL
_KINDS: Final = {kind: kind.name.lower() for kind in SpanKind if kind is not _INTERNAL}
_LATEST: Final = 253_402_300_799_000_000_000  # The last second of the year 9999.


def seconds(nanoseconds: int | None) -> float:
    """Epoch nanoseconds as epoch seconds; a float keeps about 0.2 microseconds today.

    A time that Relay could not read would cost the whole transaction, so it becomes the nearest
    that it can.
    """
    if nanoseconds is None or nanoseconds < 0:
        return 0.0
    return (nanoseconds if nanoseconds < _LATEST else _LATEST) / 1_000_000_000


def is_local_root(span: ReadableSpan) -> bool:
    """A span without a parent, or with one in another process."""
    return span.parent is None or span.parent.is_remote


def is_asgi_event(span: ReadableSpan) -> bool:
    """Whether it is one of the `http send` / `http receive` spans of OTel's ASGI middleware."""
    if span.kind is not _INTERNAL:
        return False
    if span.attributes and ASGI_EVENT in span.attributes:
        return True
    # `receive` cancelled while it waits ends without the attribute.
    name = name_of(span)
    return name.endswith((" receive", " send")) and name.rpartition(" ")[0].endswith(
        (" http", " websocket")
    )


def to_span(span: ReadableSpan, events: Sequence[Event] = ()) -> SpanPayload:
    """Total: any span that OTel can end gives a payload that Relay accepts.

    Of its *events*, which cost a lock and a copy to ask for, measurements are taken.
    """
    context, reading = span.context, Reading(span)
    op = to_op(reading)
    start, end = span.start_time or 0, span.end_time or 0
    payload: SpanPayload = {
        "trace_id": trace_hex(context.trace_id),
        "span_id": span_hex(context.span_id),
        "description": to_text(to_description(reading)),
        "status": to_status(span.status, reading.data),
        "origin": to_origin(reading, scope_name_of(span), op),
        "start_timestamp": seconds(start),
        "timestamp": seconds(end if end > start else start),
        "data": add_facts(reading.data, span),
    }
    if op:
        payload["op"] = op
    parent = span.parent
    if parent is not None:
        payload["parent_span_id"] = span_hex(parent.span_id)
    if links := to_links(span):
        payload["links"] = links
    if reading.own or events:
        if tags := to_tags(reading.own):
            payload["tags"] = tags
        if measurements := to_measurements(reading.own, events):
            payload["measurements"] = measurements
    return payload


def add_facts(data: Data, span: ReadableSpan) -> Data:
    """Add to the span's attributes what OTel says about it; that wins over an attribute of the same
    name."""
    kind = span.kind
    if kind is not _INTERNAL:
        data[KIND] = "client" if kind is CLIENT else _KINDS[kind]
    elif KIND in data:
        del data[KIND]
    scope = span.instrumentation_scope
    if scope is not None and scope.name:
        data[SCOPE_NAME] = to_text(str(scope.name))
        if scope.version:
            data[SCOPE_VERSION] = to_text(str(scope.version))
    message = span.status.description
    if message:
        data[STATUS_MESSAGE] = to_text(message)
    return data


def to_links(span: ReadableSpan) -> list[Data]:
    """The span's links, with whether their traces were sampled."""
    links: list[Data] = []
    for link in span.links:
        context = link.context
        if context.is_valid:
            payload: Data = {
                "trace_id": trace_hex(context.trace_id),
                "span_id": span_hex(context.span_id),
                "sampled": bool(context.trace_flags.sampled),
            }
            if link.attributes:
                payload["attributes"] = to_json_values(link.attributes)
            links.append(payload)
    return links
