"""Which exceptions are reported, when, and as what: each once, on the span that failed."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan, Span
from opentelemetry.trace import SpanContext

from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi import sentry
from otel_sentry_asgi._errors import (
    application_error,
    current_task,
    error_of,
    handled_before,
    is_error,
    response_status,
)
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._scope import Exchange, Held, current_exchange
from otel_sentry_asgi._settings import FAILED_STATUSES, IgnoredError, Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.error import MESSAGE, STACKTRACE, TYPE, to_exception_values
from otel_sentry_asgi._translate.op import RECORDED, to_mechanism
from otel_sentry_asgi._translate.span import is_local_root, seconds
from otel_sentry_asgi._translate.text import MAX_TEXT

MAX_HELD = 20
"""Recorded exceptions that wait for the end of one exchange."""

LOGGED_WITHIN = 10.0
"""Seconds. Servers log a failed lifespan at once; the process may go on, and serve."""

MAX_HELD_FOR = 30.0
"""Seconds that one waits while others are recorded: streams and websockets go on for hours."""

HINT = "otel_sentry_asgi"
"""Marks the hint of an event of ours; its value is the span context the event belongs to."""

TASK = "auto.function.asyncio"
_ANSWERED = "auto.http.otel.answered"
SWALLOWED = "auto.http.otel.framework"

_INSTRUMENTATIONS = frozenset({"opentelemetry", "fastapi", "starlette"})


class _Watch:
    """What a task that outlived its request calls at its end. Only the task holds it."""

    __slots__ = ("__weakref__", "error", "exchange", "over")

    def __init__(
        self,
        over: Callable[[Any, BaseException, Exchange], None],
        error: BaseException,
        exchange: Exchange,
    ) -> None:
        self.over = over
        self.error = error
        self.exchange = exchange

    def __call__(self, task: Any) -> None:
        self.over(task, self.error, self.exchange)


class Issues:
    """Decides which exceptions are issues, and captures them."""

    def __init__(
        self,
        settings: Settings,
        stats: Stats,
        ledger: Ledger,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._stats = stats
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.RLock()
        """Covers what exchanges hold. What runs when an object is freed may come again."""
        self._holding: weakref.WeakKeyDictionary[Exchange, None] = weakref.WeakKeyDictionary()
        self._watches: weakref.WeakValueDictionary[int, _Watch] = weakref.WeakValueDictionary()
        """By the id of the task."""
        self.answers_from = min((500, *settings.failed_request_status_codes))
        """The lowest status of a response of which `answered` has to hear."""
        self._lifespan_logged_until = -math.inf

    # -- what was seen ------------------------------------------------------------------------

    def recorded(self, span: Span, error: BaseException, *, on_purpose: bool) -> None:
        """An exception has been recorded on a span, by the application or because it left it."""
        context = span.get_span_context()
        exchange = current_exchange.get()
        text, events = text_of(error), span.events
        # The last may be another thread's; where texts are cut there is nothing to know it by.
        for event in [one for one in events if _text_in(one) == text] or events[-1:]:
            self._ledger.note_event(context.span_id, event.timestamp)
        if on_purpose or exchange is None or not exchange.has_inner_root(span):
            self._ledger.note(error, context, exchange)
        if not is_error(error) or not sentry.is_ready():
            return
        if on_purpose:
            self._on_purpose(error, exchange, context)
        else:
            root = span if is_local_root(span) else None
            self._passed(error, exchange, context, root=root)

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
            self._passed(error, exchange, context, root=None)

    def answered(self, error: BaseException | None, exchange: Exchange) -> None:
        """A response with a status of `answers_from` or more begins while *error* is being handled.

        So it is known of exceptions that go no further: an `HTTPException` is an answer that the
        application chose, and Litestar swallows what its views raise.
        """
        if error is None or not is_error(error):
            return
        status = response_status(error)
        if status is not None:
            if status in self._settings.failed_request_status_codes:
                self.report(error, exchange, mechanism=_ANSWERED, handled=True)
        elif (exchange.status_code or 0) >= 500 and "litestar_app" in (exchange.asgi_scope or {}):
            self.report(error, exchange, mechanism=SWALLOWED, handled=False)

    def told(
        self, span: ReadableSpan, exchange: Exchange | None, spans: Sequence[ReadableSpan]
    ) -> None:
        """Report the exceptions of an ended span of which there is only OTel's text. *spans* are
        those that came with it, itself included."""
        for event in span.events:
            if event.name == "exception" and not self._ledger.knows_event(
                span.context.span_id, event.timestamp
            ):
                with sentry_scopes.client_of(exchange):
                    self._told(span, event, exchange, spans)

    def crashed(self, error: BaseException, exchange: Exchange, mechanism: str) -> None:
        """An exception leaves the application: one unhandled error, if nobody has reported it.

        What is no error is claimed all the same: the server is about to log it as one.
        """
        outermost, error = error, application_error(error)
        if outermost is not error or not is_error(error):
            self._ledger.claim(outermost, exchange)
        if not is_error(error):
            return
        exchange.crashed = True
        if self._ledger.is_reported(error, exchange):
            sentry_scopes.mark_crashed(exchange.sentry_scope)
        self.report(error, exchange, mechanism=mechanism, handled=False)

    def finished(self, exchange: Exchange) -> None:
        """The exchange's own work is over: what was recorded and never left is an issue now.

        Who holds looks whether it is finished after that, so without a lock nothing is missed.
        """
        exchange.finished = True
        if exchange.held:
            self._release(exchange)

    def release_all(self) -> None:
        """Send what is held: the process may not see the end of those exchanges."""
        for exchange in self._all_holding():
            self._release(exchange)

    def begin_in_child(self) -> None:
        """After a fork: what is held is the parent's to send."""
        self._lock = threading.RLock()
        for exchange in self._all_holding():
            exchange.held = ()
        self._holding = weakref.WeakKeyDictionary()

    def _all_holding(self) -> list[Exchange]:
        """Taken at once: other threads begin to hold at any time."""
        found = (reference() for reference in self._holding.keyrefs())
        return [exchange for exchange in found if exchange is not None]

    def _release(self, exchange: Exchange) -> None:
        """Send what is held, as handled."""
        with self._lock:
            held, exchange.held = exchange.held, ()
        self._send_held(held, exchange)

    def _send_held(self, held: Sequence[Held], exchange: Exchange) -> None:
        for one in held:
            if self._ledger.claim(one.error, exchange):
                exchange.tell(text_of(one.error))
                self._send(one.event, one.hint, exchange)

    def lifespan_fails(self) -> None:
        """Start-up or shutdown is about to fail: what servers log of it is no further issue."""
        self._lifespan_logged_until = self._clock() + LOGGED_WITHIN

    @property
    def lifespan_failed(self) -> bool:
        """Whether start-up or shutdown failed just now."""
        return self._clock() < self._lifespan_logged_until

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        """Start-up or shutdown failed, with an exception or with a message only."""
        self.lifespan_fails()
        if error is not None:
            self.report(error, None, mechanism=mechanism, handled=False)
        else:
            self._send({"level": "error", "message": message}, {HINT: None}, None)

    def claim(self, error: BaseException) -> None:
        """*error* tells of what has been reported: what is logged of it is no further issue."""
        self._ledger.claim(error)

    def _on_purpose(
        self, error: BaseException, exchange: Exchange | None, context: SpanContext
    ) -> None:
        if self._settings.errors != "unhandled" and not self._is_plain_answer(error):
            self._hold(error, exchange, context)

    def _passed(
        self,
        error: BaseException,
        exchange: Exchange | None,
        context: SpanContext,
        *,
        root: ReadableSpan | None,
    ) -> None:
        """An exception left a span; only further out it shows whether it is dealt with.

        In a request that is the ASGI edge, outside of requests the local *root*. After a request
        nothing is further out than the task.
        """
        in_request = exchange is not None and exchange.is_request
        if root is not None and not in_request:
            self.report(error, exchange, mechanism=to_mechanism(root), handled=False)
        elif exchange is not None and in_request and exchange.finished:
            task = current_task()
            if task is not None:
                self._watch(task, error, exchange)
            else:
                self.report(error, exchange, mechanism=RECORDED, handled=False)
        elif self._settings.errors == "all" and not self._is_plain_answer(error):
            self._hold(error, exchange, context)

    def _watch(self, task: Any, error: BaseException, exchange: Exchange) -> None:
        """Hear of the end of *task*, once for all exceptions: a poller that deals with them would
        keep each with its frames."""
        watch = self._watches.get(id(task))
        if watch is None:
            watch = self._watches[id(task)] = _Watch(self._task_done, error, exchange)
            task.add_done_callback(watch)
        watch.error, watch.exchange = error, exchange

    def _task_done(self, task: Any, error: BaseException, exchange: Exchange) -> None:
        """A task that outlived its request has ended: with *error*, the last that left a span, or
        what was being handled when that was raised, or one that left a span a moment ago; or it
        dealt with them."""
        with contained("task"):
            left = error_of(task)
            if left is not None and (
                any(one is left for one in handled_before(error))
                or self._ledger.owner_of(left) is exchange
            ):
                self.report(left, exchange, mechanism=TASK, handled=False)

    def _hold(self, error: BaseException, exchange: Exchange | None, context: SpanContext) -> None:
        """Build the event now, while frames and scope are what they are; send it when it is known
        that the exception went no further."""
        if exchange is None or exchange.finished:
            self.report(error, exchange, mechanism=RECORDED, handled=True)
        elif not (
            self.is_ignored(error)
            or self._ledger.is_reported(error, exchange)
            or exchange.holds(error)
        ):
            event, hint = sentry.to_error(error, mechanism=RECORDED, handled=True)
            event["timestamp"] = time.time()
            now = self._clock()
            one = Held(error, event, {**hint, HINT: context}, now)
            with self._lock:
                held = exchange.held
                old = sum(now - before.since > MAX_HELD_FOR for before in held)
                over = max(old, len(held) + 1 - MAX_HELD, 0)
                exchange.held = (*held[over:], one)
                self._holding[exchange] = None
            self._send_held(held[:over], exchange)
            if exchange.finished:  # Meanwhile: nobody else looks again.
                self._release(exchange)

    def report(
        self, error: BaseException, exchange: Exchange | None, *, mechanism: str, handled: bool
    ) -> None:
        """Capture *error* with the scopes of its exchange, unless it has been reported."""
        if self.is_ignored(error) or not self._ledger.claim(error, exchange):
            return
        if exchange is not None:
            exchange.tell(text_of(error))
        event, hint = sentry.to_error(error, mechanism=mechanism, handled=handled)
        hint[HINT] = self.span_of(error, exchange)
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
        if below or (exchange is not None and text in (exchange.told or ())):
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
            exchange.tell(text)
        mechanism = to_mechanism(span)
        values = to_exception_values(attributes, mechanism=mechanism, handled=handled)
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
            with sentry_scopes.in_force(exchange):
                sentry.capture(event, hint)
        finally:
            current_exchange.reset(token)

    def is_ignored(self, error: BaseException) -> bool:
        """Whether the application's settings say that it is no issue."""
        return any(_is(error, ignored) for ignored in self._settings.ignored_errors)

    def is_no_issue(self, status: int, by_integration: bool = False) -> bool:
        """Whether the setting says so of an `HTTPException` with that status. Where it is left at
        its default, sentry-sdk's integrations have settings of their own."""
        failed = self._settings.failed_request_status_codes
        return status not in failed and not (by_integration and failed == FAILED_STATUSES)

    def _is_plain_answer(self, error: BaseException) -> bool:
        """Whether it is a framework's way to answer with a status that is no issue."""
        status = response_status(error)
        return status is not None and self.is_no_issue(status)

    def unretrieved(self, error: BaseException) -> bool:
        """asyncio logs an exception that nobody retrieved, maybe long after and far away from the
        request whose span recorded it: then it is reported there, and the answer is True."""
        owner = self._ledger.owner_of(error)
        if owner is None or owner is current_exchange.get():
            return False
        if not self._ledger.is_reported(error):
            self.report(error, owner, mechanism=TASK, handled=False)
        return True

    def span_of(self, error: BaseException | None, exchange: Exchange | None) -> SpanContext | None:
        """The span that recorded *error* first, else the current one, else the exchange's."""
        recorded = self._ledger.span_of(error, exchange) if error is not None else None
        if recorded is not None:
            return recorded
        current = trace.get_current_span().get_span_context()
        if current.is_valid and not current.is_remote:
            return current
        return exchange.current if exchange is not None else None


def text_of(error: BaseException) -> tuple[str, str]:
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
    return any(_text_in(event) == text for event in span.events)


def _text_in(event: Event) -> tuple[str, str] | None:
    """Type and message of a recorded exception."""
    if event.name != "exception":
        return None
    attributes = event.attributes or {}
    return str(attributes.get(TYPE, "")), str(attributes.get(MESSAGE, ""))
