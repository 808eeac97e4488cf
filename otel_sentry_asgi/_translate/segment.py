"""A segment as a transaction event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

from opentelemetry.sdk.trace import Event, ReadableSpan

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data, SpanPayload, TraceContext, Transaction
from otel_sentry_asgi._semconv import HTTP_ROUTE, HTTP_STATUS, RESPONSE_SIZE, number
from otel_sentry_asgi._translate.events import MAX_CRUMBS, crumbs_of
from otel_sentry_asgi._translate.naming import Name, to_name
from otel_sentry_asgi._translate.op import STREAM, scope_name_of, to_op, to_origin
from otel_sentry_asgi._translate.own import to_measurements, to_tags
from otel_sentry_asgi._translate.reading import SERVER, Reading
from otel_sentry_asgi._translate.request import restore_query
from otel_sentry_asgi._translate.resource import facts_of
from otel_sentry_asgi._translate.span import add_facts, seconds, to_links, to_span
from otel_sentry_asgi._translate.status import from_http, to_status
from otel_sentry_asgi._translate.text import to_text
from otel_sentry_asgi._translate.urls import path_of

PARENT_ALREADY_SENT = "sentry.parent_span_already_sent"
"""Marks a follow-up transaction, under the name that Sentry's JavaScript and Elixir SDKs use."""

MAX_NAME = 200
"""Characters of a transaction name (Relay cuts what is longer)."""

STRETCH = 64
"""Children that are translated at a stretch: well below a millisecond."""


class RequestFacts(NamedTuple):
    """What the ASGI layer knows about the request of a segment."""

    request: Data | None = None
    route: str | None = None
    path: str | None = None
    """The whole path, with what lies before the application."""
    root_path: str = ""
    """What lies before the application and is no part of its templates."""
    websocket: bool = False
    stream: bool = False
    """The response is an event stream."""
    cancelled: bool = False
    """The client left before the response was complete."""
    crashed: bool = False
    """An exception left the application."""
    status_code: int | None = None
    """As sent. A server span that is not the outermost layer may not see a 500 made further out."""


NO_REQUEST = RequestFacts()


def to_transaction(
    root: ReadableSpan,
    children: Sequence[ReadableSpan],
    *,
    event_id: str,
    facts: RequestFacts = NO_REQUEST,
    sampling_context: dict[str, str] | None = None,
    late: bool = False,
    dropped: int = 0,
    quiet: bool = False,
    pause: Callable[[], None] | None = None,
    reading: Reading | None = None,
) -> Transaction:
    """The transaction of *root* and its *children*, in the order of their start.

    *late* marks a follow-up: its root is a span whose local root has been sent before. *dropped*
    counts children that are not in the list. *quiet* says that none of the spans has events: to ask
    one costs a lock and a copy. *pause* is called after each `STRETCH` children. *reading* is what
    `read` gives of *root*, if that is at hand; it is used up. Of *facts*, only the request counts
    for a root that is no server span.
    """
    request = facts.request
    if reading is None:
        reading = read(root, facts, late=late)
    if late or root.kind is not SERVER:
        facts = NO_REQUEST
    if facts.request is not None:
        restore_query(reading.data, facts.request)
    name, source = _name(reading, children, facts, late=late)
    trace = _trace_context(root, reading, facts, late=late)
    if sampling_context is not None:
        trace["dynamic_sampling_context"] = _with_name(sampling_context, name, source)
    start, end = root.start_time or 0, root.end_time or 0
    transaction: Transaction = {
        "type": "transaction",
        "event_id": event_id,
        "platform": "python",
        "transaction": name,
        "transaction_info": {"source": source},
        "start_timestamp": seconds(start),
        "timestamp": seconds(max(start, end)),
        "contexts": _contexts(root, reading, trace, facts),
        "spans": [],
    }
    if request is not None:
        transaction["request"] = request
    if dropped:
        transaction["_dropped_spans"] = dropped
    if tags := to_tags(reading.own):
        transaction["tags"] = tags
    events = () if quiet else root.events
    if measurements := to_measurements(reading.own, events):
        transaction["measurements"] = measurements
    crumbs = list(crumbs_of(root, events))
    for done, span in enumerate(sorted(children, key=_start), 1):
        events = () if quiet else span.events
        transaction["spans"].append(_span(span, events, root))
        if events:
            crumbs.extend(crumbs_of(span, events))
        if pause is not None and not done % STRETCH:
            pause()
    if crumbs:
        crumbs.sort(key=itemgetter("timestamp"))
        transaction["breadcrumbs"] = {"values": crumbs[-MAX_CRUMBS:]}
    return transaction


