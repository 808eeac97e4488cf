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
   children that wait for it as follow-ups. It stays live.

Every ended span comes out in exactly one segment, or is counted exactly once: in a segment's
`dropped`, or in a call of `lost` where its trace has no segment any more. What is live is
bounded in count by `max_roots`, what waits by `max_buffered` and, for one segment, by
`max_spans`. One thread calls the assembler at a time; it takes no lock and reads no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._translate.span import is_local_root

Lost = Callable[[str, int], None]
"""Called with a discard reason and a number of spans."""

MAX_ROOTS = 10_000
"""Live roots that are remembered (the number that Sentry's JavaScript SDK remembers of sent
ones)."""

SHORTEST_WAIT = 0.01
"""Seconds until a request that still runs is looked at again, should `settle` be shorter."""

MAX_SENT = 1_000
"""Traces whose segment has been cut and whose late spans can still be told apart from orphans."""


@dataclass(slots=True)
class Segment:
    """A local root and what ended below it; or, when *late*, a span whose root was cut before."""

    root: ReadableSpan
    children: list[ReadableSpan]
    exchange: Exchange | None
    late: bool = False
    dropped: int = 0


@dataclass(slots=True)
class _Root:
    """A local root that has started and has not been cut."""

    context: SpanContext
    exchange: Exchange | None
    span: ReadableSpan | None = None
    due: float = 0.0
    latest: float = 0.0


@dataclass(slots=True)
class _Waiting:
    span: ReadableSpan
    exchange: Exchange | None


@dataclass(slots=True)
class _Trace:
    """What is live or waits in one trace."""

    roots: dict[int, _Root] = field(default_factory=dict)
    waiting: list[_Waiting] = field(default_factory=list)
    """For one of the roots."""
    late: list[_Waiting] = field(default_factory=list)
    """For no root that is known."""
    late_due: float = 0.0
    dropped: int = 0
    active: float = 0.0


