"""Sentry's operation and origin of a span."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._semconv import (
    CACHE_OPERATION,
    DB_SYSTEM,
    EVENT_STREAM,
    FAAS_TRIGGER,
    GEN_AI_OPERATION,
    GRAPHQL_OPERATION,
    GRAPHQL_STEP,
    MESSAGING_OPERATION,
    MESSAGING_OPERATION_TYPE,
    RPC_SYSTEM,
    text,
)
from otel_sentry_asgi._translate.reading import (
    CLIENT,
    COMMAND_STORES,
    CONSUMER,
    PRODUCER,
    SERVER,
    Reading,
)
from otel_sentry_asgi._translate.text import to_text

MAX_OP = 128
"""Characters of an operation (Relay cuts what is longer)."""

STREAM = "http.server.stream"
"""A response that is an event stream: it lasts as long as somebody listens, so it is kept apart
from the durations of `http.server`."""

_QUEUE_OPS: Final = {
    "publish": "queue.publish",
    "send": "queue.publish",
    "create": "queue.create",
    "receive": "queue.receive",
    "poll": "queue.receive",
    "process": "queue.process",
    "deliver": "queue.process",
    "settle": "queue.settle",
    "ack": "queue.settle",
    "nack": "queue.settle",
}


def to_op(reading: Reading) -> str | None:
    """Sentry's operation for the span; None when nothing tells."""
    explicit = reading.data.get("sentry.op")
    if isinstance(explicit, str) and explicit:
        return to_text(explicit, MAX_OP)
    subject = reading.subject
    return None if subject is None else _OPS[subject](reading)


def _http(reading: Reading) -> str:
    if reading.kind is CLIENT:
        return "http.client"
    if reading.kind is not SERVER:
        return "http"
    return STREAM if _is_event_stream(reading) else "http.server"


def _is_event_stream(reading: Reading) -> bool:
    """Whether the captured response header says so."""
    for name in EVENT_STREAM:
        if name in reading.data:
            return "text/event-stream" in str(reading.data[name])
    return False


def _websocket(reading: Reading) -> str:
    return "websocket.client" if reading.kind is CLIENT else "websocket.server"


def _db(reading: Reading) -> str:
    return "db.redis" if text(reading.data, DB_SYSTEM) in COMMAND_STORES else "db"


def _cache(reading: Reading) -> str:
    return _op("cache", text(reading.data, CACHE_OPERATION) or "get")


def _messaging(reading: Reading) -> str:
    for name in (MESSAGING_OPERATION_TYPE, MESSAGING_OPERATION):
        op = _QUEUE_OPS.get(str(reading.data.get(name)))
        if op is not None:
            return op
    if reading.kind is PRODUCER:
        return "queue.publish"
    return "queue.process" if reading.kind is CONSUMER else "queue"


def _rpc(reading: Reading) -> str:
    if reading.data.get(RPC_SYSTEM) != "grpc":
        return "rpc"
    if reading.kind is CLIENT:
        return "grpc.client"
    return "grpc.server" if reading.kind is SERVER else "grpc"


def _gen_ai(reading: Reading) -> str:
    return _op("gen_ai", text(reading.data, GEN_AI_OPERATION))


def _graphql(reading: Reading) -> str:
    step = text(reading.data, GRAPHQL_STEP) or text(reading.data, GRAPHQL_OPERATION)
    return _op("graphql", step)


def _faas(reading: Reading) -> str:
    return to_text(text(reading.data, FAAS_TRIGGER) or "function", MAX_OP)


def _op(category: str, part: str | None) -> str:
    return to_text(f"{category}.{part}", MAX_OP) if part else category


_OPS: Final[dict[str, Callable[[Reading], str]]] = {
    "http": _http,
    "websocket": _websocket,
    "db": _db,
    "cache": _cache,
    "messaging": _messaging,
    "rpc": _rpc,
    "gen_ai": _gen_ai,
    "graphql": _graphql,
    "faas": _faas,
}

RECORDED = "auto.function.otel"
"""The mechanism of an exception that a span of the application's own has recorded."""

# -- origin ---------------------------------------------------------------------------------------

_INSTRUMENTATION: Final = "instrumentation."
# Libraries that bring their own spans, under a tracer's name of their own.
_NATIVE: Final = frozenset({"fastapi", "starlette", "elasticsearch-api"})
_NOT_IN_ORIGIN: Final = later(r"[^A-Za-z0-9_]+")
_ORIGIN: Final = later(r"[A-Za-z0-9_.]{1,128}")


def to_origin(reading: Reading, scope_name: str, op: str | None) -> str:
    """`auto.<category>.otel.<instrumentation>`, or `manual` for the application's own tracers.

    Relay accepts letters, digits, underscores and dots only.
    """
    explicit = reading.data.get("sentry.origin")
    if isinstance(explicit, str) and _ORIGIN.fullmatch(explicit):
        return explicit
    category = "function" if reading.subject == "faas" else op
    return _origin(scope_name, category) if len(scope_name) <= MAX_OP else "manual"


def to_mechanism(span: ReadableSpan) -> str:
    """The mechanism of an exception that left *span*: the span's origin, if an instrumentation
    made it."""
    reading = Reading(span)
    origin = to_origin(reading, scope_name_of(span), to_op(reading))
    return origin if origin.startswith("auto.") else RECORDED


@lru_cache(maxsize=1_024)
def _origin(scope_name: str, op: str | None) -> str:
    _, found, short = scope_name.partition(_INSTRUMENTATION)
    if not found:
        if scope_name not in _NATIVE:
            return "manual"
        short = scope_name
    category = (op or "function").partition(".")[0]
    return f"auto.{_origin_part(category)}.otel.{_origin_part(short.partition('.')[0])}"


def _origin_part(part: str) -> str:
    return _NOT_IN_ORIGIN.sub("_", part)[:50] or "_"


def scope_name_of(span: ReadableSpan) -> str:
    """The name of the span's tracer; empty if it has none."""
    scope = span.instrumentation_scope
    return str(scope.name) if scope is not None and scope.name else ""
