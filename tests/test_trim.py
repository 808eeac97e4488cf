"""No transaction is larger than Sentry takes; what that costs is marked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._translate.segment import RequestFacts, to_transaction
from otel_sentry_asgi._trim import LIMIT, MOST, trim
from otel_sentry_asgi.testing import span
from tests.payload import problems
from tests.policies import PRIVATE


def transaction(children: int, request: Any = None, resource: Any = None, **attributes: Any) -> Any:
    made = [
        span(f"child {number}", span_id=2 + number, parent=1, start=number, attributes=attributes)
        for number in range(children)
    ]
    root = span(kind=SpanKind.SERVER, attributes=attributes, resource=Resource(resource or {}))
    facts = RequestFacts(request=request)
    return PRIVATE.clean(to_transaction(root, made, event_id="e" * 32, facts=facts)).payload


def size(payload: Any) -> int:
    return len(json.dumps(payload).encode())


def accepted(payload: Any) -> bool:
    """By Relay, but for that it marks what is marked already."""
    plain = {key: value for key, value in payload.items() if key != "_dropped_spans"}
    return [one for one in problems(plain) if one.kind in ("fatal", "error", "reported")] == []


def test_what_is_small_enough_is_left_alone() -> None:
    payload = transaction(1_000, text="a" * 100)
    before = json.dumps(payload)
    assert trim(payload) == 0
    assert json.dumps(payload) == before


def test_the_ends_of_texts_go_first() -> None:
    payload = transaction(150, long="a" * 8_000, short="b" * 100)
    assert trim(payload) == 0
    assert len(payload["spans"]) == 150
    data = payload["spans"][3]["data"]
    assert (len(data["long"]), data["long"][-4:], data["short"]) == (2_048, "a...", "b" * 100)
    note = payload["_meta"]["spans"]["3"]["data"]["long"][""]
    assert note == {"len": 8_000, "rem": [["!limit", "s", 2_045, 2_048]]}
    assert size(payload) < 1 << 20
    assert accepted(payload)


def test_then_attributes_after_the_first_128() -> None:
    payload = transaction(2, **{f"field {number}": "v" * 128 for number in range(10_000)})
    assert trim(payload) == 0
    for data in (payload["spans"][1]["data"], payload["contexts"]["trace"]["data"]):
        assert list(data) == [f"field {number}" for number in range(128)]
    assert payload["_meta"]["spans"]["1"]["data"][""] == {"len": 10_000}
    assert accepted(payload)


def test_then_the_children_that_started_last() -> None:
    payload = transaction(1_000, **{f"field {number}": "v" * 100 for number in range(20)})
    lost = trim(payload)
    assert 0 < lost < 1_000
    names = [one["description"] for one in payload["spans"]]
    assert names == [f"child {number}" for number in range(1_000 - lost)]
    assert payload["_dropped_spans"] == lost
    assert LIMIT * 0.95 < size(payload["spans"]) < 1 << 20
    assert accepted(payload)


def test_and_last_what_the_root_has() -> None:
    emoji = {f"{'n' * 150}{number}": "\U0001f600" * 128 for number in range(128)}
    payload = transaction(1, {"url": "/", "headers": emoji}, emoji, **emoji)
    trim(payload, 300_000)
    assert size(payload) <= 310_000
    assert "otel" not in payload["contexts"]
    assert payload["_meta"]["contexts"]["otel"] == {"": {"rem": [["!limit", "x"]]}}
    assert accepted(payload)


def test_marks_that_were_there_stay() -> None:
    payload = transaction(150, long="a" * 8_000)
    payload["_meta"] = {"spans": {"3": {"data": {"key": {"": {"rem": [["!config", "s"]]}}}}}}
    trim(payload)
    assert payload["_meta"]["spans"]["3"]["data"].keys() == {"key", "long"}


def test_a_payload_that_a_callback_made_poorer_is_taken_as_it_is() -> None:
    payload: Any = {"type": "transaction", "request": {"data": ["a" * 9_000] * 200}}
    assert trim(payload) == 0
    assert size(payload) < 1 << 20


HOSTILE: dict[str, Any] = {
    "long": "a" * 1_000_000,
    "control": "\x00" * 9_000,
    "astral": "\U0001f600" * 9_000,
    "surrogates": "\ud800" * 9_000,
    "bytes": b"\xff" * 9_000,
    "list": ("x" * 9_000, "\u20ac") * 1_000,
    "nan": float("nan"),
    "huge": 10**5_000,
    "deep": {"a": {"b": [{"c": {"d": "leaf" * 3_000}}] * 200}},
}


@given(
    children=st.integers(0, 12),
    kinds=st.sets(st.sampled_from(sorted(HOSTILE))),
    many=st.sampled_from([0, 10_000]),
    long_names=st.booleans(),
)
@limits(max_examples=12)
def test_nothing_that_otel_lets_pass_is_larger_than_a_mebibyte(
    children: int, kinds: set[str], many: int, long_names: bool
) -> None:
    name = "n" * 8_000 if long_names else ""
    attributes = {f"{name}{kind}": HOSTILE[kind] for kind in sorted(kinds)}
    attributes.update((f"many {number}", "v" * 64) for number in range(many if children < 3 else 0))
    request = {"url": "/", "data": {"k": "d" * 90_000}}
    payload = transaction(children, request, **attributes)
    lost = trim(payload)
    assert size(payload) < (1 << 20) - 100_000
    assert len(payload["spans"]) + lost == children
    assert accepted(payload)


@pytest.mark.parametrize("limit", [1, 2_000, 10_000])
def test_a_limit_that_nothing_meets_leaves_what_relay_needs(limit: int) -> None:
    payload = transaction(3, {"url": "/"}, {"a": "b"}, key="value" * 1_000)
    trim(payload, limit)
    assert accepted(payload)


def test_what_others_added_goes_by_itself_the_ends_of_texts_first() -> None:
    payload = transaction(2, {"url": "/"}, key="value")
    own = json.dumps([payload["spans"], payload["request"], payload["contexts"]["trace"]])
    payload["extra"] = {f"row {number}": "r" * 9_000 for number in range(200)}
    payload["contexts"]["shop"] = {"notes": "n" * 9_000}
    assert trim(payload) == 0
    assert json.dumps([payload["spans"], payload["request"], payload["contexts"]["trace"]]) == own
    assert {len(text) for text in payload["extra"].values()} == {2_048}
    note = payload["_meta"]["contexts"]["shop"]["notes"][""]
    assert note == {"len": 9_000, "rem": [["!limit", "s", 2_045, 2_048]]}
    assert accepted(payload)


def test_and_then_as_a_whole_the_largest_first() -> None:
    payload = transaction(2, key="value")
    payload["tags"] = {f"tag {number}": "t" * 100 for number in range(10_000)}
    payload["extra"] = {"row": "r"}
    payload["contexts"]["shop"] = {f"note {number}": "n" * 100 for number in range(5_000)}
    assert trim(payload) == 0
    assert "tags" not in payload
    assert len(payload["contexts"]["shop"]) == 5_000
    assert payload["extra"] == {"row": "r"}
    assert payload["_meta"]["tags"] == {"": {"rem": [["!limit", "x"]]}}
    assert accepted(payload)


def test_what_scopes_hold_is_theirs() -> None:
    held: Any = {"text": "a" * MOST, "list": ["b" * 9_000], "n": {"text": "c" * 9_000}}
    before = json.dumps(held)
    payload = transaction(0)
    payload["extra"], payload["contexts"]["shop"] = held, held
    trim(payload)
    assert len(payload["extra"]["text"]) == 2_048
    assert json.dumps(held) == before


LISTS: list[Any] = [None, ["y" * 300], [{"data": {1: 2}}], [{"data": None}, "z"]]
ODD: list[Any] = [*LISTS, "x" * 300, {}, {"data": None}, 7]


@given(
    st.fixed_dictionaries(
        {"type": st.just("transaction")},
        optional={
            **dict.fromkeys(("request", "extra", "transaction"), st.sampled_from(ODD)),
            "spans": st.sampled_from(LISTS),
            "contexts": st.sampled_from([None, {"trace": None}, {"otel": ["o" * 300]}]),
            "tags": st.just(("z" * 300, 1)),
        },
    )
)
def test_whatever_form_hooks_gave_it_it_is_made_to_fit(payload: Any) -> None:
    trim(payload, 100, 300)
    assert size(payload) < 700
