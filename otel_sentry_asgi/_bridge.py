"""The bridge: what processor, middleware and instrumentor have in common.

There is one for a process, because there is one Sentry client. Methods that run on the request path
may raise: their callers in the edges hold the guard.
"""

from __future__ import annotations

import atexit
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.trace import SpanContext, SpanKind

from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi import sentry
from otel_sentry_asgi._assembly import MAX_ROOTS
from otel_sentry_asgi._deciding import decide_trace
from otel_sentry_asgi._events import Events
from otel_sentry_asgi._gathering import Tree
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._issues import Issues
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._pipeline import Pipeline
from otel_sentry_asgi._profiles import Profiles, stop
from otel_sentry_asgi._provider import Flush
from otel_sentry_asgi._received import received_in
from otel_sentry_asgi._scope import Exchange, Previous, current_exchange
from otel_sentry_asgi._semconv import Attributes
from otel_sentry_asgi._sessions import Sessions
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.op import to_op
from otel_sentry_asgi._translate.reading import Reading
from otel_sentry_asgi._translate.segment import NO_REQUEST, transaction_name
from otel_sentry_asgi._translate.span import is_asgi_event, is_local_root
from otel_sentry_asgi.export import Exporter
from otel_sentry_asgi.sampling import Decisions, Known

logger = logging.getLogger("otel_sentry_asgi")

ONE_EXIT = 10.0
"""Seconds between two closings that belong to one end of the process."""


