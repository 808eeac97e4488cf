"""Ended spans to segments: when a segment is cut, and which spans are in it."""

import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi import Settings
from otel_sentry_asgi._assembly import MAX_SENT, SHORTEST_WAIT, Assembler
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._segment import Segment
from otel_sentry_asgi._translate.span import is_local_root
from otel_sentry_asgi.testing import EPOCH, span, span_context

SETTLE, LINGER, MAX_AGE = 1.0, 10.0, 100.0


class Harness:
    """An assembler, what it lost, and short ways to tell it of spans."""

    def __init__(self, *, max_roots: int = 100, **settings: Any) -> None:
        chosen = {"settle": SETTLE, "linger": LINGER, "max_age": MAX_AGE, **settings}
        self.lost: list[tuple[str, int]] = []
        self.assembler = Assembler(
            Settings(**chosen),
            lambda reason, spans, segments=0: self.lost.append((reason, spans)),
            max_roots=max_roots,
        )

    def start(self, span_id: int, exchange: Exchange | None = None, now: float = 0.0) -> None:
        self.assembler.started(span_context(span_id), exchange, now)

    def end(
        self,
        span_id: int,
        parent: int | None = None,
        exchange: Exchange | None = None,
        now: float = 0.0,
        start: float = 0.0,
    ) -> None:
        made = span(span_id=span_id, parent=parent, start=start, end=start)
        self.assembler.ended(made, exchange, now)

    def due(self, now: float) -> list[Any]:
        return short(self.assembler.due(now))

    def flush(self, *, everything: bool = False) -> list[Any]:
        return short(self.assembler.flush(everything=everything))


def short(segments: list[Segment]) -> list[Any]:
    """The id of the root with those of its children, `late` where it is."""
    return [
        (ids([one.root])[0], ids(one.children), *(["late"] if one.late else [])) for one in segments
    ]


def ids(spans: list[ReadableSpan]) -> list[int]:
    return [one.context.span_id for one in spans]


def request(*, finished: bool = False) -> Exchange:
    return Exchange(None, asgi_scope={"type": "http"}, finished=finished)


# -- when -----------------------------------------------------------------------------------------


def test_a_segment_is_cut_when_its_root_has_settled() -> None:
    harness = Harness()
    harness.start(1)
    harness.end(2, parent=1)
    assert harness.assembler.next_due() == MAX_AGE
    harness.end(1, now=5.0)
    assert harness.assembler.next_due() == 5.0 + SETTLE
    assert harness.due(5.0 + SETTLE - 0.1) == []
    assert harness.due(5.0 + SETTLE) == [(1, [2])]
    assert harness.assembler.next_due() is None
    assert harness.assembler.buffered == 0


def test_a_root_alone_is_a_segment() -> None:
    harness = Harness()
    harness.end(1)
    assert harness.due(SETTLE) == [(1, [])]


def test_what_ends_between_the_end_of_the_root_and_the_cut_belongs_to_it() -> None:
    harness = Harness()
    harness.end(1)
    harness.end(2, parent=1, now=SETTLE / 2)
    assert harness.due(SETTLE) == [(1, [2])]


def test_a_segment_stays_open_while_its_request_runs() -> None:
    harness, exchange = Harness(), request()
    harness.end(1, exchange=exchange)
    assert harness.due(SETTLE) == []
    assert harness.assembler.next_due() == 2 * SETTLE
    harness.end(2, parent=1, exchange=exchange, now=SETTLE)
    exchange.finished = True
    assert harness.due(2 * SETTLE) == [(1, [2])]


def test_but_no_longer_than_it_may_linger() -> None:
    harness, exchange = Harness(), request()
    harness.end(1, exchange=exchange)
    now = 0.0
    while not (segments := harness.due(now)):
        now = harness.assembler.next_due() or math.nan
    assert (now, segments) == (LINGER, [(1, [])])


def test_a_unit_of_work_that_is_no_request_does_not_linger() -> None:
    harness = Harness()
    harness.end(1, exchange=Exchange(None))
    assert harness.due(SETTLE) == [(1, [])]


