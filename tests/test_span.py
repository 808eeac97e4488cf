"""One span, whatever an application puts on it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from otel_sentry_asgi._ids import event_hex
from otel_sentry_asgi._translate.attributes import MAX_ITEMS, to_json_value, to_json_values
from otel_sentry_asgi._translate.op import MAX_OP
from otel_sentry_asgi._translate.span import is_asgi_event, seconds, to_links, to_span
from otel_sentry_asgi._translate.text import MAX_TEXT, to_text
from otel_sentry_asgi.testing import EPOCH, span, span_context

LONE_SURROGATE = "\ud800"


@given(st.integers(1, 2**128 - 1), st.sets(st.integers(1, 2**64 - 1), min_size=2, max_size=5))
def test_each_span_of_a_trace_gives_an_event_id_of_its_own_and_always_the_same(
    trace_id: int, span_ids: set[int]
) -> None:
    made = {event_hex(trace_id, span_id) for span_id in span_ids}
    assert len(made) == len(span_ids)
    assert made == {event_hex(trace_id, span_id) for span_id in span_ids}
    assert all(re.fullmatch("[0-9a-f]{32}", event_id) for event_id in made)


def test_a_whole_span() -> None:
    made = span(
        "SELECT",
        span_id=0xB,
        trace_id=0xA,
        parent=0xC,
        start=0.25,
        end=0.5,
        kind=SpanKind.CLIENT,
        attributes={"db.system": "sqlite", "db.statement": "SELECT 1"},
        status=Status(StatusCode.ERROR, "broken"),
        scope=InstrumentationScope("opentelemetry.instrumentation.sqlite3", "0.66"),
        links=[Link(span_context(2, 1), {"why": "retry"})],
    )
    assert to_span(made) == {
        "trace_id": "0000000000000000000000000000000a",
        "span_id": "000000000000000b",
        "parent_span_id": "000000000000000c",
        "op": "db",
        "description": "SELECT 1",
        "status": "internal_error",
        "origin": "auto.db.otel.sqlite3",
        "start_timestamp": EPOCH + 0.25,
        "timestamp": EPOCH + 0.5,
        "data": {
            "db.system.name": "sqlite",
            "db.query.text": "SELECT 1",
            "sentry.kind": "client",
            "otel.scope.name": "opentelemetry.instrumentation.sqlite3",
            "otel.scope.version": "0.66",
            "sentry.status.message": "broken",
        },
        "links": [
            {
                "trace_id": "00000000000000000000000000000001",
                "span_id": "0000000000000002",
                "sampled": True,
                "attributes": {"why": "retry"},
            }
        ],
    }


def test_what_a_span_has_not_is_left_out() -> None:
    assert to_span(span()) == {
        "trace_id": "00000000000000000000000000000001",
        "span_id": "0000000000000001",
        "description": "span",
        "status": "ok",
        "origin": "manual",
        "start_timestamp": EPOCH,
        "timestamp": EPOCH + 1,
        "data": {},
    }


# -- times ----------------------------------------------------------------------------------------


def test_a_span_that_ends_before_it_starts_ends_when_it_starts() -> None:
    """OTel takes the start from the wall clock, and that may be set back."""
    payload = to_span(span(start=5, end=3))
    assert payload["start_timestamp"] == payload["timestamp"] == EPOCH + 5


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (None, 0.0),
        (0, 0.0),
        (1_500_000_000, 1.5),
        (-1, 0.0),
        (1 << 80, 253_402_300_799.0),
        (1_767_225_600_123_456_789, 1_767_225_600.123_456_8),
    ],
)
def test_a_time_is_one_that_relay_can_read(nanoseconds: int | None, expected: float) -> None:
    assert seconds(nanoseconds) == expected


# -- attribute values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("", ""),
        (True, True),
        (0, 0),
        (-1, -1),
        ((1 << 63) - 1, (1 << 63) - 1),
        (1 << 64, "0x10000000000000000"),
        (-(1 << 64), "-0x10000000000000000"),
        (1.5, 1.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (b"bytes", "bytes"),
        (bytearray(b"bytes"), "bytes"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (LONE_SURROGATE, "?"),
        (f"a{LONE_SURROGATE}\N{SNOWMAN}", "a?\N{SNOWMAN}"),
        (("a", "b"), ["a", "b"]),
        (["a", LONE_SURROGATE], ["a", "?"]),
        ((), []),
        ((1, 2), "[1, 2]"),
        ((1, "a", None, True, 1.5), '[1, "a", null, true, 1.5]'),
        ((math.nan,), '["nan"]'),
        ((b"a", "b"), '["a", "b"]'),
        (None, None),
        (object, "<class 'object'>"),
    ],
)
def test_a_value_becomes_one_that_json_and_sentry_take(value: object, expected: object) -> None:
    converted = to_json_value(value)
    assert converted == expected
    assert type(converted) is type(expected)
    json.dumps(converted, allow_nan=False).encode()


def test_numbers_that_python_does_not_print_are_no_obstacle() -> None:
    json.dumps(to_json_value(10**5_000))
    json.dumps(to_json_value((10**5_000,)))


@pytest.mark.parametrize("value", ["x" * 1_000_000, b"x" * 1_000_000, ("x" * 1_000_000,)])
def test_a_long_value_is_cut(value: Any) -> None:
    assert len(json.dumps(to_json_value(value))) <= MAX_TEXT + 4


@pytest.mark.parametrize("value", [["x"] * 1_000_000, [1] * 1_000_000, {"a": [[1]] * 1_000_000}])
def test_a_long_list_is_cut(value: Any) -> None:
    assert len(json.dumps(to_json_values({"k": value}))) <= MAX_TEXT


def test_nested_attributes_come_out_flat_so_that_each_key_can_be_judged() -> None:
    nested = {"user": {"name": "a", "card": {"number": "1"}}, "items": [{"sku": 1}, {"sku": 2}]}
    assert to_json_values({"order": nested, "plain": [1, 2]}) == {
        "order.user.name": "a",
        "order.user.card.number": "1",
        "order.items.0.sku": 1,
        "order.items.1.sku": 2,
        "plain": "[1, 2]",
    }


def test_of_a_nested_attribute_the_first_items_are_kept() -> None:
    wide = {f"k{number}": number for number in range(1_000)}
    data = to_json_values({"wide": wide, "after": 1})
    assert len(data) == MAX_ITEMS + 1
    assert data["wide.k0"] == 0
    assert data["after"] == 1


def test_nesting_has_no_depth_that_fails() -> None:
    value: object = "deep"
    for _ in range(100_000):
        value = {"k": value}
    assert list(to_json_values({"k": value}).values()) == ["deep"]


def test_what_has_no_value_is_left_out() -> None:
    assert to_json_values({"k": None, "n": {"k": None}, "e": {}}) == {}


def test_keys_can_be_encoded_too() -> None:
    assert to_json_values({LONE_SURROGATE: 1, "k": {LONE_SURROGATE: 2}}) == {"?": 1, "k.?": 2}


# -- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [LONE_SURROGATE, "x" * 1_000_000])
def test_every_text_of_a_span_can_be_encoded_and_has_an_end(text: str) -> None:
    made = span(
        text,
        kind=SpanKind.CLIENT,
        attributes={"sentry.op": text},
        status=Status(StatusCode.ERROR, text),
        scope=InstrumentationScope(text, text),
    )
    payload = to_span(made)
    json.dumps(payload, ensure_ascii=False).encode()
    assert len(payload["op"]) <= MAX_OP
    assert len(payload["description"]) <= MAX_TEXT
    assert all(len(str(value)) <= MAX_TEXT for value in payload["data"].values())


def test_text_is_cut_and_encodable() -> None:
    assert to_text("abc", 2) == "ab"
    assert to_text(f"a{LONE_SURROGATE}") == "a?"
    assert to_text("\N{SNOWMAN}") == "\N{SNOWMAN}"


# -- what OTel says -------------------------------------------------------------------------------


def test_what_otel_says_wins_over_attributes_of_the_same_name() -> None:
    """The policy relies on the kind."""
    made = span(kind=SpanKind.SERVER, attributes={"sentry.kind": "client"})
    assert to_span(made)["data"]["sentry.kind"] == "server"
    inner = span(attributes={"sentry.kind": "client"})
    assert "sentry.kind" not in to_span(inner)["data"]


def test_links_say_whether_their_traces_were_sampled() -> None:
    links = [Link(span_context(2, 1)), Link(span_context(3, 1, sampled=False))]
    assert [link["sampled"] for link in to_links(span(links=links))] == [True, False]


@pytest.mark.parametrize(("trace_id", "span_id"), [(0, 1), (1, 0), (0, 0)])
def test_links_to_nowhere_are_left_out(trace_id: int, span_id: int) -> None:
    """Relay takes no zero ids, and OTel keeps such a link when it has attributes."""
    nowhere = SpanContext(trace_id, span_id, is_remote=True)
    assert to_links(span(links=[Link(nowhere, {"k": 1})])) == []
    assert "links" not in to_span(span(links=[Link(nowhere, {"k": 1})]))


@pytest.mark.parametrize(
    ("name", "kind", "attributes", "expected"),
    [
        ("GET /x http send", SpanKind.INTERNAL, {"asgi.event.type": "http.response.body"}, True),
        ("GET /x http receive", SpanKind.INTERNAL, {}, True),
        ("/ws websocket send", SpanKind.INTERNAL, {}, True),
        ("send", SpanKind.INTERNAL, {}, False),
        ("mail send", SpanKind.INTERNAL, {}, False),
        ("GET /x http send", SpanKind.PRODUCER, {"asgi.event.type": "x"}, False),
    ],
)
def test_the_events_of_otels_asgi_middleware_are_told_apart(
    name: str, kind: SpanKind, attributes: dict[str, Any], expected: bool
) -> None:
    assert is_asgi_event(span(name, kind=kind, attributes=attributes)) is expected


Value = str | bool | int | float | Sequence[str]


def test_spans_made_by_a_provider_are_taken_like_those_made_by_hand() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    attributes: Mapping[str, Value] = {"text": "a", "list": ("a", "b"), "number": 1}
    with provider.get_tracer("shop", "1.0").start_as_current_span("work", attributes=attributes):
        pass
    [made] = memory.get_finished_spans()
    assert to_span(made)["data"] == {
        "text": "a",
        "list": ["a", "b"],
        "number": 1,
        "otel.scope.name": "shop",
        "otel.scope.version": "1.0",
    }
