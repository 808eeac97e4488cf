"""Which ended span belongs to which root of its trace."""

from __future__ import annotations

from typing import TypeVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_sentry_asgi._scope import Exchange

T = TypeVar("T")

Waiting = tuple[ReadableSpan, Exchange | None]
"""An ended span and the exchange in whose context it ended."""


class Root:
    """A local root that has started and has not been cut."""

    __slots__ = (
        *("context", "dropped", "due", "exchange", "latest", "pieces", "sent_until", "span"),
        *("started", "waiting"),
    )

    def __init__(self, context: SpanContext, exchange: Exchange | None, started: float) -> None:
        self.context = context
        self.exchange = exchange
        self.started = started
        self.span: ReadableSpan | None = None
        """Once it has ended."""
        self.due = 0.0
        self.latest = 0.0
        self.waiting: list[Waiting] = []
        """What is known to be below it. Only traces with several roots are sorted out."""
        self.dropped = 0
        self.pieces = 0
        self.sent_until = 0
        """The end of its last piece, in epoch nanoseconds."""


class Trace:
    """What is live or waits in one trace."""

    __slots__ = (
        *("active", "dropped", "held", "late", "late_due", "limit", "owners", "put_off", "roots"),
        *("trace_id", "waiting"),
    )

    def __init__(self, trace_id: int, limit: int) -> None:
        self.trace_id = trace_id
        self.limit = limit
        """Look for room when so many spans are in `waiting`."""
        self.roots: dict[int, Root] = {}
        self.waiting: list[Waiting] = []
        """For one of the roots."""
        self.owners: dict[int, Root] = {}
        """The root of each span that a root holds, by the span's id; and each root by its own."""
        self.held = 0
        """Spans in `waiting`, here and at the roots."""
        self.late: list[Waiting] = []
        """For no root that is known."""
        self.late_due = 0.0
        self.put_off = 0.0
        """When to look again whether nothing has ended for too long."""
        self.active = 0.0
        """When something ended last."""
        self.dropped = 0

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