def test_without_time_to_settle_a_request_lingers_all_the_same() -> None:
    harness, exchange = Harness(settle=0), request()
    harness.end(1, exchange=exchange)
    assert harness.due(0.0) == []
    assert harness.assembler.next_due() == SHORTEST_WAIT
    exchange.finished = True
    assert harness.due(SHORTEST_WAIT) == [(1, [])]


def test_without_time_to_linger_a_request_settles_all_the_same() -> None:
    harness = Harness(linger=0)
    harness.end(1, exchange=request())
    assert harness.due(SETTLE) == [(1, [])]


# -- late spans -----------------------------------------------------------------------------------


def test_what_ends_after_the_cut_is_a_follow_up_with_the_exchange_of_its_root() -> None:
    harness, exchange = Harness(), request(finished=True)
    harness.end(1, exchange=exchange)
    assert harness.due(SETTLE) == [(1, [])]
    harness.end(2, parent=1, now=20.0)
    assert harness.assembler.next_due() == 20.0 + SETTLE
    [segment] = harness.assembler.due(20.0 + SETTLE)
    assert short([segment]) == [(2, [], "late")]
    assert segment.exchange is exchange


def test_follow_ups_that_hang_together_come_out_together() -> None:
    harness = Harness()
    harness.end(1)
    harness.due(SETTLE)
    for span_id, parent in ((3, 2), (4, 3), (2, 1), (6, 5), (5, 1)):
        harness.end(span_id, parent=parent, now=20.0)
    assert harness.due(20.0 + SETTLE) == [(2, [3, 4], "late"), (5, [6], "late")]


def test_what_ends_without_a_root_is_a_follow_up() -> None:
    harness = Harness()
    harness.end(3, parent=2)
    assert harness.due(SETTLE) == [(3, [], "late")]


def test_unless_its_root_ends_in_time() -> None:
    """A root whose start was not seen, because the processor was added later."""
    harness = Harness()
    harness.end(2, parent=1)
    harness.end(1)
    assert harness.due(SETTLE) == [(1, [2])]


def test_late_spans_are_told_apart_for_a_while_only() -> None:
    harness, exchange = Harness(), request(finished=True)
    harness.end(1, exchange=exchange)
    harness.flush()
    for number in range(MAX_SENT):
        harness.assembler.ended(span(trace_id=2 + number), None, 0.0)
        harness.flush()
    harness.end(2, parent=1)
    [segment] = harness.assembler.flush(everything=False)
    assert segment.late
    assert segment.exchange is None


def test_a_root_that_does_not_end_gives_up_its_children_after_a_while_but_stays() -> None:
    harness = Harness()
    harness.start(1)
    harness.end(2, parent=1)
    harness.end(3, parent=2, now=50.0)
    assert harness.due(50.0 + MAX_AGE - 0.1) == []
    assert harness.due(50.0 + MAX_AGE) == [(2, [3], "late")]
    assert harness.assembler.next_due() is None
    harness.end(4, parent=1, now=200.0)
    harness.end(1, now=200.0)
    assert harness.due(200.0 + SETTLE) == [(1, [4])]


def test_an_age_without_limit_is_none() -> None:
    harness = Harness(max_age=math.inf)
    harness.start(1)
    harness.end(2, parent=1)
    assert harness.due(1e12) == []
    assert harness.flush(everything=True) == [(2, [], "late")]


# -- several roots in one trace -------------------------------------------------------------------


def test_of_several_roots_each_takes_what_hangs_below_it() -> None:
    harness = Harness()
    harness.start(1)
    harness.start(2)
    for span_id, parent in ((10, 1), (20, 2), (11, 10), (21, 20)):
        harness.end(span_id, parent=parent)
    harness.end(1)
    assert harness.due(SETTLE) == [(1, [10, 11])]
    harness.end(2, now=SETTLE)
    assert harness.due(2 * SETTLE) == [(2, [20, 21])]


def test_where_a_parent_has_not_ended_the_exchange_tells_the_root() -> None:
    harness, first, second = Harness(), request(finished=True), request(finished=True)
    harness.start(1, first)
    harness.start(2, second)
    harness.end(11, parent=10, exchange=first)
    harness.end(21, parent=20, exchange=second)
    harness.end(2, exchange=second)
    assert harness.due(SETTLE) == [(2, [21])]
    harness.end(1, exchange=first, now=SETTLE)
    assert harness.due(2 * SETTLE) == [(1, [11])]


