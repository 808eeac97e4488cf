"""From ended spans to what the exporter gets: queue, assembly, translation, policy."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind

from otel_sentry_asgi import sentry
from otel_sentry_asgi._assembly import Assembler, Segment
from otel_sentry_asgi._dsc import sampling_context
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._model import Transaction
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._semconv import FULL_URL, first_text
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.segment import (
    NO_REQUEST,
    rename,
    resource_defaults,
    to_transaction,
)
from otel_sentry_asgi._translate.span import is_asgi_event, is_local_root
from otel_sentry_asgi._worker import Item, Worker
from otel_sentry_asgi.export import Exporter, Origin
from otel_sentry_asgi.sampling import Decision, Decisions, decide

Tell = Callable[[ReadableSpan, Exchange | None, Sequence[ReadableSpan]], None]

SLICE = 0.002
"""Seconds of work after which the worker lets other threads run."""

_STARTED = 0
_ENDED = 1
_UNSAMPLED = 2


class Pipeline:
    """Takes spans on the request path, everything else happens on the worker's thread."""

    def __init__(
        self,
        settings: Settings,
        exporter: Exporter,
        stats: Stats,
        decisions: Decisions,
        tell: Tell,
        tidy: Callable[[float], float | None],
        clock: Callable[[], float],
    ) -> None:
        """*tell* is called for each ended span with events, its exchange, and the spans that came
        with it; *tidy* in each turn with the time, and says when it wants to be called next."""
        self._settings = settings
        self._exporter = exporter
        self._stats = stats
        self._decisions = decisions
        self._tell = tell
        self._tidy = tidy
        self._clock = clock
        self._closing = False
        self._assembler = Assembler(settings, self._lost_spans)
        self._worker = Worker(self._turn, max_queue=settings.max_queue)

    def started(self, context: SpanContext, exchange: Exchange) -> None:
        """Queue that a sampled local root has started. Never blocks."""
        self._worker.put((_STARTED, context, exchange), wake=False)

    def ended(self, span: ReadableSpan, exchange: Exchange | None, *, wake: bool) -> None:
        """Queue an ended span; with *wake* see to it that the worker looks. Never blocks."""
        if not self._worker.put((_ENDED, span, exchange), wake=wake):
            self._lost_spans("queue_overflow", 1)

    def wake(self) -> None:
        """See to it that the worker has a turn."""
        self._worker.wake()

    def unsampled(self, span: ReadableSpan, exchange: Exchange | None, *, counted: bool) -> None:
        """An ended span of a trace that is not sent may have exceptions; with *counted* it is
        counted as lost."""
        if any(event.name == "exception" for event in span.events):
            self._worker.put((_UNSAMPLED, span, exchange), wake=True)
        is_root = is_local_root(span)
        if counted and not self._is_left_out(span):
            if is_root:
                sentry.record_lost("sample_rate", "transaction", 1)
            self._lost_spans("sample_rate", 1)

    def force_flush(self, timeout: float) -> bool:
        """Send every segment whose root has ended; False if that took longer than *timeout*
        seconds."""
        until = self._clock() + timeout
        flushed = self._worker.flush(timeout)
        return self._flush_exporter(until) and flushed

    def shutdown(self, timeout: float) -> bool:
        """Send everything that has ended, also below roots that have not, and end the thread."""
        self._closing = True
        try:
            until = self._clock() + timeout
            stopped = self._worker.stop(timeout)
            return self._flush_exporter(until) and stopped
        finally:
            self._closing = False

    def reset(self) -> None:
        """After a fork: what was buffered is the parent's to send."""
        self._assembler = Assembler(self._settings, self._lost_spans)
        self._worker.reset()

    def _flush_exporter(self, until: float) -> bool:
        with contained("exporter"):
            return self._exporter.force_flush(max(0.0, until - self._clock()))
        return False

    def _turn(self, items: list[Item], flush: bool) -> float | None:
        token = otel_context.attach(_suppressed())
        try:
            now = self._clock()
            for item in items:
                self._take(item, now)
            segments = (
                self._assembler.flush(everything=self._closing)
                if flush
                else self._assembler.due(now)
            )
            slice_ends = time.monotonic() + SLICE
            for segment in segments:
                with contained("exceptions"):
                    self._tell_of(segment)
                with contained("export"):
                    self._send(segment)
                if time.monotonic() > slice_ends:
                    time.sleep(0)  # The event loop's turn.
                    slice_ends = time.monotonic() + SLICE
            times = (self._assembler.next_due(), self._tidy(now))
            return min((at for at in times if at is not None), default=None)
        finally:
            otel_context.detach(token)

    def _take(self, item: Item, now: float) -> None:
        """Hand one item on. What cannot be is counted, and does not keep back those after it."""
        kind, subject, exchange = item
        with contained("span"):
            if kind == _STARTED:
                self._assembler.started(subject, exchange, now)
            elif kind == _UNSAMPLED:
                self._tell(subject, exchange, [subject])
            elif not self._is_left_out(subject):
                self._assembler.ended(subject, exchange, now)
            return
        if kind == _ENDED:
            self._lost_spans("internal_sdk_error", 1)

    def _tell_of(self, segment: Segment) -> None:
        spans = [segment.root, *segment.children]
        for span in spans:
            if span.events:
                self._tell(span, segment.exchange, spans)

    def _is_left_out(self, span: ReadableSpan) -> bool:
        return is_asgi_event(span) and not self._settings.keep_asgi_spans

    def _send(self, segment: Segment) -> None:
        decision = self._decision_of(segment)
        if not decision.sampled:
            if decision.sample_rate is not None:
                self._lost_segment("sample_rate", segment)
            return
        if _is_upload(segment.root):
            return
        if _is_superseded(segment):
            self._stats.add("superseded")
            return
        exchange = segment.exchange
        scopes = (
            (None, None) if exchange is None else (exchange.sentry_scope, exchange.current_scope)
        )
        try:
            transaction = self._to_transaction(segment, decision)
            clean = sentry.policy(self._settings).clean(transaction)
            if self._settings.on_payload is not None:
                shown = clean.shown_to(self._settings.on_payload)
                if shown is None:
                    self._lost_segment("before_send", segment)
                    return
                clean = shown
            self._exporter.export(clean, Origin(*scopes))
        except BaseException:
            self._lost_segment("internal_sdk_error", segment)
            raise
        self._stats.add("transactions")
        self._stats.add("spans", len(segment.children) + 1)
        if segment.dropped:
            self._stats.add("lost.buffer_overflow", segment.dropped)

    def _decision_of(self, segment: Segment) -> Decision:
        """The decision made at the start; for a trace without any, what its id gives."""
        trace_id = segment.root.context.trace_id
        known = self._decisions.get(trace_id)
        if known is not None:
            return known
        rate, sampler = sentry.tracing()
        rate = 1.0 if sampler is not None else rate
        return decide(trace_id, rate=rate, sampler=None, sampling_context=dict)

    def _to_transaction(self, segment: Segment, decision: Decision) -> Transaction:
        root, exchange = segment.root, segment.exchange
        transaction = to_transaction(
            root,
            segment.children,
            event_id=uuid.uuid4().hex,
            facts=NO_REQUEST if exchange is None else exchange.facts(),
            sampling_context=sampling_context(root.context.trace_id, sentry.facts(), decision),
            late=segment.late,
            dropped=segment.dropped,
        )
        if exchange is not None and exchange.is_root(root):
            by_hand = sentry.name_set_by_hand(exchange.current_scope)
            if by_hand is not None:
                rename(transaction, by_hand)
        sentry.fill_defaults(transaction, resource_defaults(root.resource))
        return transaction

    def _lost_spans(self, reason: str, quantity: int) -> None:
        self._stats.add(f"lost.{reason}", quantity)
        sentry.record_lost(reason, "span", quantity)

    def _lost_segment(self, reason: str, segment: Segment) -> None:
        sentry.record_lost(reason, "transaction", 1)
        self._lost_spans(reason, len(segment.children) + 1 + segment.dropped)


def _suppressed() -> otel_context.Context:
    """A context in which OTel's instrumentations make no spans."""
    key = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
    return otel_context.set_value(key, value=True)


def _is_upload(span: ReadableSpan) -> bool:
    """Whether the span is an upload to Sentry itself."""
    if span.kind is not SpanKind.CLIENT:
        return False
    url, prefix = first_text(span.attributes or {}, FULL_URL), sentry.upload_prefix()
    return bool(url and prefix and url.startswith(prefix))


def _is_superseded(segment: Segment) -> bool:
    """Whether the request has a server span further in, and no work hangs here."""
    exchange = segment.exchange
    if segment.late or segment.children or exchange is None:
        return False
    return exchange.has_inner_root(segment.root)
