"""Which ended span belongs to which root of its trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_sentry_asgi._scope import Exchange

T = TypeVar("T")

Waiting = tuple[ReadableSpan, Exchange | None]
"""An ended span and the exchange in whose context it ended."""


@dataclass(slots=True, eq=False)
class Root:
    """A local root that has started and has not been cut."""

    context: SpanContext
    exchange: Exchange | None
    started: float
    span: ReadableSpan | None = None
    """Once it has ended."""
    due: float = 0.0
    latest: float = 0.0
    waiting: list[Waiting] = field(default_factory=list)
    """What is known to be below it. Only traces with several roots are sorted out."""
    dropped: int = 0
    pieces: int = 0
    sent_until: int = 0
    """The end of its last piece, in epoch nanoseconds."""


@dataclass(slots=True, eq=False)
class Trace:
    """What is live or waits in one trace."""

    trace_id: int
    limit: int
    """Look for room when so many spans are in `waiting`."""
    roots: dict[int, Root] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    """For one of the roots."""
    owners: dict[int, Root] = field(default_factory=dict)
    """The root of each span that a root holds, by the span's id; and each root by its own."""
    held: int = 0
    """Spans in `waiting`, here and at the roots."""
    late: list[Waiting] = field(default_factory=list)
    """For no root that is known."""
    late_due: float = 0.0
    put_off: float = 0.0
    """When to look again whether nothing has ended for too long."""
    active: float = 0.0
    """When something ended last."""
    dropped: int = 0

    def claim(self, root: Root) -> list[Waiting]:
        """Take what is below *root*, without a `release`. The last root of the trace takes also
        what nobody knows of."""
        if len(self.roots) == 1 and all(w[1] is root.exchange for w in self.waiting):
            mine, self.waiting = root.waiting + self.waiting, []  # The common case.
        else:
            self.sort_out()
            mine = root.waiting
            if len(self.roots) == 1:
                unknown, self.waiting = self.waiting, []
                for w in unknown:
                    is_mine = w[1] is None or root.exchange is None or w[1] is root.exchange
                    (mine if is_mine else self.waiting).append(w)
        root.waiting = []
        return mine

    def release(self, spans: list[Waiting]) -> None:
        """Those *spans*, which have been taken out, do not wait any more."""
        self.held -= len(spans)
        if len(self.owners) > len(self.roots):
            for span, _ in spans:
                if span.context.span_id not in self.roots:
                    self.owners.pop(span.context.span_id, None)

    def take_unknown(self) -> list[Waiting]:
        """Take what no root is known to hold, without a `release`."""
        unknown, self.waiting = self.waiting, []
        return unknown

    def sort_out(self) -> None:
        """Give the roots what is below them.

        A span goes where its chain of parents leads; where a parent has not ended yet, to the only
        root of its exchange. What even that does not tell stays. Each span is given once, so the
        cost of a trace with many roots is that of its spans.
        """
        if not self.waiting:
            return
        parents = _parents(self.waiting)
        nowhere: set[int] = set()
        only: dict[Exchange | None, Root | None] = {}
        for root in self.roots.values():
            only[root.exchange] = None if root.exchange in only else root
        only.pop(None, None)
        unknown: list[Waiting] = []
        for w in self.waiting:
            span_id = w[0].context.span_id
            owner = _top_of(span_id, parents, self.owners, nowhere) or only.get(w[1])
            if owner is None:
                unknown.append(w)
            else:
                owner.waiting.append(w)
                self.owners[span_id] = owner
        self.waiting = unknown

    def add(self, root: Root) -> None:
        """A root has started, or has ended without a known start."""
        self.roots[root.context.span_id] = self.owners[root.context.span_id] = root

    def remove(self, root: Root) -> None:
        """Forget *root*; what is below it has been claimed before."""
        del self.roots[root.context.span_id]
        self.owners.pop(root.context.span_id, None)


def cut_latest(spans: list[Waiting], limit: int) -> list[Waiting]:
    """Take all but the *limit* that started first out of *spans*; return those taken."""
    if len(spans) <= limit:
        return []
    spans.sort(key=lambda w: w[0].start_time or 0)
    surplus = spans[limit:]
    del spans[limit:]
    return surplus


def trees(spans: list[Waiting]) -> list[tuple[Waiting, list[Waiting]]]:
    """Each span whose parent is not there, with all that is below it. Every span comes out once,
    also where ids are equal or parents form a ring."""
    parents = _parents(spans)
    found: dict[int, tuple[Waiting, list[Waiting]]] = {}
    rest: list[Waiting] = []
    for w in spans:
        span_id, parent = w[0].context.span_id, w[0].parent
        if span_id not in found and (parent is None or parent.span_id not in parents):
            found[span_id] = (w, [])
        else:
            rest.append(w)
    tops, nowhere = {span_id: span_id for span_id in found}, set[int]()
    alone: list[tuple[Waiting, list[Waiting]]] = []
    for w in rest:
        top = _top_of(w[0].context.span_id, parents, tops, nowhere)
        if top is None:
            alone.append((w, []))
        else:
            found[top][1].append(w)
    return [*found.values(), *alone]


def _parents(spans: list[Waiting]) -> dict[int, SpanContext | None]:
    return {span.context.span_id: span.parent for span, _ in spans}


def _top_of(
    span_id: int,
    parents: dict[int, SpanContext | None],
    tops: dict[int, T],
    nowhere: set[int],
) -> T | None:
    """Where the chain of a span's parents leads, through others that wait; remembers the way."""
    way: list[int] = []
    at: int | None = span_id
    while at is not None and at not in tops and at not in nowhere:
        nowhere.add(at)  # Until more is known; so a ring ends, too.
        way.append(at)
        parent = parents.get(at)
        at = parent.span_id if parent is not None else None
    top = tops.get(at) if at is not None else None
    if top is not None:
        tops.update(dict.fromkeys(way, top))
        nowhere.difference_update(way)
    return top
