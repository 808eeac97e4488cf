"""A Sentry that takes its time, or never answers; what each connection brought is kept."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sentry_sdk.envelope import Envelope
from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Upload:
    """One envelope: from which port of the other side it came, and its payloads by type."""

    port: int
    payloads: list[tuple[str, dict[str, Any]]]


class SlowSentry:
    """Answers each envelope after *delay* seconds; with a delay of None never, until the end of the
    block."""

    def __init__(self, delay: float | None) -> None:
        self.uploads: list[Upload] = []
        self._delay = delay
        self._over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self._server.server_port}/1"

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        """Of all envelopes that have been answered, in the order of arrival."""
        return [
            payload
            for upload in list(self.uploads)
            for type_, payload in upload.payloads
            if type_ == kind
        ]

    def transactions(self) -> list[str]:
        """The names of the transactions that have been answered."""
        return [payload["transaction"] for payload in self.payloads("transaction")]

    def take(self, port: int, body: bytes) -> None:
        """One request: wait, then keep what it brought."""
        self._over.wait(self._delay)
        if self._delay is None:
            return
        envelope = Envelope.deserialize(body)
        payloads = [
            (item.type or "", item.payload.json or {})
            for item in envelope.items
            if item.type in ("transaction", "event", "sessions", "client_report")
        ]
        self.uploads.append(Upload(port, payloads))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side has gone: that is what is tested."""


def _handler(sentry: SlowSentry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            sentry.take(self.client_address[1], body)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
