"""A gate in front of an OTLP receiver that takes no compression and forgets the resource."""

import asyncio
import gzip
from collections.abc import Callable

import h11

_CHUNK = 65_536


class Front:
    """Passes requests on to another port of 127.0.0.1, decompressed, and the answers back.

    *keep* is called with each body. Written on plain streams, so that no instrumentation of an
    HTTP library sees it.
    """

    def __init__(self, port: int, keep: Callable[[bytes], None]) -> None:
        self._port = port
        self._keep = keep

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        connection = h11.Connection(h11.SERVER)
        try:
            received = await _receive(connection, reader)
            if received is not None:
                request, body = received
                assert isinstance(request, h11.Request)
                status, answer = await self._pass_on(request, body)
                length = str(len(answer))
                headers = [("content-length", length), ("connection", "close")]
                response = h11.Response(status_code=status, headers=headers)
                for part in (response, h11.Data(answer), h11.EndOfMessage()):
                    writer.write(connection.send(part) or b"")
                await writer.drain()
        finally:
            writer.close()

    async def _pass_on(self, request: h11.Request, body: bytes) -> tuple[int, bytes]:
        headers = dict(request.headers)
        if headers.pop(b"content-encoding", b"identity") == b"gzip":
            body = gzip.decompress(body)
        self._keep(body)
        sent = h11.Request(
            method=request.method,
            target=request.target,
            headers=[
                (b"host", b"127.0.0.1"),
                (b"connection", b"close"),
                (b"content-type", headers.get(b"content-type", b"")),
                (b"content-length", str(len(body)).encode()),
            ],
        )
        connection = h11.Connection(h11.CLIENT)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for part in (sent, h11.Data(body), h11.EndOfMessage()):
                writer.write(connection.send(part) or b"")
            received = await _receive(connection, reader)
        finally:
            writer.close()
        assert received is not None
        response, answer = received
        assert isinstance(response, h11.Response)
        return response.status_code, answer


async def _receive(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request | h11.Response, bytes] | None:
    """Return the next message and its body, or None if the other side closed instead."""
    head: h11.Request | h11.Response | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request | h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return head, body
        else:
            return None