class Assembler:
    """Groups ended spans. `started` and `ended` take the time of the call, in monotonic seconds."""

    def __init__(self, settings: Settings, lost: Lost, *, max_roots: int = MAX_ROOTS) -> None:
        self._settings = settings
        self._lost = lost
        self._max_roots = max_roots
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        self._busy: dict[int, _Trace] = {}
        """Those in which something has ended: the others, such as idle websockets, cost nothing."""
        self._sent: OrderedDict[int, Exchange | None] = OrderedDict()
        self._open: OrderedDict[tuple[int, int], None] = OrderedDict()
        """The roots that have not ended, oldest first."""
        self._buffered = 0

    @property
    def buffered(self) -> int:
        """Ended spans that wait: at most `max_buffered`, and `max_roots` more."""
        return self._buffered

    def started(self, context: SpanContext, exchange: Exchange | None, now: float) -> None:
        """Note that a local root has started."""
        trace = self._trace(context.trace_id, now)
        if context.span_id not in trace.roots:
            self._add_root(trace, context, exchange)

    def ended(self, span: ReadableSpan, exchange: Exchange | None, now: float) -> None:
        """Note that a span has ended."""
        context = span.context
        trace = self._trace(context.trace_id, now)
        root = trace.roots.get(context.span_id)
        if root is None and is_local_root(span):
            root = self._add_root(trace, context, exchange)
            trace.waiting, trace.late = trace.waiting + trace.late, []
        if root is not None and root.span is None:
            self._open.pop((context.trace_id, context.span_id), None)
            if self._buffered >= self._settings.max_buffered + self._max_roots:
                self._drop_root(context, trace)
                return
            root.span, root.exchange = span, root.exchange or exchange
            root.due, root.latest = now + self._settings.settle, now + self._settings.linger
            self._buffer(context.trace_id, trace)
        elif self._buffered >= self._settings.max_buffered:
            trace.dropped += 1
            self._tidy(context.trace_id, trace)
        else:
            self._buffer(context.trace_id, trace)
            self._wait(trace, _Waiting(span, exchange), now)

    def due(self, now: float) -> list[Segment]:
        """Cut what is complete at the time *now*."""
        segments: list[Segment] = []
        for trace_id, trace in list(self._busy.items()):
            due = [root for root in trace.roots.values() if self._is_due(root, now)]
            segments.extend(self._cut(trace_id, trace, root) for root in due)
            if trace.late and now >= trace.late_due:
                segments.extend(self._cut_late(trace_id, trace))
            if trace.waiting and now >= trace.active + self._settings.max_age:
                trace.late, trace.waiting = trace.late + trace.waiting, []
                segments.extend(self._cut_late(trace_id, trace))
            self._tidy(trace_id, trace)
        return segments

    def flush(self, *, everything: bool) -> list[Segment]:
        """Cut every root that has ended; with *everything*, also what waits for roots that have
        not."""
        segments: list[Segment] = []
        for trace_id, trace in list(self._busy.items()):
            ended = [root for root in trace.roots.values() if root.span is not None]
            segments.extend(self._cut(trace_id, trace, root) for root in ended)
            if everything:
                trace.late, trace.waiting = trace.late + trace.waiting, []
            segments.extend(self._cut_late(trace_id, trace))
            self._tidy(trace_id, trace)
        if everything:
            for trace in self._traces.values():
                self._count_dropped(trace)
        return segments

    def next_due(self) -> float | None:
        """When `due` should be called next; None if nothing waits."""
        times: list[float] = []
        for trace in self._busy.values():
            times.extend(root.due for root in trace.roots.values() if root.span is not None)
            if trace.late:
                times.append(trace.late_due)
            if trace.waiting:
                times.append(trace.active + self._settings.max_age)
        return min(times, default=None)

    def _trace(self, trace_id: int, now: float) -> _Trace:
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = _Trace()
        trace.active = now
        return trace

    def _buffer(self, trace_id: int, trace: _Trace) -> None:
        self._busy[trace_id] = trace
        self._buffered += 1

    def _add_root(self, trace: _Trace, context: SpanContext, exchange: Exchange | None) -> _Root:
        root = trace.roots[context.span_id] = _Root(context, exchange)
        self._open[context.trace_id, context.span_id] = None
        if len(self._open) > self._max_roots:
            self._forget_oldest_root()
        return root

    def _drop_root(self, context: SpanContext, trace: _Trace) -> None:
        del trace.roots[context.span_id]
        trace.dropped += 1
        if not trace.roots:
            self._set_late(trace, trace.waiting)
        self._tidy(context.trace_id, trace)

    def _wait(self, trace: _Trace, waiting: _Waiting, now: float) -> None:
        if not trace.roots:
            if not trace.late:
                trace.late_due = now + self._settings.settle
            trace.late.append(waiting)
        else:
            trace.waiting.append(waiting)
            if len(trace.waiting) > 2 * self._settings.max_spans * len(trace.roots):
                self._prune(trace)

    def _is_due(self, root: _Root, now: float) -> bool:
        if root.span is None or now < root.due:
            return False
        exchange = root.exchange
        if exchange is None or not exchange.is_request or exchange.finished or now >= root.latest:
            return True
        root.due = min(now + max(self._settings.settle, SHORTEST_WAIT), root.latest)
        return False

    def _cut(self, trace_id: int, trace: _Trace, root: _Root) -> Segment:
        del trace.roots[root.context.span_id]
        mine, others = _split(trace, root)
        if trace.roots:
            trace.waiting = others
        else:
            self._set_late(trace, others)
        children, dropped = self._within_limit([waiting.span for waiting in mine])
        dropped += trace.dropped
        trace.dropped = 0
        self._buffered -= 1 + len(mine)
        self._remember(trace_id, root.exchange)
        assert root.span is not None
        return Segment(root.span, children, root.exchange, dropped=dropped)

    def _set_late(self, trace: _Trace, spans: list[_Waiting]) -> None:
        """What waited has no root any more: it is due as soon as anybody looks."""
        trace.waiting = []
        if spans:
            trace.late_due = trace.active
            trace.late.extend(spans)

    def _cut_late(self, trace_id: int, trace: _Trace) -> list[Segment]:
        """Follow-ups: each span whose parent does not wait with it, with what is below it."""
        late, trace.late = trace.late, []
        self._buffered -= len(late)
        segments = []
        for top, below in _trees(late):
            children, dropped = self._within_limit([waiting.span for waiting in below])
            exchange = top.exchange or self._sent.get(trace_id)
            segments.append(Segment(top.span, children, exchange, late=True, dropped=dropped))
        if segments and not trace.roots:
            segments[0].dropped += trace.dropped
            trace.dropped = 0
        return segments

    def _within_limit(self, spans: list[ReadableSpan]) -> tuple[list[ReadableSpan], int]:
        limit = self._settings.max_spans
        if len(spans) <= limit:
            return spans, 0
        spans = sorted(spans, key=lambda span: span.start_time or 0)
        return spans[:limit], len(spans) - limit

    def _prune(self, trace: _Trace) -> None:
        """Keep the earliest spans of a trace that holds too many to be sent."""
        limit = self._settings.max_spans * len(trace.roots)
        trace.waiting.sort(key=lambda waiting: waiting.span.start_time or 0)
        surplus = len(trace.waiting) - limit
        del trace.waiting[limit:]
        trace.dropped += surplus
        self._buffered -= surplus

    def _remember(self, trace_id: int, exchange: Exchange | None) -> None:
        if exchange is not None and exchange.finished:
            exchange.trail.clear()
        self._sent[trace_id] = exchange
        self._sent.move_to_end(trace_id)
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def _forget_oldest_root(self) -> None:
        """Its children come out as follow-ups; if it ends after all, it comes out alone."""
        (trace_id, span_id), _ = self._open.popitem(last=False)
        trace = self._traces[trace_id]
        del trace.roots[span_id]
        if not trace.roots:
            self._set_late(trace, trace.waiting)
        self._tidy(trace_id, trace)

    def _tidy(self, trace_id: int, trace: _Trace) -> None:
        """Forget the trace if nothing is live or waits in it."""
        if trace.waiting or trace.late:
            return
        if not trace.roots:
            self._traces.pop(trace_id, None)
            self._count_dropped(trace)
        if all(root.span is None for root in trace.roots.values()):
            self._busy.pop(trace_id, None)

    def _count_dropped(self, trace: _Trace) -> None:
        if trace.dropped:
            self._lost("buffer_overflow", trace.dropped)
            trace.dropped = 0


