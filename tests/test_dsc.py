"""The dynamic sampling context has what Relay asks for, as text."""

import pytest

from otel_sentry_asgi._dsc import (
    MAX_HEADER,
    MAX_MEMBERS,
    ClientFacts,
    SentryTrace,
    continued,
    format_rate,
    may_continue,
    merge_baggage,
    parse_baggage,
    parse_sentry_trace,
    received_rand,
    sampling_context,
)
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


# -- a trace that came from elsewhere --------------------------------------------------------------

BROWSER = {"trace_id": "a" * 32, "public_key": "web", "sample_rate": "0.5", "sample_rand": "0.2"}


def test_what_came_is_frozen_and_only_what_it_did_not_say_is_added() -> None:
    decided = Decision(True, 1.0, 0.2)
    assert continued(BROWSER, decided, changed=False) == {**BROWSER, "sampled": "true"}


def test_what_was_decided_otherwise_here_is_said() -> None:
    decided = Decision(False, 0.125, 0.2, "backpressure")
    assert continued(BROWSER, decided, changed=True) == {
        **BROWSER,
        "sample_rate": "0.125",
        "sample_rand": "0.200000",
        "sampled": "false",
    }


@pytest.mark.parametrize("junk", ["", "junk", "-0.1", "1.5", "nan"])
def test_what_came_as_a_number_and_is_none_is_said_anew(junk: str) -> None:
    """Relay takes no context with such a number, and ours is what was decided by."""
    decided = Decision(True, 1.0, 0.2)
    came = {**BROWSER, "sample_rand": junk}
    made = continued(came, decided, changed=False)
    assert made == {**BROWSER, "sample_rand": "0.200000", "sampled": "true"}
    came = {**BROWSER, "sample_rate": junk}
    made = continued(came, decided, changed=False)
    assert made == {**BROWSER, "sample_rate": "1.0", "sampled": "true"}


def test_a_random_number_of_one_is_none() -> None:
    made = continued({**BROWSER, "sample_rand": "1.0"}, Decision(True, 1.0, 0.2), changed=False)
    assert made["sample_rand"] == "0.200000"


@pytest.mark.parametrize("changed", [True, False])
def test_an_empty_context_stays_empty_and_with_tracing_off_nothing_is_added(changed: bool) -> None:
    assert continued({}, Decision(True, 1.0, 0.2), changed=changed) == {}
    assert continued(BROWSER, Decision(False, None, 0.2), changed=changed) == BROWSER


@pytest.mark.parametrize(
    ("context", "sampled", "lower", "upper"),
    [
        ({"sample_rand": "0.25"}, None, 0.25, 0.250001),
        ({"sample_rand": "0.2500009"}, None, 0.25, 0.250001),
        ({"sample_rand": "1.5", "sample_rate": "0.5"}, True, 0.0, 0.5),
        ({"sample_rand": "junk", "sample_rate": "0.5"}, False, 0.5, 1.0),
    ],
)
def test_the_number_of_a_trace_is_the_one_that_came_or_fits_its_decision(
    context: dict[str, str], sampled: bool | None, lower: float, upper: float
) -> None:
    for trace_id in (1, 1 << 63, (1 << 64) - 1):
        rand = received_rand(trace_id, context, sampled)
        assert rand is not None
        assert lower <= rand < upper


@pytest.mark.parametrize("context", [{}, {"sample_rate": "0.5"}, {"sample_rand": "1.0"}])
def test_of_a_trace_without_a_decision_no_number_is_known(context: dict[str, str]) -> None:
    assert received_rand(1, context, None) is None


@pytest.mark.parametrize(
    ("theirs", "ours", "usual", "strict"),
    [
        ("1", "1", True, True),
        (None, None, True, True),
        ("1", "2", False, False),
        ("1", None, True, False),
        (None, "1", True, False),
    ],
)
def test_which_organisations_traces_are_continued(
    theirs: str | None, ours: str | None, usual: bool, strict: bool
) -> None:
    assert may_continue(theirs, ours, strict=False) is usual
    assert may_continue(theirs, ours, strict=True) is strict


