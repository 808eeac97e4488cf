"""The ASGI edge."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import Token
from types import MethodType, TracebackType
from typing import Any

from asgiref.compatibility import guarantee_single_callable
from opentelemetry import propagate, trace
from opentelemetry.context.context import Context
from opentelemetry.trace import SpanContext, SpanKind

from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi import sentry
from otel_sentry_asgi._active import obtain
from otel_sentry_asgi._bodies import body_of
from otel_sentry_asgi._bridge import Bridge
from otel_sentry_asgi._errors import is_cancelled
from otel_sentry_asgi._guard import contained, is_contained
from otel_sentry_asgi._lifespan import MARK, Lifespan
from otel_sentry_asgi._profiles import stop
from otel_sentry_asgi._quart import listen_if_imported
from otel_sentry_asgi._scope import Exchange, Previous, current_exchange, reset
from otel_sentry_asgi._translate.request import is_event_stream, merged_headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MECHANISMS = {"http": "auto.http.otel.asgi", "websocket": "auto.websocket.otel.asgi"}

_BODIES = frozenset(
    {
        *("http.response.body", "http.response.pathsend", "http.response.zerocopysend"),
        "websocket.http.response.body",
    }
)
"""Messages that end a response, unless they have `more_body`."""


_GUARD = contained("request")


class SentryMiddleware:
    """Gives each request a Sentry scope, a session and its error events.

    It may stand outside or inside of OTel's middleware, and more than once: the outermost
    counts. `instrument()` puts it around OTel's own; by hand it is one line, `app =
    SentryMiddleware(app)` or `app.add_middleware(SentryMiddleware)`. Takes ASGI 2 and ASGI 3
    applications. Exceptions of the application pass through as they are.
    """

    def __init__(self, app: Any) -> None:
        self.app: App = guarantee_single_callable(app)  # type: ignore[no-untyped-call]
        self._bridge = obtain()
        listen_if_imported()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        __traceback_hide__ = True  # sentry-sdk leaves such frames out
        await run(self._bridge, self.app, scope, receive, send)


async def run(bridge: Bridge, app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Run *app* for one ASGI scope as a request of *bridge*."""
    __traceback_hide__ = True
    if scope["type"] in _MECHANISMS and MARK not in scope:
        with _Request(bridge, scope, receive, send) as request:
            await app(scope, request.receive, request.send)
    elif scope["type"] == "lifespan" and MARK not in scope:
        with Lifespan(bridge, scope, receive, send) as lifespan:
            await app(scope, lifespan.receive, lifespan.send)
        await lifespan.go_on()
    else:
        await app(scope, receive, send)


class _Request:
    """One request: what `__enter__` set up, `__exit__` takes down, also when half of it failed."""

    __slots__ = (
        "_bridge",
        "_exchange",
        "_opening",
        "_previous",
        "_responding",
        "_scope",
        "_scopes",
        "_send",
        "_token",
        "receive",
        "send",
    )

    def __init__(self, bridge: Bridge, scope: Scope, receive: Receive, send: Send) -> None:
        self._bridge = bridge
        self._scope = scope
        self._send = send
        self._exchange: Exchange | None = None
        self._previous: Previous | None = None
        self._opening = scope["type"] == "websocket"
        """Nobody has said yet whether the websocket is accepted."""
        self._responding = False
        self._scopes: sentry_scopes.RequestScopes | None = None
        self._token: Token[Exchange | None] | None = None
        self.receive: Receive = receive
        self.send: Send = send

    def __enter__(self) -> _Request:
        try:
            client = self._bridge.client()
            if client is not None:
                self._begin(client)
        except BaseException as error:
            if not is_contained("request", error):
                raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if error is not None:
            with _GUARD:
                exchange.cancelled = is_cancelled(error)
                self._locate(exchange)
                mechanism = _MECHANISMS[self._scope["type"]]
                self._bridge.issues.crashed(error, exchange, mechanism)
        elif self._responding or (exchange.status_code is None and self._scope["type"] == "http"):
            exchange.cancelled = True  # It gave up before a response, or in the middle of one.
        elif self._opening and exchange.status_code is None:
            exchange.status_code = 500  # So servers answer for an application that does not.
        exchange.finished = True
        if exchange.held:
            with _GUARD:
                self._bridge.issues.finished(exchange)
        if exchange.profile is not None:
            stop(exchange)
        self.send = self._send  # Instead of a reference to itself.
        try:
            try:
                self._scope.pop(MARK, None)
                exchange.freeze()
                self._bridge.finished(exchange)
            finally:
                self._leave(exchange)
        except BaseException as failure:
            if not is_contained("request", failure):
                raise

    def _leave(self, exchange: Exchange) -> None:
        """Restore what was current before; each context knows only its own tokens."""
        if self._token is not None and current_exchange.get() is exchange:
            reset(self._token)
        if self._scopes is not None:
            session = self._scopes.end()
            if session is not None:
                self._bridge.sessions.add(session.key, session.how)
        if self._previous is not None:
            self._bridge.leave(exchange, self._previous)

    def _begin(self, client: Any) -> None:
        exchange = unit = self._unit_of_outer_layer()
        if exchange is None:
            exchange = Exchange(None)
        of = weakref.ref(exchange)
        finish = MethodType(self._bridge.events.finish, of)
        self._scopes = scopes = sentry_scopes.RequestScopes(finish, of, client)
        self._exchange = exchange  # From here on there is something to take down.
        if unit is not None:
            self._previous, unit.previous = unit.previous, None
        exchange.asgi_scope = self._scope
        exchange.current = _current() or exchange.current
        exchange.sentry_scope, exchange.current_scope = scopes.isolation, scopes.current
        self._token = current_exchange.set(exchange)
        self._scope[MARK] = True
        self.send = self._noting_send
        exchange.body = body_of(self._scope, self._body_limit)
        if exchange.body is not None:
            self.receive = exchange.body.noting(self.receive)

    def _body_limit(self) -> int:
        return sentry.body_limit(self._bridge.settings)

    def _unit_of_outer_layer(self) -> Exchange | None:
        """What the processor made of a server span that OTel started further out: this request."""
        unit = current_exchange.get()
        if unit is None or unit.is_request or unit.root is None:
            return None
        return unit if unit.root.kind is SpanKind.SERVER else None

    def _noting_send(self, message: Message) -> Awaitable[None]:
        exchange = self._exchange
        if exchange is not None:
            try:
                kind = message["type"]
                if kind == "http.response.start" or kind == "websocket.http.response.start":
                    self._note_start(message, exchange)
                elif self._responding:
                    if not message.get("more_body"):
                        self._responding = kind not in _BODIES
                elif self._opening:
                    self._opening = False
                    if kind == "websocket.close":
                        exchange.status_code = 403  # So servers answer.
                if exchange.current is None:
                    # OTel dropped the trace, so no processor told us; its ids are here all the
                    # same.
                    exchange.current = _current()
            except BaseException as error:
                if not is_contained("request", error):
                    raise
        return self._send(message)

    def _note_start(self, message: Message, exchange: Exchange) -> None:
        exchange.status_code = int(message["status"])
        exchange.stream = is_event_stream(message)
        self._responding = not exchange.stream
        issues = self._bridge.issues
        if exchange.status_code >= issues.answers_from:
            issues.answered(sys.exc_info()[1], exchange)

    def _locate(self, exchange: Exchange) -> None:
        """The caller's trace, for a request that OTel dropped before it sent anything."""
        if exchange.current is None:
            exchange.current = _current(propagate.extract(merged_headers(self._scope)))


def _current(otel_context: Context | None = None) -> SpanContext | None:
    """The span that is current, if it has an id."""
    context = trace.get_current_span(otel_context).get_span_context()
    return context if context.is_valid else None
