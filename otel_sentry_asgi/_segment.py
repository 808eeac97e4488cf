"""Segments: what the assembler makes of ended spans."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_sentry_asgi._lineage import Root, Waiting, cut_latest, trees
from otel_sentry_asgi._scope import Exchange

STARTED = "otel_sentry.started"
"""On a root whose transaction was shortened: when it really started, in epoch seconds."""

_STEP = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

_CENTURY = 100 * 365 * 86_400.0
"""Seconds; what is longer does not fit into nanoseconds, infinity least of all."""


class Segment:
    """A local root and what ended below it; or, when *late*, a span whose root was cut before; or,
    when *partial*, what ended below a root that is still open. Of a stream, *since* is from when on
    it is told of, in epoch nanoseconds."""

    __slots__ = ("children", "dropped", "exchange", "late", "partial", "quiet", "root", "since")

    def __init__(
        self,
        root: ReadableSpan,
        children: list[ReadableSpan],
        exchange: Exchange | None,
        *,
        late: bool = False,
        dropped: int = 0,
        partial: bool = False,
        since: int | None = None,
    ) -> None:
        self.root = root
        self.children = children
        self.exchange = exchange
        self.late = late
        self.dropped = dropped
        self.partial = partial
        self.since = since
        self.quiet = False
        """None of its spans has events."""


def size_of(segment: Segment) -> int:
    """The ended spans in a segment."""
    return len(segment.children) + (not segment.partial)


def is_stream(root: Root) -> bool:
    """Whether the root may be open for hours without being slow."""
    return root.exchange is not None and root.exchange.is_stream


def follow_ups(spans: list[Waiting], limit: int, exchange: Exchange | None) -> list[Segment]:
    """A segment for each span whose parent is not among *spans*, with what is below it. *exchange*
    is for those that have none."""
    segments = []
    for (top, own), below in trees(spans):
        dropped = len(cut_latest(below, limit))
        children = [child for child, _ in below]
        segments.append(Segment(top, children, own or exchange, late=True, dropped=dropped))
    return segments


def pieces(root: Root, live: ReadableSpan, spans: list[Waiting], limit: int) -> list[Segment]:
    """What ended below *root*, whose span *live* has not, in segments of at most *limit*."""
    segments = []
    for first in range(0, len(spans), limit):
        children = [child for child, _ in spans[first : first + limit]]
        root.pieces += 1
        piece = piece_of(live, root.pieces, children)
        root.sent_until = max(root.sent_until, piece.end_time or 0)
        segments.append(Segment(piece, children, root.exchange, partial=True))
    return segments


def since_of(root: Root, span: ReadableSpan, longest: float) -> int | None:
    """From when on a stream is told of: its last piece, and not more than *longest* seconds, so
    that hours of waiting for messages do not count as duration."""
    if not is_stream(root):
        return None
    since = max(root.sent_until, (span.end_time or 0) - int(min(longest, _CENTURY) * 1e9))
    return since if since > (span.start_time or 0) else None


def piece_of(root: ReadableSpan, number: int, children: Sequence[ReadableSpan]) -> ReadableSpan:
    """A span below *root*, which has not ended, as long as its *children* (at least one).

    It has the root's name and attributes. Its id follows from that of the root and the *number* of
    the piece, so that nothing depends on chance.
    """
    context = root.context
    span_id = (context.span_id + _STEP * number) & _MASK or 1
    return _copy(
        root,
        context=SpanContext(context.trace_id, span_id, False, context.trace_flags),
        parent=context,
        start=min(child.start_time or 0 for child in children),
        end=max(child.end_time or 0 for child in children),
        attributes=_attributes(root),
    )


def shortened(root: ReadableSpan, start: int) -> ReadableSpan:
    """The ended *root* as if it had started at *start*, with the truth as an attribute."""
    return _copy(
        root,
        context=root.context,
        parent=root.parent,
        start=start,
        end=root.end_time or start,
        attributes={**_attributes(root), STARTED: (root.start_time or 0) / 1e9},
        whole=True,
    )


def outline(root: ReadableSpan) -> ReadableSpan:
    """What a late span or error takes from the ended *root* of its request: without the locks and
    lists of OTel's own."""
    return _copy(
        root,
        context=root.context,
        parent=root.parent,
        start=root.start_time or 0,
        end=root.end_time or 0,
        attributes=_attributes(root),
    )


def _attributes(span: ReadableSpan) -> dict[str, object]:
    """A copy in one step: the application may add to those of a span that has not ended."""
    return dict((span.attributes or {}).copy())  # type: ignore[attr-defined]


def _copy(
    span: ReadableSpan,
    *,
    context: SpanContext,
    parent: SpanContext | None,
    start: int,
    end: int,
    attributes: dict[str, object],
    whole: bool = False,
) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=context,
        parent=parent,
        resource=span.resource,
        attributes=attributes,  # type: ignore[arg-type]
        events=span.events if whole else (),
        links=span.links if whole else (),
        kind=span.kind,
        status=span.status,
        start_time=start,
        end_time=end,
        instrumentation_scope=span.instrumentation_scope,
    )
