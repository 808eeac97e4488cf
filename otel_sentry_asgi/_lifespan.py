"""Start-up and shutdown of the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

from otel_sentry_asgi._bridge import Bridge
from otel_sentry_asgi._errors import is_error
from otel_sentry_asgi._guard import contained

Message = MutableMapping[str, Any]

_FAILED = frozenset({"lifespan.startup.failed", "lifespan.shutdown.failed"})
_OVER = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_MECHANISM = "auto.lifespan.otel.asgi"


class Lifespan:
    """One lifespan scope: a failure is one error, however the application and the server tell of
    it.

    Frameworks send the traceback as text in `lifespan.startup.failed`, which servers log, and
    then raise. An application that raises before it asks for an event just does not support
    lifespans.
    """

    def __init__(
        self,
        bridge: Bridge,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._bridge = bridge
        self._receive = receive
        self._send = send
        self._supported = False
        self._failure: str | None = None

    def __enter__(self) -> Lifespan:
        with contained("lifespan"):
            self._bridge.is_ready()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with contained("lifespan"):
            if error is not None and not (self._supported and is_error(error)):
                return
            if error is not None or self._failure is not None:
                self._bridge.issues.failed(error, self._failure or "", _MECHANISM)

    async def receive(self) -> Message:
        """The server's `receive`."""
        message = await self._receive()
        self._supported = True
        return message

    async def send(self, message: Message) -> None:
        """The server's `send`."""
        if message["type"] in _FAILED:
            self._failure = str(message.get("message") or message["type"])
            self._bridge.issues.lifespan_fails()
        if message["type"] in _OVER:
            # The last moment: servers end on a signal without running exit handlers. No request is
            # left that would mind the wait, and it is bounded.
            with contained("lifespan"):
                self._bridge.end()
        await self._send(message)
