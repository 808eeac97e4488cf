"""From ended spans to what the exporter gets: queue, assembly, translation, policy."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi import sentry
from otel_sentry_asgi._assembly import Assembler
from otel_sentry_asgi._deciding import decide_by_id
from otel_sentry_asgi._dsc import ClientFacts, continued, sampling_context
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import event_hex
from otel_sentry_asgi._model import Data, Transaction
from otel_sentry_asgi._noise import Noise, adopt
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._profiles import Profiles
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._segment import Segment, shortened
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._traffic import OwnTraffic
from otel_sentry_asgi._translate.reading import Reading
from otel_sentry_asgi._translate.resource import facts_of
from otel_sentry_asgi._translate.segment import (
    NO_REQUEST,
    RequestFacts,
    read,
    rename,
    to_transaction,
)
from otel_sentry_asgi._translate.span import is_local_root
from otel_sentry_asgi._trim import trim
from otel_sentry_asgi._worker import Item, Worker
from otel_sentry_asgi.export import Exporter, Origin
from otel_sentry_asgi.sampling import Decision, Decisions

Counts = tuple[tuple[str, int], ...]
Tell = Callable[[ReadableSpan, Exchange | None, Sequence[ReadableSpan]], None]

SLICE = 0.0002
"""Seconds of work after which the worker lets other threads run: less than a step of a request
takes."""

IDLE_SLICE = 0.001
"""The same where no request is under way that would be sent: nobody may want the lock, and to give
it up takes as long as a fifth of a transaction."""

LONG_SLICE = 0.002
"""The same where more than `MANY` spans wait: a busy thread gives the lock back after 5 ms only,
and the worker has to keep up."""

MANY = 300

PAUSE = 0.004
"""Seconds that the worker sleeps where more than `MANY` spans wait and somebody wanted the lock. To
wait for that of a busy event loop means to be woken in vain each time that it reads or writes."""

WANTED = 0.0002
"""Seconds that it takes at least to get the lock back from a thread that wanted it."""

LAGGING = 0.25
"""Seconds: a turn that takes longer, while more than `MANY` spans wait for the next, shows that
there are more traces than can be sent."""

MAX_UNSAMPLED = 1_000
"""Spans of traces that are not sent, after which the worker is woken to count them."""

PARTIAL = ".partial"
"""Ends the operation of a piece of a segment, so that statistics can tell it from a whole one."""

_PREPARING = contained("turn")
_TAKING = contained("span")
_TELLING = contained("exceptions")
_SENDING = contained("export")
_REPORTING = contained("client report")

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
        profiles: Profiles,
        tell: Tell,
        tidy: Callable[[float, bool], float | None],
        clock: Callable[[], float],
    ) -> None:
        """*tell* is called for each ended span with events, its exchange, and the spans that came
        with it; *tidy* in each turn with the time and whether to flush, and says when to call it
        next."""
        self._settings = settings
        self._exporter = exporter
        self._rest: Callable[[], None] | None = getattr(exporter, "rest", None)
        self._can_send: Callable[[], bool] = getattr(exporter, "is_healthy", lambda: True)
        self._trims = bool(getattr(exporter, "trims", False))
        self._lose: Callable[[str, Counts], None] = getattr(exporter, "lose", sentry.lose)
        self._stats = stats
        self._decisions = decisions
        self._profiles = profiles
        self._tell = tell
        self._tidy = tidy
        self._clock = clock
        self._closing = False
        self._slice_ends = 0.0
        self._turn_began = 0.0
        self._known_noise: tuple[Any, Noise] | None = None
        self._asked: dict[Any, _Asked] = {}
        """In this turn, by client."""
        self.traffic = OwnTraffic()
        self._assembler = Assembler(settings, self._lost_spans)
        self._unsampled: deque[str] = deque()
        """For each ended span of a trace that is not sent, why."""
        self._unsampled_roots: deque[str] = deque()
        """The same for each local root, noted at its start, where it is known to be one."""
        self._worker = Worker(self._turn, max_queue=settings.max_queue)

    def started(self, context: SpanContext, exchange: Exchange) -> None:
        """Queue that a sampled local root has started. Never blocks."""
        self._worker.put((_STARTED, context, exchange), wake=False)

    def ended(self, span: ReadableSpan, exchange: Exchange | None, *, wake: bool) -> None:
        """Queue an ended span; with *wake* see to it that the worker looks. Never blocks."""
        if not self._worker.put((_ENDED, span, exchange), wake=wake):
            self._lost_spans("queue_overflow", 1, segments=is_local_root(span))
            self._profiles.lost(span, exchange, "queue_overflow")

    def wake(self) -> None:
        """See to it that the worker has a turn, also if it is in one."""
        self._worker.look_again()

    def unsampled(self, span: ReadableSpan, exchange: Exchange | None, reason: str | None) -> None:
        """An ended span of a trace that is not sent: it may have exceptions, and is counted unless
        tracing is off, which is no *reason*. Uploads (`_is_upload`) count here, too: they have no
        spans but where others send them, and to tell them would cost each client span 1 us."""
        # `events` is a copy made under a lock.
        if getattr(span, "_events", True) and any(e.name == "exception" for e in span.events):
            if exchange is not None:
                exchange.awaited = True
            self._worker.put((_UNSAMPLED, span, exchange), wake=True)
        if reason is not None:
            self._note_unsampled(reason)

    def unsampled_root(self, reason: str) -> None:
        """A local root has started that is not sent. Its end is an ended span as any other."""
        self._unsampled_roots.append(reason)

    def dropped(self, reason: str) -> None:
        """A local root that our sampler did not let begin."""
        self.unsampled_root(reason)
        self._note_unsampled(reason)

    def _note_unsampled(self, reason: str) -> None:
        self._unsampled.append(reason)
        if len(self._unsampled) >= MAX_UNSAMPLED:
            self._worker.wake()

    def _count_unsampled(self) -> None:
        """Report what has been noted."""
        if not self._unsampled and not self._unsampled_roots:
            return
        roots, spans = map(_taken, (self._unsampled_roots, self._unsampled))
        for reason in roots.keys() | spans.keys():
            self._lost_spans(reason, spans[reason], segments=roots[reason])

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
        self._unsampled.clear()
        self._unsampled_roots.clear()
        self._worker.reset()

    def _flush_exporter(self, until: float) -> bool:
        with contained("exporter"):
            return self._exporter.force_flush(max(0.0, until - self._clock()))
        return False

    def _turn(self, items: list[Item], flush: bool) -> float | None:
        token = otel_context.attach(_suppressed())
        try:
            now = self._turn_began = self._clock()
            for prepare in (sentry.have_scopes, self._profiles.watch, self._count_unsampled):
                with _PREPARING:  # What fails keeps no items back.
                    prepare()
            for item in items:
                self._take(item, now)
            segments = (
                self._assembler.flush(everything=self._closing)
                if flush
                else self._assembler.due(now)
            )
            self._slice_ends = time.monotonic() + self._slice()
            for segment in segments:
                with _TELLING:
                    self._tell_of(segment)
                with _SENDING, sentry_scopes.client_of(segment.exchange):
                    self._send(segment)
                self._breathe()
            if segments and self._rest is not None:
                with contained("exporter"):
                    self._rest()
            self._look_at_pressure(turn_is_over=True)
            due = self._decisions.pressure.next_due(now)
            times = (self._assembler.next_due(), self._tidy(now, flush), due)
            return min((at for at in times if at is not None), default=None)
        finally:
            self._asked.clear()
            otel_context.detach(token)

    def _breathe(self) -> None:
        """Give up the interpreter's lock where it is time: the event loop's turn."""
        began = time.monotonic()
        if began > self._slice_ends:
            time.sleep(0)
            if self._worker.waiting >= MANY:
                if time.monotonic() - began > WANTED:
                    time.sleep(PAUSE)
                self._look_at_pressure(turn_is_over=False)
            self._slice_ends = time.monotonic() + self._slice()

    def _look_at_pressure(self, *, turn_is_over: bool) -> None:
        """See whether more comes than can be sent, and have less sampled then."""
        with contained("backpressure"):
            pressure, now = self._decisions.pressure, self._clock()
            is_behind = now - self._turn_began > LAGGING and self._worker.waiting >= MANY
            if not sentry.handles_backpressure():
                pressure.factor = 0
            elif is_behind or not self._can_send():
                pressure.look(now, is_strained=True)
            elif turn_is_over:
                pressure.look(now, is_strained=False)

    def _slice(self) -> float:
        waiting = self._worker.waiting
        if waiting >= MANY:
            return LONG_SLICE
        return SLICE if waiting or self._assembler.has_open else IDLE_SLICE

    def _take(self, item: Item, now: float) -> None:
        """Hand one item on. What cannot be is counted, and does not keep back those after it."""
        kind, subject, exchange = item
        with _TAKING:
            if kind == _STARTED:
                self._assembler.started(subject, exchange, now)
            elif kind == _UNSAMPLED:
                self._tell(subject, exchange, [subject])
            elif subject.context.trace_flags.sampled and not self._is_upload(subject):
                self._assembler.ended(subject, exchange, now)
            return
        if kind == _ENDED:
            self._lost_spans("internal_sdk_error", 1)

    def _tell_of(self, segment: Segment) -> None:
        spans = [segment.root, *segment.children]
        with_events = [span for span in spans if span.events]
        segment.quiet = not with_events
        for span in with_events:
            self._tell(span, segment.exchange, spans)

    def _is_upload(self, span: ReadableSpan) -> bool:
        # An upload that is a root has been announced: it is left out when its segment is complete.
        return self.traffic.holds(span) and not is_local_root(span)

    def _send(self, segment: Segment) -> None:
        if self.traffic.holds(segment.root):
            return
        decision = self._decision_of(segment)
        if not decision.sampled:
            if decision.reason is not None:
                self._lost_segment(decision.reason, segment)
            return
        if _is_superseded(segment):
            self._stats.add("superseded")
            return
        try:
            self._send_on(segment, decision)
        except BaseException:
            self._lost_segment("internal_sdk_error", segment)
            raise
        finally:
            if segment.exchange is not None:
                segment.exchange.policy = segment.exchange.sent_request = None

    def _send_on(self, segment: Segment, decision: Decision) -> None:
        """Translate, clean and export it, unless it is noise."""
        exchange, asked = segment.exchange, self._ask()
        facts = NO_REQUEST if exchange is None else sentry_scopes.facts_of(exchange)
        root = segment.root if segment.since is None else shortened(segment.root, segment.since)
        reading = read(root, facts, late=segment.late)
        subject = _subject(segment)
        data = reading.data if subject is segment.root else read(subject, facts).data
        if asked.noise.has_segment(subject, facts, data):
            self._lost_segment("ignored", segment)
            return
        kept, ignored = asked.noise.split(segment.children)
        if ignored:
            self._lost_spans("ignored", len(segment.children) - len(kept))
            segment.children = kept
        transaction = self._to_transaction(segment, root, reading, facts, decision, asked)
        if ignored:
            adopt(transaction["spans"], ignored)
        profile = self._profiles.link(transaction, segment)
        self._breathe()
        clean = asked.policy.clean(transaction)
        if self._settings.on_payload is not None:
            shown = clean.shown_to(self._settings.on_payload)
            if shown is None:
                self._lost_segment("before_send", segment)
                return
            clean = shown
        isolation = current = None
        if exchange is not None:
            isolation, current = exchange.sentry_scope, exchange.current_scope
            exchange.policy = asked.policy
            if request := clean.payload.get("request"):
                exchange.sent_request = _copied(request)
        self._breathe()
        too_large = 0 if self._trims else trim(clean.payload)
        more = self._rest is not None
        self._exporter.export(clean, Origin(isolation, current, profile, more))
        self._profiles.sent(exchange, profile)
        self._stats.add("transactions")
        self._stats.add("spans", len(segment.children) + 1 - too_large)
        if segment.dropped + too_large:
            # The client reports them, as `_dropped_spans`.
            self._stats.add("lost.buffer_overflow", segment.dropped + too_large)

    def _ask(self) -> _Asked:
        """What the segment's client says: each is asked once a turn, as all its spans have ended
        before it."""
        client = sentry.active_client()
        asked = self._asked.get(client)
        if asked is None:
            policy = sentry.policy(self._settings)
            asked = self._asked[client] = _Asked(client, policy, self._noise(), sentry.facts())
        return asked

    def _noise(self) -> Noise:
        """Made anew when the client's options change."""
        client = sentry.ignored_spans(), frozenset(sentry.ignored_statuses())
        if self._known_noise is None or self._known_noise[0] != client:
            given = self._settings
            noise = Noise(
                spans=(*given.ignore_spans, *client[0]),
                statuses=given.trace_ignore_status_codes | client[1],
                methods=given.ignored_methods,
                paths=given.ignored_paths,
                orphan_clients=given.ignore_orphan_clients,
            )
            self._known_noise = client, noise
        return self._known_noise[1]

    def _decision_of(self, segment: Segment) -> Decision:
        """The decision made at the start; for a trace without any, what its id gives."""
        trace_id = segment.root.context.trace_id
        decision = self._decisions.get(trace_id)
        if decision is None:
            decision = decide_by_id(trace_id)
        if self._settings.keep_failed and decision.sample_rate is not None and _has_failed(segment):
            # Of what failed everything is kept, also what the rate would have kept.
            decision = Decision(True, 1.0, decision.sample_rand)
            self._decisions.add(trace_id, decision)
            frozen = self._decisions.frozen(trace_id)
            if frozen is not None:
                self._decisions.freeze(trace_id, continued(frozen, decision, changed=True))
        return decision

    def _to_transaction(
        self,
        segment: Segment,
        root: ReadableSpan,
        reading: Reading,
        facts: RequestFacts,
        decision: Decision,
        asked: _Asked,
    ) -> Transaction:
        exchange = segment.exchange
        is_own = segment.partial or (exchange is not None and exchange.is_root(root))
        trace_id = root.context.trace_id
        frozen = self._decisions.frozen(trace_id)
        transaction = to_transaction(
            root,
            segment.children,
            event_id=event_hex(trace_id, root.context.span_id),
            facts=facts,
            sampling_context=(
                None if frozen is not None else sampling_context(trace_id, asked.facts, decision)
            ),
            late=segment.late,
            dropped=segment.dropped,
            quiet=segment.quiet,
            pause=self._breathe,
            reading=reading,
        )
        if segment.partial:
            transaction["contexts"]["trace"]["op"] += PARTIAL
        if exchange is not None and is_own:
            by_hand = sentry_scopes.name_set_by_hand(exchange.current_scope)
            if by_hand is not None:
                rename(transaction, by_hand)
        if frozen:
            transaction["contexts"]["trace"]["dynamic_sampling_context"] = dict(frozen)
        sentry.fill_defaults(transaction, facts_of(root.resource)[1], asked.client.options)
        return transaction

    def _lost_spans(self, reason: str, spans: int, *, segments: int = 0) -> None:
        self._stats.add(f"lost.{reason}", spans)
        with _REPORTING:  # The transport may be the application's own.
            self._lose(reason, (("transaction", segments), ("span", spans)))

    def _lost_segment(self, reason: str, segment: Segment) -> None:
        self._lost_spans(reason, len(segment.children) + 1 + segment.dropped, segments=1)
        self._profiles.lost(segment.root, segment.exchange, reason)


