"""What goes on the wire, as Sentry's event protocol names it.

Timestamps are seconds since the epoch (float, UTC), ids are lower-case hexadecimal. Annotations are
evaluated here: `TypedDict` would compile each from its text, which takes three times as long.
"""

from typing import Any, TypedDict

Data = dict[str, Any]


class TraceContext(TypedDict, total=False):
    """`contexts.trace`. `dynamic_sampling_context` is moved to the envelope header by
    sentry-sdk."""

    trace_id: str
    span_id: str
    parent_span_id: str
    op: str
    status: str
    origin: str
    data: Data
    links: list[Data]
    dynamic_sampling_context: dict[str, str]


class Shared(dict[str, Any]):
    """The attributes of several spans that say the same. Not to be changed: `cleaned` is for the
    policy, which gives each span a copy."""

    __slots__ = ("cleaned",)

    cleaned: Any


class SpanPayload(TypedDict, total=False):
    """One of a transaction's `spans`."""

    trace_id: str
    span_id: str
    parent_span_id: str
    op: str
    description: str
    status: str
    origin: str
    start_timestamp: float
    timestamp: float
    data: Data
    links: list[Data]
    tags: dict[str, str]
    measurements: dict[str, Data]


class Transaction(TypedDict, total=False):
    """An event of type `transaction`."""

    type: str
    event_id: str
    platform: str
    transaction: str
    transaction_info: dict[str, str]
    start_timestamp: float
    timestamp: float
    contexts: Data
    spans: list[SpanPayload]
    request: Data
    release: str
    environment: str
    server_name: str
    tags: dict[str, str]
    measurements: dict[str, Data]
    breadcrumbs: Data
    _dropped_spans: int
    _meta: Data


class ErrorEvent(TypedDict, total=False):
    """An event with an exception or a message."""

    event_id: str
    platform: str
    level: str
    timestamp: float
    transaction: str
    transaction_info: dict[str, str]
    exception: Data
    logentry: Data
    contexts: Data
    request: Data
    breadcrumbs: Data
    user: Data
    tags: dict[str, str]
    extra: Data
