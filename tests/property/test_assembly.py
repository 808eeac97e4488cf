"""Every ended span comes out exactly once, or is counted as lost exactly once: whatever starts,
ends, is flushed, and when, and however small the limits are."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from opentelemetry.sdk.trace import ReadableSpan

from otel_sentry_asgi import Settings
from otel_sentry_asgi._assembly import SHORTEST_WAIT, Assembler
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._segment import Segment
from otel_sentry_asgi.testing import HandClock, span, span_context

TRACES = st.integers(1, 3)
FEW_IDS = st.integers(1, 6)
TINY = st.integers(1, 4)
# Sums of these are exact.
TIMES = st.sampled_from([0.0, 0.015625, 0.0625, 0.5, 1.0, 4.0])


# A request, a unit of work that is none, and a websocket.
KINDS: tuple[Callable[[], Exchange], ...] = (
    lambda: Exchange(None, asgi_scope={}),
    lambda: Exchange(None),
    lambda: Exchange(None, asgi_scope={"type": "websocket"}),
)


class Machine(RuleBasedStateMachine):
    """The model: which spans have ended, and which of them came out."""

    max_roots = 3

    @initialize(
        max_spans=TINY,
        max_buffered=TINY,
        settle=TIMES,
        linger=TIMES,
        max_age=st.sampled_from([0.0625, 1.0, 8.0, float("inf")]),
    )
    def begin(self, **given: Any) -> None:
        self.settings = Settings(**given)
        self.clock = HandClock()
        self.lost: Counter[str] = Counter()
        self.assembler = Assembler(self.settings, self.count_lost, max_roots=self.max_roots)
        self.ended: list[ReadableSpan] = []
        self.out: list[ReadableSpan] = []
        self.dropped = 0
        self.exchanges = [made() for made in KINDS]

    def count_lost(self, reason: str, spans: int, *, segments: int = 0) -> None:
        assert spans >= max(1, segments)
        self.lost[reason] += spans

    # -- what may happen ------------------------------------------------------------------------

    @rule(trace_id=TRACES, span_id=FEW_IDS, data=st.data())
    def start_root(self, trace_id: int, span_id: int, data: st.DataObject) -> None:
        exchange = data.draw(st.sampled_from([None, *self.exchanges]))
        if exchange is not None and data.draw(st.booleans()):
            exchange.root = span(span_id=span_id, trace_id=trace_id)
        self.assembler.started(span_context(span_id, trace_id), exchange, self.clock())

    @rule(
        trace_id=TRACES,
        span_id=FEW_IDS,
        parent=st.one_of(st.none(), FEW_IDS),
        is_remote=st.booleans(),
        start=st.integers(0, 3),
        data=st.data(),
    )
    def end_span(
        self,
        trace_id: int,
        span_id: int,
        parent: int | None,
        is_remote: bool,
        start: int,
        data: st.DataObject,
    ) -> None:
        exchange = data.draw(st.sampled_from([None, *self.exchanges]))
        above = None if parent is None else span_context(parent, trace_id, is_remote=is_remote)
        made = span(span_id=span_id, trace_id=trace_id, parent=above, start=start)
        self.ended.append(made)
        self.assembler.ended(made, exchange, self.clock())

    @rule(which=st.integers(0, len(KINDS) - 1))
    def finish_exchange(self, which: int) -> None:
        self.exchanges[which].finished = True
        self.exchanges[which] = KINDS[which]()

    @rule(seconds=TIMES)
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def cut_what_is_due(self) -> None:
        self.take(self.assembler.due(self.clock()))
        due = self.assembler.next_due()
        assert due is None or due > self.clock(), "the worker would turn without end"

    @precondition(lambda self: self.assembler.next_due() not in (None, float("inf")))
    @rule()
    def wait_until_due(self) -> None:
        due = self.assembler.next_due()
        assert due is not None
        self.clock.now = max(self.clock.now, due)
        self.cut_what_is_due()

    @rule(everything=st.booleans())
    def flush(self, everything: bool) -> None:
        self.take(self.assembler.flush(everything=everything))
        if everything:
            self.nothing_is_left()

    # -- what always holds ----------------------------------------------------------------------

    def take(self, segments: list[Segment]) -> None:
        for segment in segments:
            assert len(segment.children) <= self.settings.max_spans
            self.out.extend(segment.children)
            if not segment.partial:
                self.out.append(segment.root)
            self.dropped += segment.dropped

    def nothing_is_left(self) -> None:
        assert self.assembler.buffered == 0
        assert self.assembler.next_due() is None
        assert len(self.out) + self.dropped + self.lost.total() == len(self.ended)

    @invariant()
    def nothing_comes_out_twice_or_from_nowhere(self) -> None:
        out = Counter(map(id, self.out))
        assert all(times == 1 for times in out.values())
        assert out.keys() <= set(map(id, self.ended))

    @invariant()
    def what_waits_is_bounded_and_never_counted_as_out_or_lost(self) -> None:
        waiting = self.assembler.buffered
        assert 0 <= waiting <= self.settings.max_buffered + self.max_roots
        gone = len(self.out) + self.dropped + self.lost.total()
        assert gone + waiting <= len(self.ended)

    @invariant()
    def what_waits_has_a_time(self) -> None:
        assert (self.assembler.next_due() is None) == (self.assembler.buffered == 0)

    def teardown(self) -> None:
        if hasattr(self, "assembler"):
            self.flush(everything=True)


class Tidy(RuleBasedStateMachine):
    """With ids as OTel makes them and room enough: each segment is what it should be."""

    @initialize(settle=TIMES, linger=TIMES)
    def begin(self, settle: float, linger: float) -> None:
        self.settings = Settings(settle=settle, linger=linger, max_age=float("inf"))
        self.clock = HandClock()
        self.assembler = Assembler(self.settings, self.nothing_is_lost)
        self.next_id = 1
        self.parents: dict[int, int | None] = {}
        self.exchanges: dict[int, Exchange] = {}
        self.open: dict[int, int] = {}
        self.roots_ended: dict[int, float] = {}

    def nothing_is_lost(self, reason: str, spans: int, *, segments: int = 0) -> None:
        raise AssertionError((reason, spans, segments))

    def root_of(self, span_id: int) -> int:
        while (parent := self.parents[span_id]) is not None:
            span_id = parent
        return span_id

    @rule(trace_id=TRACES)
    def start_root(self, trace_id: int) -> None:
        span_id = self.new(trace_id, None)
        self.exchanges[span_id] = Exchange(None, asgi_scope={})
        context = span_context(span_id, trace_id)
        self.assembler.started(context, self.exchanges[span_id], self.clock())

    def new(self, trace_id: int, parent: int | None) -> int:
        span_id = self.next_id
        self.next_id += 1
        self.parents[span_id] = parent
        self.open[span_id] = trace_id
        return span_id

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def start_child(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from(sorted(self.open)))
        self.new(self.open[parent], parent)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        span_id = data.draw(st.sampled_from(sorted(self.open)))
        trace_id, parent = self.open.pop(span_id), self.parents[span_id]
        made = span(span_id=span_id, trace_id=trace_id, parent=parent)
        self.assembler.ended(made, self.exchanges[self.root_of(span_id)], self.clock())
        if parent is None:
            self.roots_ended[span_id] = self.clock()

    @precondition(lambda self: self.exchanges)
    @rule(data=st.data())
    def finish_exchange(self, data: st.DataObject) -> None:
        self.exchanges[data.draw(st.sampled_from(sorted(self.exchanges)))].finished = True

    @rule(seconds=TIMES)
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        before = dict(self.roots_ended)
        self.check(self.assembler.due(self.clock()))
        for ended_at in self.roots_ended.values():
            waited = self.clock() - ended_at
            assert waited < max(self.settings.settle, self.settings.linger) + SHORTEST_WAIT
        for span_id in before.keys() - self.roots_ended.keys():
            assert self.clock() - before[span_id] >= self.settings.settle

    @rule(everything=st.booleans())
    def flush(self, everything: bool) -> None:
        self.check(self.assembler.flush(everything=everything))
        assert self.roots_ended == {}

    def check(self, segments: list[Segment]) -> None:
        for segment in segments:
            root = segment.root.context.span_id
            local_root = self.root_of(root)
            assert segment.late == (root != local_root)
            assert segment.exchange is self.exchanges[local_root]
            assert segment.dropped == 0
            for child in segment.children:
                assert self.root_of(child.context.span_id) == local_root
                assert child.context.trace_id == segment.root.context.trace_id
            if not segment.late:
                del self.roots_ended[root]


TestEverySpan = Machine.TestCase
TestEverySpan.settings = limits(max_examples=250, stateful_step_count=40)
TestEverySegment = Tidy.TestCase
TestEverySegment.settings = limits(max_examples=150, stateful_step_count=40)