def test_what_not_even_the_exchange_tells_goes_with_the_last_root() -> None:
    harness = Harness()
    harness.start(1)
    harness.start(2)
    harness.end(11, parent=10)
    harness.end(1)
    assert harness.due(SETTLE) == [(1, [])]
    harness.end(2, now=SETTLE)
    assert harness.due(2 * SETTLE) == [(2, [11])]


def test_a_late_span_of_one_request_is_no_child_of_the_next_in_the_same_trace() -> None:
    """A client may send several requests in one trace."""
    harness, first, second = Harness(), request(finished=True), request(finished=True)
    harness.end(1, exchange=first)
    harness.due(SETTLE)
    harness.start(2, second, now=2.0)
    harness.end(11, parent=1, exchange=first, now=2.0)
    harness.end(21, parent=2, exchange=second, now=2.0)
    harness.end(2, exchange=second, now=2.0)
    assert harness.due(2.0 + SETTLE) == [(2, [21]), (11, [], "late")]


def test_late_spans_do_not_wait_for_a_root_that_started_after_them() -> None:
    harness = Harness()
    harness.end(1)
    harness.due(SETTLE)
    harness.end(11, parent=1, now=2.0)
    harness.start(2, now=2.5)
    assert harness.assembler.next_due() == 2.0 + SETTLE
    assert harness.due(2.0 + SETTLE) == [(11, [], "late")]
    assert harness.assembler.next_due() is None


def test_nothing_is_asked_for_again_at_once() -> None:
    """Else the worker would turn without end."""
    harness, exchange = Harness(settle=0, linger=1), request()
    harness.end(1, exchange=exchange)
    harness.end(11, parent=1)
    harness.start(2)
    harness.end(21, parent=2)
    while (now := harness.assembler.next_due()) is not None:
        harness.due(now)
        assert (harness.assembler.next_due() or math.inf) > now


# -- flush ----------------------------------------------------------------------------------------


def test_a_flush_cuts_what_has_ended_and_leaves_what_waits_for_its_root() -> None:
    harness = Harness()
    harness.end(1, exchange=request())
    harness.start(2)
    harness.end(21, parent=2)
    assert harness.flush() == [(1, [])]
    assert harness.assembler.buffered == 1
    harness.end(2)
    assert harness.flush() == [(2, [21])]


def test_a_flush_of_everything_leaves_nothing() -> None:
    harness = Harness()
    harness.start(2)
    harness.end(21, parent=2)
    assert harness.flush(everything=True) == [(21, [], "late")]
    assert harness.assembler.buffered == 0
    assert harness.assembler.next_due() is None


# -- limits ---------------------------------------------------------------------------------------


def test_of_too_many_children_the_earliest_are_kept_and_the_rest_is_counted() -> None:
    harness = Harness(max_spans=2)
    for span_id in (12, 10, 13, 11):
        harness.end(span_id, parent=1, start=span_id)
    harness.end(1)
    [segment] = harness.assembler.flush(everything=False)
    assert (ids(segment.children), segment.dropped) == ([10, 11], 2)


def test_a_trace_does_not_hold_much_more_than_can_be_sent_of_it() -> None:
    harness = Harness(max_spans=10)
    harness.start(1)
    for span_id in range(10, 1_010):
        harness.end(span_id, parent=1, start=span_id)
        assert harness.assembler.buffered <= 20
    harness.end(1)
    [segment] = harness.assembler.flush(everything=False)
    assert ids(segment.children) == list(range(10, 20))
    assert segment.dropped == 990


def test_a_full_buffer_takes_no_children_and_counts_them_with_their_root() -> None:
    harness = Harness(max_buffered=2)
    for span_id in (10, 11, 12):
        harness.start(1)
        harness.end(span_id, parent=1)
    harness.end(1)
    [segment] = harness.assembler.flush(everything=False)
    assert (ids(segment.children), segment.dropped) == ([10, 11], 1)


def test_a_full_buffer_takes_roots() -> None:
    """One long request with many spans does not cost all others their transactions."""
    harness = Harness(max_buffered=1)
    harness.start(1)
    harness.end(10, parent=1)
    harness.assembler.ended(span(span_id=1, trace_id=2), None, 0.0)
    assert harness.due(SETTLE) == [(1, [])]