class Bridge:
    """Exchanges and sampling decisions; owns the pipeline and the issues of the process."""

    def __init__(
        self,
        settings: Settings,
        exporter: Exporter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        self.provider: Any = None
        """The tracer provider that was joined; without one, it is the global one."""
        self._exporter = exporter
        self.decisions = Decisions()
        self._units: OrderedDict[tuple[int, int], Exchange] = OrderedDict()
        """What `_begin_unit` made, by the ids of its root."""
        self._ledger = Ledger(clock)
        self.sessions = Sessions(clock, sentry_scopes.send_sessions)
        self.issues = Issues(settings, self.stats, self._ledger, clock)
        self.events = Events(settings, self.stats, self._ledger, self.decisions, self.issues)
        self.profiles = Profiles(self.stats)
        self.pipeline = Pipeline(
            settings,
            exporter,
            self.stats,
            self.decisions,
            self.profiles,
            tell=self.issues.told,
            tidy=self._tidy,
            clock=clock,
        )
        self.links = sentry.Links(self.events.process, self.events.clean, current_ids)
        self._ledger.on_kept = self.sessions.on_first = self.pipeline.wake
        self._warned = False
        self._at_exit = False
        self._in_children = False
        self._closed_at = -ONE_EXIT
        self._waited = 0.0

    def counts(self) -> dict[str, int]:
        """What has been sent and lost, by name, also after the exporter took it."""
        return self.stats.snapshot(getattr(self._exporter, "lost", None))

    def is_ready(self) -> bool:
        """Whether there is a Sentry client that sends; if not, says why in the log, once."""
        return self.client() is not None

    def client(self) -> Any | None:
        """The Sentry client that sends; if there is none, says why in the log, once."""
        client = sentry.ready_client()
        if client is None:
            if not self._warned:
                self._warned = True
                logger.warning("nothing is sent to Sentry: %s", sentry.why_inert())
        elif not self._at_exit:
            self._join_process()
        return client

    def started(self, span: Span, otel_context: Context | None = None) -> None:
        """A local root has started: find or make its exchange, decide, tell the worker."""
        exchange = current_exchange.get()
        if exchange is None or exchange.asgi_scope is None:
            client = self.client()
            if client is None:
                return
        else:  # Of a request that has begun it is known that the client sends.
            client = sentry.active_client()
        context = span.get_span_context()
        if exchange is None or not exchange.takes(span):
            exchange = self._begin_unit(span, exchange)
        if exchange.root is None or span.kind is SpanKind.SERVER:
            exchange.root, exchange.current = span, context
        if not context.trace_flags.sampled:
            return
        facts = partial(_facts, span, exchange)
        decision = self.decisions.get(context.trace_id)
        if decision is None:
            came = received_in(otel_context, context.trace_id) if span.parent is not None else None
            decision = decide_trace(self.decisions, context, came, facts, client)
        if decision.sampled or self._may_keep(decision.sample_rate):
            self.pipeline.started(context, exchange)
        elif decision.reason is not None:
            self.pipeline.unsampled_root(decision.reason)
        if decision.sampled:
            self.profiles.started(span, exchange, facts, client.options)

    def ended(self, span: ReadableSpan) -> None:
        """A span has ended: hand it to the worker.

        Of OTel's spans of single messages nobody is told. (Exceptions on them are seen alive.)
        Known here, three spans of each request are not kept until it is sent. Nor are those without
        a decision while no client sends: it is asked for only there.
        """
        if self.settings.keep_asgi_spans or not is_asgi_event(span):
            exchange = current_exchange.get()
            known = self.decisions.known(span.context.trace_id)
            if known is None and not sentry.is_ready():
                pass  # It would go to nobody.
            elif known is None or self._may_be_sent(known):
                if self.profiles.on:
                    self.profiles.span_ended(span, exchange)
                self.pipeline.ended(span, exchange, wake=exchange is None or is_local_root(span))
            else:
                self.pipeline.unsampled(span, exchange, known[3])
            if exchange is not None:
                exchange.ended(span)
        if self._units and is_local_root(span):
            self._unit_ended(span)

    def finished(self, exchange: Exchange) -> None:
        """A request has ended. Of one that is not sent nobody asks for the spans any more, and a
        server may hold its context, and so the exchange, for as long as a connection lasts."""
        current = exchange.current
        known = self.decisions.known(current.trace_id) if current is not None else None
        if known is not None and not exchange.awaited and not self._may_be_sent(known):
            exchange.trail = None

    def _may_be_sent(self, known: Known) -> bool:
        """Whether the segments of a trace with that decision go to the worker."""
        return known[0] or (self.settings.keep_failed and known[1] is not None)

    def _unit_ended(self, root: ReadableSpan) -> None:
        """A local root has ended that may be a unit of work outside of requests."""
        unit = self._units.pop((root.context.trace_id, root.context.span_id), None)
        if unit is not None and unit.previous is not None:
            self.issues.finished(unit)
            if unit.profile is not None:
                stop(unit)
            # Shortened for those that end later: with many that overlap each would look at all.
            unit.previous = _without_finished(unit.previous)
            self.leave(unit, unit.previous)

    def exported(self, tree: Tree) -> None:
        """Spans that no processor of ours has seen: what happens at their start happens now."""
        root = tree.root
        exchange = Exchange(None, root=root) if root is not None else None
        for span in [root, *tree.spans] if root is not None else tree.spans:
            if is_asgi_event(span) and not self.settings.keep_asgi_spans:
                continue
            decision = self.decisions.get(span.context.trace_id)
            if decision is None and exchange is not None:
                facts = partial(_facts, span, exchange)
                client = sentry.active_client()
                decision = decide_trace(self.decisions, span.context, None, facts, client)
            if decision is None or decision.sampled or self._may_keep(decision.sample_rate):
                self.pipeline.ended(span, exchange, wake=True)
            else:
                if span is root and decision.reason is not None:
                    self.pipeline.unsampled_root(decision.reason)
                self.pipeline.unsampled(span, exchange, decision.reason)

    def _may_keep(self, sample_rate: float | None) -> bool:
        """Whether a trace that its rate leaves out is kept if something fails in it."""
        return self.settings.keep_failed and sample_rate is not None

    def leave(self, exchange: Exchange, previous: Previous) -> None:
        """Restore what was current before a unit of work, where its context is still in force."""
        previous = _without_finished(previous)
        sentry_scopes.restore_isolation(previous.fork, previous.isolation_scope)
        if current_exchange.get() is exchange:
            current_exchange.set(previous.exchange)

    def _tidy(self, now: float, flush: bool) -> float | None:
        """What is to be done from time to time; when it is due again."""
        times = (self._ledger.expire(now), self.sessions.flush(None if flush else now))
        return min((at for at in times if at is not None), default=None)

    def close(self) -> bool:
        """Send everything that has ended, within the client's own `shutdown_timeout`.

        A process that ends closes more than once: the lifespan, exit handlers, the provider. All
        together have that time once, or a Sentry that does not answer would hold it up each time.
        """
        with contained("held issues"):
            self.issues.release_all()
        begun = time.monotonic()
        if begun - self._closed_at > ONE_EXIT:
            self._waited = 0.0
        done = self.pipeline.shutdown(max(0.0, sentry.shutdown_timeout() - self._waited))
        self._closed_at = time.monotonic()
        self._waited = 0.0 if done else self._waited + self._closed_at - begun
        return done

    def end(self) -> None:
        """The application's lifespan is over: `close`, and flush the tracer provider if asked to,
        both within the client's `shutdown_timeout`."""
        until = time.monotonic() + sentry.shutdown_timeout()
        flush = Flush(self.provider, until) if self.settings.flush_provider else None
        self.close()
        if flush is not None:
            flush.wait()

    def retire(self) -> None:
        """Send what has ended and leave nothing behind."""
        atexit.unregister(self._exit)
        self.profiles.stop_all()
        with contained("units of work"):
            for unit in list(self._units.values()):  # Nobody sees them end any more.
                self.issues.finished(unit)
            self._units.clear()
        self.close()
        with contained("exporter"):
            self._exporter.shutdown()
        self._ledger.clear()

    def begin_in_child(self) -> None:
        """After a fork: begin with nothing."""
        if self._at_exit:
            self._flush_in_children()
        with contained("fork"):
            sentry.begin_in_child()
        self.stats.clear()
        self.decisions.clear()
        self._units.clear()
        self.sessions.clear()
        self.pipeline.reset()
        self.profiles.begin_in_child()
        self.issues.begin_in_child()
        self._ledger.clear()

    def _begin_unit(self, span: Span, outer: Exchange | None) -> Exchange:
        """An exchange for a local root outside of any request, with an isolation scope of its
        own."""
        if outer is not None and outer.previous is not None:
            outer.previous = _without_finished(outer.previous)
            if outer.finished:  # Elsewhere, so here it is in force still.
                self.leave(outer, outer.previous)
                outer = current_exchange.get()
        forked, before = sentry_scopes.fork_isolation()
        exchange = Exchange(forked, root=span, previous=Previous(forked, before, outer))
        sentry_scopes.tell_trace(forked, exchange)
        current_exchange.set(exchange)
        context = span.get_span_context()
        self._units[context.trace_id, context.span_id] = exchange
        if len(self._units) > MAX_ROOTS:
            self._units.popitem(last=False)
        return exchange

    def _join_process(self) -> None:
        """With a client that sends: exit handlers, which run before that of a client made before
        because they are registered later, and the watch over chunks of profiles."""
        self._at_exit = True
        atexit.register(self._exit)
        self._flush_in_children()
        self.profiles.watch()

    def _flush_in_children(self) -> None:
        """Children that multiprocessing forks end without exit handlers, but for its own. It clears
        those that are registered before it begins with a child."""
        if "multiprocessing.util" in sys.modules and not self._in_children:
            from multiprocessing import parent_process, util

            self._in_children = True
            util.register_after_fork(self, _flush_in_child)
            if parent_process() is not None:
                _flush_in_child(self)

    def _exit(self) -> None:
        with contained("exit"):
            if not self.close():
                sentry.shorten_exit(self._waited)


def _flush_in_child(bridge: Bridge) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, bridge._exit, exitpriority=0)


