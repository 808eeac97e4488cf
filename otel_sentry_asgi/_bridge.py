"""The bridge: what processor, middleware and instrumentor have in common.

There is one for a process, because there is one Sentry client. Methods that run on the request
path never raise: their callers in the edges hold the guard.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
import uuid
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.trace import SpanContext, SpanKind

from otel_sentry_asgi import sentry
from otel_sentry_asgi._assembly import Assembler, Segment, is_local_root
from otel_sentry_asgi._dsc import sampling_context
from otel_sentry_asgi._errors import current_task, is_error, is_response, left_task
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._scope import Exchange, Held, Previous, current_exchange
from otel_sentry_asgi._semconv import FULL_URL, first_text
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.naming import to_op, to_server_name
from otel_sentry_asgi._translate.segment import (
    resource_defaults,
    to_transaction,
    transaction_name,
)
from otel_sentry_asgi._translate.span import is_asgi_event
from otel_sentry_asgi._worker import Item, Worker
from otel_sentry_asgi.export import Exporter, Origin
from otel_sentry_asgi.sampling import Decision, decide

logger = logging.getLogger("otel_sentry_asgi")

HINT = "otel_sentry_asgi"
"""Marks the hint of an event of ours; its value is the span context the event belongs to."""

SERVER_LOGGERS = frozenset(
    {"uvicorn.error", "hypercorn.error", "gunicorn.error", "daphne.server", "_granian"}
)

_STARTED = 0
_ENDED = 1


class Bridge:
    """Settings, exporter, ledger, assembler and worker of a process."""

    def __init__(
        self,
        settings: Settings,
        exporter: Exporter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.exporter = exporter
        self.stats = Stats()
        self.ledger = Ledger(clock)
        self.links = sentry.Links(self.process_event, current_ids)
        self._clock = clock
        self._assembler = Assembler(settings, self._lost_spans)
        self._closing = False
        self._lifespan_failed = False
        self._warned = False
        self._at_exit = False
        self._worker = Worker(self._turn, max_queue=settings.max_queue)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _begin_in_child(reference))

    # -- the request path ---------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether there is a Sentry client that sends; if not, says why in the log, once."""
        if sentry.is_ready():
            return True
        if not self._warned:
            self._warned = True
            logger.warning("nothing is sent to Sentry: %s", sentry.why_inert())
        return False

    def started(self, span: Span) -> None:
        """A local root has started: find or make its exchange, decide, tell the worker."""
        if not self.is_ready():
            return
        context = span.get_span_context()
        exchange = current_exchange.get()
        if exchange is None or not exchange.takes(span):
            exchange = self._begin_unit(span, exchange)
        if exchange.root is None or span.kind is SpanKind.SERVER:
            exchange.root, exchange.current = span, context
        if not context.trace_flags.sampled:
            return
        decision = exchange.decisions.get(context.trace_id)
        if decision is None:
            decision = exchange.decisions[context.trace_id] = self._decide(span, exchange)
        if decision.sampled:
            self._at_exit_once()
            self._worker.put((_STARTED, context, exchange), wake=False)

    def ended(self, span: ReadableSpan) -> None:
        """A span has ended: hand it to the worker."""
        context = span.context
        exchange = current_exchange.get()
        is_root = is_local_root(span)
        if context.trace_flags.sampled:
            decision = exchange.decisions.get(context.trace_id) if exchange is not None else None
            if decision is None or decision.sampled:
                item = (_ENDED, span, exchange)
                if not self._worker.put(item, wake=is_root or decision is None):
                    self._lost_spans("queue_overflow", 1)
            elif decision.sample_rate is not None:
                self._unsampled(is_root)
        if is_root and exchange is not None and exchange.previous is not None:
            self._end_unit(span, exchange)

    def recorded(self, span: Span, error: BaseException, *, on_purpose: bool) -> None:
        """An exception has been recorded on a span, by the application or because it left it."""
        context = span.get_span_context()
        exchange = current_exchange.get()
        if on_purpose or exchange is None or not _is_outer(span, exchange):
            self.ledger.note(error, context)
        if not is_error(error) or not self.is_ready():
            return
        if not on_purpose:
            self._passed(span, error, exchange)
        elif self.settings.errors != "unhandled" and not is_response(error):
            self._hold(error, exchange, context)

    def crashed(self, error: BaseException, exchange: Exchange, mechanism: str) -> None:
        """An exception leaves the application: one unhandled error, if nobody has reported it.

        What is no error is claimed all the same: the server is about to log it as one.
        """
        if self.ledger.claim(error) and is_error(error):
            exchange.held = [held for held in exchange.held if held.error is not error]
            self._capture(error, exchange, mechanism=mechanism, handled=False)

    def finished(self, exchange: Exchange) -> None:
        """The exchange's own work is over: what was recorded and never left is an issue now."""
        exchange.finished = True
        held, exchange.held = exchange.held, []
        for one in held:
            if self.ledger.claim(one.error):
                sentry.capture(one.event, one.hint)
                self.stats.add("errors")

    def leave(self, exchange: Exchange, previous: Previous) -> None:
        """Restore what was current before a unit of work, where its context is still in force."""
        sentry.restore_isolation(previous.fork, previous.isolation_scope)
        if current_exchange.get() is exchange:
            current_exchange.set(previous.exchange)

    def lifespan_fails(self) -> None:
        """Start-up or shutdown is about to fail: what servers log of it is no further issue."""
        self._lifespan_failed = True

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        """Start-up or shutdown of the application failed, with an exception or with a message
        only."""
        self.lifespan_fails()
        if error is None:
            sentry.capture({"level": "error", "message": message}, {HINT: None})
            self.stats.add("errors")
        elif self.ledger.claim(error):
            self._capture(error, None, mechanism=mechanism, handled=False)

    # -- events of the application ------------------------------------------------------------

    def process_event(self, event: Any, hint: Data) -> Any:
        """The global event processor: one exception once, every event linked to its trace."""
        if event.get("type"):
            return event
        with contained("event processor"):
            own = HINT in hint
            error = (hint.get("exc_info") or (None, None, None))[1]
            if not own and self._is_known(event, error):
                self.stats.add("duplicate_errors")
                return None
            exchange = current_exchange.get()
            context = hint.get(HINT) or self._span_of(error, exchange)
            if context is not None:
                self._link(event, context, exchange)
            if exchange is None or not exchange.is_request:
                sentry.mark_in_app(event)
                self.policy().clean_error(event)
            if exchange is not None and exchange.root is not None:
                sentry.fill_defaults(event, resource_defaults(exchange.root.resource))
        return event

    def finish_event(self, exchange: Exchange, event: Any, _hint: Data) -> Any:
        """The last event processor of a request: its request, its name, and the policy."""
        with contained("event processor"):
            policy = self.policy()
            if event.get("type") == "transaction" and event.get("request"):
                # It was clean, but processors of integrations add cookies and bodies.
                event["request"] = policy.request(event["request"])
            if event.get("type"):
                return event
            request = exchange.request()
            if request is not None:
                event["request"] = {**(event.get("request") or {}), **request}
            self._name(event, exchange)
            sentry.mark_in_app(event)
            policy.clean_error(event, policy.secrets_of(request))
        return event

    def policy(self) -> Policy:
        """The policy of the client that is active now, with our further terms."""
        return sentry.policy(self.settings.sensitive_terms)

    # -- the worker ---------------------------------------------------------------------------

    def force_flush(self, timeout: float) -> bool:
        """Send every segment whose root has ended, within *timeout* seconds; False if not all
        went."""
        until = self._clock() + timeout
        flushed = self._worker.flush(timeout)
        return self._flush_exporter(until) and flushed

    def close(self) -> bool:
        """`shutdown` within the client's own `shutdown_timeout`."""
        return self.shutdown(sentry.shutdown_timeout())

    def shutdown(self, timeout: float) -> bool:
        """Send everything that has ended, also below roots that have not. Closes nothing of
        others."""
        self._closing = True
        try:
            until = self._clock() + timeout
            stopped = self._worker.stop(timeout)
            return self._flush_exporter(until) and stopped
        finally:
            self._closing = False

    def _flush_exporter(self, until: float) -> bool:
        with contained("exporter"):
            return self.exporter.force_flush(max(0.0, until - self._clock()))
        return False

    def _turn(self, items: list[Item], flush: bool) -> float | None:
        token = otel_context.attach(_suppressed())
        try:
            now = self._clock()
            for item in items:
                kind, subject, exchange = item
                if kind == _STARTED:
                    self._assembler.started(subject, exchange, now)
                elif self.settings.keep_asgi_spans or not is_asgi_event(subject):
                    self._assembler.ended(subject, exchange, now)
            segments = (
                self._assembler.flush(everything=self._closing)
                if flush
                else self._assembler.due(now)
            )
            for segment in segments:
                with contained("export"):
                    self._send(segment)
                time.sleep(0)
            times = (self._assembler.next_due(), self.ledger.expire(now))
            return min((at for at in times if at is not None), default=None)
        finally:
            otel_context.detach(token)

    def _send(self, segment: Segment) -> None:
        root, exchange = segment.root, segment.exchange
        decision = self._decision_of(segment)
        if not decision.sampled:
            if decision.sample_rate is not None:
                self._lost_transaction("sample_rate", len(segment.children))
            return
        if self._is_upload(root) or self._is_superseded(segment):
            return
        children = segment.children
        facts = exchange.facts() if exchange is not None and not segment.late else None
        transaction = to_transaction(
            root,
            children,
            event_id=uuid.uuid4().hex,
            **({"facts": facts} if facts is not None else {}),
            sampling_context=sampling_context(root.context.trace_id, sentry.facts(), decision),
            late=segment.late,
            dropped=segment.dropped,
        )
        if exchange is not None and not segment.late:
            by_hand = sentry.name_set_by_hand(exchange.current_scope)
            if by_hand is not None:
                transaction["transaction"] = by_hand
                transaction["transaction_info"] = {"source": "custom"}
        sentry.fill_defaults(transaction, resource_defaults(root.resource))
        scopes = (exchange.sentry_scope, exchange.current_scope) if exchange else (None, None)
        try:
            self.exporter.export(self.policy().clean(transaction), Origin(*scopes))
        except BaseException:
            self._lost_transaction("internal_sdk_error", len(children))
            raise
        self.stats.add("transactions")
        self.stats.add("spans", len(children) + 1)
        if segment.dropped:
            self.stats.add("lost.buffer_overflow", segment.dropped)

    def _is_upload(self, span: ReadableSpan) -> bool:
        """Whether the span is an upload to Sentry itself."""
        if span.kind is not SpanKind.CLIENT:
            return False
        url, prefix = first_text(span.attributes or {}, FULL_URL), sentry.upload_prefix()
        return bool(url and prefix and url.startswith(prefix))

    def _is_superseded(self, segment: Segment) -> bool:
        """Whether the request has a server span further in and nothing but ASGI events hangs
        here."""
        exchange = segment.exchange
        if segment.late or exchange is None or not _is_outer(segment.root, exchange):
            return False
        superseded = all(is_asgi_event(span) for span in segment.children)
        if superseded:
            self.stats.add("superseded")
        return superseded

    # -- details ------------------------------------------------------------------------------

    def _begin_unit(self, span: Span, outer: Exchange | None) -> Exchange:
        """An exchange for a local root outside of any request, with an isolation scope of its
        own."""
        forked, before = sentry.fork_isolation()
        exchange = Exchange(forked, root=span, previous=Previous(forked, before, outer))
        current_exchange.set(exchange)
        return exchange

    def _end_unit(self, span: ReadableSpan, exchange: Exchange) -> None:
        if exchange.root is None or exchange.root.context.span_id != span.context.span_id:
            return
        self.finished(exchange)
        previous, exchange.previous = exchange.previous, None
        if previous is not None:
            self.leave(exchange, previous)

    def _decide(self, span: Span, exchange: Exchange) -> Decision:
        rate, sampler = sentry.tracing()
        trace_id = span.get_span_context().trace_id
        with contained("traces_sampler"):
            return decide(
                trace_id,
                rate=rate,
                sampler=sampler,
                sampling_context=partial(_sampling_context, span, exchange),
            )
        return Decision(sampled=False, sample_rate=0.0, sample_rand=0.0)

    def _decision_of(self, segment: Segment) -> Decision:
        """The decision made at the start; for a span without any, what the trace id gives."""
        exchange, trace_id = segment.exchange, segment.root.context.trace_id
        if exchange is not None and trace_id in exchange.decisions:
            return exchange.decisions[trace_id]
        rate, sampler = sentry.tracing()
        if sampler is not None:
            rate = 1.0
        return decide(trace_id, rate=rate, sampler=None, sampling_context=dict)

    def _unsampled(self, is_root: bool) -> None:
        self.stats.add("lost.sample_rate")
        if is_root:
            sentry.record_lost("sample_rate", "transaction", 1)
        sentry.record_lost("sample_rate", "span", 1)

    def _passed(self, span: Span, error: BaseException, exchange: Exchange | None) -> None:
        """An exception left a span by itself. Only further out it shows whether it is dealt
        with."""
        if exchange is None or not exchange.is_request:
            if is_local_root(span) and self.ledger.claim(error):
                self._capture(error, exchange, mechanism="auto.function.otel", handled=False)
            elif self.settings.errors == "all" and not is_local_root(span):
                self._hold(error, exchange, span.get_span_context())
            return
        if exchange.finished:
            task = current_task()
            if task is not None:
                task.add_done_callback(partial(self._task_done, error, exchange))
        elif self.settings.errors == "all" and not is_response(error):
            self._hold(error, exchange, span.get_span_context())

    def _task_done(self, error: BaseException, exchange: Exchange, task: Any) -> None:
        """A task that outlived its request has ended: with *error*, or it dealt with it."""
        with contained("task"):
            if left_task(task, error) and self.ledger.claim(error):
                self._capture(error, exchange, mechanism="auto.function.asyncio", handled=False)

    def _hold(self, error: BaseException, exchange: Exchange | None, context: SpanContext) -> None:
        """Build the event now, while frames and scope are what they are; send it when it is
        known that the exception went no further."""
        if exchange is None or exchange.finished:
            if self.ledger.claim(error):
                self._capture(error, exchange, mechanism="auto.function.otel", handled=True)
            return
        if self.ledger.is_reported(error) or any(held.error is error for held in exchange.held):
            return
        event, hint = sentry.to_error(error, mechanism="auto.function.otel", handled=True)
        event["timestamp"] = time.time()
        exchange.held.append(Held(error, event, {**hint, HINT: context}))

    def _capture(
        self, error: BaseException, exchange: Exchange | None, *, mechanism: str, handled: bool
    ) -> None:
        event, hint = sentry.to_error(error, mechanism=mechanism, handled=handled)
        hint[HINT] = self._span_of(error, exchange)
        inside = exchange is None or current_exchange.get() is exchange
        scopes = None if inside or exchange is None else _scopes_of(exchange)
        sentry.capture(event, hint, scopes)
        self.stats.add("errors")

    def _is_known(self, event: Any, error: BaseException | None) -> bool:
        """Whether the event tells of an exception or a failed lifespan that has its own event."""
        if error is not None:
            return not self.ledger.claim(error)
        return self._lifespan_failed and event.get("logger") in SERVER_LOGGERS

    def _span_of(
        self, error: BaseException | None, exchange: Exchange | None
    ) -> SpanContext | None:
        """The span that recorded *error* first, else the current one, else that of the exchange."""
        recorded = self.ledger.span_of(error) if error is not None else None
        if recorded is not None:
            return recorded
        current = trace.get_current_span().get_span_context()
        if current.is_valid and not current.is_remote:
            return current
        return exchange.current if exchange is not None else None

    def _link(self, event: Any, context: SpanContext, exchange: Exchange | None) -> None:
        linked: Data = {
            "trace_id": trace_hex(context.trace_id),
            "span_id": span_hex(context.span_id),
        }
        root = exchange.root if exchange is not None else None
        if root is not None and root.context.span_id == context.span_id:
            if root.parent is not None:
                linked["parent_span_id"] = span_hex(root.parent.span_id)
            linked["op"] = to_op(root.attributes or {}, root.kind) or "function"
        decision = exchange.decisions.get(context.trace_id) if exchange is not None else None
        dsc = sampling_context(context.trace_id, sentry.facts(), decision)
        if dsc is not None:
            linked["dynamic_sampling_context"] = dsc
        event.setdefault("contexts", {})["trace"] = linked

    def _name(self, event: Any, exchange: Exchange) -> None:
        """The name that the request's transaction has, unless the application set one."""
        by_hand = sentry.name_set_by_hand(exchange.current_scope)
        if by_hand is not None:
            event["transaction"] = by_hand
            return
        facts = exchange.facts()
        if exchange.root is not None:
            name, source = transaction_name(exchange.root, facts=facts)
        else:
            name, source = _name_of_request(exchange)
        event["transaction"], event["transaction_info"] = name, {"source": source}

    def _lost_spans(self, reason: str, quantity: int) -> None:
        self.stats.add(f"lost.{reason}", quantity)
        sentry.record_lost(reason, "span", quantity)

    def _lost_transaction(self, reason: str, children: int) -> None:
        sentry.record_lost(reason, "transaction", 1)
        self._lost_spans(reason, children + 1)

    def _at_exit_once(self) -> None:
        """Registered late, so that it runs before the exit handler of a client made before."""
        if not self._at_exit:
            self._at_exit = True
            atexit.register(self._exit)

    def retire(self) -> None:
        """Send what has ended and leave nothing behind."""
        atexit.unregister(self._exit)
        self.close()
        with contained("exporter"):
            self.exporter.shutdown()
        self.ledger.clear()

    def begin_in_child(self) -> None:
        """After a fork: what was buffered is the parent's to send."""
        self._assembler = Assembler(self.settings, self._lost_spans)
        self.ledger.clear()
        self._worker.reset()

    def _exit(self) -> None:
        with contained("exit"):
            self.close()