def read(root: ReadableSpan, facts: RequestFacts, *, late: bool = False) -> Reading:
    """What its transaction takes from the root's attributes."""
    is_websocket = facts.websocket and not late and root.kind is SERVER
    return Reading(root, websocket=is_websocket)


def transaction_name(
    root: ReadableSpan,
    children: Sequence[ReadableSpan] = (),
    *,
    facts: RequestFacts = NO_REQUEST,
    late: bool = False,
) -> Name:
    """Name and source. A server span below the root may know the route that the root does not."""
    reading = read(root, facts, late=late)
    if late or root.kind is not SERVER:
        facts = NO_REQUEST
    return _name(reading, children, facts, late=late)


def _name(
    reading: Reading, children: Sequence[ReadableSpan], facts: RequestFacts, *, late: bool
) -> Name:
    if late:
        name, source = to_name(reading)[0], "custom"
    else:
        routes = (*_nested_routes(reading, children), facts.route)
        name, source = to_name(reading, routes=routes, path=facts.path, root_path=facts.root_path)
    return to_text(name, MAX_NAME) or "span", source


def _nested_routes(reading: Reading, children: Sequence[ReadableSpan]) -> list[str]:
    """The routes of server spans below a server span, the innermost first. One with a path of its
    own is another request: a service may call itself without leaving the process."""
    nested = [span for span in children if span.kind is SERVER] if reading.kind is SERVER else []
    routes: list[str] = []
    path = path_of(reading.data) or ""
    for span in reversed(nested):
        data = Reading(span).data
        if path.endswith(path_of(data) or ""):
            routes.append(data.get(HTTP_ROUTE, ""))
    return routes


def _start(span: ReadableSpan) -> int:
    return span.start_time or 0


def _span(span: ReadableSpan, events: Sequence[Event], root: ReadableSpan) -> SpanPayload:
    payload = to_span(span, events)
    if "parent_span_id" not in payload:
        payload["parent_span_id"] = span_hex(root.context.span_id)
    return payload


def _trace_context(
    root: ReadableSpan, reading: Reading, facts: RequestFacts, *, late: bool
) -> TraceContext:
    if facts.status_code is not None:
        reading.data.setdefault(HTTP_STATUS, facts.status_code)
    op = to_op(reading) or "function"
    if facts.stream and op == "http.server":
        op = STREAM
    context, parent = root.context, root.parent
    trace: TraceContext = {
        "trace_id": trace_hex(context.trace_id),
        "span_id": span_hex(context.span_id),
        "op": op,
        "status": to_status(
            root.status, reading.data, cancelled=facts.cancelled, crashed=facts.crashed
        ),
        "origin": to_origin(reading, scope_name_of(root), op),
        "data": add_facts(reading.data, root),
    }
    if parent is not None:
        trace["parent_span_id"] = span_hex(parent.span_id)
    if links := to_links(root):
        trace["links"] = links
    if late:
        trace["data"][PARENT_ALREADY_SENT] = True
    return trace


def _contexts(
    root: ReadableSpan, reading: Reading, trace: TraceContext, facts: RequestFacts
) -> Data:
    contexts: Data = {"trace": trace}
    if reading.kind is SERVER and (response := _response(reading, facts)):
        contexts["response"] = response
    for key, context in facts_of(root.resource)[0].items():
        contexts[key] = dict(context)
    return contexts


def _response(reading: Reading, facts: RequestFacts) -> Data:
    response: Data = {}
    status = number(reading.data, HTTP_STATUS)
    if status is not None and from_http(status) and not facts.websocket:
        response["status_code"] = status
    size = number(reading.data, RESPONSE_SIZE)
    if size is not None and 0 <= size < 1 << 63:
        response["body_size"] = size
    return response


def _with_name(sampling_context: dict[str, str], name: str, source: str) -> dict[str, str]:
    """The sampling context with the transaction's name, unless it is a raw path."""
    if source == "url" or "transaction" in sampling_context:
        return sampling_context
    return {**sampling_context, "transaction": name}


def rename(transaction: Transaction, name: str) -> None:
    """Give the transaction the name that the application chose, also in its sampling context."""
    transaction["transaction"] = name = to_text(name, MAX_NAME)
    transaction["transaction_info"] = {"source": "custom"}
    context = transaction["contexts"]["trace"].get("dynamic_sampling_context")
    if context is not None:
        context["transaction"] = name
