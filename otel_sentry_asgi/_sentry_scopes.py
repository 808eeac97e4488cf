"""Sentry's scopes and sessions of requests: the part of the sentry-sdk edge on the request path.

Relied upon (2.75.0): `Scope.fork`, `set_isolation_scope` and `set_current_scope`; the client notes
errors on `Scope._session` (`client.py`, `_update_session_from_event`).
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.trace import SpanContext
from sentry_sdk import scope as sdk_scope
from sentry_sdk.envelope import Envelope
from sentry_sdk.session import Session
from sentry_sdk.tracing_utils import Baggage, PropagationContext
from sentry_sdk.utils import format_timestamp

from otel_sentry_asgi import sentry
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._scope import Exchange, reset
from otel_sentry_asgi._sessions import Key
from otel_sentry_asgi._translate.segment import RequestFacts

try:
    from sentry_sdk.traces import NoOpStreamedSpan
except ImportError:  # Before stream mode.
    NoOpStreamedSpan = None  # type: ignore[assignment,misc]

EventProcessor = Callable[[Any, Any], Any]


class CurrentScope(sdk_scope.Scope):
    """The current scope of a request. A name that comes without a source is the application's:
    sentry-sdk leaves it the source that an integration gave with its name before."""

    __slots__ = ()

    def set_transaction_name(self, name: str, source: str | None = None) -> None:
        """As sentry-sdk has it; the source as text."""
        super().set_transaction_name(name, getattr(source, "value", source) or "custom")


class RequestScopes:
    """Forks of Sentry's isolation and current scope, and a session, for the duration of a request.

    *processor* is the last to see every event of the request, *of* gives its exchange, *client* is
    the one that is active.
    """

    __slots__ = ("_applied", "_before", "_session", "current", "isolation")

    def __init__(self, processor: EventProcessor, of: weakref.ref[Exchange], client: Any) -> None:
        scopes = sdk_scope.Scope
        self._before = before = scopes.get_isolation_scope(), scopes.get_current_scope()
        self.isolation = isolation = before[0].fork()
        self.current = current = before[1].fork()
        isolation.clear_breadcrumbs()
        isolation._propagation_context, current._propagation_context = ScopeTrace(of), None
        if type(current) is scopes:
            current.__class__ = CurrentScope
        current.add_event_processor(processor)
        _forget_name(current)
        self._session = isolation._session = _session(client, isolation)
        self._applied = _silence_sdk(client.options, current)
        # Last: where something fails before, all is as it was.
        scopes.set_isolation_scope(isolation)
        scopes.set_current_scope(current)

    def end(self) -> RequestSession | None:
        """Restore what was in force, where these scopes still are: each context has its own. Gives
        the session, unless the application has ended it."""
        if self._applied is not None:
            reset(self._applied)
        if sdk_scope.Scope.get_current_scope() is self.current:
            sdk_scope.Scope.set_current_scope(self._before[1])
        restore_isolation(self.isolation, self._before[0])
        session, self.isolation._session = self.isolation._session, None
        return self._session if session is self._session else None


class ScopeTrace(PropagationContext):
    """The trace of an exchange, for its isolation scope.

    OTel's context tells of the trace wherever it goes. Sentry's scopes go further: sentry-sdk takes
    them into threads, and asks them for spans of its own, `get_traceparent()` and `get_baggage()`.
    """

    __slots__ = ("_of",)

    def __init__(self, of: weakref.ref[Exchange]) -> None:
        super().__init__()
        self._of = of

    @property
    def trace_id(self) -> str:
        """The trace's id; a random one where OTel knows of none."""
        context = self._context()
        return trace_hex(context.trace_id) if context is not None else super().trace_id

    @trace_id.setter
    def trace_id(self, value: str) -> None:
        self._trace_id = value

    @property
    def span_id(self) -> str:
        """Of the current OTel span, or else of the one that holds the work."""
        context = self._context()
        return span_hex(context.span_id) if context is not None else super().span_id

    @span_id.setter
    def span_id(self, value: str) -> None:
        self._span_id = value

    @property
    def dynamic_sampling_context(self) -> dict[str, Any] | None:
        """As it is known now; where OTel knows of no trace, as sentry-sdk has it."""
        from otel_sentry_asgi._active import active
        from otel_sentry_asgi._deciding import context_of

        context, bridge = self._context(), active()
        if context is not None and bridge is not None:
            with contained("trace of a scope"):
                policy = sentry.policy(bridge.settings)
                return context_of(bridge.decisions, context.trace_id, self._of(), policy)
        return getattr(super(), "dynamic_sampling_context", None)

    @dynamic_sampling_context.setter
    def dynamic_sampling_context(self, value: Any) -> None:
        """Older versions of sentry-sdk begin with none."""

    def to_traceparent(self) -> str:
        """The header `sentry-trace`."""
        outgoing = self._outgoing()
        return f"{self.trace_id}-{self.span_id}" if outgoing is None else outgoing[0]

    def get_baggage(self) -> Baggage:
        """Sentry's part of the header `baggage`."""
        outgoing = self._outgoing()
        if outgoing is None:
            return super().get_baggage()
        return Baggage(dict(outgoing[1]), mutable=False)

    def _outgoing(self) -> tuple[str, Mapping[str, str]] | None:
        from otel_sentry_asgi.propagator import outgoing

        context = self._context()
        if context is not None:
            with contained("trace of a scope"):
                return outgoing(context, None)
        return None

    def _context(self) -> SpanContext | None:
        current = trace.get_current_span().get_span_context()
        if current.is_valid and not current.is_remote:
            return current
        exchange = self._of()
        return exchange.current if exchange is not None else None


