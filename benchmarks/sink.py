"""A receiver for any of the protocols that reads, answers 200 and keeps nothing.

A process of its own, so that its work is not in the figures: `python -m benchmarks.sink [PORT]`. It
prints its port, and the envelopes it has had for each line that it reads.
"""

from __future__ import annotations

import asyncio
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Sink(asyncio.Protocol):
    """One connection."""

    requests = 0
    size = 0

    def __init__(self) -> None:
        self._received = bytearray()
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request as soon as its body is there."""
        Sink.size += len(data)
        self._received += data
        while True:
            if self._left is None:
                end = self._received.find(b"\r\n\r\n")
                if end < 0:
                    return
                self._left = _length(bytes(self._received[:end]))
                del self._received[: end + 4]
            if len(self._received) < self._left:
                return
            del self._received[: self._left]
            self._left = None
            Sink.requests += 1
            self._transport.write(_ANSWER)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    port = int(sys.argv[1]) if sys.argv[1:] else 0
    server = await loop.create_server(Sink, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(Sink.requests, Sink.size, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
