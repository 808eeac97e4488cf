"""What an application says to Sentry through attributes and span events: tags and measurements.

* `sentry.tag.<name>`: a tag of the transaction or span;
* `sentry.measurement.<name>`, with `sentry.measurement.<name>.unit`: a measurement;
* a span event with `sentry.measurement_value` and `sentry.measurement_unit`, as Sentry's
  JavaScript SDK writes it: a measurement named by the event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.sdk.trace import Event

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._translate.attributes import Own

TAG: Final = "sentry.tag."
MEASUREMENT: Final = "sentry.measurement."
_UNIT: Final = ".unit"
EVENT_VALUE: Final = "sentry.measurement_value"
EVENT_UNIT: Final = "sentry.measurement_unit"

MAX_TAG: Final = 200
"""Characters of a tag's key and of its value (Relay cuts what is longer)."""

# What Relay takes away from tags, because the event says it elsewhere.
_NO_TAGS: Final = frozenset({"", "release", "environment", "dist", "user"})
_NOT_IN_KEY: Final = later(r"[^A-Za-z0-9_.:-]")
_NOT_IN_MEASUREMENT: Final = later(r"[^a-z0-9._]")
_MEASUREMENT_UNIT: Final = later(r"[a-z]{1,15}")


def to_tags(own: Own) -> dict[str, str]:
    """The tags among *own*, as Relay takes them."""
    tags: dict[str, str] = {}
    for name, value in own:
        if name.startswith(TAG) and value is not None:
            key = _NOT_IN_KEY.sub("_", name[len(TAG) :])[:MAX_TAG]
            shown = " ".join(str(value).split())[:MAX_TAG]
            if key not in _NO_TAGS and shown:
                tags[key] = shown
    return tags


def to_measurements(own: Own, events: Iterable[Event]) -> dict[str, Data]:
    """The measurements among *own* and *events*: value and unit, as Relay takes them."""
    given = {name[len(MEASUREMENT) :]: value for name, value in own if name.startswith(MEASUREMENT)}
    measured: dict[str, Data] = {}
    for name, value in given.items():
        if not (name.endswith(_UNIT) and name[: -len(_UNIT)] in given):
            _measure(measured, name, value, given.get(name + _UNIT))
    for event in events:
        attributes = event.attributes or {}
        if EVENT_VALUE in attributes:
            _measure(measured, event.name, attributes[EVENT_VALUE], attributes.get(EVENT_UNIT))
    return measured


def _measure(measured: dict[str, Data], name: object, value: Any, unit: Any) -> None:
    # Relay takes no name that does not begin with a letter.
    known = _NOT_IN_MEASUREMENT.sub("_", str(name).lower()).lstrip("0123456789._")[:MAX_TAG]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not known:
        return
    try:
        amount = float(value)
    except OverflowError:
        return
    if math.isfinite(amount):
        is_unit = isinstance(unit, str) and _MEASUREMENT_UNIT.fullmatch(unit)
        measured[known] = {"value": amount, "unit": unit if is_unit else "none"}
