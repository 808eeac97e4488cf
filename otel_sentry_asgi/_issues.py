"""Exceptions to error events: each once, on the span that failed, with the request, cleaned."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import SpanContext

from otel_sentry_asgi import sentry
from otel_sentry_asgi._assembly import is_local_root
from otel_sentry_asgi._dsc import sampling_context
from otel_sentry_asgi._errors import current_task, is_error, is_response, left_task
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._scope import Exchange, Held, current_exchange
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.naming import to_op
from otel_sentry_asgi._translate.segment import resource_defaults, transaction_name

HINT = "otel_sentry_asgi"
"""Marks the hint of an event of ours; its value is the span context the event belongs to."""

SERVER_LOGGERS = frozenset(
    {"uvicorn.error", "hypercorn.error", "gunicorn.error", "daphne.server", "_granian"}
)

_RECORDED = "auto.function.otel"
_TASK = "auto.function.asyncio"


class Issues:
    """Decides which exceptions are issues and gives every event its trace and its request."""

    def __init__(self, settings: Settings, stats: Stats, ledger: Ledger) -> None:
        self._settings = settings
        self._stats = stats
        self._ledger = ledger
        self._lifespan_failed = False

    # -- what was seen ------------------------------------------------------------------------

    def recorded(self, span: Span, error: BaseException, *, on_purpose: bool) -> None:
        """An exception has been recorded on a span, by the application or because it left it."""
        context = span.get_span_context()
        exchange = current_exchange.get()
        if on_purpose or exchange is None or not exchange.has_inner_root(span):
            self._ledger.note(error, context)
        if not is_error(error) or not sentry.is_ready():
            return
        if on_purpose:
            if self._settings.errors != "unhandled" and not is_response(error):
                self._hold(error, exchange, context)
        elif exchange is not None and exchange.is_request:
            self._passed_in_request(error, exchange, context)
        elif is_local_root(span):
            self._report(error, exchange, mechanism=_RECORDED, handled=False)
        elif self._settings.errors == "all":
            self._hold(error, exchange, context)

    def crashed(self, error: BaseException, exchange: Exchange, mechanism: str) -> None:
        """An exception leaves the application: one unhandled error, if nobody has reported it.

        What is no error is claimed all the same: the server is about to log it as one.
        """
        if not is_error(error):
            self._ledger.claim(error)
        else:
            self._report(error, exchange, mechanism=mechanism, handled=False)

    def finished(self, exchange: Exchange) -> None:
        """The exchange's own work is over: what was recorded and never left is an issue now."""
        exchange.finished = True
        held, exchange.held = exchange.held, []
        for one in held:
            if self._ledger.claim(one.error):
                sentry.capture(one.event, one.hint)
                self._stats.add("errors")

    def lifespan_fails(self) -> None:
        """Start-up or shutdown is about to fail: what servers log of it is no further issue."""
        self._lifespan_failed = True

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        """Start-up or shutdown failed, with an exception or with a message only."""
        self.lifespan_fails()
        if error is not None:
            self._report(error, None, mechanism=mechanism, handled=False)
        else:
            sentry.capture({"level": "error", "message": message}, {HINT: None})
            self._stats.add("errors")

    def _passed_in_request(
        self, error: BaseException, exchange: Exchange, context: SpanContext
    ) -> None:
        """An exception left a span; only further out it shows whether it is dealt with. After the
        request nothing is further out than the task."""
        if not exchange.finished:
            if self._settings.errors == "all" and not is_response(error):
                self._hold(error, exchange, context)
            return
        task = current_task()
        if task is not None:
            task.add_done_callback(partial(self._task_done, error, exchange))

    def _task_done(self, error: BaseException, exchange: Exchange, task: Any) -> None:
        """A task that outlived its request has ended: with *error*, or it dealt with it."""
        with contained("task"):
            if left_task(task, error):
                self._report(error, exchange, mechanism=_TASK, handled=False)

    def _hold(self, error: BaseException, exchange: Exchange | None, context: SpanContext) -> None:
        """Build the event now, while frames and scope are what they are; send it when it is known
        that the exception went no further."""
        if exchange is None or exchange.finished:
            self._report(error, exchange, mechanism=_RECORDED, handled=True)
        elif not self._ledger.is_reported(error) and not exchange.holds(error):
            event, hint = sentry.to_error(error, mechanism=_RECORDED, handled=True)
            event["timestamp"] = time.time()
            exchange.held.append(Held(error, event, {**hint, HINT: context}))

    def _report(
        self, error: BaseException, exchange: Exchange | None, *, mechanism: str, handled: bool
    ) -> None:
        """Capture *error* with the scopes of its exchange, unless it has been reported."""
        if not self._ledger.claim(error):
            return
        event, hint = sentry.to_error(error, mechanism=mechanism, handled=handled)
        hint[HINT] = self._span_of(error, exchange)
        if exchange is None or current_exchange.get() is exchange:
            sentry.capture(event, hint)
        else:
            sentry.capture(event, hint, (exchange.sentry_scope, exchange.current_scope))
        self._stats.add("errors")

    # -- event processors ---------------------------------------------------------------------

    def process(self, event: Any, hint: Data) -> Any:
        """The global event processor: one exception once, every event linked to its trace.

        An event that cannot be cleaned is not sent.
        """
        if event.get("type"):
            return event
        error = (hint.get("exc_info") or (None, None, None))[1]
        with contained("event processor"):
            if HINT not in hint and self._is_known(event, error):
                self._stats.add("duplicate_errors")
                return None
            exchange = current_exchange.get()
            context = hint.get(HINT) or self._span_of(error, exchange)
            if context is not None:
                _link(event, context, exchange)
            if exchange is not None and exchange.root is not None:
                sentry.fill_defaults(event, resource_defaults(exchange.root.resource))
            if exchange is None or not exchange.is_request:
                sentry.mark_in_app(event)
                self._policy().clean_error(event)
            return event
        self._stats.add("lost.internal_sdk_error")
        return None

    def finish(self, exchange: Exchange, event: Any, _hint: Data) -> Any:
        """The last event processor of a request: its request, its name, and the policy.

        An event that cannot be cleaned is not sent.
        """
        with contained("event processor"):
            policy = self._policy()
            if event.get("type"):
                if event.get("request"):
                    # A transaction was clean, but processors of integrations add to it.
                    event["request"] = policy.request(event["request"])
                return event
            request = exchange.request()
            if request is not None:
                event["request"] = {**(event.get("request") or {}), **request}
            _name(event, exchange)
            sentry.mark_in_app(event)
            policy.clean_error(event, policy.secrets_of(request))
            return event
        self._stats.add("lost.internal_sdk_error")
        return None

    def _policy(self) -> Policy:
        return sentry.policy(self._settings.sensitive_terms)

    def _is_known(self, event: Any, error: BaseException | None) -> bool:
        """Whether the event tells of an exception or a failed lifespan that has its own event."""
        if error is not None:
            return not self._ledger.claim(error)
        return self._lifespan_failed and event.get("logger") in SERVER_LOGGERS

    def _span_of(
        self, error: BaseException | None, exchange: Exchange | None
    ) -> SpanContext | None:
        """The span that recorded *error* first, else the current one, else the exchange's."""
        recorded = self._ledger.span_of(error) if error is not None else None
        if recorded is not None:
            return recorded
        current = trace.get_current_span().get_span_context()
        if current.is_valid and not current.is_remote:
            return current
        return exchange.current if exchange is not None else None


def _link(event: Any, context: SpanContext, exchange: Exchange | None) -> None:
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


def _name(event: Any, exchange: Exchange) -> None:
    """The name that the request's transaction has, unless the application set one."""
    by_hand = sentry.name_set_by_hand(exchange.current_scope)
    if by_hand is not None:
        event["transaction"] = by_hand
        return
    if exchange.root is not None:
        name, source = transaction_name(exchange.root, facts=exchange.facts())
    else:
        name, source = _name_of_request(exchange)
    event["transaction"], event["transaction_info"] = name, {"source": source}


def _name_of_request(exchange: Exchange) -> tuple[str, str]:
    """The name of a request that OTel does not sample, as its transaction would have had it."""
    facts, request = exchange.facts(), exchange.request() or {}
    method = "" if facts.websocket else f"{request.get('method', 'HTTP')} "
    if facts.route:
        return f"{method}{facts.route}", "route"
    path = str((exchange.asgi_scope or {}).get("path") or "/")
    return f"{method}{path}", "url"
