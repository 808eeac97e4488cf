"""A segment as a transaction event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data, SpanPayload, TraceContext, Transaction
from otel_sentry_asgi._semconv import (
    ENVIRONMENT,
    HOST_NAME,
    HTTP_ROUTE,
    HTTP_STATUS,
    RESPONSE_SIZE,
    SERVICE_NAME,
    SERVICE_VERSION,
    Attributes,
    first,
    first_int,
    first_text,
)
from otel_sentry_asgi._translate.naming import (
    Name,
    path_of,
    template_of,
    to_op,
    to_origin,
    to_server_name,
)
from otel_sentry_asgi._translate.span import (
    MAX_OP,
    seconds,
    to_data,
    to_json_values,
    to_links,
    to_span,
)
from otel_sentry_asgi._translate.status import from_http, to_status
from otel_sentry_asgi._translate.text import to_text

PARENT_ALREADY_SENT = "sentry.parent_span_already_sent"
"""Marks a follow-up transaction, under the name that Sentry's JavaScript and Elixir SDKs use."""

MAX_NAME = 200
"""Characters of a transaction name (Relay cuts what is longer)."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the ASGI layer knows about the request of a segment."""

    request: Data | None = None
    route: str | None = None
    websocket: bool = False
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
) -> Transaction:
    """The transaction of *root* and its *children*, in the order of their start.

    *late* marks a follow-up: its root is a span whose local root has been sent before. *dropped*
    counts children that are not in the list. Of *facts*, only the request counts for a root that
    is no server span.
    """
    if late or root.kind is not SpanKind.SERVER:
        facts = RequestFacts(request=facts.request)
    name, source = transaction_name(root, children, facts=facts, late=late)
    trace = _trace_context(root, facts=facts, late=late)
    if sampling_context is not None:
        trace["dynamic_sampling_context"] = _with_name(sampling_context, name, source)
    transaction: Transaction = {
        "type": "transaction",
        "event_id": event_id,
        "platform": "python",
        "transaction": name,
        "transaction_info": {"source": source},
        "start_timestamp": seconds(root.start_time),
        "timestamp": seconds(max(root.start_time or 0, root.end_time or 0)),
        "contexts": _contexts(root, trace, facts),
        "spans": [_span(span, root) for span in sorted(children, key=_start)],
    }
    if facts.request is not None:
        transaction["request"] = facts.request
    if dropped:
        transaction["_dropped_spans"] = dropped
    return transaction


def transaction_name(
    root: ReadableSpan,
    children: Sequence[ReadableSpan] = (),
    *,
    facts: RequestFacts = NO_REQUEST,
    late: bool = False,
) -> Name:
    """Name and source. A server span below the root may know the route that the root does not."""
    if late:
        name, source = to_server_name(root)[0], "custom"
    else:
        path = path_of(root.attributes or {})
        route = facts.route
        for child in children:
            if child.kind is SpanKind.SERVER:
                route = template_of(first(child.attributes or {}, HTTP_ROUTE), path) or route
        name, source = to_server_name(root, route=route, websocket=facts.websocket)
    return to_text(name, MAX_NAME) or "span", source


def _start(span: ReadableSpan) -> int:
    return span.start_time or 0


def _span(span: ReadableSpan, root: ReadableSpan) -> SpanPayload:
    payload = to_span(span)
    if span.parent is None:
        payload["parent_span_id"] = span_hex(root.context.span_id)
    return payload


def _trace_context(root: ReadableSpan, *, facts: RequestFacts, late: bool) -> TraceContext:
    attributes = root.attributes or {}
    op = to_op(attributes, root.kind, websocket=facts.websocket) or "function"
    trace: TraceContext = {
        "trace_id": trace_hex(root.context.trace_id),
        "span_id": span_hex(root.context.span_id),
        "op": to_text(op, MAX_OP),
        "status": to_status(root.status, {**attributes, **_http_status(attributes, facts)}),
        "origin": to_origin(root, op),
        "data": to_data(root),
    }
    if root.parent is not None:
        trace["parent_span_id"] = span_hex(root.parent.span_id)
    if links := to_links(root):
        trace["links"] = links
    if late:
        trace["data"][PARENT_ALREADY_SENT] = True
    return trace


def _contexts(root: ReadableSpan, trace: TraceContext, facts: RequestFacts) -> Data:
    contexts: Data = {"trace": trace}
    attributes = root.attributes or {}
    response: Data = {}
    status = first_int(_http_status(attributes, facts) or attributes, HTTP_STATUS)
    if status is not None and from_http(status) and not facts.websocket:
        response["status_code"] = status
    size = first_int(attributes, RESPONSE_SIZE)
    if size is not None and 0 <= size < 1 << 63:
        response["body_size"] = size
    if response and root.kind is SpanKind.SERVER:
        contexts["response"] = response
    if resource := to_json_values(root.resource.attributes):
        contexts["otel"] = {"resource": resource}
    return contexts


def _http_status(attributes: Attributes, facts: RequestFacts) -> Data:
    """The status code that was sent, for a span that does not know of any."""
    if facts.status_code is None or first(attributes, HTTP_STATUS) is not None:
        return {}
    return {HTTP_STATUS[0]: facts.status_code}


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


def resource_defaults(resource: Resource | None) -> dict[str, str]:
    """Release, environment and server name as the resource gives them, valid for Relay."""
    attributes: dict[str, Any] = dict(resource.attributes) if resource else {}
    defaults: dict[str, str] = {}
    version = first_text(attributes, (SERVICE_VERSION,))
    name = first_text(attributes, (SERVICE_NAME,))
    if version:
        known = name and not name.startswith("unknown_service") and "/" not in name
        defaults["release"] = f"{name}@{version}" if known else version
    if environment := first_text(attributes, ENVIRONMENT):
        defaults["environment"] = environment
    if host := first_text(attributes, (HOST_NAME,)):
        defaults["server_name"] = host
    return {key: value for key, value in defaults.items() if _is_valid(key, value)}


_LONGEST: Final = {"release": 200, "environment": 64, "server_name": 200}
_NO_RELEASE: Final = frozenset({".", "..", "latest"})
_NO_ENVIRONMENT: Final = frozenset({".", "..", "none"})
_RESERVED: Final = {"release": _NO_RELEASE, "environment": _NO_ENVIRONMENT}


def _is_valid(key: str, value: str) -> bool:
    """Relay empties what is too long or holds these characters; then it is better left out."""
    if not value.strip() or not value.isprintable() or len(value) > _LONGEST[key]:
        return False
    reserved = _RESERVED.get(key)
    return reserved is None or (value.lower() not in reserved and not {"/", "\\"} & set(value))
