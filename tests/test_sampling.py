"""The decision is a function of the trace id and composes with OTel's own ratio."""

import gc
import itertools
import math
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.sdk.trace.sampling import Decision as OtelDecision

from otel_sentry_asgi.sampler import SentrySampler
from otel_sentry_asgi.sampling import (
    MAX_DECISIONS,
    Decision,
    Decisions,
    consistent,
    decide,
    rand_between,
    rate_of,
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
    assert decisions.get(1) == decision
    assert type(decisions.get(1)) is Decision
    decisions.clear()
    assert decisions.get(1) is None


def test_of_too_many_decisions_the_oldest_are_forgotten() -> None:
    decisions, decision = Decisions(), at_rate(1.0)
    most = 5 * MAX_DECISIONS // 2
    for trace_id in range(most):
        decisions.add(trace_id, decision)
        assert decisions.get(trace_id) == decision
        assert decisions.get(max(0, trace_id - MAX_DECISIONS + 1)) == decision
    known = [decisions.get(trace_id) == decision for trace_id in range(most)]
    assert sum(known) <= 2 * MAX_DECISIONS
    assert known == sorted(known)


def test_decisions_are_nothing_that_the_garbage_collector_goes_over() -> None:
    decisions = Decisions()
    gc.collect()
    before = len(gc.get_objects())
    for trace_id in range(1_000):
        decisions.add(trace_id, decide(trace_id, rate=0.5, sampler=None, sampling_context=dict))
        decisions.freeze(trace_id, {"trace_id": str(trace_id)})
    gc.collect()
    assert len(gc.get_objects()) < before + 100


# -- what came with the trace, and what OTel did ---------------------------------------------------


@pytest.mark.parametrize("came", [True, False])
def test_sentrys_own_decision_wins_over_the_rate_and_loses_to_a_sampler(came: bool) -> None:
    def made(sampler: Any, rate: float) -> bool:
        return decide(
            1 << 62, rate=rate, sampler=sampler, sampling_context=dict, parent_sampled=came
        ).sampled

    assert made(None, 1.0 - came) is came
    assert made(lambda _: not came, 1.0) is not came


def test_the_number_that_came_is_taken() -> None:
    given: Any = {"rate": 0.5, "sampler": None, "sampling_context": dict}
    assert decide(1, rand=0.7, **given) == Decision(False, 0.5, 0.7, "sample_rate")
    assert decide(LARGEST, rand=0.3, **given) == Decision(True, 0.5, 0.3)


def test_backpressure_halves_the_rate_of_a_trace_that_came_sampled() -> None:
    """With 0.1 and a number below it, half of 1.0 would let all of them through, and say 0.5."""
    given: Any = {"rate": 0.8, "sampler": None, "sampling_context": dict, "parent_sampled": True}
    came: Any = {**given, "parent_rate": 0.1}
    assert decide(1, rand=0.09, **came) == Decision(True, 1.0, 0.09)
    assert decide(1, rand=0.04, downsample=1, **came) == Decision(True, 0.05, 0.04)
    assert decide(1, rand=0.09, downsample=1, **came) == Decision(False, 0.05, 0.09, "backpressure")
    assert decide(1, rand=0.4, downsample=1, **given) == Decision(True, 0.5, 0.4)


def test_backpressure_halves_the_rate_and_says_so_where_it_made_the_difference() -> None:
    given: Any = {"rate": 0.8, "sampler": None, "sampling_context": dict, "downsample": 2}
    assert decide(1, rand=0.1, **given) == Decision(True, 0.2, 0.1)
    assert decide(1, rand=0.2, **given) == Decision(False, 0.2, 0.2, "backpressure")
    assert decide(1, rand=0.9, **given) == Decision(False, 0.2, 0.9, "sample_rate")


@pytest.mark.parametrize(
    ("lower", "upper"), [(0.0, 1.0), (0.0, 0.25), (0.25, 1.0), (1 / 3, 2 / 3), (0.0, 0.000001)]
)
def test_a_number_for_a_decision_without_one_fits_it(
    lower: float, upper: float, trace_ids: list[int]
) -> None:
    numbers = [rand_between(trace_id, lower, upper) for trace_id in trace_ids[:2_000]]
    assert all(lower <= number < upper for number in numbers)
    assert all(float(f"{number:.6f}") == number for number in numbers)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1e-7), (0.9999999, 1)])
