"""Encoding: the same meaning, whichever encoder is installed."""

import enum
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sentry_exporters import _json
from otel_sentry_exporters._json import _standard, encode
from tests.property.strategies import ANY_TEXT

ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "orjson": orjson.dumps,
    "msgspec": msgspec.json.encode,
    "standard": _standard,
}

KEYS = st.one_of(ANY_TEXT, st.integers(), st.booleans(), st.none())
PAYLOADS = st.recursive(
    st.one_of(
        ANY_TEXT,
        st.integers(),
        st.sampled_from([1 << 63, 1 << 64, -(1 << 63) - 1, 10**400]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.none(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=10,
)


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_json, "_encode", ENCODERS[request.param])
    return str(request.param)


class Colour(str, enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Fraction(float):
    __slots__ = ()


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    "payload",
    [
        {"a": "\ud800", "\udfff": ["x\udc80y"]},
        {"z": "Zürich \U0001f600", "control": "\0\x1f\x7f\u2028"},
        {2: "a", True: "b", None: "c", 1.5: "d"},
        [1 << 63, 1 << 64, -(1 << 63) - 1, 10**400],
        {"a": Colour.RED, "b": Number.ONE, "c": Text("text"), "d": Fraction(0.5)},
        OrderedDict(a=(1, 2)),
        deep(60),
        deep(200),
        {},
    ],
)
def test_every_encoder_takes_what_the_standard_one_takes(encoder: str, payload: Any) -> None:
    assert json.loads(encode(payload)) == json.loads(json.dumps(payload))


@given(payload=PAYLOADS)
def test_all_encoders_mean_the_same(payload: Any) -> None:
    meant = json.loads(json.dumps(payload))
    for made in ENCODERS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_json, "_encode", made)
            encoded = encode(payload)
        assert json.loads(encoded) == meant
        assert b"\n" not in encoded  # Which ends headers in an envelope.


@pytest.mark.parametrize("payload", [object(), {"a": object()}, [lambda: None]])
def test_what_json_has_no_form_for_is_an_error(encoder: str, payload: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(payload)


def test_what_is_no_number_never_leaves_as_json_does_not_know_it(encoder: str) -> None:
    """Only `before_send_transaction` can put it there; sentry-sdk itself loses the event."""
    if encoder == "standard":
        with pytest.raises(ValueError, match="JSON"):
            encode({"a": math.nan})
    else:
        assert encode({"a": math.nan, "b": math.inf}) == b'{"a":null,"b":null}'


def test_the_fastest_encoder_that_is_installed_is_used() -> None:
    hidden: list[str] = []
    for name, made in ENCODERS.items():
        with pytest.MonkeyPatch.context() as patch:
            for module in hidden:
                patch.setitem(__import__("sys").modules, module, None)
            assert _json._fastest() is made, name
        hidden.append(name)
