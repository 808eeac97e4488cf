"""What the translation of a span looks at: read once, asked many times."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._semconv import (
    CACHE_HIT,
    CACHE_KEY,
    CACHE_OPERATION,
    CELERY_TASK,
    DB_SYSTEM,
    FAAS_INVOCATION,
    FAAS_TRIGGER,
    GEN_AI_OPERATION,
    GEN_AI_PROVIDER,
    GRAPHQL_OPERATION,
    GRAPHQL_STEP,
    HTTP_METHOD,
    MESSAGING_SYSTEM,
    NETWORK_PROTOCOL,
    RPC_SERVICE,
    RPC_SYSTEM,
    URL_SCHEME,
)
from otel_sentry_asgi._translate.attributes import Own, to_current

SERVER: Final = SpanKind.SERVER
CLIENT: Final = SpanKind.CLIENT
PRODUCER: Final = SpanKind.PRODUCER
CONSUMER: Final = SpanKind.CONSUMER

# What a span is about, the most telling attribute first: AWS's spans of DynamoDB, SQS and Bedrock
# are RPC as well, and those of Elasticsearch HTTP.
_SUBJECTS: Final = {
    CACHE_KEY: "cache",
    CACHE_OPERATION: "cache",
    CACHE_HIT: "cache",
    DB_SYSTEM: "db",
    GEN_AI_PROVIDER: "gen_ai",
    GEN_AI_OPERATION: "gen_ai",
    MESSAGING_SYSTEM: "messaging",
    CELERY_TASK: "messaging",
    RPC_SYSTEM: "rpc",
    RPC_SERVICE: "rpc",
    GRAPHQL_OPERATION: "graphql",
    GRAPHQL_STEP: "graphql",
}
_TELLING: Final = frozenset(_SUBJECTS)


COMMAND_STORES: Final = frozenset({"redis", "valkey"})
"""Sentry takes the descriptions of `db` for SQL, and those of `db.redis` for commands."""


class Reading:
    """A span's name, kind, and attributes: JSON values under current names.

    `subject` is `http`, `websocket`, `db`, `cache`, `messaging`, `rpc`, `gen_ai`, `graphql`,
    `faas`, or None for code that nothing more is known of. `own` are the attributes by which the
    application speaks to Sentry.
    """

    __slots__ = ("data", "kind", "name", "own", "subject")

    def __init__(self, span: ReadableSpan, *, websocket: bool = False) -> None:
        self.name = name_of(span)
        self.kind = span.kind
        self.own: Own = []
        self.data: Data = to_current(span.attributes, self.own, on_server=self.kind is SERVER)
        self.subject = "websocket" if websocket else _subject_of(self.data, self.kind)


def name_of(span: ReadableSpan) -> str:
    """The span's own name; OTel takes anything for one."""
    name: Any = span.name
    return name if isinstance(name, str) else str(name or "")


def _subject_of(data: Data, kind: SpanKind) -> str | None:
    if kind is SERVER:
        if data.get(NETWORK_PROTOCOL) == "websocket" or data.get(URL_SCHEME) in ("ws", "wss"):
            return "websocket"
        if data.get(HTTP_METHOD):
            return "http"
    if not _TELLING.isdisjoint(data):
        for key, subject in _SUBJECTS.items():
            if data.get(key) not in (None, ""):
                return subject
    if data.get(HTTP_METHOD):
        return "http"
    if kind is CLIENT and data.get(URL_SCHEME) in ("ws", "wss"):
        return "websocket"
    if FAAS_TRIGGER in data or FAAS_INVOCATION in data:
        return "faas"
    return "messaging" if kind is PRODUCER or kind is CONSUMER else None
