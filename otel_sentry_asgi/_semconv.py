"""Attribute names of OpenTelemetry's semantic conventions, as Sentry's conventions have them today.

`OTEL_SEMCONV_STABILITY_OPT_IN` chooses the generation of names for each process, and `http/dup`
writes both. Translation gives every attribute its current name first, so that nothing behind it
knows more than one; Sentry would do the same on arrival. `tests/test_semconv.py` holds each name
to what `sentry-conventions` and `opentelemetry-semantic-conventions` publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Attributes = Mapping[str, Any]
Names = tuple[str, ...]

HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
RESPONSE_SIZE: Final = "http.response.body.size"
URL_FULL: Final = "url.full"
URL_PATH: Final = "url.path"
URL_QUERY: Final = "url.query"
URL_SCHEME: Final = "url.scheme"
URL_TEMPLATE: Final = "url.template"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
NETWORK_PROTOCOL: Final = "network.protocol.name"
ERROR_TYPE: Final = "error.type"

DB_SYSTEM: Final = "db.system.name"
DB_TEXT: Final = "db.query.text"
DB_SUMMARY: Final = "db.query.summary"
DB_OPERATION: Final = "db.operation.name"
DB_COLLECTION: Final = "db.collection.name"

CACHE_KEY: Final = "cache.key"
CACHE_HIT: Final = "cache.hit"
CACHE_OPERATION: Final = "cache.operation"

RPC_SYSTEM: Final = "rpc.system.name"
RPC_SERVICE: Final = "rpc.service"
RPC_STATUS: Final = "rpc.response.status_code"
RPC_GRPC_STATUS: Final = "rpc.grpc.status_code"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"

GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
FAAS_TRIGGER: Final = "faas.trigger"
FAAS_INVOCATION: Final = "faas.invocation_id"
GRAPHQL_OPERATION: Final = "graphql.operation.type"
GRAPHQL_STEP: Final = "graphql.processing.type"

# Names of single instrumentations, which no convention publishes.
CELERY_TASK: Final = "celery.task_name"
ASGI_EVENT: Final = "asgi.event.type"
EVENT_STREAM: Final = (
    "http.response.header.content_type",
    "http.response.header.content-type",
)

# Sentry's own.
KIND: Final = "sentry.kind"
STATUS_MESSAGE: Final = "sentry.status.message"
SCOPE_NAME: Final = "otel.scope.name"
SCOPE_VERSION: Final = "otel.scope.version"

# Looked up where attributes still have the names they came with.
FULL_URL: Final[Names] = (URL_FULL, "http.url")
ENVIRONMENT: Final[Names] = ("deployment.environment.name", "deployment.environment")
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
HOST_NAME: Final = "host.name"

OLD_TARGET: Final = "http.target"
"""Path and query in one: translation takes them apart."""

RENAMED: Final[Mapping[str, str]] = {
    "code.filepath": "code.file.path",
    "code.lineno": "code.line.number",
    "db.mongodb.collection": DB_COLLECTION,
    "db.name": "db.namespace",
    "db.operation": DB_OPERATION,
    "db.sql.table": DB_COLLECTION,
    "db.statement": DB_TEXT,
    "db.system": DB_SYSTEM,
    "faas.execution": FAAS_INVOCATION,
    "faas.id": "cloud.resource_id",
    "gen_ai.prompt": "gen_ai.input.messages",
    "gen_ai.system": GEN_AI_PROVIDER,
    "gen_ai.usage.completion_tokens": "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens": "gen_ai.usage.input_tokens",
    "http.client_ip": "client.address",
    "http.flavor": "network.protocol.version",
    "http.host": SERVER_ADDRESS,
    "http.method": HTTP_METHOD,
    "http.request_content_length": "http.request.body.size",
    "http.request_content_length_uncompressed": "http.request.body.decoded_size",
    "http.response_content_length": RESPONSE_SIZE,
    "http.response_content_length_uncompressed": "http.response.body.decoded_size",
    "http.scheme": URL_SCHEME,
    "http.server_name": SERVER_ADDRESS,
    "http.status_code": HTTP_STATUS,
    "http.url": URL_FULL,
    "http.user_agent": "user_agent.original",
    "messaging.conversation_id": "messaging.message.conversation_id",
    "messaging.destination": MESSAGING_DESTINATION,
    "messaging.message_id": "messaging.message.id",
    "messaging.operation": MESSAGING_OPERATION,
    "messaging.protocol": NETWORK_PROTOCOL,
    "messaging.protocol_version": "network.protocol.version",
    "messaging.rabbitmq.routing_key": "messaging.rabbitmq.destination.routing_key",
    "messaging.url": URL_FULL,
    "net.host.ip": "network.local.address",
    "net.host.name": SERVER_ADDRESS,
    "net.host.port": SERVER_PORT,
    "net.peer.ip": "network.peer.address",
    "net.peer.name": SERVER_ADDRESS,
    "net.peer.port": SERVER_PORT,
    "net.protocol.name": NETWORK_PROTOCOL,
    "net.protocol.version": "network.protocol.version",
    "net.sock.host.addr": "network.local.address",
    "net.sock.host.port": "network.local.port",
    "net.sock.peer.addr": "network.peer.address",
    "net.sock.peer.port": "network.peer.port",
    "rpc.system": RPC_SYSTEM,
}
"""Old name to current one. Of two old names for one meaning, the span's first counts."""

RENAMED_ON_SERVERS: Final[Mapping[str, str]] = {
    **RENAMED,
    "net.peer.name": "client.address",
    "net.peer.port": "client.port",
}
"""On server spans the peer is the client."""


def first(attributes: Attributes, names: Names) -> Any:
    """The value under the first of *names* that is there and not empty, or None."""
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            return value
    return None


def first_text(attributes: Attributes, names: Names) -> str | None:
    """Like `first`, but only strings count."""
    value = first(attributes, names)
    return value if isinstance(value, str) else None


def text(attributes: Attributes, name: str) -> str | None:
    """The value under *name* if it is a string and not empty."""
    value = attributes.get(name)
    return value if isinstance(value, str) and value else None


def number(attributes: Attributes, name: str) -> int | None:
    """The value under *name* as an integer; some instrumentations write it as a string."""
    value = attributes.get(name)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return None
