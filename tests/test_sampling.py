"""The decision is a function of the trace id and composes with OTel's own ratio."""

import itertools
import math
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import Decision as OtelDecision
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from otel_sentry_asgi.sampling import (
    MAX_DECISIONS,
    Decision,
    Decisions,
    decide,
    sample_rand,
    to_rate,
)

LARGEST = (1 << 128) - 1
RATES = (0.0, 0.000001, 0.1, 0.25, 1 / 3, 0.333333, 0.5, 0.9, 0.999999, 1.0)
SIX_DECIMALS = 1e-6


@pytest.fixture(scope="module")
def trace_ids() -> list[int]:
    chance = random.Random(20_260_101)
    return [chance.getrandbits(128) for _ in range(100_000)]


def at_rate(rate: object, trace_id: int = 1) -> Decision:
    return decide(trace_id, rate=rate, sampler=None, sampling_context=lambda: pytest.fail("no"))


def by_sampler(result: object, trace_id: int = 1) -> Decision:
    return decide(trace_id, rate=1.0, sampler=lambda _: result, sampling_context=dict)


def test_the_random_number_has_six_decimals_and_is_below_one(trace_ids: list[int]) -> None:
    for trace_id in (*trace_ids[:1_000], 0, 1, LARGEST, LARGEST >> 64, 1 << 127):
        rand = sample_rand(trace_id)
        assert 0.0 <= rand < 1.0
        assert float(f"{rand:.6f}") == rand


def test_the_random_number_is_rounded_down() -> None:
    assert sample_rand(LARGEST) == 0.999999
    assert sample_rand((1 << 63) - 1) == 0.499999
    assert sample_rand(1 << 63) == 0.5


def test_only_the_low_64_bits_count() -> None:
    assert sample_rand(0xABC << 64 | 0xDEF << 52) == sample_rand(0xDEF << 52)


@pytest.mark.parametrize("rate", RATES)
def test_a_decision_holds_what_sentry_asks_of_rand_rate_and_sampled(
    rate: float, trace_ids: list[int]
) -> None:
    for trace_id in trace_ids[:2_000]:
        decision = at_rate(rate, trace_id)
        assert decision.sampled is (decision.sample_rand < rate)
        assert decision.sample_rate == rate


def test_with_an_otel_ratio_and_a_sentry_rate_the_smaller_of_both_decides(
    trace_ids: list[int],
) -> None:
    """Exactly the traces that the smaller rate alone keeps, but for the rounding to six
    decimals."""
    rates = (0.1, 1 / 3, 0.333333, 0.5, 0.9, 1.0)
    by_otel = {rate: kept_by_otel(rate, trace_ids) for rate in rates}
    by_sentry = {rate: {i for i in trace_ids if at_rate(rate, i).sampled} for rate in rates}
    for sentry_rate, otel_rate in itertools.product(rates, rates):
        both = by_sentry[sentry_rate] & by_otel[otel_rate]
        for trace_id in both ^ by_otel[min(sentry_rate, otel_rate)]:
            exact = (trace_id & LARGEST >> 64) / (1 << 64)
            assert abs(exact - sentry_rate) < SIX_DECIMALS


def kept_by_otel(rate: float, trace_ids: list[int]) -> set[int]:
    decide = TraceIdRatioBased(rate).should_sample
    keep = OtelDecision.RECORD_AND_SAMPLE
    return {i for i in trace_ids if decide(None, i, "span").decision is keep}


def test_a_higher_rate_keeps_all_that_a_lower_one_keeps(trace_ids: list[int]) -> None:
    for lower, higher in itertools.pairwise(RATES):
        for trace_id in trace_ids[:2_000]:
            assert at_rate(higher, trace_id).sampled or not at_rate(lower, trace_id).sampled


def test_about_as_many_traces_are_kept_as_the_rate_says(trace_ids: list[int]) -> None:
    kept = sum(at_rate(0.25, trace_id).sampled for trace_id in trace_ids)
    assert kept / len(trace_ids) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("trace_id", [1, LARGEST])
def test_rate_1_keeps_and_rate_0_drops_every_trace(trace_id: int) -> None:
    assert at_rate(1.0, trace_id).sampled
    assert not at_rate(0.0, trace_id).sampled


@pytest.mark.parametrize("rate", [None, "0.5", -0.1, 1.1, math.nan, math.inf, [], object()])
def test_without_a_valid_rate_tracing_is_off(rate: object) -> None:
    assert at_rate(rate) == Decision(sampled=False, sample_rate=None, sample_rand=0.0)


@pytest.mark.parametrize(
    ("result", "rate"),
    [
        (True, 1.0),
        (False, 0.0),
        (1, 1.0),
        (0, 0.0),
        (0.25, 0.25),
        (Fraction(1, 4), 0.25),
        (Decimal("0.25"), 0.25),
    ],
)
def test_a_sampler_may_answer_with_any_number_that_sentry_sdk_takes(
    result: object, rate: float
) -> None:
    assert to_rate(result) == rate
    reason = None if rate else "sample_rate"
    assert by_sampler(result) == Decision(rate > 0, rate, sample_rand(1), reason)


@pytest.mark.parametrize(
    "result", [None, "1", "yes", -0.1, 1.000001, math.nan, Decimal("NaN"), math.inf, [1], 1j]
)
def test_any_other_answer_of_a_sampler_counts_as_0(result: object) -> None:
    assert by_sampler(result) == Decision(False, 0.0, 0.0, "sample_rate")


def test_a_sampler_wins_over_the_rate_and_gets_the_context() -> None:
    def sampler(context: dict[str, Any]) -> float:
        return 0.5 if context == {"parent_sampled": True} else 0.0

    decision = decide(
        1, rate=0.0, sampler=sampler, sampling_context=lambda: {"parent_sampled": True}
    )
    assert decision.sample_rate == 0.5


def test_the_context_is_only_made_for_a_sampler() -> None:
    assert at_rate(1.0).sampled


def test_what_a_sampler_raises_is_left_to_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        decide(1, rate=1.0, sampler=lambda _: 1 / 0, sampling_context=dict)


# -- decisions that have been made ----------------------------------------------------------------


def test_a_decision_is_remembered_by_trace() -> None:
    decisions, decision = Decisions(), at_rate(1.0)
    assert decisions.get(1) is None
    decisions.add(1, decision)
    assert decisions.get(1) is decision
    decisions.clear()
    assert decisions.get(1) is None


def test_of_too_many_decisions_the_oldest_are_forgotten() -> None:
    decisions, decision = Decisions(), at_rate(1.0)
    for trace_id in range(MAX_DECISIONS + 2):
        decisions.add(trace_id, decision)
    known = [decisions.get(trace_id) is decision for trace_id in range(MAX_DECISIONS + 2)]
    assert known == [False] * 2 + [True] * MAX_DECISIONS
