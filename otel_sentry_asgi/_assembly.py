"""Ended spans to segments.

A segment is a local root and everything that ended below it. OTel tells of spans when they end, so
children come before their root, and OTel's ASGI middleware ends the root when the last body chunk
is sent, while the application still runs. So the end of the root is not the end of the segment:

1. A root *starts*: its trace is live.
2. A span *ends*: it waits in its trace.
3. The root ends: the segment stays open for `settle` seconds, and up to `linger` while its exchange
   still runs. Then it is cut: the root and all spans that wait for it come out as one `Segment`.
4. A span that ends later comes out as a follow-up segment (`late`), after another `settle`, also
   when another root of the same trace has started since.
5. A root that has not ended, and in whose trace nothing has for `max_age` seconds, gives up the
   children that wait for it. It stays live. What it gives up comes out as a `partial` segment,
   whose root is made from the open root; where that is not at hand, as follow-ups.
6. Streams (websockets, server-sent events) go on for hours: theirs are given up when the first has
   waited for `max_age`, or `max_spans` of them wait. When the stream ends, its segment tells of the
   time *since* the last piece, and of no more than `max_age`. Any other root that is open for more
   than `max_age` gives up each `max_spans` children, instead of losing them.

Every ended span comes out in exactly one segment, or is counted exactly once: in a segment's
`dropped`, or in a call of `lost` where its trace has no segment any more. What is live is
bounded in count by `max_roots`, what waits by `max_buffered` and, for one root, by twice
`max_spans`. No step costs more than what it takes out, however much is open: what has a time
stands in order of time. One thread calls the assembler at a time; it takes no lock and reads no
clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_sentry_asgi._lineage import Root, Trace, Waiting, cut_latest
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._segment import (
    Segment,
    follow_ups,
    is_stream,
    outline,
    pieces,
    since_of,
    size_of,
)
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._translate.span import is_local_root


class Lost(Protocol):
    """Called with a discard reason and how many spans, and segments' roots among them, are lost."""

    def __call__(self, reason: str, spans: int, *, segments: int = 0) -> None:
        """Count them."""


MAX_ROOTS = 10_000
"""Live roots that are remembered (the number that Sentry's JavaScript SDK remembers of sent
ones)."""

SHORTEST_WAIT = 0.01
"""Seconds until a request that still runs is looked at again, should `settle` be shorter."""

MAX_SENT = 200
"""Traces that have been sent and whose request is still known, for late spans that do not carry it
themselves. Each is 17 objects that the garbage collector goes over, most of them of its scopes."""


_Deadline = tuple[float, int, Trace, Root | None]
"""When to look, a number that orders what is due at one time, and where: at a root that has ended,
or at the rest of its trace."""