def test_where_no_number_fits_it_is_that_of_the_trace(lower: float, upper: float) -> None:
    assert rand_between(LARGEST, lower, upper) == sample_rand(LARGEST)


@pytest.mark.parametrize(
    ("sampler", "rate"),
    [
        (TraceIdRatioBased(0.25), 0.25),
        (TraceIdRatioBased(1e-05), 1e-05),
        (ParentBased(TraceIdRatioBased(1 / 3)), 1 / 3),
        (SentrySampler(ParentBased(TraceIdRatioBased(0.5))), 0.5),
        (ALWAYS_ON, 1.0),
        (ParentBased(ALWAYS_OFF), 0.0),
        (ParentBased(ALWAYS_OFF, remote_parent_sampled=TraceIdRatioBased(0.1)), 0.0),
        (None, None),
    ],
)
def test_the_rate_of_otels_samplers_is_in_their_description(
    sampler: Sampler | None, rate: float | None
) -> None:
    assert rate_of(sampler) == rate
    assert rate_of(sampler) == rate  # As remembered.


def test_of_a_sampler_of_ones_own_no_rate_is_known() -> None:
    class Own(StaticSampler):
        def get_description(self) -> str:
            return "IdRatioBased{0.5}"

    assert rate_of(Own(OtelDecision.DROP)) is None


@pytest.mark.parametrize(
    "state",
    [None, {}, {"ot": ""}, {"ot": "rv:00000000000001"}, {"ot": "th:xyz"}, {"ot": "th:"},
     {"ot": "th:123456789012345"}, {"other": "th:8"}],
)  # fmt: skip
def test_without_a_threshold_a_trace_is_not_of_a_consistent_sampler(state: Any) -> None:
    assert consistent(1, state) is None


def test_a_threshold_and_a_random_value_say_how_otel_sampled() -> None:
    assert consistent(0, {"ot": "th:c"}) == (0.999999, 0.25)
    assert consistent((1 << 56) - 1, {"ot": "th:c;p:8"}) == (0.0, 0.25)
    assert consistent(0, {"ot": "th:0;rv:80000000000000"}) == (0.499999, 1.0)


def test_otels_consistent_samplers_compose_as_well(trace_ids: list[int]) -> None:
    """They keep the other end of the numbers: with the trace id's own one, a half of 50 % would be
    nothing."""
    experimental = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental")
    sampler = experimental.composite_sampler(experimental.composable_traceid_ratio_based(0.5))
    kept = 0
    for trace_id in trace_ids[:20_000]:
        result = sampler.should_sample(None, trace_id, "span")
        if result.decision is OtelDecision.RECORD_AND_SAMPLE:
            found = consistent(trace_id, result.trace_state)
            assert found is not None
            rand, rate = found
            assert rate == 0.5
            assert rand < rate
            kept += decide(1, rate=0.25, sampler=None, sampling_context=dict, rand=rand).sampled
    assert kept / 20_000 == pytest.approx(0.25, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("r1", "r2"), [(0.5, 0.1), (0.1, 0.5), (0.3, 0.3)])
def test_of_a_million_traces_the_smaller_rate_arrives(r1: float, r2: float) -> None:
    """OTel keeps its ratio of the ids, Sentry its own of what is left: as many as the smaller one,
    and for each service the very same, since nothing but the id decides."""
    chance, total, rate = random.Random(6), 1_000_000, min(r1, r2)
    bound = TraceIdRatioBased.get_bound_for_rate(r1)
    kept = 0
    for trace_id in (chance.getrandbits(128) for _ in range(total)):
        if trace_id & LARGEST >> 64 < bound:
            kept += at_rate(r2, trace_id).sampled
    five_sigma = 5 * (rate * (1 - rate) / total) ** 0.5
    assert kept / total == pytest.approx(rate, abs=five_sigma)


def test_what_is_frozen_is_remembered_by_trace_and_bounded() -> None:
    decisions = Decisions()
    for trace_id in range(2 * MAX_DECISIONS):
        decisions.freeze(trace_id, {"trace_id": str(trace_id)})
    assert decisions.frozen(0) is None
    assert decisions.frozen(MAX_DECISIONS) == {"trace_id": str(MAX_DECISIONS)}
    decisions.clear()
    assert decisions.frozen(MAX_DECISIONS) is None
