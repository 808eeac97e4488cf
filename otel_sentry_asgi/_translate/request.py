"""The ASGI scope as Sentry's request interface. Raw: the policy decides what of it may leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import quote

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._semconv import URL_FULL, URL_QUERY
from otel_sentry_asgi._translate.text import encodable, to_text

AsgiScope = MutableMapping[str, Any]

_CONTENT_TYPE_LENGTH = len("content-type")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def to_request(scope: Mapping[str, Any]) -> Data:
    """Method, URL without query, query string, headers and peer address of an HTTP or websocket
    scope."""
    headers = merged_headers(scope)
    request: Data = {"url": encodable(_url(scope, headers.get("host"))), "headers": headers}
    if scope.get("type") == "http" and scope.get("method"):
        request["method"] = str(scope["method"]).upper()
    elif scope.get("type") == "websocket":
        request["method"] = "GET"
    query = scope.get("query_string")
    if query:
        request["query_string"] = _latin(query)
    cookies = headers.get("cookie")
    if cookies:
        request["cookies"] = dict(parse_cookies(cookies))
    client = scope.get("client")
    if client:
        request["env"] = {"REMOTE_ADDR": encodable(str(client[0]))}
    return request


_ENCODED_SIGNS: Final = later(r"%(?:2[36]|3[BDFbdf])")


def restore_query(data: Data, request: Data) -> None:
    """Put the query as it came into the attributes of the request's server span: OTel's ASGI
    middleware decodes the whole of it, and a value with a `%26` in it falls in two."""
    query = request.get("query_string")
    if not query or "%" not in query or not _ENCODED_SIGNS.search(query):
        return
    if URL_QUERY in data:
        data[URL_QUERY] = to_text(query)
    url, question, _ = str(data.get(URL_FULL) or "").partition("?")
    if question:
        data[URL_FULL] = to_text(f"{url}?{query}")


def is_event_stream(message: Mapping[str, Any]) -> bool:
    """Whether the response that *message* begins is one of server-sent events. Headers that can be
    gone over only once are left to the server."""
    headers = message.get("headers")
    if type(headers) is not list and type(headers) is not tuple:  # 30 ns less than `isinstance`.
        return False
    for name, value in headers:
        if len(name) == _CONTENT_TYPE_LENGTH and name.lower() == b"content-type":
            return bool(value.lower().startswith(b"text/event-stream"))
    return False


def merged_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Lower-case names, values of repeated headers joined by a comma (cookies by a semicolon)."""
    given = scope.get("headers") or ()
    if type(given) is list or type(given) is tuple:
        try:  # Nearly always all are bytes, and none is repeated.
            all_of_them = {_names[name]: value.decode("latin-1") for name, value in given}
            if len(all_of_them) == len(given):
                return all_of_them
        except (AttributeError, TypeError):
            pass
    merged: dict[str, str] = {}
    for raw_name, raw_value in given:
        name = _names[raw_name] if type(raw_name) is bytes else _latin(raw_name).lower()
        value = raw_value.decode("latin-1") if type(raw_value) is bytes else _latin(raw_value)
        if name in merged:
            separator = "; " if name == "cookie" else ", "
            value = f"{merged[name]}{separator}{value}"
        merged[name] = value
    return merged


class _Names(dict[bytes, str]):
    """Names of headers as text, in lower case. Bounded: clients send any."""

    def __missing__(self, raw: bytes) -> str:
        name = raw.decode("latin-1").lower()
        if len(self) < _MAX_NAMES and len(raw) <= _LONGEST_NAME:
            self[raw] = name
        return name


_MAX_NAMES: Final = 1_024
_LONGEST_NAME: Final = 64
_names = _Names()


def parse_cookies(header: str) -> Iterator[tuple[str, str]]:
    """Name and value of each cookie, without unquoting; what has no `=` is skipped."""
    for part in header.split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and name:
            yield name.strip(), value.strip()


def path_in(scope: Mapping[str, Any]) -> str:
    """The whole path. Servers differ on whether `path` holds `root_path`."""
    path, root = str(scope.get("path") or ""), str(scope.get("root_path") or "").rstrip("/")
    inside = not root or path == root or path.startswith(f"{root}/")
    return path if inside else root + path


WHOLE_ROUTE = "otel_sentry_asgi.route"
"""The key in a scope under which the whole template is kept when the rest of it is let go, and
where the framework leaves none in it."""


def root_path_in(scope: Mapping[str, Any]) -> str:
    """What lies before the application, as the server or its own settings say; mounts are part of
    the application."""
    root = scope.get("app_root_path", scope.get("root_path"))
    return str(root or "").rstrip("/")


def route_in(scope: Mapping[str, Any]) -> str | None:
    """The template of the whole path, as far as the framework left it in the scope; None if it
    left none.

    FastAPI, Litestar and Starlette leave what is whole below the application or the mount that
    they run in.
    """
    whole = scope.get(WHOLE_ROUTE)
    if whole is not None:
        return str(whole)
    of_fastapi = scope.get("fastapi")
    effective = of_fastapi.get("effective_route_context") if of_fastapi else None
    template = (
        getattr(effective, "path_format", None) or scope.get("path_template") or _matched(scope)
    )
    if not template or not isinstance(template, str):
        return None
    return whole_route(scope, template)


def _matched(scope: Mapping[str, Any]) -> object:
    """The template of the route that Starlette has matched. Of a mount only what lies below it: the
    rest is in `root_path` already. A mount of everything says nothing, and a host has none of a
    path."""
    route = scope.get("route")
    template: object = getattr(route, "path_format", None)
    if not hasattr(route, "routes"):
        return template
    is_mount = str(template).endswith(_BELOW_MOUNT)
    prefix = str(scope.get("root_path") or "").rstrip("/")
    return _BELOW_MOUNT if is_mount and prefix != root_path_in(scope) else None


_BELOW_MOUNT: Final = "/{path}"


def whole_route(scope: Mapping[str, Any], template: str) -> str:
    """The template of the whole path, of one below the application or the mount. What lies before
    is in `root_path`, which grows by the concrete prefix of each mount."""
    prefix = str(scope.get("root_path") or "").rstrip("/")
    return _below_mount(prefix, template, scope.get("path_params") or {}) + template


def _below_mount(prefix: str, template: str, path_params: Mapping[str, Any]) -> str:
    """The prefix of mounts with the values of its path parameters put back to their names."""
    if not prefix or not path_params:
        return prefix
    parts = {
        str(value): f"{{{name}}}"
        for name, value in path_params.items()
        if str(value) and f"{{{name}" not in template
    }
    return "/".join(parts.get(part, part) for part in prefix.split("/"))


def _url(scope: Mapping[str, Any], host: str | None) -> str:
    scheme = str(scope.get("scheme") or ("ws" if scope.get("type") == "websocket" else "http"))
    path = quote(path_in(scope), safe="/:@!$&'()*+,;=~%", errors="replace")
    host = host or _server(scope, _DEFAULT_PORTS.get(scheme))
    return f"{scheme}://{host}{path}" if host else path


def _server(scope: Mapping[str, Any], default_port: int | None) -> str | None:
    """The server's own address; None for a Unix socket, which has no port."""
    name, port = scope.get("server") or (None, None)
    if not name or not port:
        return None
    host = f"[{name}]" if ":" in name else name
    return host if port == default_port else f"{host}:{port}"


def _latin(value: bytes | str) -> str:
    return encodable(value) if isinstance(value, str) else value.decode("latin-1")