class RequestSession(Session):
    """What the client notes errors on. Of all that sentry-sdk's own holds only this is counted."""

    status = "ok"
    errors = 0
    user_agent = did = ip_address = None
    session_mode = "request"
    client: weakref.ref[Any] | None = None
    """The one that it is for, unless that is the global one."""

    def __init__(self, release: str, environment: str) -> None:
        self.release = release
        self.environment = environment
        self.minute = int(time.time()) // 60

    @property
    def started(self) -> datetime:  # type: ignore[override]
        """For sentry-sdk, which counts it if the application ends it."""
        return _minute(self.minute)

    @property
    def key(self) -> Key:
        """Under which it is counted."""
        return self.release or "", self.environment or "", self.minute, self.client

    @property
    def how(self) -> str:
        """How the request ended, in the words of the protocol."""
        if self.status in ("crashed", "abnormal"):
            return self.status
        return "errored" if self.errors else "exited"


def _session(client: Any, isolation_scope: Any) -> RequestSession | None:
    """A session, if the client wants them; without a release it sends none."""
    given = client.options
    wanted = getattr(isolation_scope, "_force_auto_session_tracking", None)
    if wanted is None:
        wanted = given.get("auto_session_tracking", False)
    release = given.get("release")
    if not wanted or not release:
        return None
    session = RequestSession(str(release), str(given.get("environment") or ""))
    if client is not sentry.global_client():
        session.client = weakref.ref(client)
    return session


def _minute(number: int) -> datetime:
    return datetime.fromtimestamp(number * 60, timezone.utc)


def send_sessions(counts: Mapping[Key, Mapping[str, int]]) -> None:
    """Give the counts to the transport of their client, if that is still there, one item for a
    release and environment."""
    clients: dict[Any, dict[tuple[str, str], list[Data]]] = {}
    for (release, environment, minute, of), how in counts.items():
        client = sentry.global_client() if of is None else of()
        aggregate = {"started": format_timestamp(_minute(minute)), **how}
        items = clients.setdefault(client, {})
        items.setdefault((release, environment), []).append(aggregate)
    for client, items in clients.items():
        with contained("sessions"):
            _send_items(client, items)


def _send_items(client: Any, items: Mapping[tuple[str, str], list[Data]]) -> None:
    transport = getattr(client, "transport", None)
    if transport is None:
        return
    envelope = Envelope()
    for (release, environment), aggregates in items.items():
        attributes = {"release": release, "environment": environment}
        known = {name: value for name, value in attributes.items() if value}
        envelope.add_sessions({"attrs": known, "aggregates": aggregates})
    transport.capture_envelope(envelope)


def tell_trace(isolation_scope: Any, exchange: Exchange) -> None:
    """Have a scope know of the trace of its *exchange*."""
    isolation_scope._propagation_context = ScopeTrace(weakref.ref(exchange))


@contextmanager
def in_force(exchange: Exchange) -> Iterator[None]:
    """A block in which the scopes of *exchange* are current, as far as it has any."""
    with ExitStack() as stack:
        if exchange.sentry_scope is not None:
            stack.enter_context(sdk_scope.use_isolation_scope(exchange.sentry_scope))
        if exchange.current_scope is not None:
            stack.enter_context(sdk_scope.use_scope(exchange.current_scope))
        yield


