"""The dynamic sampling context has what Relay asks for, as text."""

import pytest

from otel_sentry_asgi._dsc import ClientFacts, format_rate, sampling_context
from otel_sentry_asgi.sampling import Decision, decide

FACTS = ClientFacts("public", release="shop@1.0", environment="test", org_id="12")


def decision(rate: float | None, trace_id: int = 1) -> Decision:
    return decide(trace_id, rate=rate, sampler=None, sampling_context=dict)


def test_a_whole_context() -> None:
    assert sampling_context(0xABC, FACTS, decision(0.25, 0xABC)) == {
        "trace_id": "00000000000000000000000000000abc",
        "public_key": "public",
        "release": "shop@1.0",
        "environment": "test",
        "org_id": "12",
        "sample_rate": "0.25",
        "sample_rand": "0.000000",
        "sampled": "true",
    }


def test_what_the_client_does_not_know_is_left_out() -> None:
    assert sampling_context(1, ClientFacts("public", release=""), decision(1.0)) == {
        "trace_id": "00000000000000000000000000000001",
        "public_key": "public",
        "sample_rate": "1.0",
        "sample_rand": "0.000000",
        "sampled": "true",
    }


def test_without_a_public_key_there_is_none() -> None:
    assert sampling_context(1, None, decision(1.0)) is None


@pytest.mark.parametrize("without", [None, decision(None)])
def test_with_tracing_off_there_is_no_word_of_sampling(without: Decision | None) -> None:
    context = sampling_context(1, ClientFacts("public"), without)
    assert context is not None
    assert context.keys() == {"trace_id", "public_key"}


@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.1, 1 / 3, 0.333333, 0.5, 0.999999, 1.0])
def test_rand_is_below_rate_exactly_when_sampled(rate: float) -> None:
    """Also for whoever reads the numbers back from the text."""
    for step in range(1_001):
        trace_id = min((1 << 64) - 1, int(rate * (1 << 64)) + (step - 500) * (1 << 40))
        context = sampling_context(trace_id, FACTS, decision(rate, max(0, trace_id)))
        assert context is not None
        assert all(isinstance(value, str) for value in context.values())
        below = float(context["sample_rand"]) < float(context["sample_rate"])
        assert context["sampled"] == ("true" if below else "false")


@pytest.mark.parametrize(
    ("rate", "text"), [(1, "1.0"), (0, "0.0"), (0.25, "0.25"), (1 / 3, "0.3333333333333333")]
)
def test_a_rate_reads_back_as_the_same_number(rate: float, text: str) -> None:
    assert format_rate(rate) == text
    assert float(text) == rate
