"""The state of one request, or of one unit of work that is no request.

An exchange is found through a context variable, so whatever the application starts (tasks,
threads that carry the context) belongs to it for as long as it runs, also after the response.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, MutableMapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, TypeVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind

from otel_sentry_asgi._bodies import Body
from otel_sentry_asgi._model import Data, ErrorEvent
from otel_sentry_asgi._translate.request import (
    WHOLE_ROUTE,
    path_in,
    root_path_in,
    route_in,
    to_request,
)
from otel_sentry_asgi._translate.segment import RequestFacts
from otel_sentry_asgi._translate.span import is_local_root

T = TypeVar("T")

_KEPT = (
    *("type", "method", "scheme", "path", "root_path", "query_string", "headers"),
    *("server", "client"),
)

MAX_TRAIL = 50
"""Ended spans that an exchange remembers."""


class Held:
    """An error event that waits for the end of its exchange: the exception may yet turn out
    unhandled. *since* is in monotonic seconds."""

    __slots__ = ("error", "event", "hint", "since")

    def __init__(self, error: BaseException, event: ErrorEvent, hint: Data, since: float) -> None:
        self.error = error
        self.event = event
        self.hint = hint
        self.since = since


class Previous(NamedTuple):
    """What was current before a unit of work began."""

    fork: Any
    isolation_scope: Any
    exchange: Exchange | None


class Exchange:
    """One request (with its ASGI scope) or one local root outside of any request (without). Without
    a repr: it would print requests into frame locals."""

    __slots__ = (
        "__weakref__",
        "_secrets",
        "asgi_scope",
        "awaited",
        "body",
        "cancelled",
        "crashed",
        "current",
        "current_scope",
        "finished",
        "held",
        "logs",
        "policy",
        "previous",
        "profile",
        "root",
        "sent_request",
        "sentry_scope",
        "status_code",
        "stream",
        "told",
        "trail",
    )

    def __init__(
        self,
        sentry_scope: Any,
        *,
        asgi_scope: MutableMapping[str, Any] | None = None,
        root: ReadableSpan | None = None,
        status_code: int | None = None,
        cancelled: bool = False,
        finished: bool = False,
        previous: Previous | None = None,
    ) -> None:
        self.sentry_scope = sentry_scope
        """Sentry's isolation scope: what the application sets on it belongs to this exchange
        only."""
        self.current_scope: Any = None
        self.asgi_scope = asgi_scope
        self.current: SpanContext | None = None
        """The span that errors without one of their own are linked to."""
        self.root = root
        """The local root that holds the work: of several server spans the innermost."""
        self.status_code = status_code
        self.stream = False
        """The response is an event stream."""
        self.cancelled = cancelled
        """The client left before the response was complete."""
        self.crashed = False
        """An exception left the application."""
        self.awaited = False
        """The worker was given a span that is not sent, for the exceptions that it has as text."""
        self.body: Body | None = None
        self.sent_request: Data | None = None
        """A copy of the request as the policy has left it in the transaction, while that is being
        exported."""
        self.policy: Any = None
        """What the transaction has been cleaned with, while it is being exported."""
        self.finished = finished
        self.held: Sequence[Held] = ()
        self.told: deque[tuple[str, str]] | None = None
        """Type and message of the exceptions that have been reported, for those known by text
        only."""
        self.trail: deque[ReadableSpan] | None = None
        """The spans that ended last: breadcrumbs of an error."""
        self.logs: deque[Any] | None = None
        """OTel's log records that came last: breadcrumbs, too."""
        self._secrets: tuple[Any, bool, frozenset[str]] | None = None
        self.profile: Any = None
        """None until `Profiles` has decided about it."""
        self.previous = previous
        """Of a unit of work that is no request: what to restore when its root ends."""

    @property
    def is_request(self) -> bool:
        """Whether an ASGI layer of ours made it."""
        return self.asgi_scope is not None

    @property
    def is_stream(self) -> bool:
        """Whether it may go on for hours: a websocket, or server-sent events."""
        scope = self.asgi_scope
        return self.stream or (scope is not None and scope.get("type") == "websocket")

    @property
    def work(self) -> Exchange:
        """The piece of work that it is part of, by the outermost exchange: that of the request in
        which it began, or of a unit that has not ended."""
        work, previous = self, self.previous
        while previous is not None and previous.exchange is not None:
            outer = previous.exchange
            previous = outer.previous
            if previous is None or not outer.finished:
                work = outer
        return work

    def takes(self, span: ReadableSpan) -> bool:
        """Whether the local root *span* belongs to this exchange and needs none of its own: what a
        request has begun is its own also after it, what follows on another unit of work is not."""
        kind = span.kind
        if kind is SpanKind.SERVER:
            return self.asgi_scope is not None and not self.finished
        return kind is not SpanKind.CONSUMER and not (self.finished and self.asgi_scope is None)

    def is_root(self, span: ReadableSpan) -> bool:
        """Whether *span* is the local root that holds the work."""
        return self.root is not None and self.root.context == span.context

    def has_inner_root(self, span: ReadableSpan) -> bool:
        """Whether *span* is a server span of this request further out than the one that holds its
        work."""
        root = self.root
        if not self.is_request or root is None or span.kind is not SpanKind.SERVER:
            return False
        return is_local_root(span) and root.context != span.context

    def tell(self, text: tuple[str, str]) -> None:
        """An exception of that type and message has been reported."""
        self.told = _with(self.told, text)

    def ended(self, span: ReadableSpan) -> None:
        """A span has ended."""
        trail = self.trail
        if trail is None:
            trail = self.trail = deque(maxlen=MAX_TRAIL)
        trail.append(span)

    def logged(self, record: Any) -> None:
        """A log record has come."""
        self.logs = _with(self.logs, record)

    def freeze(self) -> None:
        """Keep of the ASGI scope what a late span or error needs, and let the rest of the request
        go: applications keep large things in it."""
        scope = self.asgi_scope
        if scope is not None:
            route = route_in(scope)
            kept = {key: scope[key] for key in _KEPT if key in scope}
            kept["headers"] = tuple(kept.get("headers") or ())  # The collector goes over none.
            if route is not None:
                kept[WHOLE_ROUTE] = route
            self.asgi_scope = kept

    def holds(self, error: BaseException) -> bool:
        """Whether the event of *error* waits for the end of this exchange."""
        return any(held.error is error for held in self.held)

    def request(self) -> Data | None:
        """The request as it came, not cleaned."""
        if self.asgi_scope is None:
            return None
        request = to_request(self.asgi_scope)
        return request if self.body is None else {**request, **self.body.facts()}

    def secrets(self, policy: Any) -> frozenset[str]:
        """What *policy* takes out of the request. Found once, as a request may log or fail a lot,
        and again once its body has been read."""
        known, has_body = self._secrets, self.body is not None and self.body.is_read
        if known is None or known[0] is not policy or known[1] != has_body:
            known = self._secrets = policy, has_body, policy.secrets_of(self.request())
        return known[2]

    def facts(self) -> RequestFacts:
        """What a transaction takes from the request."""
        scope: Mapping[str, Any] | None = self.asgi_scope
        if scope is None:
            return RequestFacts()
        return RequestFacts(
            request=self.request(),
            route=route_in(scope),
            path=path_in(scope) or None,
            root_path=root_path_in(scope),
            websocket=scope.get("type") == "websocket",
            stream=self.stream,
            cancelled=self.cancelled,
            crashed=self.crashed,
            status_code=self.status_code,
        )


def _with(latest: deque[T] | None, one: T) -> deque[T]:
    """The latest of its kind, *one* among them. Most exchanges never have any."""
    if latest is None:
        latest = deque(maxlen=MAX_TRAIL)
    latest.append(one)
    return latest


def reset(token: Token[Any]) -> None:
    """Put back what a context variable was. Each context knows only its own tokens: elsewhere
    nothing is changed."""
    try:
        token.var.reset(token)
    except ValueError:
        return


current_exchange: ContextVar[Exchange | None] = ContextVar("otel_sentry_exchange", default=None)
"""The exchange that the running code belongs to."""


def current_secrets(policy: Any) -> frozenset[str]:
    """What *policy* takes out of the request that the running code belongs to."""
    exchange = current_exchange.get()
    return exchange.secrets(policy) if exchange is not None else frozenset()
