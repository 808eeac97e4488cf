"""Spans that say the same are translated and cleaned once, and nobody can tell."""

import math
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from otel_sentry_asgi._model import Shared
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._translate import span as translation
from otel_sentry_asgi._translate.span import LONGEST_KNOWN, MAX_KNOWN, to_span
from otel_sentry_asgi.testing import span
from tests.payload import encoded
from tests.policies import OPEN, PRIVATE

SAME = {
    "db.system": "postgresql",
    "db.statement": "SELECT * FROM cards WHERE number = '4111' AND owner = $1",
    "db.user": "shop",
    "session.token": "s3cret",
}

# Values that are equal, or look alike, and do not mean the same.
ALIKE = [1, True, 1.0, "1", 0, False, 0.0, -0.0, math.nan, "", ("1",), (1,), (True,), ("x", 1)]


@st.composite
def similar_spans(draw: st.DrawFn) -> ReadableSpan:
    return span(
        draw(st.sampled_from(["SELECT", "GET"])),
        span_id=draw(st.integers(2, 99)),
        parent=1,
        kind=draw(st.sampled_from([SpanKind.CLIENT, SpanKind.INTERNAL])),
        scope=draw(st.sampled_from(["asyncpg", "shop", None])),
        status=draw(
            st.sampled_from([Status(), Status(StatusCode.ERROR), Status(StatusCode.ERROR, "bad")])
        ),
        attributes=draw(
            st.dictionaries(
                st.sampled_from(["db.system", "n", "sentry.tag.n"]),
                st.sampled_from(ALIKE),
                max_size=3,
            )
        ),
    )


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    forget()


def forget() -> None:
    translation._known.clear()
    translation._once.clear()


def afresh(of: ReadableSpan) -> Any:
    forget()
    return to_span(of)


def test_values_that_are_equal_are_not_taken_for_each_other() -> None:
    for order in (ALIKE, ALIKE[::-1]):
        forget()
        some = [span(attributes={"n": value}) for value in order]
        made = [encoded(to_span(one)) for one in some * 3]
        assert made == [encoded(afresh(one)) for one in some] * 3


def repeated(attributes: dict[str, Any]) -> list[Any]:
    return [to_span(span("SELECT", span_id=n, attributes=attributes)) for n in range(2, 6)]


@given(st.lists(similar_spans(), min_size=1, max_size=5))
@limits(max_examples=300)
def test_a_span_is_translated_as_if_it_were_the_only_one(some: list[ReadableSpan]) -> None:
    forget()
    made = [encoded(to_span(one)) for one in some * 3]
    assert made == [encoded(afresh(one)) for one in some] * 3


@given(st.lists(similar_spans(), min_size=1, max_size=5), st.sampled_from([PRIVATE, OPEN]))
@limits(max_examples=200)
def test_a_span_is_cleaned_as_if_it_were_the_only_one(
    some: list[ReadableSpan], policy: Policy
) -> None:
    forget()
    cleaned = [policy.clean_span(to_span(one)) for one in some * 3]
    assert cleaned == [policy.clean_span(afresh(one)) for one in some] * 3


def test_what_comes_again_is_shared_and_what_came_once_is_not_kept() -> None:
    shared = [type(one["data"]) is Shared for one in repeated(SAME)]
    assert shared == [False, True, True, True]
    assert len(translation._known) == 1


def test_what_is_done_to_one_clean_span_is_not_done_to_the_next() -> None:
    first, *others = [PRIVATE.clean_span(one) for one in repeated(SAME)[1:]]
    before = deepcopy(others)
    first["data"].clear()
    first["data"]["mine"] = 1
    assert others == before
    assert PRIVATE.clean_span(repeated(SAME)[3])["data"] == before[0]["data"]


def test_each_policy_cleans_for_itself() -> None:
    for policy in (PRIVATE, OPEN, PRIVATE):
        [*_, last] = repeated(SAME)
        statement = policy.clean_span(last)["data"]["db.query.text"]
        assert ("4111" in statement) is (policy is OPEN)
        assert last["data"]["session.token"] == "[Filtered]"


TOO_LONG = "x" * (LONGEST_KNOWN + 1)


@pytest.mark.parametrize(
    "said",
    [
        {"name": TOO_LONG},
        {"status": Status(StatusCode.ERROR, TOO_LONG)},
        {"attributes": {"prompt": TOO_LONG}},
        {"attributes": {str(n): "x" * 100 for n in range(len(TOO_LONG) // 90)}},
        {"attributes": {TOO_LONG: 1}},
    ],
)
def test_what_is_long_is_not_kept(said: dict[str, Any]) -> None:
    for _ in range(3):
        made = to_span(span(**{"name": "call", **said}))
    assert type(made["data"]) is dict
    assert translation._known == {}


def test_what_is_kept_is_bounded() -> None:
    for number in range(MAX_KNOWN * 2 + 1):
        for _ in range(2):
            to_span(span(attributes={"n": number}))
    assert len(translation._known) <= MAX_KNOWN
    for number in range(translation._MAX_ONCE * 2):
        to_span(span(attributes={"once": number}))
    assert len(translation._once) <= translation._MAX_ONCE
    assert len(translation._known) <= MAX_KNOWN