class _Asked(NamedTuple):
    """What a client says."""

    client: Any
    policy: Policy
    noise: Noise
    facts: ClientFacts | None


def _taken(noted: deque[str]) -> Counter[str]:
    """What has been noted until now, taken out."""
    return Counter(noted.popleft() for _ in range(len(noted)))


def _copied(request: Data) -> Data:
    """A copy that keeps what it was when others change the request."""
    return {key: dict(part) if type(part) is dict else part for key, part in request.items()}


def _suppressed() -> otel_context.Context:
    """A context in which OTel's instrumentations make no spans."""
    key = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
    return otel_context.set_value(key, value=True)


def _has_failed(segment: Segment) -> bool:
    """Whether an exception was reported in the segment's request, or one of its spans failed."""
    exchange = segment.exchange
    if exchange is not None and exchange.told:
        return True
    return any(
        span.status.status_code is StatusCode.ERROR for span in (segment.root, *segment.children)
    )


def _subject(segment: Segment) -> ReadableSpan:
    """The span that tells whether a segment is noise: what is late goes with its request."""
    exchange = segment.exchange
    of_request = exchange.root if segment.late and exchange is not None else None
    return of_request or segment.root


def _is_superseded(segment: Segment) -> bool:
    """Whether the request has a server span further in, and no work hangs here."""
    exchange = segment.exchange
    if segment.late or segment.children or exchange is None:
        return False
    return exchange.has_inner_root(segment.root)
