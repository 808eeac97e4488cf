"""Sentry's upload endpoint in a thread: quick, slow, failing or gone, as a test wants it."""

import gzip
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support._wait import until
from tests.support.raw import RawServer, read_request

Answer = Callable[[socket.socket, int], bytes]
"""What to answer on a connection to the upload of that number, from 0."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def status(code: int, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\n{lines}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an envelope."""

    header: dict[str, Any]
    body: bytes

    @property
    def type(self) -> str:
        return str(self.header["type"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def meaning(self) -> Any:
        """Its JSON with sorted keys, or its bytes as text."""
        if self.type == "attachment":
            return self.body.decode("latin-1")
        return json.loads(json.dumps(self.json, sort_keys=True))


def parse_envelope(body: bytes) -> tuple[dict[str, Any], list[Item]]:
    """Its header and items."""
    head, _, rest = body.partition(b"\n")
    items = []
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        length = header["length"]
        items.append(Item(header, rest[:length]))
        assert rest[length : length + 1] in (b"\n", b"")
        rest = rest[length + 1 :]
    return json.loads(head), items


@dataclass
class FakeSentry:
    """What has been uploaded, with the time when it came and what it was answered."""

    port: int = 0
    delay: float = 0.0
    answer: Answer = lambda _connected, _number: OK
    uploads: list[tuple[float, bytes, bytes]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.port}/1"

    def take(self) -> list[bytes]:
        """The bodies that have come since the last call."""
        with self.lock:
            bodies = [body for _, body, _ in self.uploads]
            self.uploads.clear()
        return bodies

    def items(self, *, refused: bool = False) -> list[tuple[float, Item]]:
        """Items with their time of arrival: those that were taken, or those that were refused."""
        with self.lock:
            uploads = list(self.uploads)
        return [
            (at, item)
            for at, body, answer in uploads
            if answer.startswith(b"HTTP/1.1 2") is not refused
            for item in parse_envelope(body)[1]
        ]

    def of_type(self, kind: str) -> list[tuple[float, Item]]:
        return [(at, item) for at, item in self.items() if item.type == kind]

    def reported(self, category: str) -> Counter[str]:
        """What client reports say is lost, by reason."""
        counts: Counter[str] = Counter()
        for _, item in self.of_type("client_report"):
            for one in item.json["discarded_events"]:
                if one["category"] == category:
                    counts[one["reason"]] += one["quantity"]
        return counts

    def wait_for(self, probe: Callable[[], Any], timeout: float = 30.0) -> Any:
        return until(probe, timeout=timeout, describe=lambda: f"{len(self.uploads)} uploads")

    def serve(self, connected: socket.socket) -> None:
        while True:
            _, headers, body = read_request(connected)
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            with self.lock:
                number = len(self.uploads)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                if self.delay:
                    time.sleep(self.delay)
                answer = self.answer(connected, number)
                with self.lock:
                    self.uploads.append((time.monotonic(), body, answer))
                connected.sendall(answer)
            finally:
                with self.lock:
                    self.at_once -= 1


@contextmanager
def serve_sentry(sentry: FakeSentry | None = None, *, port: int = 0) -> Iterator[FakeSentry]:
    """Run it, on *port* if one is given."""
    sentry = sentry or FakeSentry()
    with RawServer(sentry.serve, port=port) as server:
        sentry.port = server.port
        yield sentry
