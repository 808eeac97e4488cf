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
from otel_sentry_asgi._trim import LIMIT, _at_most, _fits, _size, trim
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
    assert _at_most(payload) >= size(payload)
    lost = trim(payload)
    assert size(payload) < (1 << 20) - 100_000
    assert len(payload["spans"]) + lost == children
    assert accepted(payload)


@pytest.mark.parametrize("limit", [1, 2_000, 10_000])
def test_a_limit_that_nothing_meets_leaves_what_relay_needs(limit: int) -> None:
    payload = transaction(3, {"url": "/"}, {"a": "b"}, key="value" * 1_000)
    trim(payload, limit)
    assert accepted(payload)


VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.just(1e-7),
)


@given(st.dictionaries(st.text("abc\u20ac", max_size=3), st.lists(VALUES, max_size=30), max_size=3))
@limits(max_examples=300)
def test_what_surely_fits_does(parts: dict[str, Any]) -> None:
    payload: Any = {**parts, "spans": []}
    assert not _fits(payload, _size(payload) - 1)


def test_what_fits_is_mostly_known_without_a_slow_look() -> None:
    payload = transaction(800, **{"db.statement": "SELECT 1", "db.system": "postgresql"})
    assert _fits(payload, int(_size(payload) * 1.3))