class Assembler:
    """Groups ended spans. `started` and `ended` take the time of the call, in monotonic seconds,
    which never goes back."""

    def __init__(self, settings: Settings, lost: Lost, *, max_roots: int = MAX_ROOTS) -> None:
        self._settings = settings
        self._lost = lost
        self._max_roots = max_roots
        self._traces: dict[int, Trace] = {}
        self._deadlines: list[_Deadline] = []
        """A heap. The root's are all valid, others may have been overtaken."""
        self._number = count()
        self._patient: dict[Trace, float] = {}
        """Since when spans wait for roots that may not have ended; the longest first."""
        self._ready: list[Segment] = []
        """What was given up for want of room."""
        self._sent: OrderedDict[int, Exchange | None] = OrderedDict()
        self._open: dict[Root, Trace] = {}
        """The roots that have not ended, oldest first."""
        self._buffered = 0

    @property
    def buffered(self) -> int:
        """Ended spans that wait: at most `max_buffered`, and `max_roots` more."""
        return self._buffered

    @property
    def has_open(self) -> bool:
        """Whether a root has started and not ended."""
        return bool(self._open)

    def started(self, context: SpanContext, exchange: Exchange | None, now: float) -> None:
        """Note that a local root has started."""
        trace = self._traces.get(context.trace_id) or self._add_trace(context.trace_id)
        if context.span_id not in trace.roots:
            self._add_root(trace, context, exchange, now)

    def ended(self, span: ReadableSpan, exchange: Exchange | None, now: float) -> None:
        """Note that a span has ended."""
        context = span.context
        trace = self._traces.get(context.trace_id) or self._add_trace(context.trace_id)
        trace.active = now
        root = trace.roots.get(context.span_id)
        if root is None and is_local_root(span):
            root = self._add_root(trace, context, exchange, now)
            if trace.late:
                self._hold(trace, trace.late, now)
                trace.late = []
        if root is not None and root.span is None:
            self._root_ended(trace, root, span, exchange, now)
        elif self._buffered >= self._settings.max_buffered:
            trace.dropped += 1
            self._tidy(trace)
        else:
            self._buffered += 1
            if trace.roots:
                self._hold(trace, ((span, exchange),), now)
            else:
                trace.late.append((span, exchange))
                if len(trace.late) == 1:
                    self._look_at(trace, now + self._settings.settle)

    def due(self, now: float) -> list[Segment]:
        """Cut what is complete at the time *now*."""
        segments = self._take_ready()
        while self._deadlines and self._deadlines[0][0] <= now:
            at, _, trace, root = heappop(self._deadlines)
            if root is None:
                segments.extend(self._rest_of(trace, at, now))
            elif self._is_due(root, now):
                segments.append(self._cut(trace, root))
            else:
                heappush(self._deadlines, (root.due, next(self._number), trace, root))
        while (patient := self._most_patient()) and self._patience_of(patient) <= now:
            segments.extend(self._lose_patience(patient, now))
        return segments

    def flush(self, *, everything: bool) -> list[Segment]:
        """Cut every root that has ended; with *everything*, also what waits for roots that have
        not."""
        segments = self._take_ready()
        pending, self._deadlines = self._deadlines, []
        segments.extend(self._cut(trace, root) for _, _, trace, root in pending if root)
        if everything:
            for trace in list(self._traces.values()):
                segments.extend(self._give_up(trace, trace.roots.values()))
                self._abandon(trace, trace.take_unknown())
        for one in [*pending, *self._deadlines]:
            if one[2].late:
                segments.extend(self._cut_late(one[2]))
        # What is left are traces whose time has been put off.
        self._deadlines = [one for one in pending if one[3] is None and one[2].held]
        heapify(self._deadlines)
        if everything:
            for trace in self._traces.values():
                self._count_dropped(trace)
        return segments

    def next_due(self) -> float | None:
        """When `due` should be called next; None if nothing waits."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][3] is None and not _waits(deadlines[0][2]):
            heappop(deadlines)
        times = [deadlines[0][0]] if deadlines else []
        if trace := self._most_patient():
            times.append(self._patience_of(trace))
        if self._ready:
            times.append(0.0)
        return min(times, default=None)

    # -- roots ----------------------------------------------------------------------------------

    def _add_trace(self, trace_id: int) -> Trace:
        trace = self._traces[trace_id] = Trace(trace_id, self._settings.max_spans)
        return trace

    def _add_root(
        self, trace: Trace, context: SpanContext, exchange: Exchange | None, now: float
    ) -> Root:
        root = Root(context, exchange, now)
        trace.add(root)
        self._open[root] = trace
        if len(self._open) > self._max_roots:
            self._forget_oldest_root()
        return root

    def _root_ended(
        self, trace: Trace, root: Root, span: ReadableSpan, exchange: Exchange | None, now: float
    ) -> None:
        self._open.pop(root, None)
        if self._buffered >= self._settings.max_buffered + self._max_roots:
            self._lost("buffer_overflow", 1, segments=1)
            self._drop(trace, root)
            return
        self._buffered += 1
        root.span, root.exchange = span, root.exchange or exchange
        root.due, root.latest = now + self._settings.settle, now + self._settings.linger
        heappush(self._deadlines, (root.due, next(self._number), trace, root))

    def _forget_oldest_root(self) -> None:
        """Its children come out as follow-ups; if it ends after all, it comes out alone."""
        root = next(iter(self._open))
        self._drop(self._open.pop(root), root)

    def _drop(self, trace: Trace, root: Root) -> None:
        trace.dropped += root.dropped
        trace.remove(root)
        self._abandon(trace, root.waiting)
        self._cut_off(trace)

    def _is_due(self, root: Root, now: float) -> bool:
        exchange = root.exchange
        if exchange is None or not exchange.is_request or exchange.finished or now >= root.latest:
            return True
        root.due = min(now + max(self._settings.settle, SHORTEST_WAIT), root.latest)
        return False

    # -- what waits -----------------------------------------------------------------------------

    def _hold(self, trace: Trace, spans: Sequence[Waiting], now: float) -> None:
        """Let *spans*, which are counted as buffered, wait for the roots of their trace."""
        if not trace.held:
            self._patient[trace] = now
        trace.held += len(spans)
        trace.waiting.extend(spans)
        if len(trace.waiting) >= trace.limit:
            self._make_room(trace, now)

    def _make_room(self, trace: Trace, now: float) -> None:
        """Of a trace that holds as many spans as can be sent of one root: give up those of
        long-lived roots, and of others keep the earliest."""
        most = self._settings.max_spans
        roots = list(trace.roots.values())
        if len(roots) > 1:
            trace.sort_out()
        for root in roots:
            waiting = root.waiting if len(roots) > 1 else trace.waiting
            if len(waiting) >= most and self._is_long_lived(root, now):
                given_up = self._give_up(trace, [root])
                self._ready.extend(given_up)
                self._buffered += sum(map(size_of, given_up))
            elif len(waiting) > 2 * most:
                root.dropped += self._prune(trace, waiting)
        if len(trace.waiting) > 2 * most:
            trace.dropped += self._prune(trace, trace.waiting)
        trace.limit = most if len(trace.waiting) < most else 2 * most + 1

    def _prune(self, trace: Trace, waiting: list[Waiting]) -> int:
        surplus = cut_latest(waiting, self._settings.max_spans)
        self._release(trace, surplus)
        self._buffered -= len(surplus)
        return len(surplus)

    def _is_long_lived(self, root: Root, now: float) -> bool:
        if root.span is not None:
            return False
        return is_stream(root) or now - root.started > self._settings.max_age

    def _take_ready(self) -> list[Segment]:
        ready, self._ready = self._ready, []
        self._buffered -= sum(map(size_of, ready))
        return ready

    # -- patience -------------------------------------------------------------------------------

    def _most_patient(self) -> Trace | None:
        return next(iter(self._patient), None)

    def _patience_of(self, trace: Trace) -> float:
        return self._patient[trace] + self._settings.max_age

    def _lose_patience(self, trace: Trace, now: float) -> list[Segment]:
        """Give up what waits for streams and, where nothing has ended for so long, for other open
        roots; else look again when that is so."""
        self._patient.pop(trace, None)
        silence = trace.active + self._settings.max_age
        is_silent = now >= silence
        roots = [root for root in trace.roots.values() if root.span is None]
        segments = self._give_up(trace, [r for r in roots if is_silent or is_stream(r)])
        if is_silent and len(roots) == len(trace.roots):
            self._abandon(trace, trace.take_unknown())
            segments.extend(self._cut_late(trace))
        if trace.held:
            trace.put_off = silence if not is_silent else now + self._settings.max_age
            heappush(self._deadlines, (trace.put_off, next(self._number), trace, None))
        return segments

    def _give_up(self, trace: Trace, roots: Iterable[Root]) -> list[Segment]:
        """What waits for *roots*, which have not ended: as pieces where the root is at hand."""
        segments: list[Segment] = []
        for root in roots:
            mine = self._claim(trace, root)
            exchange = root.exchange
            live = exchange.root if exchange is not None else None
            if live is None or live.context != root.context:
                made = follow_ups(mine, self._settings.max_spans, self._sent.get(trace.trace_id))
            else:
                made = pieces(root, live, mine, self._settings.max_spans)
            if made:
                made[0].dropped += root.dropped + trace.dropped
                root.dropped = trace.dropped = 0
            segments.extend(made)
        return segments

    # -- what comes out -------------------------------------------------------------------------

    def _cut(self, trace: Trace, root: Root) -> Segment:
        mine = self._claim(trace, root)
        trace.remove(root)
        dropped = len(cut_latest(mine, self._settings.max_spans))
        dropped += root.dropped + trace.dropped
        trace.dropped = 0
        self._buffered -= 1
        self._remember(trace.trace_id, root.exchange)
        self._cut_off(trace)
        assert root.span is not None
        since = since_of(root, root.span, self._settings.max_age)
        children = [child for child, _ in mine]
        return Segment(root.span, children, root.exchange, dropped=dropped, since=since)

    def _rest_of(self, trace: Trace, at: float, now: float) -> list[Segment]:
        """What is due at the time *at* in a trace, beside its roots."""
        segments = []
        if trace.late and now >= trace.late_due:
            segments = self._cut_late(trace)
        if trace.held and at == trace.put_off and trace not in self._patient:
            segments.extend(self._lose_patience(trace, now))
        return segments

    def _cut_late(self, trace: Trace) -> list[Segment]:
        late, trace.late = trace.late, []
        self._buffered -= len(late)
        segments = follow_ups(late, self._settings.max_spans, self._sent.get(trace.trace_id))
        if segments and not trace.roots:
            segments[0].dropped += trace.dropped
            trace.dropped = 0
        self._tidy(trace)
        return segments

    def _claim(self, trace: Trace, root: Root) -> list[Waiting]:
        mine = trace.claim(root)
        if mine:
            self._release(trace, mine)
            self._buffered -= len(mine)
        return mine

    def _abandon(self, trace: Trace, spans: list[Waiting]) -> None:
        """Those that waited have no root any more: they are due as soon as anybody looks."""
        if spans:
            self._release(trace, spans)
            trace.late.extend(spans)
            self._look_at(trace, trace.active)

    def _look_at(self, trace: Trace, at: float) -> None:
        trace.late_due = at
        heappush(self._deadlines, (at, next(self._number), trace, None))

    def _cut_off(self, trace: Trace) -> None:
        """A root has gone. Without any, what waits has nobody to wait for."""
        if not trace.roots:
            self._abandon(trace, trace.take_unknown())
        self._tidy(trace)

    def _release(self, trace: Trace, spans: list[Waiting]) -> None:
        """Those *spans*, which have been taken out, do not wait any more."""
        trace.release(spans)
        if not trace.held:
            self._patient.pop(trace, None)
            trace.limit = self._settings.max_spans

    def _remember(self, trace_id: int, exchange: Exchange | None) -> None:
        if exchange is not None and exchange.finished:
            exchange.trail = None
            if exchange.root is not None and exchange.root.end_time:
                exchange.root = outline(exchange.root)
        self._sent[trace_id] = exchange
        self._sent.move_to_end(trace_id)
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def _tidy(self, trace: Trace) -> None:
        """Forget the trace if nothing is live or waits in it."""
        if not trace.roots and not trace.late and not trace.held:
            self._traces.pop(trace.trace_id, None)
            if trace.dropped:
                self._count_dropped(trace)

    def _count_dropped(self, trace: Trace) -> None:
        dropped = trace.dropped + sum(root.dropped for root in trace.roots.values())
        if dropped:
            self._lost("buffer_overflow", dropped)
            trace.dropped = 0
            for root in trace.roots.values():
                root.dropped = 0


def _waits(trace: Trace) -> bool:
    return bool(trace.late or trace.held)