def _split(trace: _Trace, root: _Root) -> tuple[list[_Waiting], list[_Waiting]]:
    """The spans below *root*, and those of other roots, whether they are live or not any more.

    A span goes where its chain of parents leads; where a parent has not ended yet, the exchange
    tells; what even that does not tell goes with the last root of the trace.
    """
    if not trace.roots and all(waiting.exchange is root.exchange for waiting in trace.waiting):
        return trace.waiting, []  # The common case.
    parents = {w.span.context.span_id: w.span.parent for w in trace.waiting}
    owners: dict[int, int | None] = {root.context.span_id: root.context.span_id}
    owners.update((span_id, span_id) for span_id in trace.roots)
    mine: list[_Waiting] = []
    others: list[_Waiting] = []
    for waiting in trace.waiting:
        owner = _owner(waiting.span.context.span_id, parents, owners)
        if owner is not None:
            is_mine = owner == root.context.span_id
        elif waiting.exchange is None or root.exchange is None:
            is_mine = not trace.roots
        else:
            is_mine = waiting.exchange is root.exchange
        (mine if is_mine else others).append(waiting)
    return mine, others


def _trees(spans: list[_Waiting]) -> list[tuple[_Waiting, list[_Waiting]]]:
    """Each span whose parent is not there, with all that is below it. Every span comes out once,
    also where ids are equal or parents form a ring."""
    parents = {w.span.context.span_id: w.span.parent for w in spans}
    owners: dict[int, int | None] = {}
    trees: dict[int, tuple[_Waiting, list[_Waiting]]] = {}
    rest: list[_Waiting] = []
    for w in spans:
        span_id, parent = w.span.context.span_id, w.span.parent
        if span_id not in trees and (parent is None or parent.span_id not in parents):
            owners[span_id] = span_id
            trees[span_id] = (w, [])
        else:
            rest.append(w)
    alone: list[tuple[_Waiting, list[_Waiting]]] = []
    for w in rest:
        owner = _owner(w.span.context.span_id, parents, owners)
        if owner is None:
            alone.append((w, []))
        else:
            trees[owner][1].append(w)
    return [*trees.values(), *alone]


def _owner(
    span_id: int, parents: dict[int, SpanContext | None], owners: dict[int, int | None]
) -> int | None:
    """The root above a span, following parents that wait as well; remembers the way."""
    way: list[int] = []
    at: int | None = span_id
    seen: set[int] = set()
    while at is not None and at not in owners and at not in seen:
        seen.add(at)
        way.append(at)
        parent = parents.get(at)
        at = parent.span_id if parent is not None else None
    owner = owners.get(at) if at is not None else None
    owners.update(dict.fromkeys(way, owner))
    return owner
