"""One OTel span as one of a transaction's spans."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data, SpanPayload
from otel_sentry_asgi._semconv import ASGI_EVENT
from otel_sentry_asgi._translate.naming import name_of, to_description, to_op, to_origin
from otel_sentry_asgi._translate.status import to_status
from otel_sentry_asgi._translate.text import MAX_TEXT, to_text

MAX_OP = 128
"""Characters of an operation (Relay cuts what is longer)."""

MAX_ITEMS = 128
"""Items of one list or nested attribute (OTel's limit for the attributes of a span)."""

_LATEST = 253_402_300_799.0  # The last second of the year 9999.


def seconds(nanoseconds: int | None) -> float:
    """Epoch nanoseconds as epoch seconds; a float keeps about 0.2 microseconds today.

    A time that Relay could not read would cost the whole transaction, so it becomes the nearest
    that it can.
    """
    return min(max(0.0, (nanoseconds or 0) / 1_000_000_000), _LATEST)


def is_local_root(span: ReadableSpan) -> bool:
    """A span without a parent, or with one in another process."""
    return span.parent is None or span.parent.is_remote


def is_asgi_event(span: ReadableSpan) -> bool:
    """Whether it is one of the `http send` / `http receive` spans of OTel's ASGI middleware."""
    if span.kind is not SpanKind.INTERNAL:
        return False
    if span.attributes and ASGI_EVENT in span.attributes:
        return True
    # `receive` cancelled while it waits ends without the attribute.
    name = name_of(span)
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
        "description": to_text(to_description(span)),
        "status": to_status(span.status, attributes),
        "origin": to_origin(span, op),
        "start_timestamp": seconds(span.start_time),
        "timestamp": seconds(max(span.start_time or 0, span.end_time or 0)),
        "data": to_data(span),
    }
    if op:
        payload["op"] = to_text(op, MAX_OP)
    if span.parent is not None:
        payload["parent_span_id"] = span_hex(span.parent.span_id)
    if links := to_links(span):
        payload["links"] = links
    return payload


def to_data(span: ReadableSpan) -> Data:
    """The span's attributes and what OTel says about it, as JSON values."""
    data = to_json_values(span.attributes or {})
    if span.kind is not SpanKind.INTERNAL:
        data["otel.kind"] = span.kind.name
    scope = span.instrumentation_scope
    if scope is not None and scope.name:
        data["otel.scope.name"] = to_text(str(scope.name))
        if scope.version:
            data["otel.scope.version"] = to_text(str(scope.version))
    if span.status.description:
        data["otel.status_description"] = to_text(span.status.description)
    return data


def to_json_values(attributes: Mapping[str, Any]) -> Data:
    """Attributes as JSON values. What is nested comes out flat, under keys joined by dots, so that
    the policy sees each key."""
    flat: Data = {}
    for key, value in attributes.items():
        if isinstance(value, (str, int, float)):  # The common case.
            flat[to_text(key)] = to_json_value(value)
        else:
            for path, leaf in _leaves(key, value):
                flat[to_text(path)] = to_json_value(leaf)
    return flat


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """The value itself, or the first `MAX_ITEMS` of what is nested in it."""
    pending = [(key, value)]
    left = MAX_ITEMS
    while pending and left:
        key, value = pending.pop()
        items: Iterable[tuple[object, object]]
        if isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, (list, tuple)) and any(map(_is_nested, value)):
            items = enumerate(value)
        else:
            if value is not None:
                left -= 1
                yield key, value
            continue
        children = [(f"{key}.{name}", item) for name, item in islice(items, left)]
        pending.extend(reversed(children))


def _is_nested(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def to_json_value(value: object) -> Any:
    """What Sentry takes for an attribute: scalars, lists of strings; other lists as JSON text."""
    if isinstance(value, int):
        # Longer numbers lose digits in most readers, and Python does not print the longest.
        return value if isinstance(value, bool) or value.bit_length() < 64 else to_text(hex(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return to_text(value)
    if isinstance(value, (bytes, bytearray)):
        return to_text(bytes(value[:MAX_TEXT]).decode("utf-8", "replace"))
    if isinstance(value, (list, tuple)):
        items = [to_json_value(item) for item in value[:MAX_ITEMS]]
        texts = all(isinstance(item, str) for item in value)
        return items if texts else to_text(json.dumps(items))
    return None if value is None else to_text(str(value))


def to_links(span: ReadableSpan) -> list[Data]:
    """The span's links, with whether their traces were sampled."""
    return [
        {
            "trace_id": trace_hex(link.context.trace_id),
            "span_id": span_hex(link.context.span_id),
            "sampled": bool(link.context.trace_flags.sampled),
            "attributes": to_json_values(link.attributes or {}),
        }
        for link in span.links
        if link.context.is_valid
    ]
