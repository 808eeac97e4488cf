"""One OTel span as one of a transaction's spans."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data, SpanPayload
from otel_sentry_asgi._semconv import ASGI_EVENT
from otel_sentry_asgi._translate.naming import to_description, to_op, to_origin
from otel_sentry_asgi._translate.status import to_status

MAX_TEXT = 8_192
"""Characters of one attribute or description (Relay's limit for a log entry or exception value)."""


def seconds(nanoseconds: int | None) -> float:
    """Epoch nanoseconds as epoch seconds; a float keeps about 0.2 microseconds today."""
    return (nanoseconds or 0) / 1e9


def is_asgi_event(span: ReadableSpan) -> bool:
    """Whether it is one of the `http send` / `http receive` spans of OTel's ASGI middleware."""
    if span.kind is not SpanKind.INTERNAL:
        return False
    if span.attributes and ASGI_EVENT in span.attributes:
        return True
    # `receive` cancelled while it waits ends without the attribute.
    name = span.name
    return name.endswith((" receive", " send")) and name.rpartition(" ")[0].endswith(
        (" http", " websocket")
    )


def to_span(span: ReadableSpan) -> SpanPayload:
    """Total: any span that OTel can end gives a payload that Relay accepts."""
    context, attributes = span.context, span.attributes or {}
    op = to_op(attributes, span.kind)
    payload: SpanPayload = {
        "trace_id": trace_hex(context.trace_id),
        "span_id": span_hex(context.span_id),
        "description": to_description(span)[:MAX_TEXT],
        "status": to_status(span.status, attributes),
        "origin": to_origin(span, op),
        "start_timestamp": seconds(span.start_time),
        "timestamp": seconds(max(span.start_time or 0, span.end_time or 0)),
        "data": to_data(span),
    }
    if op:
        payload["op"] = op[:128]
    if span.parent is not None:
        payload["parent_span_id"] = span_hex(span.parent.span_id)
    if span.links:
        payload["links"] = to_links(span)
    return payload


def to_data(span: ReadableSpan) -> Data:
    """The span's attributes and what OTel says about it, as JSON values."""
    data: Data = {}
    for key, value in (span.attributes or {}).items():
        converted = to_json_value(value)
        if converted is not None:
            data[key] = converted
    if span.kind is not SpanKind.INTERNAL:
        data["otel.kind"] = span.kind.name
    scope = span.instrumentation_scope
    if scope is not None and scope.name:
        data["otel.scope.name"] = scope.name
        if scope.version:
            data["otel.scope.version"] = scope.version
    if span.status.description:
        data["otel.status_description"] = span.status.description[:MAX_TEXT]
    return data


def to_json_value(value: object) -> Any:
    """What Sentry takes for an attribute: scalars, lists of strings; the rest as JSON text."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (bytes, bytearray)):
        return _text(bytes(value).decode("utf-8", "replace"))
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return [_text(item) for item in value]
    if isinstance(value, (list, tuple, Mapping)):
        return _text(json.dumps(value, default=str))
    return None if value is None else _text(str(value))


def _text(value: str) -> str:
    """Text that can be encoded as UTF-8, of at most `MAX_TEXT` characters."""
    text = value[:MAX_TEXT]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def to_links(span: ReadableSpan) -> list[Data]:
    """The span's links, with whether their traces were sampled."""
    return [
        {
            "trace_id": trace_hex(link.context.trace_id),
            "span_id": span_hex(link.context.span_id),
            "sampled": bool(link.context.trace_flags.sampled),
            "attributes": {
                key: to_json_value(value) for key, value in (link.attributes or {}).items()
            },
        }
        for link in span.links
    ]
