"""One OTel span as one of a transaction's spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data, Shared, SpanPayload
from otel_sentry_asgi._semconv import (
    ASGI_EVENT,
    KIND,
    SCOPE_NAME,
    SCOPE_VERSION,
    STATUS_MESSAGE,
)
from otel_sentry_asgi._translate.attributes import Own, plain, to_json_values
from otel_sentry_asgi._translate.naming import to_description
from otel_sentry_asgi._translate.op import scope_name_of, to_op, to_origin
from otel_sentry_asgi._translate.own import to_measurements, to_tags
from otel_sentry_asgi._translate.reading import CLIENT, Reading
from otel_sentry_asgi._translate.status import to_status
from otel_sentry_asgi._translate.text import to_text

_INTERNAL: Final = SpanKind.INTERNAL
_KINDS: Final = {kind: kind.name.lower() for kind in SpanKind if kind is not _INTERNAL}
_ASGI_EVENTS: Final = tuple(
    f" {kind} {event}" for kind in ("http", "websocket") for event in ("receive", "send")
)
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
    parent = span.parent
    return parent is None or parent.is_remote


def is_asgi_event(span: ReadableSpan) -> bool:
    """Whether it is one of the `http send` / `http receive` spans of OTel's ASGI middleware."""
    if span.kind is not _INTERNAL:
        return False
    # By the name first: a cancelled `receive` has no attribute, and it is cheaper.
    name: Any = span.name
    if isinstance(name, str) and name.endswith(_ASGI_EVENTS):
        return True
    attributes = span.attributes
    return attributes is not None and ASGI_EVENT in attributes


def to_span(span: ReadableSpan, events: Sequence[Event] = ()) -> SpanPayload:
    """Total: any span that OTel can end gives a payload that Relay accepts.

    Of its *events*, which cost a lock and a copy to ask for, measurements are taken. Its `data` may
    be `Shared`.
    """
    said, own = _said_by(span)
    context, parent = span.context, span.parent
    start, end = span.start_time or 0, span.end_time or 0
    payload: SpanPayload = {
        "trace_id": trace_hex(context.trace_id),
        "span_id": span_hex(context.span_id),
        "description": said["description"],
        "status": said["status"],
        "origin": said["origin"],
        "start_timestamp": seconds(start),
        "timestamp": seconds(end if end > start else start),
        "data": said["data"],
    }
    if "op" in said:
        payload["op"] = said["op"]
    if parent is not None:
        payload["parent_span_id"] = span_hex(parent.span_id)
    if links := to_links(span):
        payload["links"] = links
    if own or events:
        if tags := to_tags(own):
            payload["tags"] = tags
        if measurements := to_measurements(own, events):
            payload["measurements"] = measurements
    return payload


MAX_KNOWN: Final = 512
"""Different spans whose translation is kept."""
LONGEST_KNOWN: Final = 4_096
"""Characters that such a span may say: prompts and documents are no statements."""
_MAX_ONCE: Final = 8_192

_known: dict[Any, tuple[SpanPayload, object]] = {}
_once: set[int] = set()


def _said_by(span: ReadableSpan) -> tuple[SpanPayload, Own]:
    """All of a payload that does not differ between spans that say the same, and what the
    application says to Sentry.

    A service says the same again and again: the statements of its queries, with placeholders. What
    has been seen twice is kept with its attributes; what comes once (URLs with ids), or is long,
    is not.
    """
    scope, key = span.instrumentation_scope, _key_of(span)
    if key is None:
        return _say(span)
    known = _known.get(key)
    if known is not None:
        return known[0], []
    said, own = _say(span)
    mark = hash(key)
    if mark not in _once:
        if len(_once) >= _MAX_ONCE:
            _once.clear()
        _once.add(mark)
    elif not own and _length(key) <= LONGEST_KNOWN:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        said["data"] = Shared(said["data"])
        _known[key] = said, scope  # The scope, so that its id stays its own.
    return said, own


def _key_of(span: ReadableSpan) -> Any:
    """What the payload follows from, but for ids, times, links and events; None where that may be
    equal without being the same: 1, 1.0 and True are."""
    attributes, status = plain(span.attributes), span.status
    kinds = tuple(map(type, attributes.values()))
    if not _EXACT.issuperset(kinds) or type(span.name) is not str:
        return None
    ids = id(span.kind), id(span.instrumentation_scope), id(status.status_code)
    return span.name, ids, status.description, kinds, tuple(attributes.items())


_EXACT: Final = frozenset({str, int, bool})


def _length(key: Any) -> int:
    """Characters in what `_key_of` gave."""
    name, _, description, _, attributes = key
    texts = [name, description, *(part for attribute in attributes for part in attribute)]
    return sum(len(text) for text in texts if type(text) is str)


def _say(span: ReadableSpan) -> tuple[SpanPayload, Own]:
    reading = Reading(span)
    op = to_op(reading)
    said: SpanPayload = {
        "description": to_text(to_description(reading)),
        "status": to_status(span.status, reading.data),
        "origin": to_origin(reading, scope_name_of(span), op),
        "data": add_facts(reading.data, span),
    }
    if op:
        said["op"] = op
    return said, reading.own


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