def _without_finished(previous: Previous) -> Previous:
    """What was current before those units that have ended meanwhile: roots that overlap in one
    context end in any order."""
    outer = previous.exchange
    while outer is not None and outer.finished and outer.previous is not None:
        before = outer.previous
        previous = Previous(previous.fork, before.isolation_scope, before.exchange)
        outer = previous.exchange
    return previous


def current_ids() -> tuple[str, str] | None:
    """Trace and span id of the current OTel span, as hexadecimal text."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace_hex(context.trace_id), span_hex(context.span_id)


def _facts(span: ReadableSpan, exchange: Exchange) -> Data:
    attributes = span.attributes or {}
    return start_facts(span.context, span.parent, span.name, span.kind, attributes, exchange)


def start_facts(
    context: SpanContext,
    parent: SpanContext | None,
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    exchange: Exchange | None = None,
) -> Data:
    """What `traces_sampler` is told of a local root that starts, in the form that sentry-sdk gives
    it: named as its transaction will be, as far as that is known then."""
    span = ReadableSpan(name, context, kind=kind, attributes=attributes)
    facts = exchange.facts() if exchange is not None else NO_REQUEST
    name, source = transaction_name(span, facts=facts)
    websocket = facts.websocket and kind is SpanKind.SERVER
    has_parent = parent is not None and parent.is_valid
    return {
        "transaction_context": {
            "trace_id": trace_hex(context.trace_id),
            "span_id": span_hex(context.span_id) if context.span_id else None,
            "parent_span_id": span_hex(parent.span_id) if parent and has_parent else None,
            "name": name,
            "description": name,
            "source": source,
            "op": to_op(Reading(span, websocket=websocket)),
            "start_timestamp": None,
            "timestamp": None,
            "sampled": None,
            "data": dict(attributes),
        },
        "parent_sampled": bool(parent.trace_flags.sampled) if parent and has_parent else None,
        "parent_sample_rate": None,
        "asgi_scope": exchange.asgi_scope if exchange is not None else None,
        "attributes": dict(attributes),
    }
