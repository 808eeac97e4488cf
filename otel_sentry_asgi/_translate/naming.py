"""What a span is called in Sentry: op, name and its source, description, origin."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._semconv import (
    DB_SUMMARY,
    DB_SYSTEM,
    DB_TEXT,
    FAAS_TRIGGER,
    FULL_URL,
    GEN_AI_OPERATION,
    GEN_AI_PROVIDER,
    GRAPHQL_OPERATION,
    HTTP_METHOD,
    HTTP_ROUTE,
    MESSAGING_DESTINATION,
    MESSAGING_OPERATION,
    MESSAGING_SYSTEM,
    NETWORK_PROTOCOL,
    RPC_SERVICE,
    RPC_SYSTEM,
    SERVER_ADDRESS,
    SERVER_PORT,
    URL_PATH,
    URL_SCHEME,
    Attributes,
    first,
    first_int,
    first_text,
)

Name = tuple[str, str]
"""A transaction's name and its source."""

_HTTP_OPS: Final = {SpanKind.SERVER: "http.server", SpanKind.CLIENT: "http.client"}
_QUEUE_OPS: Final = {
    "publish": "queue.publish",
    "send": "queue.publish",
    "create": "queue.create",
    "receive": "queue.receive",
    "process": "queue.process",
    "deliver": "queue.process",
    "settle": "queue.settle",
}
_QUEUE_KINDS: Final = {SpanKind.PRODUCER: "queue.publish", SpanKind.CONSUMER: "queue.process"}

# Path parts that look like an id: digits, a UUID, or a long run of hexadecimal digits.
_ID_PART: Final = re.compile(r"/(?:[0-9]+|[0-9a-fA-F-]{16,36})(?=/|$)")
_METHOD_AND_REST: Final = re.compile(r"[A-Z]+ +(?=/)")
_HOST_AND_PORT: Final = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
_METHOD: Final = re.compile(r"[A-Za-z_-]{1,32}")
# What a Django pattern has and a template has not: named groups, anchors, optional parts.
_NAMED_GROUP: Final = re.compile(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)")
_PATTERN_SIGNS: Final = re.compile(r"[?^$#]|\\[AbBdDsSwWzZ]")


def name_of(span: ReadableSpan) -> str:
    """The span's own name; OTel takes anything for one."""
    name: Any = span.name
    return name if isinstance(name, str) else str(name or "")


def is_websocket(attributes: Attributes, kind: SpanKind) -> bool:
    """Whether this server span is a websocket session."""
    if kind is not SpanKind.SERVER:
        return False
    return first(attributes, NETWORK_PROTOCOL) == "websocket" or first(attributes, URL_SCHEME) in (
        "ws",
        "wss",
    )


def to_op(attributes: Attributes, kind: SpanKind, *, websocket: bool = False) -> str | None:
    """Sentry's operation for the span; None when nothing tells."""
    explicit = attributes.get("sentry.op")
    if isinstance(explicit, str) and explicit:
        return explicit
    if websocket or is_websocket(attributes, kind):
        return "websocket.server"
    if first(attributes, HTTP_METHOD) is not None:
        return _HTTP_OPS.get(kind, "http")
    if first(attributes, DB_SYSTEM) is not None:
        return "db"
    if first(attributes, GEN_AI_PROVIDER) is not None:
        operation = first_text(attributes, GEN_AI_OPERATION)
        return f"gen_ai.{operation}" if operation else "gen_ai"
    if first(attributes, RPC_SYSTEM) is not None or first(attributes, RPC_SERVICE) is not None:
        return "rpc"
    if first(attributes, MESSAGING_SYSTEM) is not None:
        operation = first_text(attributes, MESSAGING_OPERATION) or ""
        return _QUEUE_OPS.get(operation) or _QUEUE_KINDS.get(kind, "queue")
    if graphql := first_text(attributes, GRAPHQL_OPERATION):
        return f"graphql.{graphql}"
    return first_text(attributes, FAAS_TRIGGER)


def path_of(attributes: Attributes) -> str | None:
    """The request's path, without query and fragment."""
    target = first_text(attributes, URL_PATH) or first_text(attributes, FULL_URL)
    if target is None:
        return None
    path = split_url(target)[2] if "://" in target else target
    return without_query(path) or None


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path of a URL; empty texts where it has none or is none.

    A password with a sign that ends a host makes it none: `https://user:pa?ss@host/`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", "", ""
    host = parts.netloc.rpartition("@")[2]
    return (parts.scheme, host, parts.path) if _HOST_AND_PORT.fullmatch(host) else ("", "", "")


def without_query(text: str) -> str:
    """What stands before a query or fragment."""
    return text.partition("?")[0].partition("#")[0]


def method_of(attributes: Attributes) -> str | None:
    """The HTTP method; `HTTP` for one outside the known set, as OTel names such spans."""
    method = first_text(attributes, HTTP_METHOD)
    if method is None:
        return None
    return method if method != "_OTHER" and _METHOD.fullmatch(method) else "HTTP"


def template_of(route: object, path: str | None) -> str | None:
    """*route* as a path template, or None if it is really a path.

    Litestar's plugin writes the method and the raw path into `http.route`; Django's templates
    have no leading slash and may be regular expressions.
    """
    if not isinstance(route, str) or not route or _METHOD_AND_REST.match(route):
        return None
    route = _PATTERN_SIGNS.sub("", _NAMED_GROUP.sub(r"{\1}", route))
    template = route if route.startswith("/") else f"/{route}"
    if template == path and _ID_PART.search(template):
        return None
    return template


