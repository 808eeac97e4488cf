"""Sentry's `_meta`: beside a payload, for each value that was filtered, that it was.

Only where Sentry shows it: the request, attributes, and the data of the scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._rules import FILTERED


def _substituted() -> Data:
    """What sentry-sdk writes for `[Filtered]`. New for each value: others add to remarks."""
    return {"": {"rem": [["!config", "s"]]}}


def remarks_on(event: Mapping[str, Any]) -> Data:
    """The `_meta` of a clean payload; empty where nothing was filtered."""
    found: Data = {}
    for name in ("extra", "tags"):
        if name in event and (noted := _deep(event[name])):
            found[name] = noted
    if "request" in event and (noted := _on_request(event["request"])):
        found["request"] = noted
    contexts = event.get("contexts") or {}
    for context, part in (("trace", "data"), ("otel", "resource")):
        if context in contexts and (noted := _flat(contexts[context].get(part))):
            found.setdefault("contexts", {})[context] = {part: noted}
    for index, span in enumerate(event.get("spans") or ()):
        if FILTERED in span["data"].values():
            found.setdefault("spans", {})[str(index)] = {"data": _flat(span["data"])}
    return found


def removed(rule: str, size: int | None) -> Data:
    """For a body that was left out."""
    note: Data = {"rem": [[rule, "x"]]}
    if size is not None:
        note["len"] = size
    return {"": note}


def _on_request(request: Mapping[str, Any]) -> Data:
    """But for the body, its parts hold no dictionaries."""
    found = {}
    for name in ("headers", "cookies", "env", "data"):
        if name in request and (
            noted := _deep(request[name]) if name == "data" else _flat(request[name])
        ):
            found[name] = noted
    return found


def _flat(values: Mapping[str, Any] | None) -> Data:
    if not values or FILTERED not in values.values():
        return {}
    return {key: _substituted() for key, value in values.items() if value == FILTERED}


def _deep(value: Any) -> Data:
    if type(value) is dict:
        items: Any = value.items()
    elif type(value) is list:
        items = enumerate(value)
    else:
        return {}
    found: Data = {}
    for key, item in items:
        if type(item) is str:
            if item == FILTERED:
                found[str(key)] = _substituted()
        elif noted := _deep(item):
            found[str(key)] = noted
    return found
