"""Where a Sentry client's uploads go: its DSN, proxies and certificates, as its own transport takes
them."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final
from urllib.request import getproxies

import certifi
from sentry_sdk.consts import VERSION, EndpointType
from sentry_sdk.transport import HttpTransport
from sentry_sdk.utils import Dsn

from otel_sentry_exporters._http import Target

TIMEOUT: Final = 30.0
"""Seconds for one wait on the socket (sentry-sdk's `HttpTransport.TIMEOUT`)."""

# sentry-sdk's own with `keep_alive`; not every system has all of them.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.SOL_TCP, "TCP_KEEPIDLE", 45),
    (socket.SOL_TCP, "TCP_KEEPINTVL", 10),
    (socket.SOL_TCP, "TCP_KEEPCNT", 6),
)


def to_target(client: Any) -> Target | None:
    """Where to send what *client* would send; None if only its own transport can: the application
    gave it one, or it is for HTTP/2, for asyncio, or behind a SOCKS or HTTPS proxy."""
    transport, options = client.transport, client.options
    if type(transport) is not HttpTransport or transport.parsed_dsn is None:
        return None
    dsn = transport.parsed_dsn
    proxy = _proxy_of(dsn, options)
    if proxy is not None and not proxy.lower().startswith("http://"):
        return None
    auth = dsn.to_auth(f"sentry.python/{VERSION}")
    return Target(
        scheme=dsn.scheme,
        host=dsn.host if dsn.host.isascii() else dsn.host.encode("idna").decode("ascii"),
        port=dsn.port,
        path=_path_of(str(auth.get_api_url(EndpointType.ENVELOPE))),
        headers={
            "User-Agent": str(auth.client),
            "X-Sentry-Auth": auth.to_header(),
            "Content-Type": "application/x-sentry-envelope",
        },
        timeout=TIMEOUT,
        proxy=proxy,
        proxy_headers=options.get("proxy_headers"),
        socket_options=_socket_options(options),
        tls=cache(partial(_tls, options)),
    )


def _path_of(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]


def _proxy_of(dsn: Dsn, options: Mapping[str, Any]) -> str | None:
    """An option that is the empty text switches the environment's proxy off."""
    found = getproxies()
    if _is_exempt(dsn, found.get("no")):
        found = {}
    if dsn.scheme == "https" and options.get("https_proxy") != "":
        proxy = options.get("https_proxy") or found.get("https")
        if proxy:
            return str(proxy)
    if options.get("http_proxy") != "":
        proxy = options.get("http_proxy") or found.get("http")
        if proxy:
            return str(proxy)
    return None


def _is_exempt(dsn: Dsn, hosts: str | None) -> bool:
    names = (name.strip() for name in (hosts or "").split(","))
    return any(name and (dsn.host.endswith(name) or dsn.netloc.endswith(name)) for name in names)


def _socket_options(options: Mapping[str, Any]) -> list[tuple[int, int, int | bytes]]:
    given = list(options.get("socket_options") or ())
    if options.get("keep_alive"):
        named = {(level, option) for level, option, _ in given}
        for level, name, value in _KEEP_ALIVE:
            option = getattr(socket, name, None)
            if option is not None and (level, option) not in named:
                given.append((level, option, value))
    return given


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Made when the first connection is: reading the certificates takes milliseconds."""
    environ = os.environ
    authorities = (
        options.get("ca_certs")
        or environ.get("SSL_CERT_FILE")
        or environ.get("REQUESTS_CA_BUNDLE")
        or certifi.where()
    )
    context = ssl.create_default_context(cafile=authorities)
    certificate = options.get("cert_file") or environ.get("CLIENT_CERT_FILE")
    if certificate:
        context.load_cert_chain(
            certificate, options.get("key_file") or environ.get("CLIENT_KEY_FILE")
        )
    return context