def to_server_name(
    span: ReadableSpan, *, route: str | None = None, websocket: bool = False
) -> Name:
    """Name and source of a transaction whose root is *span*: for server spans without query,
    fragment and credentials.

    *route* is the template that a framework left elsewhere (a nested server span, the ASGI
    scope); the root's own `http.route` wins over it. It and *websocket* are for server spans only.
    """
    attributes = span.attributes or {}
    explicit = attributes.get("sentry.name")
    if isinstance(explicit, str) and explicit:
        return explicit, str(attributes.get("sentry.source") or "custom")
    websocket = websocket or is_websocket(attributes, span.kind)
    method = None if websocket else method_of(attributes)
    if span.kind is not SpanKind.SERVER or (method is None and not websocket):
        return _other_name(span, attributes)
    path = path_of(attributes) or _path_in_name(name_of(span))
    template = template_of(first(attributes, HTTP_ROUTE), path) or template_of(route, path)
    if template:
        return (f"{method} {template}" if method else template), "route"
    if path:
        return (f"{method} {path}" if method else path), "route" if path == "/" else "url"
    return name_of(span) or method or "websocket", "custom"


def _path_in_name(name: str) -> str | None:
    """The path in the name that OTel's ASGI middleware gives a span: `GET /x`, `HTTP /ws/x`,
    `/x`."""
    url = name[name.find(" ") + 1 :] if "://" in name else ""
    path = split_url(url)[2] if url else name[name.find("/") :] if "/" in name else ""
    return without_query(path) or None


def _other_name(span: ReadableSpan, attributes: Attributes) -> Name:
    if span.kind is SpanKind.CLIENT and (method := method_of(attributes)):
        url = client_url(attributes)
        return (f"{method} {url}", "url") if url else (name_of(span), "custom")
    if first(attributes, MESSAGING_SYSTEM) is not None:
        return first_text(attributes, MESSAGING_DESTINATION) or name_of(span), "task"
    if first(attributes, DB_SYSTEM) is not None:
        return first_text(attributes, DB_SUMMARY) or name_of(span), "task"
    if first(attributes, RPC_SYSTEM) is not None or first(attributes, FAAS_TRIGGER) is not None:
        return name_of(span), "route"
    return name_of(span), "custom"


def to_description(span: ReadableSpan) -> str:
    """What a child span shows; URLs in it have no query, fragment or credentials."""
    attributes = span.attributes or {}
    explicit = attributes.get("sentry.description") or attributes.get("sentry.name")
    if isinstance(explicit, str) and explicit:
        return explicit
    method = method_of(attributes)
    if method and span.kind in (SpanKind.CLIENT, SpanKind.SERVER):
        return to_server_name(span)[0]
    if first(attributes, DB_SYSTEM) is not None:
        text = first_text(attributes, DB_TEXT) or first_text(attributes, DB_SUMMARY)
        return text or name_of(span)
    if first(attributes, MESSAGING_SYSTEM) is not None:
        return first_text(attributes, MESSAGING_DESTINATION) or name_of(span)
    return name_of(span)


def client_url(attributes: Attributes) -> str | None:
    """`scheme://host[:port]/path` of an outgoing request."""
    url = first_text(attributes, FULL_URL)
    if url:
        scheme, host, path = split_url(url)
        if host:
            return f"{scheme}://{host}{path}"
        return without_query(url) if url.startswith("/") else None
    address = first_text(attributes, SERVER_ADDRESS)
    if not address or not _HOST.fullmatch(address):
        return None
    host = f"[{address}]" if address.count(":") > 1 and "[" not in address else address
    port = first_int(attributes, SERVER_PORT)
    scheme = first_text(attributes, URL_SCHEME) or "http"
    path = path_of(attributes) or ""
    path = path if path.startswith("/") or not path else f"/{path}"
    return f"{without_query(scheme)}://{host}{f':{port}' if port else ''}{path}"


_HOST: Final = re.compile(r"[^/?#@\s]+")
_INSTRUMENTATION: Final = "opentelemetry.instrumentation."
_NATIVE: Final = frozenset({"fastapi", "starlette"})
_NOT_IN_ORIGIN: Final = re.compile(r"[^A-Za-z0-9_]+")
_ORIGIN: Final = re.compile(r"[A-Za-z0-9_.]{1,128}")


def to_origin(span: ReadableSpan, op: str | None) -> str:
    """`auto.<category>.otel.<instrumentation>`, or `manual` for the application's own tracers.

    Relay accepts letters, digits, underscores and dots only.
    """
    attributes = span.attributes or {}
    explicit = attributes.get("sentry.origin")
    if isinstance(explicit, str) and _ORIGIN.fullmatch(explicit):
        return explicit
    scope = str(span.instrumentation_scope.name) if span.instrumentation_scope else ""
    short = scope.removeprefix(_INSTRUMENTATION)
    if short == scope and scope not in _NATIVE:
        return "manual"
    category = (op or "function").partition(".")[0]
    return f"auto.{_origin_part(category)}.otel.{_origin_part(short.partition('.')[0])}"


def _origin_part(text: str) -> str:
    return _NOT_IN_ORIGIN.sub("_", text)[:50]