def test_what_has_no_root_and_no_room_is_counted_at_once() -> None:
    harness = Harness(max_buffered=1)
    harness.end(10, parent=9)
    harness.assembler.ended(span(span_id=11, trace_id=2, parent=9), None, 0.0)
    assert harness.lost == [("buffer_overflow", 1)]


def test_what_was_dropped_below_a_root_that_never_ends_is_counted_in_the_end() -> None:
    harness = Harness(max_buffered=1)
    harness.assembler.ended(span(span_id=10, trace_id=2, parent=9), None, 0.0)
    harness.start(1)
    harness.end(11, parent=1)
    assert harness.lost == []
    harness.flush(everything=True)
    assert harness.lost == [("buffer_overflow", 1)]


def test_of_too_many_roots_the_oldest_is_forgotten_and_its_children_are_follow_ups() -> None:
    harness = Harness(max_roots=2)
    for trace_id in (1, 2, 3):
        harness.assembler.started(span_context(1, trace_id), None, 0.0)
        harness.assembler.ended(span(span_id=2, trace_id=trace_id, parent=1), None, 0.0)
    [segment] = harness.assembler.due(0.0)
    assert (segment.late, segment.root.context.trace_id) == (True, 1)


def test_a_forgotten_root_that_ends_after_all_is_a_segment() -> None:
    harness = Harness(max_roots=1)
    harness.start(1)
    harness.start(2)
    harness.end(1)
    assert harness.due(SETTLE) == [(1, [])]


def test_a_new_root_in_the_oldest_trace_is_not_the_oldest_root() -> None:
    harness = Harness(max_roots=2)
    harness.start(1)
    harness.assembler.started(span_context(1, 2), None, 0.0)
    harness.start(2)
    harness.end(20, parent=2)
    harness.end(2)
    assert harness.due(SETTLE) == [(2, [20])]


def test_ended_roots_have_a_bound_of_their_own() -> None:
    """That of the buffer and that of live roots together; what is over it is lost, and counted."""
    harness = Harness(max_roots=2, max_buffered=1)
    for trace_id in (1, 2, 3, 4):
        harness.assembler.ended(span(trace_id=trace_id), None, 0.0)
        assert harness.assembler.buffered <= 3
    assert harness.lost == [("buffer_overflow", 1)]
    traces = [segment.root.context.trace_id for segment in harness.assembler.due(SETTLE)]
    assert traces == [1, 2, 3]


def test_forgetting_roots_costs_the_same_however_many_have_ended() -> None:
    harness = Harness(max_roots=1_000)
    for trace_id in range(1, 20_001):
        harness.assembler.ended(span(trace_id=trace_id), None, 0.0)
    assert len(harness.assembler.due(SETTLE)) == 20_000
    assert harness.lost == []


def test_live_roots_in_which_nothing_ended_are_not_looked_at() -> None:
    """Ten thousand idle websockets cost nothing in each turn."""
    harness = Harness(max_roots=10_000)
    for trace_id in range(1, 10_001):
        harness.assembler.started(span_context(1, trace_id), None, 0.0)
    assert harness.assembler.next_due() is None


# -- streams and other roots that go on for long --------------------------------------------------


def websocket(*, span_id: int = 1) -> Exchange:
    """The exchange of a websocket whose span has this id."""
    live = span("/rooms/{room}", span_id=span_id, kind=SpanKind.SERVER, attributes={"room": 5})
    return Exchange(None, asgi_scope={"type": "websocket"}, root=live)


def test_a_stream_that_is_never_silent_is_sent_in_pieces_after_a_while() -> None:
    harness, exchange = Harness(), websocket()
    harness.start(1, exchange)
    for second in range(1, 101):
        harness.end(100 + second, parent=1, exchange=exchange, now=float(second), start=second)
    assert harness.assembler.next_due() == 1.0 + MAX_AGE
    [piece] = harness.assembler.due(1.0 + MAX_AGE)
    assert (piece.partial, piece.late) == (True, False)
    assert ids(piece.children) == list(range(101, 201))
    assert harness.assembler.buffered == 0
    assert harness.assembler.next_due() is None


