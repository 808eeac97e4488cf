"""Ended spans to segments.

A segment is a local root and everything that ended below it. OTel tells of spans when they end, so
children come before their root, and OTel's ASGI middleware ends the root when the last body chunk
is sent, while the application still runs. So the end of the root is not the end of the segment:

1. A root *starts*: its trace is live.
2. A span *ends*: it waits in its trace.
3. The root ends: the segment stays open for `settle` seconds, and up to `linger` while its exchange
   still runs. Then it is cut: the root and all spans that wait for it come out as one `Segment`.
4. A span that ends later comes out as a follow-up segment (`late`), after another `settle`.
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

Lost = Callable[[str, int], None]
"""Called with a discard reason and a number of spans."""

MAX_ROOTS = 10_000
"""Live roots that are remembered (the number that Sentry's JavaScript SDK remembers of sent
ones)."""

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
    dropped: int = 0
    active: float = 0.0
    late_due: float | None = None


class Assembler:
    """Groups ended spans. `started` and `ended` take the time of the call, in monotonic seconds."""

    def __init__(self, settings: Settings, lost: Lost) -> None:
        self._settings = settings
        self._lost = lost
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        self._sent: OrderedDict[int, Exchange | None] = OrderedDict()
        self._buffered = 0
        self._live = 0

    @property
    def buffered(self) -> int:
        """Ended spans that wait."""
        return self._buffered

    def started(self, context: SpanContext, exchange: Exchange | None, now: float) -> None:
        """Note that a local root has started."""
        trace = self._trace(context.trace_id, now)
        if context.span_id not in trace.roots:
            trace.roots[context.span_id] = _Root(context, exchange)
            self._live += 1
        if self._live > MAX_ROOTS:
            self._forget_oldest_root()

    def ended(self, span: ReadableSpan, exchange: Exchange | None, now: float) -> None:
        """Note that a span has ended."""
        context = span.context
        trace = self._trace(context.trace_id, now)
        root = trace.roots.get(context.span_id)
        if root is None and is_local_root(span):
            root = trace.roots[context.span_id] = _Root(context, exchange)
            self._live += 1
        if root is not None and root.span is None:
            root.span, root.exchange = span, root.exchange or exchange
            root.due, root.latest = now + self._settings.settle, now + self._settings.linger
            self._buffered += 1
            return
        if self._buffered >= self._settings.max_buffered:
            trace.dropped += 1
            return
        trace.waiting.append(_Waiting(span, exchange))
        self._buffered += 1
        if len(trace.waiting) > 2 * self._settings.max_spans * max(1, len(trace.roots)):
            self._prune(trace)
        if not trace.roots and trace.late_due is None:
            trace.late_due = now + self._settings.settle

    def due(self, now: float) -> list[Segment]:
        """Cut what is complete at the time *now*."""
        segments: list[Segment] = []
        for trace_id, trace in list(self._traces.items()):
            due = [root for root in trace.roots.values() if self._is_due(root, now)]
            segments.extend(self._cut(trace_id, trace, root) for root in due)
            if self._has_late(trace, now):
                segments.extend(self._cut_waiting(trace_id, trace))
            self._drop_if_empty(trace_id, trace)
        return segments

    def flush(self, *, everything: bool) -> list[Segment]:
        """Cut every root that has ended; with *everything*, also what waits for roots that have
        not."""
        segments: list[Segment] = []
        for trace_id, trace in list(self._traces.items()):
            ended = [root for root in trace.roots.values() if root.span is not None]
            segments.extend(self._cut(trace_id, trace, root) for root in ended)
            if everything or not trace.roots:
                segments.extend(self._cut_waiting(trace_id, trace))
            self._drop_if_empty(trace_id, trace)
        return segments

    def next_due(self) -> float | None:
        """When `due` should be called next; None if nothing waits."""
        times: list[float] = []
        for trace in self._traces.values():
            times.extend(root.due for root in trace.roots.values() if root.span is not None)
            if trace.late_due is not None:
                times.append(trace.late_due)
            elif trace.waiting:
                times.append(trace.active + self._settings.max_age)
        return min(times, default=None)

    def _trace(self, trace_id: int, now: float) -> _Trace:
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = _Trace()
        trace.active = now
        return trace

    def _is_due(self, root: _Root, now: float) -> bool:
        if root.span is None or now < root.due:
            return False
        running = root.exchange is not None and root.exchange.is_request
        if running and not root.exchange.finished and now < root.latest:  # type: ignore[union-attr]
            root.due = min(now + self._settings.settle, root.latest)
            return root.due <= now
        return True

    def _has_late(self, trace: _Trace, now: float) -> bool:
        if not trace.waiting:
            return False
        if not trace.roots:
            return trace.late_due is not None and now >= trace.late_due
        return now - trace.active >= self._settings.max_age

    def _cut(self, trace_id: int, trace: _Trace, root: _Root) -> Segment:
        del trace.roots[root.context.span_id]
        self._live -= 1
        mine, others = self._split(trace, root)
        trace.waiting = others
        trace.late_due = trace.active if others and not trace.roots else None
        children, dropped = self._within_limit([waiting.span for waiting in mine])
        dropped += trace.dropped
        trace.dropped = 0
        self._buffered -= 1 + len(mine)
        self._remember(trace_id, root.exchange)
        assert root.span is not None
        return Segment(root.span, children, root.exchange, dropped=dropped)

    def _split(self, trace: _Trace, root: _Root) -> tuple[list[_Waiting], list[_Waiting]]:
        """The spans below *root*, and those of the trace's other roots.

        One root in a trace, the common case, takes all. With several, a span goes where its
        chain of parents leads; where a parent has not ended yet, the exchange tells.
        """
        if not trace.roots:
            return trace.waiting, []
        parents = {w.span.context.span_id: w.span.parent for w in trace.waiting}
        owners: dict[int, int | None] = {root.context.span_id: root.context.span_id}
        owners.update((span_id, span_id) for span_id in trace.roots)
        mine: list[_Waiting] = []
        others: list[_Waiting] = []
        for waiting in trace.waiting:
            owner = _owner(waiting.span.context.span_id, parents, owners)
            if owner is None:
                same = waiting.exchange is not None and waiting.exchange is root.exchange
                owner = root.context.span_id if same else None
            (mine if owner == root.context.span_id else others).append(waiting)
        return mine, others

    def _cut_waiting(self, trace_id: int, trace: _Trace) -> list[Segment]:
        """Follow-ups: each span whose parent does not wait with it, with what is below it."""
        waiting, trace.waiting, trace.late_due = trace.waiting, [], None
        if not waiting:
            return []
        self._buffered -= len(waiting)
        known = {w.span.context.span_id: w.span.parent for w in waiting}
        tops = [w for w in waiting if w.span.parent is None or w.span.parent.span_id not in known]
        owners: dict[int, int | None] = {
            w.span.context.span_id: w.span.context.span_id for w in tops
        }
        below: dict[int | None, list[ReadableSpan]] = {}
        for w in waiting:
            owner = _owner(w.span.context.span_id, known, owners)
            if owner != w.span.context.span_id or owner not in owners:
                below.setdefault(owner, []).append(w.span)
        segments = []
        for top in tops:
            children, dropped = self._within_limit(below.pop(top.span.context.span_id, []))
            exchange = top.exchange or self._sent.get(trace_id)
            segments.append(Segment(top.span, children, exchange, late=True, dropped=dropped))
        # Only spans with equal ids, or a ring of parents, are left: each comes out on its own.
        for spans in below.values():
            segments.extend(
                Segment(span, [], self._sent.get(trace_id), late=True) for span in spans
            )
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
        limit = self._settings.max_spans * max(1, len(trace.roots))
        trace.waiting.sort(key=lambda waiting: waiting.span.start_time or 0)
        surplus = len(trace.waiting) - limit
        del trace.waiting[limit:]
        trace.dropped += surplus
        self._buffered -= surplus

    def _remember(self, trace_id: int, exchange: Exchange | None) -> None:
        self._sent[trace_id] = exchange
        self._sent.move_to_end(trace_id)
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def _forget_oldest_root(self) -> None:
        """Its children come out as follow-ups; if it ends after all, it comes out alone."""
        for trace_id, trace in self._traces.items():
            for span_id, root in trace.roots.items():
                if root.span is None:
                    del trace.roots[span_id]
                    self._live -= 1
                    if not trace.roots and trace.waiting:
                        trace.late_due = trace.active
                    self._drop_if_empty(trace_id, trace)
                    return

    def _drop_if_empty(self, trace_id: int, trace: _Trace) -> None:
        if not trace.roots and not trace.waiting:
            self._traces.pop(trace_id, None)
            if trace.dropped:
                self._lost("buffer_overflow", trace.dropped)


def is_local_root(span: ReadableSpan) -> bool:
    """A span without a parent, or with one in another process."""
    return span.parent is None or span.parent.is_remote


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
