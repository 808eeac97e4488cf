"""Every span that is added comes out exactly once or is counted as lost, whatever the order, and
a whole tree comes out as one, wherever the batches were cut."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otel_sentry_asgi._gathering import Gathering, Tree
from otel_sentry_asgi.testing import span, span_context

Shape = list[tuple[int, int, "int | None", bool]]
"""Of each span: trace, id, parent and whether that is remote."""

ANYTHING: st.SearchStrategy[Shape] = st.lists(
    st.tuples(
        st.integers(1, 2), st.integers(1, 6), st.one_of(st.none(), st.integers(1, 6)), st.booleans()
    ),
    max_size=12,
)


def made(shape: Shape) -> list[ReadableSpan]:
    return [
        span(
            trace_id=trace,
            span_id=own,
            parent=None if parent is None else span_context(parent, trace, is_remote=remote),
        )
        for trace, own, parent, remote in shape
    ]


def spans_of(trees: list[Tree]) -> list[ReadableSpan]:
    return [
        one for tree in trees for one in ([tree.root] if tree.root is not None else []) + tree.spans
    ]


def cut(spans: list[ReadableSpan], sizes: list[int]) -> list[list[ReadableSpan]]:
    """*spans* in batches of these sizes; the rest is the last."""
    batches = []
    for size in sizes:
        batches.append(spans[:size])
        spans = spans[size:]
    return [*batches, spans]


@given(
    shape=ANYTHING,
    sizes=st.lists(st.integers(0, 4), max_size=5),
    max_held=st.integers(1, 8),
    pause=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_every_span_comes_out_once(
    shape: Shape, sizes: list[int], max_held: int, pause: float
) -> None:
    lost: Counter[str] = Counter()
    gathering = Gathering(
        max_held=max_held, max_age=10.0, lost=lambda quantity: lost.update(n=quantity)
    )
    spans, trees, now = made(shape), [], 0.0
    for batch in cut(spans, sizes):
        now += pause
        trees += gathering.add(batch, now)
        trees += gathering.expired(now)
    trees += gathering.flush()

    came_out = spans_of(trees)
    counts = Counter(map(id, came_out))
    assert all(count == 1 for count in counts.values())
    assert len(came_out) + lost["n"] == len(spans)
    assert all(tree.root is not None or tree.spans for tree in trees)
    assert gathering.flush() == []


@given(data=st.data(), size=st.integers(1, 8), sizes=st.lists(st.integers(0, 4), max_size=5))
def test_a_tree_stays_whole_wherever_the_batches_are_cut(
    data: st.DataObject, size: int, sizes: list[int]
) -> None:
    """Spans end before their parents, as nested work does; two requests of a trace at once."""
    below = [data.draw(st.integers(1, own - 1)) for own in range(2, size + 1)]
    spans = []
    for offset in (0, 100):
        parents = [None, *(parent + offset for parent in below)]
        own = [
            span(trace_id=1, span_id=number + offset, parent=parent)
            for number, parent in enumerate(parents, 1)
        ]
        spans.append(list(reversed(own)))
    mixed = [one for pair in zip(*spans, strict=True) for one in pair]

    gathering = Gathering(max_held=100, max_age=10.0, lost=lambda _: None)
    trees = [tree for batch in cut(mixed, sizes) for tree in gathering.add(batch, 0.0)]

    assert [tree.root for tree in trees] == mixed[-2:]
    for tree, own in zip(trees, spans, strict=True):
        assert set(map(id, tree.spans)) == set(map(id, own[:-1]))


def test_what_comes_after_its_root_goes_without_it() -> None:
    gathering = Gathering(max_held=100, max_age=10.0, lost=lambda _: None)
    root, child, grandchild = made([(1, 1, None, False), (1, 2, 1, False), (1, 3, 2, False)])

    assert [tree.root for tree in gathering.add([root, grandchild], 0.0)] == [root]
    (late,) = gathering.add([child], 0.0)

    assert late.root is None
    assert late.spans == [child, grandchild]


def test_what_waits_too_long_is_given_up() -> None:
    gathering = Gathering(max_held=100, max_age=10.0, lost=lambda _: None)
    (early, late) = made([(1, 2, 1, False), (1, 3, 1, False)])

    gathering.add([early], 0.0)
    gathering.add([late], 5.0)
    assert gathering.expired(14.9) == []
    (given_up,) = gathering.expired(15.0)

    assert given_up.spans == [early, late]
