"""What an application says to Sentry through attributes and span events."""

import json
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import Event

from otel_sentry_asgi._translate.own import to_measurements, to_tags
from otel_sentry_asgi._translate.segment import to_transaction
from otel_sentry_asgi._translate.span import to_span
from otel_sentry_asgi.testing import EPOCH, span
from tests.payload import problems
from tests.policies import PRIVATE

ATTRIBUTES: dict[str, Any] = {
    "sentry.op": "shop.price",
    "sentry.name": "price of a cart",
    "sentry.source": "component",
    "sentry.origin": "auto.function.shop",
    "sentry.tag.region": "north",
    "sentry.tag.items": 3,
    "sentry.measurement.cart.total": 12.5,
    "sentry.measurement.cart.total.unit": "euro",
    "sentry.measurement.cart.items": 3,
    "kept": True,
}
TAGS = {"region": "north", "items": "3"}
MEASUREMENTS = {
    "cart.total": {"value": 12.5, "unit": "euro"},
    "cart.items": {"value": 3.0, "unit": "none"},
}


def measured(name: str, value: Any, unit: Any = None) -> Event:
    attributes = {"sentry.measurement_value": value, "sentry.measurement_unit": unit}
    return Event(name, attributes, EPOCH * 1_000_000_000)


def transaction(**given: Any) -> Any:
    root = span(**given)
    made = to_transaction(root, [], event_id="e" * 32)
    assert problems(made) == []
    return made


def test_a_transaction_is_what_the_application_says() -> None:
    made = transaction(attributes=ATTRIBUTES)
    trace = made["contexts"]["trace"]
    assert (made["transaction"], made["transaction_info"]) == (
        "price of a cart",
        {"source": "component"},
    )
    assert (trace["op"], trace["origin"]) == ("shop.price", "auto.function.shop")
    assert made["tags"] == TAGS
    assert made["measurements"] == MEASUREMENTS
    assert trace["data"]["kept"] is True
    assert not [key for key in trace["data"] if key.startswith(("sentry.tag", "sentry.meas"))]


def test_so_is_a_span() -> None:
    made = to_span(span(attributes={**ATTRIBUTES, "sentry.description": "price"}))
    assert (made["op"], made["description"], made["origin"]) == (
        "shop.price",
        "price",
        "auto.function.shop",
    )
    assert (made["tags"], made["measurements"]) == (TAGS, MEASUREMENTS)


def test_a_source_that_sentry_does_not_know_is_custom() -> None:
    made = transaction(attributes={"sentry.name": "mine", "sentry.source": "magic"})
    assert made["transaction_info"] == {"source": "custom"}


def test_a_span_may_keep_its_own_name() -> None:
    attributes = {"db.system": "sqlite", "db.query.summary": "SELECT x", "sentry.source": "custom"}
    made = transaction(name="mine", attributes=attributes)
    assert (made["transaction"], made["transaction_info"]) == ("mine", {"source": "custom"})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("a b", "x", {"a_b": "x"}),
        ("k" * 300, "x" * 300, {"k" * 200: "x" * 200}),
        ("a", "one\n two", {"a": "one two"}),
        ("a", True, {"a": "True"}),
        ("a", ["x", "y"], {"a": "['x', 'y']"}),
        ("a", " ", {}),
        ("a", None, {}),
        ("", "x", {}),
        ("release", "x", {}),
        ("user", "x", {}),
    ],
)
def test_tags_are_what_relay_takes(key: str, value: Any, expected: dict[str, str]) -> None:
    assert to_tags([(f"sentry.tag.{key}", value)]) == expected
    made = to_transaction(span(), [], event_id="e" * 32)
    made["tags"] = to_tags([(f"sentry.tag.{key}", value)])
    assert problems(made) == []


@pytest.mark.parametrize("value", ["5", True, None, float("nan"), float("inf"), 10**400, [1]])
def test_what_is_no_number_is_no_measurement(value: Any) -> None:
    assert to_measurements([("sentry.measurement.x", value)], []) == {}
    assert to_measurements([], [measured("x", value)]) == {}


@pytest.mark.parametrize("unit", [None, 5, "", "Milli seconds", "x" * 16])
def test_a_unit_that_relay_does_not_take_is_none(unit: Any) -> None:
    own = [("sentry.measurement.x", 1), ("sentry.measurement.x.unit", unit)]
    assert to_measurements(own, []) == {"x": {"value": 1.0, "unit": "none"}}
    assert to_measurements([], [measured("x", 1, unit)]) == {"x": {"value": 1.0, "unit": "none"}}


def test_a_measurement_has_a_name_that_relay_takes() -> None:
    made = to_measurements([("sentry.measurement.Cart Total-Sum", 1)], [])
    assert made == {"cart_total_sum": {"value": 1.0, "unit": "none"}}
    assert to_measurements([("sentry.measurement._2nd", 1)], []).keys() == {"nd"}
    for name in ("", "5", "._"):
        assert to_measurements([(f"sentry.measurement.{name}", 1)], []) == {}


def test_something_may_be_measured_that_is_called_unit() -> None:
    made = to_measurements([("sentry.measurement.power.unit", 1)], [])
    assert made == {"power.unit": {"value": 1.0, "unit": "none"}}


def test_span_events_may_be_measurements_as_in_the_javascript_sdk() -> None:
    made = transaction(events=[measured("load", 1.5, "second"), Event("other", {}, 0)])
    assert made["measurements"] == {"load": {"value": 1.5, "unit": "second"}}
    assert [crumb["message"] for crumb in made["breadcrumbs"]["values"]] == ["other"]


def test_so_may_those_of_a_span() -> None:
    child = span(span_id=2, parent=1, events=[measured("load", 1.5, "second")])
    made = to_transaction(span(), [child], event_id="e" * 32)
    assert made["spans"][0]["measurements"] == {"load": {"value": 1.5, "unit": "second"}}
    assert "measurements" not in made


def test_the_policys_own_terms_hold_for_tags_too() -> None:
    made = transaction(attributes={"sentry.tag.badge": "secret", "sentry.tag.shop": "north"})
    cleaned = replace(PRIVATE, terms=("badge",)).clean(made).payload
    assert cleaned["tags"] == {"badge": "[Filtered]", "shop": "north"}
    assert "secret" not in json.dumps(cleaned)
