"""Sentry's headers read back as they were written, and junk harms nobody."""

from hypothesis import given
from hypothesis import strategies as st

from otel_sentry_asgi._dsc import (
    MAX_HEADER,
    MAX_MEMBERS,
    SentryTrace,
    format_sentry_trace,
    merge_baggage,
    parse_baggage,
    parse_sentry_trace,
)

TRACES = st.builds(
    SentryTrace,
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    st.sampled_from((True, False, None)),
)
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
VALUES = st.text(st.characters(codec="utf-8"), max_size=40)
CONTEXTS = st.dictionaries(KEYS.map(str.strip), VALUES, max_size=8)
MEMBERS = st.lists(
    st.from_regex(r"[a-r][a-z]{0,8}=[!#-+\--:<-~]{0,20}", fullmatch=True), max_size=8
)


@given(TRACES)
def test_a_sentry_trace_reads_back(trace: SentryTrace) -> None:
    assert parse_sentry_trace(format_sentry_trace(trace)) == trace


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=4))
def test_junk_is_read_as_nothing_and_never_raises(header: str, baggage: list[str]) -> None:
    parse_sentry_trace(header)
    parse_baggage(baggage)


@given(CONTEXTS, MEMBERS)
def test_a_context_reads_back_beside_the_members_of_others(
    context: dict[str, str], others: list[str]
) -> None:
    header = merge_baggage(",".join(others), context)
    assert header.isascii()
    assert "+" not in "".join(one for one in header.split(",") if one not in others)
    assert header.split(",")[: len(others)] == others or not others
    assert parse_baggage([header]) == context
    assert merge_baggage(header, context) == header


@given(
    st.lists(st.integers(0, 600), max_size=80),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3_000), max_size=8),
)
def test_others_are_whole_and_the_limits_are_kept(
    lengths: list[int], sizes: dict[str, int]
) -> None:
    others = [f"m{index}={'x' * length}" for index, length in enumerate(lengths)]
    existing = ",".join(others)
    context = {key: "y" * size for key, size in sizes.items()}
    header = merge_baggage(existing, {"trace_id": "1", "public_key": "2", **context})
    assert header.startswith(existing)
    if header != existing:
        assert len(header) <= MAX_HEADER
        assert len(header.split(",")) <= MAX_MEMBERS
        assert {"trace_id", "public_key"} <= parse_baggage([header]).keys()
