"""Attribute names of OpenTelemetry's semantic conventions, the stable name first, then the older
ones.

`OTEL_SEMCONV_STABILITY_OPT_IN` chooses the generation for each process, and `http/dup` writes
both, so every look-up takes all names of one meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Attributes = Mapping[str, Any]
Names = tuple[str, ...]

HTTP_METHOD: Final[Names] = ("http.request.method", "http.method")
HTTP_STATUS: Final[Names] = ("http.response.status_code", "http.status_code")
HTTP_ROUTE: Final[Names] = ("http.route", "url.template")
FULL_URL: Final[Names] = ("url.full", "http.url")
URL_PATH: Final[Names] = ("url.path", "http.target")
URL_SCHEME: Final[Names] = ("url.scheme", "http.scheme")
SERVER_ADDRESS: Final[Names] = ("server.address", "net.peer.name", "http.host")
SERVER_PORT: Final[Names] = ("server.port", "net.peer.port")
NETWORK_PROTOCOL: Final[Names] = ("network.protocol.name",)
RESPONSE_SIZE: Final[Names] = ("http.response.body.size", "http.response_content_length")

DB_SYSTEM: Final[Names] = ("db.system.name", "db.system")
DB_TEXT: Final[Names] = ("db.query.text", "db.statement")
DB_SUMMARY: Final[Names] = ("db.query.summary",)

RPC_SYSTEM: Final[Names] = ("rpc.system.name", "rpc.system")
RPC_SERVICE: Final[Names] = ("rpc.service",)
RPC_STATUS: Final[Names] = ("rpc.response.status_code", "rpc.grpc.status_code")

MESSAGING_SYSTEM: Final[Names] = ("messaging.system",)
MESSAGING_OPERATION: Final[Names] = ("messaging.operation.type", "messaging.operation")
MESSAGING_DESTINATION: Final[Names] = ("messaging.destination.name", "messaging.destination")

GEN_AI_PROVIDER: Final[Names] = ("gen_ai.provider.name", "gen_ai.system")
GEN_AI_OPERATION: Final[Names] = ("gen_ai.operation.name",)
FAAS_TRIGGER: Final[Names] = ("faas.trigger",)
GRAPHQL_OPERATION: Final[Names] = ("graphql.operation.type",)

ASGI_EVENT: Final = "asgi.event.type"

ENVIRONMENT: Final[Names] = ("deployment.environment.name", "deployment.environment")
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
HOST_NAME: Final = "host.name"


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


def first_int(attributes: Attributes, names: Names) -> int | None:
    """Like `first`; numbers may come as strings, as some instrumentations write them."""
    value = first(attributes, names)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return None
