"""Exceptions to error events: each once, on the span that failed, with the request, cleaned."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan, Span
from opentelemetry.trace import SpanContext

from otel_sentry_asgi import sentry
from otel_sentry_asgi._assembly import is_local_root
from otel_sentry_asgi._breadcrumbs import to_breadcrumbs
from otel_sentry_asgi._dsc import sampling_context
from otel_sentry_asgi._errors import (
    application_error,
    current_task,
    is_error,
    is_framework_log,
    is_own_noise,
    is_response,
    is_server_text,
    left_task,
    response_status,
)
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._scope import Exchange, Held, current_exchange
from otel_sentry_asgi._settings import IgnoredError, Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.error import MESSAGE, STACKTRACE, TYPE, to_exception_values
from otel_sentry_asgi._translate.naming import to_op
from otel_sentry_asgi._translate.segment import resource_defaults, transaction_name
from otel_sentry_asgi._translate.span import seconds
from otel_sentry_asgi._translate.text import MAX_TEXT
from otel_sentry_asgi.sampling import Decisions

MAX_HELD = 20
"""Recorded exceptions that wait for the end of one exchange."""

MAX_HELD_FOR = 30.0
"""Seconds that one waits while others are recorded: streams and websockets go on for hours."""

HINT = "otel_sentry_asgi"
"""Marks the hint of an event of ours; its value is the span context the event belongs to."""

SERVER_LOGGERS = frozenset(
    {"uvicorn.error", "hypercorn.error", "gunicorn.error", "daphne.server", "_granian"}
)

_RECORDED = "auto.function.otel"
_TASK = "auto.function.asyncio"
_ANSWERED = "auto.http.otel.answered"
_SWALLOWED = "auto.http.otel.framework"

_INSTRUMENTATIONS = frozenset({"opentelemetry", "fastapi", "starlette"})


class Issues:
    """Decides which exceptions are issues and gives every event its trace and its request."""

    def __init__(
        self,
        settings: Settings,
        stats: Stats,
        ledger: Ledger,
        decisions: Decisions,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._stats = stats
        self._ledger = ledger
        self._decisions = decisions
        self._clock = clock
        self._holding: weakref.WeakSet[Exchange] = weakref.WeakSet()
        self._lifespan_failed = False

    # -- what was seen ------------------------------------------------------------------------

    def recorded(self, span: Span, error: BaseException, *, on_purpose: bool) -> None:
        """An exception has been recorded on a span, by the application or because it left it."""
        context = span.get_span_context()
        exchange = current_exchange.get()
        if events := span.events:
            self._ledger.note_event(context.span_id, events[-1].timestamp)
        if on_purpose or exchange is None or not exchange.has_inner_root(span):
            self._ledger.note(error, context, exchange)
        if not is_error(error) or not sentry.is_ready():
            return
        if on_purpose:
            self._on_purpose(error, exchange, context)
        else:
            self._passed(error, exchange, context, is_last=is_local_root(span))

    def logged(self, error: BaseException, context: SpanContext, logger: str) -> None:
        """An exception has been emitted as an OTel log record, in the record's own *context*.

        Instrumentations log what passes them, applications what they dealt with.
        """
        exchange = current_exchange.get()
        if context.is_valid:
            self._ledger.note(error, context, exchange)
        if not is_error(error) or not sentry.is_ready():
            return
        if logger.partition(".")[0] not in _INSTRUMENTATIONS:
            self._on_purpose(error, exchange, context)
        else:
            self._passed(error, exchange, context, is_last=False)

    def answered(self, error: BaseException | None, exchange: Exchange) -> None:
        """A response with a status of 500 or more begins while *error* is being handled.

        So it is known of exceptions that go no further: an `HTTPException` is an answer that the
        application chose, and Litestar swallows what its views raise.
        """
        if error is None or not is_error(error):
            return
        status = response_status(error)
        if status is not None and "litestar_app" not in (exchange.asgi_scope or {}):
            if status in self._settings.failed_request_status_codes:
                self._report(error, exchange, mechanism=_ANSWERED, handled=True)
        elif status is None and "litestar_app" in (exchange.asgi_scope or {}):
            self._report(error, exchange, mechanism=_SWALLOWED, handled=False)

    def told(
        self, span: ReadableSpan, exchange: Exchange | None, spans: Sequence[ReadableSpan]
    ) -> None:
        """Report the exceptions of an ended span of which there is only OTel's text. *spans* are
        those that came with it, itself included."""
        for event in span.events:
            if event.name == "exception" and not self._ledger.knows_event(
                span.context.span_id, event.timestamp
            ):
                self._told(span, event, exchange, spans)

    def crashed(self, error: BaseException, exchange: Exchange, mechanism: str) -> None:
        """An exception leaves the application: one unhandled error, if nobody has reported it.

        What is no error is claimed all the same: the server is about to log it as one.
        """
        error = application_error(error)
        if not is_error(error):
            self._ledger.claim(error)
            return
        if self._ledger.is_reported(error):
            sentry.mark_crashed(exchange.sentry_scope)
        self._report(error, exchange, mechanism=mechanism, handled=False)

    def finished(self, exchange: Exchange) -> None:
        """The exchange's own work is over: what was recorded and never left is an issue now."""
        exchange.finished = True
        self._release(exchange, len(exchange.held))

    def release_all(self) -> None:
        """Send what is held: the process may not see the end of those exchanges."""
        for exchange in list(self._holding):
            self._release(exchange, len(exchange.held))

    def _release(self, exchange: Exchange, count: int) -> None:
        """Send the oldest *count* of what is held, as handled."""
        held, exchange.held = exchange.held[:count], exchange.held[count:]
        for one in held:
            if self._ledger.claim(one.error):
                exchange.told.append(_text_of(one.error))
                self._send(one.event, one.hint, exchange)

    def lifespan_fails(self) -> None:
        """Start-up or shutdown is about to fail: what servers log of it is no further issue."""
        self._lifespan_failed = True

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        """Start-up or shutdown failed, with an exception or with a message only."""
        self.lifespan_fails()
        if error is not None:
            self._report(error, None, mechanism=mechanism, handled=False)
        else:
            self._send({"level": "error", "message": message}, {HINT: None}, None)

    def _on_purpose(
        self, error: BaseException, exchange: Exchange | None, context: SpanContext
    ) -> None:
        if self._settings.errors != "unhandled" and not is_response(error):
            self._hold(error, exchange, context)

    def _passed(
        self,
        error: BaseException,
        exchange: Exchange | None,
        context: SpanContext,
        *,
        is_last: bool,
    ) -> None:
        """An exception left a span; only further out it shows whether it is dealt with.

        In a request that is the ASGI edge, outside of requests the local root. After a request
        nothing is further out than the task.
        """
        in_request = exchange is not None and exchange.is_request
        if is_last and not in_request:
            self._report(error, exchange, mechanism=_RECORDED, handled=False)
        elif exchange is not None and in_request and exchange.finished:
            task = current_task()
            if task is not None:
                task.add_done_callback(partial(self._task_done, error, exchange))
            else:
                self._report(error, exchange, mechanism=_RECORDED, handled=False)
        elif self._settings.errors == "all" and not is_response(error):
            self._hold(error, exchange, context)

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
        elif not (
            self._is_ignored(error) or self._ledger.is_reported(error) or exchange.holds(error)
        ):
            now = self._clock()
            old = sum(now - held.since > MAX_HELD_FOR for held in exchange.held)
            self._release(exchange, max(old, len(exchange.held) + 1 - MAX_HELD))
            event, hint = sentry.to_error(error, mechanism=_RECORDED, handled=True)
            event["timestamp"] = time.time()
            exchange.held.append(Held(error, event, {**hint, HINT: context}, now))
            self._holding.add(exchange)

    def _report(
        self, error: BaseException, exchange: Exchange | None, *, mechanism: str, handled: bool
    ) -> None:
        """Capture *error* with the scopes of its exchange, unless it has been reported."""
        if self._is_ignored(error) or not self._ledger.claim(error):
            return
        if exchange is not None:
            exchange.told.append(_text_of(error))
        event, hint = sentry.to_error(error, mechanism=mechanism, handled=handled)
        hint[HINT] = self._span_of(error, exchange)
        self._send(event, hint, exchange)

    def _told(
        self,
        span: ReadableSpan,
        event: Event,
        exchange: Exchange | None,
        spans: Sequence[ReadableSpan],
    ) -> None:
        """Recorded on the parent as well, it went further out: the innermost span reports it.

        In a request of ours what leaves the application is seen alive, so the rest is dealt with.
        """
        attributes = event.attributes or {}
        text = str(attributes.get(TYPE, "")), str(attributes.get(MESSAGE, ""))
        holders = {one.context.span_id: one for one in spans if _tells(one, text)}
        below = any(
            one.parent and one.parent.span_id == span.context.span_id for one in holders.values()
        )
        if below or (exchange is not None and text in exchange.told):
            return
        outermost = span
        while outermost.parent is not None and outermost.parent.span_id in holders:
            outermost = holders.pop(outermost.parent.span_id)
        in_request = exchange is not None and exchange.is_request
        handled = in_request or not is_local_root(outermost)
        mode = self._settings.errors
        dealt_with = mode == "unhandled" or (mode == "recorded" and outermost is not span)
        if handled and dealt_with:
            return
        if exchange is not None:
            exchange.told.append(text)
        values = to_exception_values(attributes, mechanism=_RECORDED, handled=handled)
        payload: Data = {
            "level": "error",
            "timestamp": seconds(event.timestamp),
            "exception": {"values": values},
        }
        sentry.add_source(payload)
        if "stacktrace" not in values[-1] and attributes.get(STACKTRACE):
            # Another language's, or one that was cut too early.
            payload["extra"] = {STACKTRACE: str(attributes[STACKTRACE])[:MAX_TEXT]}
        self._send(payload, {HINT: span.context}, exchange)

    def _send(self, event: Any, hint: Data, exchange: Exchange | None) -> None:
        """Capture as if the exchange's own code did."""
        self._stats.add("errors")
        if exchange is None or current_exchange.get() is exchange:
            sentry.capture(event, hint)
            return
        token = current_exchange.set(exchange)
        try:
            sentry.capture(event, hint, (exchange.sentry_scope, exchange.current_scope))
        finally:
            current_exchange.reset(token)

    def _is_ignored(self, error: BaseException) -> bool:
        return any(_is(error, ignored) for ignored in self._settings.ignored_errors)

    # -- event processors ---------------------------------------------------------------------

    def process(self, event: Any, hint: Data) -> Any:
        """The global event processor: one exception once, every event linked to its trace.

        An event that cannot be cleaned is not sent.
        """
        if event.get("type"):
            return event
        error = (hint.get("exc_info") or (None, None, None))[1]
        with contained("event processor"):
            if HINT not in hint and self._belongs_elsewhere(event, error):
                return None
            if HINT not in hint and self._is_known(event, error):
                self._stats.add("duplicate_errors")
                return None
            exchange = current_exchange.get()
            if error is not None and exchange is not None:
                exchange.told.append(_text_of(error))
            record = hint.get("log_record")
            if record is not None and is_framework_log(record):
                _say_unhandled(event, _SWALLOWED)
            elif error is not None and event.get("logger") == "asyncio":
                _say_unhandled(event, _TASK)
            context = hint.get(HINT) or self._span_of(error, exchange)
            if context is not None:
                self._link(event, context, exchange)
            if exchange is not None and exchange.root is not None:
                sentry.fill_defaults(event, resource_defaults(exchange.root.resource))
            # Also in a request: the event may be captured under scopes that are not the request's.
            policy, request = self._policy(), exchange.request() if exchange is not None else None
            sentry.add_threads(event)
            sentry.mark_in_app(event)
            policy.clean_error(event, policy.secrets_of(request))
            return event
        self._stats.add("lost.internal_sdk_error")
        return None

    def finish(self, of: weakref.ref[Exchange], event: Any, _hint: Data) -> Any:
        """The last event processor of a request: its request, its name, and the policy. It is held
        by the request's scope, which the exchange holds.

        An event that cannot be cleaned is not sent.
        """
        exchange = of()
        if exchange is None:
            return event
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
            with contained("breadcrumbs"):
                sentry.add_breadcrumbs(event, to_breadcrumbs(exchange.trail, event, policy))
            sentry.mark_in_app(event)
            policy.clean_error(event, policy.secrets_of(request))
            return event
        self._stats.add("lost.internal_sdk_error")
        return None

    def _policy(self) -> Policy:
        return sentry.policy(self._settings.sensitive_terms)

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
        decision = self._decisions.get(context.trace_id)
        dsc = sampling_context(context.trace_id, sentry.facts(), decision)
        if dsc is not None:
            linked["dynamic_sampling_context"] = dsc
        event.setdefault("contexts", {})["trace"] = linked

    def _belongs_elsewhere(self, event: Any, error: BaseException | None) -> bool:
        """Whether asyncio logs an exception that nobody retrieved, long after and far away from the
        request whose span recorded it: then it is reported there."""
        if error is None or event.get("logger") != "asyncio":
            return False
        owner = self._ledger.owner_of(error)
        if not isinstance(owner, Exchange) or owner is current_exchange.get():
            return False
        self._report(error, owner, mechanism=_TASK, handled=False)
        return True

    def _is_known(self, event: Any, error: BaseException | None) -> bool:
        """Whether the event tells of an exception or a failed lifespan that has its own event."""
        logger, entry = event.get("logger"), event.get("logentry") or {}
        if is_own_noise(logger) or is_server_text(logger, entry.get("formatted")):
            return True
        if error is not None:
            return self._is_ignored(error) or not self._ledger.claim(error)
        return self._lifespan_failed and logger in SERVER_LOGGERS

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


def _text_of(error: BaseException) -> tuple[str, str]:
    """Type and message as OTel writes them into an `exception` event."""
    module, name = type(error).__module__, type(error).__qualname__
    return (name if module in ("", "builtins") else f"{module}.{name}"), sentry.text_of(error)


def _is(error: BaseException, ignored: IgnoredError) -> bool:
    """Whether a class or predicate of the application's settings means *error*."""
    with contained("ignored_errors"):
        return isinstance(error, ignored) if isinstance(ignored, type) else bool(ignored(error))
    return False


def _tells(span: ReadableSpan, text: tuple[str, str]) -> bool:
    """Whether the exception of this type and message is recorded on the span."""
    return any(
        event.name == "exception"
        and (
            str((event.attributes or {}).get(TYPE, "")),
            str((event.attributes or {}).get(MESSAGE, "")),
        )
        == text
        for event in span.events
    )


def _say_unhandled(event: Any, mechanism: str) -> None:
    for value in (event.get("exception") or {}).get("values") or ():
        value["mechanism"] = {
            **(value.get("mechanism") or {}),
            "type": mechanism,
            "handled": False,
        }


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
