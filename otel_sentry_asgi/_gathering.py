"""From spans in the order in which a batch processor hands them out to trees.

Children end before their parents, so they come first, maybe batches earlier; and a batch is cut
by time, not by trace. A span is held until its local root has come: that and all that is held
below it make a tree. What comes after its root, or hangs below a span that does, is late: it
goes with what came along, without the root. What waits for a root that does not come within
`max_age` seconds is given up as late, too.

Every span that is added comes out exactly once, in `add`, `expired` or `flush`, or is counted in
a call of *lost*. What is held is bounded in count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

from otel_sentry_asgi._translate.span import is_local_root

MAX_KNOWN = 50_000
"""Spans that have been passed on and whose late children can still be told from early ones."""


class Tree(NamedTuple):
    """A local root and what ended below it; without a root, what came too late."""

    root: ReadableSpan | None
    spans: list[ReadableSpan]


class _Held:
    __slots__ = ("since", "spans")

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.since = 0.0


class Gathering:
    """Groups ended spans by local root. One thread calls it at a time; times are monotonic
    seconds."""

    def __init__(self, *, max_held: int, max_age: float, lost: Callable[[int], None]) -> None:
        self._max_held = max_held
        self._max_age = max_age
        self._lost = lost
        self._traces: OrderedDict[int, _Held] = OrderedDict()
        """By trace id, what waits; the one that nothing was added to for longest comes first."""
        self._held = 0
        self._passed: OrderedDict[int, None] = OrderedDict()
        """The ids of spans that were passed on."""

    def add(self, spans: Sequence[ReadableSpan], now: float) -> list[Tree]:
        """Take ended spans; return what is complete because of them."""
        roots: list[ReadableSpan] = []
        others: list[ReadableSpan] = []
        for span in spans:
            if is_local_root(span):
                roots.append(span)
            elif self._held >= self._max_held:
                self._lost(1)
            else:
                self._hold(span, now)
                others.append(span)
        trees = [Tree(root, self._take(root)) for root in roots]
        late: OrderedDict[int, set[int]] = OrderedDict()
        for span in others:
            # What was held before has no parent that was passed on: it would have gone along.
            if span.parent is not None and span.parent.span_id in self._passed:
                late.setdefault(span.context.trace_id, set()).add(span.parent.span_id)
        below = [self._below(tops, trace_id) for trace_id, tops in late.items()]
        return trees + [Tree(None, spans) for spans in below if spans]

    def expired(self, now: float) -> list[Tree]:
        """Give up what has waited for too long."""
        trees = []
        while self._traces:
            trace_id, held = next(iter(self._traces.items()))
            if now < held.since + self._max_age:
                break
            trees.append(self._give_up(trace_id))
        return trees

    def flush(self) -> list[Tree]:
        """Give up everything that waits."""
        return [self._give_up(trace_id) for trace_id in list(self._traces)]

    def _hold(self, span: ReadableSpan, now: float) -> None:
        held = self._traces.setdefault(span.context.trace_id, _Held())
        held.spans.append(span)
        held.since = now
        self._traces.move_to_end(span.context.trace_id)
        self._held += 1

    def _take(self, root: ReadableSpan) -> list[ReadableSpan]:
        """What is held below *root*, which is passed on now."""
        self._pass(root)
        return self._below({root.context.span_id}, root.context.trace_id)

    def _below(self, tops: set[int], trace_id: int) -> list[ReadableSpan]:
        """Let go what is held below the spans *tops*."""
        held = self._traces.get(trace_id)
        if held is None:
            return []
        children: dict[int, list[ReadableSpan]] = {}
        for span in held.spans:
            children.setdefault(span.parent.span_id if span.parent else 0, []).append(span)
        taken: list[ReadableSpan] = []
        ways = list(tops)
        while ways:
            for child in children.pop(ways.pop(), ()):
                self._pass(child)
                taken.append(child)
                ways.append(child.context.span_id)
        held.spans = [span for spans in children.values() for span in spans]
        self._held -= len(taken)
        if not held.spans:
            del self._traces[trace_id]
        return taken

    def _give_up(self, trace_id: int) -> Tree:
        held = self._traces.pop(trace_id)
        self._held -= len(held.spans)
        for span in held.spans:
            self._pass(span)
        return Tree(None, held.spans)

    def _pass(self, span: ReadableSpan) -> None:
        self._passed[span.context.span_id] = None
        if len(self._passed) > MAX_KNOWN:
            self._passed.popitem(last=False)
