"""Start-up and shutdown of the application."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

from otel_sentry_asgi._bridge import Bridge
from otel_sentry_asgi._errors import is_error
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._patterns import later

Message = MutableMapping[str, Any]

logger = logging.getLogger("otel_sentry_asgi")

MARK = "otel_sentry_asgi"
"""The key in the ASGI scope that says a layer of ours is already at work."""

_FAILED = frozenset({"lifespan.startup.failed", "lifespan.shutdown.failed"})
_OVER = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_MECHANISM = "auto.lifespan.otel.asgi"

_REFUSAL = later(r"\blifespan\b|\bhttp scope\b", re.IGNORECASE)
"""In the messages of those that take requests only: Django, Channels, asgiref's `WsgiToAsgi`."""


class Lifespan:
    """One lifespan scope: a failure is one error, however the application and the server tell of
    it.

    Frameworks send the traceback as text in `lifespan.startup.failed`, which servers log, and
    then raise. They send it while they handle the exception, and it is reported then: of a failed
    shutdown servers may end the process before it is raised. An application that raises before it
    asks for an event just does not support lifespans. Servers then say nothing of the end of the
    process either, so where it returned, or raised because of the scope's type, `go_on` supports
    them in its place.
    """

    def __init__(
        self,
        bridge: Bridge,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._bridge = bridge
        self._scope = scope
        self._receive = receive
        self._send = send
        self._supported = False
        self._ready = False
        self._refusal = "it returned"
        self._failure: str | None = None
        self._reported = self._ended = False

    def __enter__(self) -> Lifespan:
        with contained("lifespan"):
            self._ready = self._bridge.is_ready()
            self._scope[MARK] = True
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        with contained("lifespan"):
            self._scope.pop(MARK, None)
            if error is not None and not self._supported:
                self._refusal = repr(error)
                return self._ready and _is_refusal(error)
            if not self._reported and (error is not None or self._failure is not None):
                self._report(error)
            elif error is not None and self._reported:
                self._bridge.issues.claim(error)  # Hypercorn's own, in place of the reported.
            if self._reported and not self._ended:
                self._bridge.end()
        return False

    def _report(self, error: BaseException | None) -> None:
        """The lifespan failed, with an exception or with a message only."""
        if error is None or is_error(error):
            self._reported = True
            self._bridge.issues.failed(error, self._failure or "", _MECHANISM)

    async def go_on(self) -> None:
        """Start up and shut down for an application that does neither."""
        if self._ready and not self._supported:
            text = "the application has no lifespan (%s); it is given one, to flush at its end"
            logger.info(text, self._refusal)
            for step in ("startup", "shutdown"):
                await self.receive()
                await self.send({"type": f"lifespan.{step}.complete"})

    async def receive(self) -> Message:
        """The server's `receive`."""
        self._supported = True
        return await self._receive()

    async def send(self, message: Message) -> None:
        """The server's `send`."""
        self._supported = True
        over = message["type"] in _OVER
        if message["type"] in _FAILED:
            with contained("lifespan"):
                self._failure = str(message.get("message") or message["type"])
                error = sys.exc_info()[1]
                if over or error is not None:  # Else it may be raised in a moment.
                    self._report(error)
        if over:
            with contained("lifespan"):
                # The last moment: servers end on a signal without running exit handlers. No request
                # is left that would mind the wait, and it is bounded.
                self._ended = True
                self._bridge.end()
        if self._failure is not None:
            self._bridge.issues.lifespan_fails()
        await self._send(message)


def _is_refusal(error: BaseException) -> bool:
    """Whether the exception is about the scope's type. Any other may be a start-up that failed, for
    which uvicorn and gunicorn end if they are told to insist on the lifespan."""
    if isinstance(error, (AssertionError, NotImplementedError)) and not str(error):
        return True
    return isinstance(error, Exception) and _REFUSAL.search(str(error)) is not None