# -- headers ---------------------------------------------------------------------------------------

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"{TRACE}-{SPAN}-1", True),
        (f"{TRACE}-{SPAN}-0", False),
        (f"{TRACE}-{SPAN}", None),
        (f"  {TRACE.upper()}-{SPAN.upper()}-1\t", True),
        (f"00-{TRACE}-{SPAN}-00", None),
        (f" , {TRACE}-{SPAN}-1, {SPAN}", True),
    ],
)
def test_a_sentry_trace_header_is_read(header: str, sampled: bool | None) -> None:
    assert parse_sentry_trace(header) == SentryTrace(int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "header",
    [
        *(
            "",
            ",",
            "x",
            f"{TRACE}",
            f"{TRACE}-{SPAN[1:]}-1",
            f"{TRACE}-{SPAN}-2",
            f"{TRACE}-{SPAN}-",
        ),
        *(f"{'0' * 32}-{SPAN}-1", f"{TRACE}-{'0' * 16}-1", f"{TRACE}-{SPAN}-1\n{TRACE}"),
        *(f"{TRACE[:-1]}g-{SPAN}-1", f"{TRACE}{SPAN}", "1" * 100_000, "\u0661" * 32 + f"-{SPAN}"),
    ],
)
def test_what_is_no_sentry_trace_is_none(header: str) -> None:
    assert parse_sentry_trace(header) is None


def test_sentrys_members_of_baggage_are_read_and_no_others() -> None:
    headers = ["other=1, sentry-release=shop%401.0+2 ;meta=1", "sentry-transaction=GET%20%2Fa", "x"]
    assert parse_baggage(headers) == {"release": "shop@1.0+2", "transaction": "GET /a"}


def test_of_what_is_too_long_no_member_is_read_in_part() -> None:
    first = f"sentry-trace_id={TRACE}"
    for room in range(20):
        filler = "x" * (MAX_HEADER - len(first) - 2 - room)
        read = parse_baggage([f"{first},{filler},sentry-sample_rate=0.25", "sentry-release=1"])
        assert read == {"trace_id": TRACE}
    filler = "x" * (MAX_HEADER - len(first) - len(",sentry-sample_rate=0.25") - 1)
    read = parse_baggage([f"{first},{filler},sentry-sample_rate=0.25", "sentry-release=1"])
    assert read == {"trace_id": TRACE, "sample_rate": "0.25"}


def test_members_of_others_stay_and_sentrys_are_replaced_and_encoded() -> None:
    existing = "user=a+b%20c;secret, sentry-trace_id=old,sentry-environment=old ,x=y"
    merged = merge_baggage(existing, {"trace_id": "1", "transaction": "GET /é?a=1,2;3"})
    assert merged == (
        "user=a+b%20c;secret,x=y,sentry-trace_id=1,"
        "sentry-transaction=GET%20%2F%C3%A9%3Fa%3D1%2C2%3B3"
    )


def test_of_what_has_no_room_the_less_important_is_left_out() -> None:
    context = {"transaction": "t" * 9_000, "release": "1", "public_key": "k", "trace_id": "1"}
    assert merge_baggage("", context) == "sentry-trace_id=1,sentry-public_key=k,sentry-release=1"


def test_half_a_surrogate_pair_takes_no_other_member_along() -> None:
    merged = merge_baggage("a=\udc80", {"trace_id": "1", "public_key": "k", "release": "\ud800"})
    assert merged == "a=\udc80,sentry-trace_id=1,sentry-public_key=k,sentry-release=%3F"


@pytest.mark.parametrize(
    "existing", [f"a={'b' * 8_180}", ",".join(f"k{n}=v" for n in range(MAX_MEMBERS - 1))]
)
def test_without_room_for_what_is_needed_nothing_is_added(existing: str) -> None:
    assert merge_baggage(existing, {"trace_id": "1", "public_key": "k"}) == existing