def test_a_piece_is_named_like_its_root_and_as_long_as_its_children() -> None:
    harness, exchange = Harness(), websocket()
    assert exchange.root is not None
    harness.start(1, exchange)
    for second in (20, 10):
        harness.end(100 + second, parent=1, exchange=exchange, start=second)
    [piece] = harness.assembler.due(MAX_AGE)
    root = piece.root
    assert (root.name, dict(root.attributes or {})) == ("/rooms/{room}", {"room": 5})
    assert (root.kind, root.parent) == (SpanKind.SERVER, exchange.root.context)
    assert (root.start_time, root.end_time) == ((EPOCH + 10) * 10**9, (EPOCH + 20) * 10**9)
    assert root.context.trace_id == 1
    assert root.context.span_id not in (0, 1)


def test_a_stream_is_sent_in_pieces_as_soon_as_there_is_enough_for_one() -> None:
    harness, exchange = Harness(max_spans=10), websocket()
    harness.start(1, exchange)
    for number in range(25):
        harness.end(100 + number, parent=1, exchange=exchange, now=0.5)
    assert harness.assembler.next_due() == 0.0
    segments = harness.assembler.due(0.5)
    assert [len(one.children) for one in segments] == [10, 10]
    assert len({one.root.context.span_id for one in segments}) == 2
    assert harness.assembler.buffered == 5
    harness.end(1, exchange=exchange, now=1.0)
    exchange.finished = True
    [last] = harness.assembler.due(1.0 + SETTLE)
    assert (last.partial, last.dropped, len(last.children)) == (False, 0, 5)


@pytest.mark.parametrize(("end", "since"), [(50, None), (1_000, 1_000 - MAX_AGE)])
def test_the_last_of_a_stream_is_no_longer_than_a_piece(end: int, since: float | None) -> None:
    harness, exchange = Harness(), websocket()
    exchange.finished = True
    harness.assembler.ended(span(kind=SpanKind.SERVER, end=end), exchange, float(end))
    [segment] = harness.assembler.due(end + SETTLE)
    assert segment.since == (None if since is None else (EPOCH + since) * 10**9)


def test_the_last_of_a_stream_begins_where_the_piece_before_it_ended() -> None:
    harness, exchange = Harness(), websocket()
    harness.start(1, exchange)
    harness.end(2, parent=1, exchange=exchange, start=30)
    harness.due(MAX_AGE)
    exchange.finished = True
    harness.assembler.ended(span(end=MAX_AGE + 10), exchange, MAX_AGE + 10)
    [last] = harness.assembler.due(MAX_AGE + 10 + SETTLE)
    assert last.since == (EPOCH + 30) * 10**9


def test_what_is_no_stream_keeps_its_duration_and_its_children_while_they_come() -> None:
    """A request of ten minutes is slow, and is one transaction."""
    harness, exchange = Harness(), request(finished=True)
    harness.start(1, exchange)
    for now in range(0, 1_000, 50):
        harness.end(100 + now, parent=1, exchange=exchange, now=float(now), start=now)
        assert harness.due(float(now)) == []
    harness.assembler.ended(span(end=1_000), exchange, 1_000.0)
    [segment] = harness.assembler.due(1_000.0 + SETTLE)
    assert (segment.since, len(segment.children)) == (None, 20)


def test_a_loop_under_a_root_that_never_ends_loses_nothing() -> None:
    harness = Harness(max_spans=10)
    harness.start(1)
    out = []
    for number in range(1_000):
        harness.end(100 + number, parent=1, now=MAX_AGE + 1 + number, start=number)
        out.extend(harness.assembler.due(MAX_AGE + 1 + number))
    out.extend(harness.assembler.flush(everything=True))
    assert sum(one.dropped for one in out) == 0
    assert sum(1 + len(one.children) for one in out) == 1_000
    assert harness.lost == []


def test_server_sent_events_are_a_stream_from_their_response_on() -> None:
    exchange = request()
    assert not exchange.is_stream
    exchange.stream = True
    assert exchange.is_stream


# -- what it costs --------------------------------------------------------------------------------


