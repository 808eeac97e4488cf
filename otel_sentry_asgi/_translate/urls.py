"""URLs and paths for names: without query, fragment and credentials."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._semconv import (
    SERVER_ADDRESS,
    SERVER_PORT,
    URL_FULL,
    URL_PATH,
    URL_SCHEME,
    Attributes,
    number,
    text,
)

_HOST: Final = later(r"[^/?#@\s]+")
_HOST_AND_PORT: Final = later(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
# What needs no parser: nothing in it but scheme, host, port and a plain path.
_PLAIN_URL: Final = later(r"([a-z]+)://([A-Za-z0-9.-]+(?::[0-9]+)?)(/[^?#@\s]*)?")


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path of a URL; empty texts where it has none or is none.

    A password with a sign that ends a host makes it none: `https://user:pa?ss@host/`.
    """
    usual = _PLAIN_URL.fullmatch(url)
    if usual is not None:
        return usual[1], usual[2], usual[3] or ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", "", ""
    host = parts.netloc.rpartition("@")[2]
    return (parts.scheme, host, parts.path) if _HOST_AND_PORT.fullmatch(host) else ("", "", "")


def without_query(text: str) -> str:
    """What stands before a query or fragment."""
    return text.partition("?")[0].partition("#")[0]


def split_target(target: object) -> tuple[str, str]:
    """Path and query of a request target, which may be a whole URL."""
    if not isinstance(target, str):
        return "", ""
    path, _, query = target.partition("#")[0].partition("?")
    if "://" not in path:
        return path, query
    _, host, path = split_url(target)
    return (path, query) if host else ("", "")


def path_of(data: Attributes) -> str | None:
    """The request's path, without query and fragment."""
    target = text(data, URL_PATH) or text(data, URL_FULL)
    if target is None:
        return None
    path = split_url(target)[2] if "://" in target else target
    return without_query(path) or None


def client_url(data: Attributes) -> str | None:
    """`scheme://host[:port]/path` of an outgoing request."""
    url = text(data, URL_FULL)
    if url:
        scheme, host, path = split_url(url)
        if host:
            return f"{scheme}://{host}{path}"
        return without_query(url) if url.startswith("/") else None
    address = text(data, SERVER_ADDRESS)
    if not address or not _HOST.fullmatch(address):
        return None
    host = f"[{address}]" if address.count(":") > 1 and "[" not in address else address
    port = number(data, SERVER_PORT)
    shown = f":{port}" if port and not host.endswith(f":{port}") else ""
    scheme = text(data, URL_SCHEME) or "http"
    path = path_of(data) or ""
    path = path if path.startswith("/") or not path else f"/{path}"
    return f"{without_query(scheme)}://{host}{shown}{path}"
