"""What waits comes out whole and in order, wherever it lay meanwhile."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from otel_sentry_exporters import _backlog
from otel_sentry_exporters._backlog import BLOCK, Backlog, Parcel

COUNTS = st.lists(st.tuples(st.sampled_from(["transaction", "span"]), st.integers(0, 2**40)))
PARCELS = st.builds(
    Parcel,
    st.binary(max_size=40),
    st.sampled_from([None, "gzip"]),
    COUNTS.map(tuple),
    st.floats(0, 1e9),
)
STEPS = st.lists(st.one_of(PARCELS, PARCELS, st.sampled_from(["take", "take and put back"])))


@given(steps=STEPS, has_mappings=st.booleans())
@limits(max_examples=200)
def test_it_is_a_queue(steps: list[Parcel | str], has_mappings: bool) -> None:
    def refuse(*_: object) -> object:
        raise OSError("out of memory")

    backlog, model = Backlog(), deque[Parcel]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_backlog, "BLOCK", 60)
        if not has_mappings:
            patch.setattr(_backlog, "mmap", refuse)
        for step in [*steps, *["take"] * len(steps)]:
            if isinstance(step, Parcel):
                backlog.append(step)
                model.append(step)
            elif model:
                taken = backlog.popleft()
                assert taken == model.popleft()
                if step == "take and put back":
                    backlog.appendleft(taken)
                    model.appendleft(taken)
            assert list(backlog.first)[:1] == list(model)[:1]
    assert not backlog._blocks


def test_what_waits_is_in_blocks_but_for_both_ends() -> None:
    backlog, body = Backlog(), b"x" * 1_000
    for _ in range(2_000):
        backlog.append(Parcel(body, None, (), 0.0))
    assert (len(backlog.first) + len(backlog._last)) * len(body) <= BLOCK
    blocks = list(backlog._blocks)
    assert sum(map(len, blocks)) < 2_000 * 1.05 * len(body)
    while backlog.first:
        backlog.popleft()
    assert all(block.closed for block in blocks)


def test_with_sentry_near_there_is_no_block() -> None:
    backlog = Backlog()
    for number in range(2_000):
        backlog.append(Parcel(b"x" * 1_000, None, (), 0.0))
        if number % 100 > 50:
            backlog.popleft()
            backlog.popleft()
        assert not backlog._blocks