def client_of(exchange: Exchange | None) -> AbstractContextManager[object]:
    """`in_force` where one of the scopes has a client of its own, so that this is the active one.
    Most have none: there the block changes nothing and costs next to nothing."""
    if exchange is not None:
        for sentry_scope in (exchange.current_scope, exchange.sentry_scope):
            if sentry_scope is not None and sentry_scope.client.is_active():
                return in_force(exchange)
    return _AS_IT_IS


_AS_IT_IS = nullcontext()


def fork_isolation() -> tuple[Any, Any]:
    """Make a fork of the isolation scope the current one; gives the fork and what was before."""
    before = sentry_sdk.get_isolation_scope()
    forked = before.fork()
    sdk_scope.Scope.set_isolation_scope(forked)
    return forked, before


def restore_isolation(forked: Any, before: Any) -> None:
    """Undo `fork_isolation` where it is still in force."""
    if sdk_scope.Scope.get_isolation_scope() is forked:
        sdk_scope.Scope.set_isolation_scope(before)


def name_set_by_hand(current_scope: Any) -> str | None:
    """The transaction name that the application, not an integration, set on a request's scope.

    Integrations say where their name comes from (`route`, `url`, `component`), `CurrentScope` says
    `custom` of what comes without, and a transaction of sentry-sdk's own leaves its name behind,
    with its source as sentry-sdk's enumeration has it.
    """
    name, source = _named(current_scope)
    is_by_hand = source is None or (type(source) is str and source == "custom")
    return name if name and is_by_hand else None


def route_by_integration(current_scope: Any) -> str | None:
    """The template that one of sentry-sdk's integrations has put on a request's scope: Django's
    stands nowhere else."""
    name, source = _named(current_scope)
    is_route = type(source) is str and source == "route"
    return name if is_route and name is not None and name.startswith("/") else None


def _named(current_scope: Any) -> tuple[str | None, object]:
    """The transaction name on a scope, and its source. sentry-sdk has a setter for the name only,
    so the attributes behind it are read."""
    name = getattr(current_scope, "_transaction", None)
    source = (getattr(current_scope, "_transaction_info", None) or {}).get("source")
    return name if isinstance(name, str) else None, source


def facts_of(exchange: Exchange) -> RequestFacts:
    """What a transaction takes from the request, with the route from wherever it is known."""
    facts = exchange.facts()
    if facts.route is not None or not exchange.is_request:
        return facts
    return facts._replace(route=route_by_integration(exchange.current_scope))


def mark_crashed(isolation_scope: Any) -> None:
    """Say of a request's session that it crashed, where the exception has been reported before."""
    session = getattr(isolation_scope, "_session", None)
    if session is not None:
        session.update(status="crashed", errors=max(1, session.errors))


_applied: ContextVar[bool] | None = None


def _applied_flag() -> ContextVar[bool] | None:
    """The mark by which sentry-sdk's ASGI middleware knows that it is already at work further
    out, as soon as there is one."""
    global _applied
    if _applied is None:
        module = sys.modules.get("sentry_sdk.integrations.asgi")
        flag = getattr(module, "_asgi_middleware_applied", None)
        _applied = flag if isinstance(flag, ContextVar) else None
    return _applied


def _forget_name(current_scope: Any) -> None:
    """A name from outside of the request, of a transaction of the application's own, say, is none
    of the request's."""
    if getattr(current_scope, "_transaction", None) is not None:
        current_scope._transaction = None
        current_scope._transaction_info = {}


def _silence_sdk(given: Mapping[str, Any], current_scope: Any) -> Any:
    """Keep sentry-sdk's ASGI layer from starting a transaction of its own for this request.

    Inside of ours it takes itself for nested. Outside of ours its transaction has begun, and is
    marked as not sampled, so that neither it nor its spans are sent. A span from outside of the
    request is of another trace. In stream mode integrations that find no current span begin a
    segment, so there is one that does nothing.
    """
    flag = _applied_flag()
    if flag is not None and flag.get(False):
        transaction = current_scope.transaction
        if transaction is not None and getattr(transaction, "sampled", None):
            transaction.sampled = False
    current_scope.span = None
    if NoOpStreamedSpan is not None and given.get("trace_lifecycle") == "stream":
        current_scope.streamed_span = NoOpStreamedSpan()
    return flag.set(True) if flag is not None else None
