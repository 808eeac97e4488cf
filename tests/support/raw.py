"""Servers on loopback that speak what a test tells them to, byte for byte."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TypeAlias

from typing_extensions import Self

Handle: TypeAlias = Callable[[socket.socket], None]

PATIENCE = 10.0
"""Seconds. Only what is broken takes so long."""


class RawServer:
    """Gives each connection to *handle* on a thread of its own, and closes it afterwards."""

    def __init__(
        self,
        handle: Handle,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._handle = handle
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = False

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connected in list(self._open):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="raw-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._spawn(self._serve, connected)

    def _serve(self, connected: socket.socket) -> None:
        try:
            connected.settimeout(PATIENCE)
            if self._tls is not None:
                connected = self._tls.wrap_socket(connected, server_side=True)
            self._open.add(connected)
            self._handle(connected)
        except OSError:
            pass  # The other side has hung up.
        finally:
            connected.close()


def read_request(connected: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """First line, headers under lower-case names, body. Raises `OSError` if there is none."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connected)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    while len(body) < int(headers.get("content-length", "0")):
        body += _some(connected)
    return first, headers, body


def _some(connected: socket.socket) -> bytes:
    chunk = connected.recv(65_536)
    if not chunk:
        raise ConnectionResetError("closed")
    return chunk


def reset(connected: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connected.close()
