"""Bodies of requests, kept as the application reads them.

What sentry-sdk's integrations collect (2.75, `_wsgi_common.RequestExtractor`) they read themselves,
before the application does. Here nothing is consumed or awaited: what the application receives is
noted in passing, up to the client's `max_request_body_size`, and parsed when a payload needs it.
JSON and URL-encoded forms only; of all else the headers tell size and type.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy import FILTERED
from otel_sentry_asgi._translate.text import encodable

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

LIMITS: Final[dict[str, int]] = {
    "never": 0,
    "small": 1_000,
    "medium": 10_000,
    "always": 1_000_000,
}
"""Bytes that `max_request_body_size` means. Sentry takes no event larger than a megabyte."""

RAW: Final = "!raw"
TOO_LARGE: Final = "!config"
"""Why a body is not there, as sentry-sdk names it in `_meta`."""

_WITHOUT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"})
_MAX_FIELDS: Final = 1_000


def body_of(scope: Mapping[str, Any], limit: Callable[[], int]) -> Body | None:
    """The body of an HTTP request to be noted, or None if it has none or none is wanted. *limit*
    is asked only where there may be one."""
    if scope["type"] != "http" or scope.get("method", "GET") in _WITHOUT:
        return None
    most = limit()
    if not most:
        return None
    kind, encoding, length = b"", b"", None
    for name, value in scope.get("headers") or ():
        lowered = name.lower()
        if lowered == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
        elif lowered == b"content-encoding":
            encoding = value
        elif lowered == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 20 else None
    if length == 0 or not kind:
        return None
    return Body(kind if encoding in (b"", b"identity") else b"", length, most)


class Body:
    """A body that is being read, or has been, or is not to be kept."""

    __slots__ = (
        "_chunks",
        "_complete",
        "_facts",
        "_is_json",
        "_length",
        "_limit",
        "_removed",
        "_size",
    )

    def __init__(self, kind: bytes, length: int | None, limit: int) -> None:
        """*kind* is the media type, *length* what the header says, *limit* the bytes to keep."""
        self._is_json = kind == b"application/json" or (
            kind.startswith(b"application/") and kind.endswith(b"+json")
        )
        self._chunks: list[bytes] = []
        self._size = 0
        self._length = length
        self._limit = limit
        self._complete = False
        self._facts: Data | None = None
        self._removed: Data | None = None
        if not self._is_json and kind != b"application/x-www-form-urlencoded":
            self._removed = {"rule": RAW, "size": length}
        elif length is not None and length > limit:
            self._removed = {"rule": TOO_LARGE, "size": length}

    def noting(self, receive: Receive) -> Receive:
        """*receive*, with what it gives noted; *receive* itself if there is nothing to note."""
        if self._removed is not None:
            return receive

        async def noting_receive() -> Message:
            __traceback_hide__ = True
            message = await receive()
            if not self._complete:
                with contained("body"):
                    self.note(message)
            return message

        return noting_receive

    def note(self, message: Mapping[str, Any]) -> None:
        """A message has been received."""
        if message["type"] != "http.request":
            return
        chunk = message.get("body") or b""
        self._size += len(chunk)
        # Applications stop reading when all that was announced has come.
        self._complete = not message.get("more_body") or self._size == self._length
        if self._size > self._limit:
            self._removed = {"rule": TOO_LARGE, "size": self._size}
            self._complete = True
        if self._removed is not None:
            self._chunks = []
        elif chunk:
            self._chunks.append(bytes(chunk))

    @property
    def is_read(self) -> bool:
        """Whether `facts` has all that it will ever have."""
        return self._complete or self._removed is not None

    def facts(self) -> Data:
        """For the request interface: `data`, parsed, or why there is none. What the application
        has not read to its end is not known."""
        if self._removed is not None:
            return {"body_removed": self._removed}
        if not self._complete or not self._size:
            return {}
        if self._facts is None:
            self._facts = {"data": self._parsed(b"".join(self._chunks))}
            self._chunks = []
        return self._facts

    def _parsed(self, body: bytes) -> Any:
        try:
            if self._is_json:
                parsed = json.loads(body)
                if b"\\ud" in body.lower():  # Maybe half a pair: Sentry takes no event with one.
                    parsed = json.loads(encodable(json.dumps(parsed, ensure_ascii=False)))
                return parsed
            pairs = parse_qsl(
                body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS
            )
        except (ValueError, RecursionError):
            return FILTERED
        form: dict[str, Any] = {}
        for name, value in pairs:
            form.setdefault(name, []).append(value)
        return {name: values[0] if len(values) == 1 else values for name, values in form.items()}
