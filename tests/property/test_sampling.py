"""What goes into Sentry's headers reads back as what was decided."""

from hypothesis import example, given
from hypothesis import strategies as st

from otel_sentry_asgi._dsc import ClientFacts, format_rate, sampling_context
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi.sampling import decide, sample_rand

TRACE_IDS = st.integers(1, (1 << 128) - 1)
RATES = st.floats(0, 1)


@given(trace_id=TRACE_IDS)
@example(trace_id=(1 << 128) - 1)
def test_the_random_number_is_in_range_and_survives_six_decimals(trace_id: int) -> None:
    rand = sample_rand(trace_id)
    assert 0 <= rand < 1
    assert float(f"{rand:.6f}") == rand


@given(trace_id=TRACE_IDS, rate=RATES)
@example(trace_id=(1 << 128) - 1, rate=1.0)
@example(trace_id=1, rate=5e-324)
def test_a_sampling_context_says_what_was_decided(trace_id: int, rate: float) -> None:
    decision = decide(trace_id, rate=rate, sampler=None, sampling_context=dict)
    context = sampling_context(trace_id, ClientFacts("public"), decision)
    assert context is not None
    assert int(context["trace_id"], 16) == trace_id
    assert float(context["sample_rate"]) == decision.sample_rate == rate
    assert float(context["sample_rand"]) == decision.sample_rand
    below = float(context["sample_rand"]) < float(context["sample_rate"])
    assert (context["sampled"] == "true") is decision.sampled is below


@given(trace_id=TRACE_IDS, lower=RATES, higher=RATES)
def test_a_higher_rate_keeps_what_a_lower_one_keeps(
    trace_id: int, lower: float, higher: float
) -> None:
    lower, higher = sorted((lower, higher))
    kept = [
        decide(trace_id, rate=rate, sampler=None, sampling_context=dict).sampled
        for rate in (lower, higher)
    ]
    assert kept != [True, False]


@given(rate=RATES)
def test_a_rate_reads_back_as_the_same_number(rate: float) -> None:
    assert float(format_rate(rate)) == rate


@given(trace_id=TRACE_IDS, span_id=st.integers(1, (1 << 64) - 1))
def test_ids_read_back_and_have_their_length(trace_id: int, span_id: int) -> None:
    assert (len(trace_hex(trace_id)), int(trace_hex(trace_id), 16)) == (32, trace_id)
    assert (len(span_hex(span_id)), int(span_hex(span_id), 16)) == (16, span_id)