def opcodes(run: Callable[[], object]) -> int:
    """The work of *run* in the interpreter: the same in each run, however busy the machine is."""
    executed = 0

    def tracer(frame: FrameType, event: str, _: object) -> Any:
        nonlocal executed
        frame.f_trace_opcodes = True
        executed += event == "opcode"
        return tracer

    before = sys.gettrace()
    # Python 3.12 reports them only if some frame has asked before the tracer is set.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(tracer)
    try:
        run()
    finally:
        sys.settrace(before)
    return executed


def cost_with_open(count: int) -> int:
    """Of one request beside *count* open ones that hold a span each."""
    harness = Harness(max_roots=10_000)
    for trace_id in range(2, 2 + count):
        harness.assembler.started(span_context(1, trace_id), None, 0.0)
        harness.assembler.ended(span(span_id=2, trace_id=trace_id, parent=1), None, 0.0)

    def one_request() -> None:
        harness.start(1)
        harness.end(2, parent=1)
        harness.end(1)
        harness.assembler.next_due()
        assert harness.due(SETTLE) == [(1, [2])]
        harness.assembler.next_due()

    return opcodes(one_request)


def test_a_request_costs_the_same_however_many_others_are_open() -> None:
    assert cost_with_open(5_000) == cost_with_open(1)


def cost_in_one_trace(count: int) -> float:
    """Of each of *count* requests at once in one trace, which end one after the other."""
    harness = Harness(settle=0, max_roots=1_000)
    exchanges = [request(finished=True) for _ in range(count)]
    for number, exchange in enumerate(exchanges):
        harness.start(1_000_000 + number, exchange)
        for child in range(3):
            harness.end(10 * number + child + 1, parent=1_000_000 + number, exchange=exchange)

    def end_all() -> None:
        for number, exchange in enumerate(exchanges):
            harness.end(1_000_000 + number, exchange=exchange, now=float(number))
            [segment] = harness.assembler.due(float(number))
            assert len(segment.children) == 3

    return opcodes(end_all) / count


def test_requests_of_one_trace_cost_the_same_however_many_they_are() -> None:
    assert cost_in_one_trace(300) < 1.2 * cost_in_one_trace(30)


def cost_of_a_span(count: int) -> float:
    """Of each of *count* spans of one request, with what it costs to let most of them go."""
    harness = Harness()
    spans = [span(span_id=2 + number, parent=1, start=number) for number in range(count)]
    harness.start(1)

    def end_all() -> None:
        for one in spans:
            harness.assembler.ended(one, None, 0.0)
        harness.end(1)
        harness.due(SETTLE)

    return opcodes(end_all) / count


def test_a_span_costs_the_same_however_many_its_trace_has() -> None:
    assert cost_of_a_span(20_000) < 1.5 * cost_of_a_span(900)


# -- ids that are not unique ----------------------------------------------------------------------


def test_a_root_that_ends_twice_comes_out_twice() -> None:
    harness = Harness()
    harness.end(1)
    harness.end(1)
    assert harness.due(SETTLE) == [(1, [1])]


@pytest.mark.parametrize(
    "spans",
    [
        [(2, 2)],
        [(2, 3), (3, 2)],
        [(2, 1), (2, 1)],
        [(2, 3), (3, 9), (2, 9)],
        [(2, 9), (2, 2)],
        [(2, 3), (3, 4), (4, 2), (5, 4)],
    ],
    ids=str,
)
def test_spans_with_equal_ids_or_parents_in_a_ring_come_out_once_each(
    spans: list[tuple[int, int]],
) -> None:
    late, below = Harness(), Harness()
    for span_id, parent in spans:
        late.end(span_id, parent=parent)
        below.end(span_id, parent=parent)
    below.end(1)
    for harness, more in ((late, []), (below, [1])):
        segments = harness.assembler.flush(everything=True)
        out = [one for segment in segments for one in ids([segment.root, *segment.children])]
        assert sorted(out) == sorted([span_id for span_id, _ in spans] + more)
        assert harness.assembler.buffered == 0


def test_a_local_root_has_no_parent_or_a_remote_one() -> None:
    assert is_local_root(span())
    assert is_local_root(span(span_id=2, parent=span_context(1, is_remote=True)))
    assert not is_local_root(span(span_id=2, parent=1))