def _begin_in_child(reference: weakref.ref[Bridge]) -> None:
    bridge = reference()
    if bridge is not None:
        bridge.begin_in_child()


def current_ids() -> tuple[str, str] | None:
    """Trace and span id of the current OTel span, as hexadecimal text."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace_hex(context.trace_id), span_hex(context.span_id)


def _suppressed() -> otel_context.Context:
    key = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
    return otel_context.set_value(key, value=True)


def _is_outer(span: ReadableSpan, exchange: Exchange) -> bool:
    """Whether it is a server span of the request further out than the one that holds its work."""
    root = exchange.root
    if not exchange.is_request or root is None or not is_local_root(span):
        return False
    return span.kind is SpanKind.SERVER and root.context != span.context


def _scopes_of(exchange: Exchange) -> tuple[Any, Any]:
    return exchange.sentry_scope, exchange.current_scope


def _name_of_request(exchange: Exchange) -> tuple[str, str]:
    facts, request = exchange.facts(), exchange.request() or {}
    method = "" if facts.websocket else f"{request.get('method', 'HTTP')} "
    if facts.route:
        return f"{method}{facts.route}", "route"
    path = str((exchange.asgi_scope or {}).get("path") or "/")
    return f"{method}{path}", "url"


def _sampling_context(span: Span, exchange: Exchange) -> Data:
    """What `traces_sampler` is called with, in the form that sentry-sdk gives it."""
    facts = exchange.facts()
    name, source = to_server_name(span, route=facts.route, websocket=facts.websocket)
    context, parent = span.get_span_context(), span.parent
    return {
        "transaction_context": {
            "trace_id": trace_hex(context.trace_id),
            "span_id": span_hex(context.span_id),
            "parent_span_id": span_hex(parent.span_id) if parent is not None else None,
            "name": name,
            "source": source,
            "op": to_op(span.attributes or {}, span.kind, websocket=facts.websocket),
        },
        "parent_sampled": bool(parent.trace_flags.sampled) if parent is not None else None,
        "asgi_scope": exchange.asgi_scope,
        "attributes": dict(span.attributes or {}),
    }
