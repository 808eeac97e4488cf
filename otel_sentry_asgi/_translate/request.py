"""The ASGI scope as Sentry's request interface. Raw: the policy decides what of it may leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._translate.text import encodable

AsgiScope = MutableMapping[str, Any]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def to_request(scope: Mapping[str, Any]) -> Data:
    """Method, URL without query, query string, headers and peer address of an HTTP or websocket
    scope."""
    headers = dict(merged_headers(scope))
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


def merged_headers(scope: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Lower-case names, values of repeated headers joined by a comma (cookies by a semicolon)."""
    merged: dict[str, str] = {}
    for raw_name, raw_value in scope.get("headers") or ():
        name, value = _latin(raw_name).lower(), _latin(raw_value)
        separator = "; " if name == "cookie" else ", "
        merged[name] = f"{merged[name]}{separator}{value}" if name in merged else value
    yield from merged.items()


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


def sends_events(message: Mapping[str, Any]) -> bool:
    """Whether an `http.response.start` begins a stream of server-sent events."""
    for name, value in message.get("headers") or ():
        if len(name) == 12 and name.lower() == b"content-type":
            return bool(value.startswith(b"text/event-stream"))
    return False


def route_in(scope: Mapping[str, Any]) -> str | None:
    """The path template that the framework left in the scope; None if it left none or only a part.

    FastAPI and Litestar write the whole template. Starlette leaves the matched route, which is
    whole only outside of mounts: below one, `root_path` has grown by the concrete prefix.
    """
    effective = getattr(
        (scope.get("fastapi") or {}).get("effective_route_context"), "path_format", None
    )
    for template in (effective, scope.get("path_template")):
        if isinstance(template, str) and template:
            return template
    template = getattr(scope.get("route"), "path_format", None)
    if not isinstance(template, str) or not template:
        return None
    prefix = str(scope.get("root_path") or "").removeprefix(str(scope.get("app_root_path") or ""))
    return _below_mount(prefix, scope.get("path_params") or {}) + template if prefix else template


def _below_mount(prefix: str, path_params: Mapping[str, Any]) -> str:
    """The mount's prefix with the values of path parameters put back to their names."""
    parts = {str(value): f"{{{name}}}" for name, value in path_params.items() if str(value)}
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
