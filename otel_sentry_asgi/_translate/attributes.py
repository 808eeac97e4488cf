"""Attributes as JSON values under their current names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._semconv import (
    OLD_TARGET,
    RENAMED,
    RENAMED_ON_SERVERS,
    SERVER_ADDRESS,
    SERVER_PORT,
    URL_PATH,
    URL_QUERY,
)
from otel_sentry_asgi._translate.text import MAX_TEXT, to_text
from otel_sentry_asgi._translate.urls import split_target

MAX_ITEMS = 128
"""Items of one list or nested attribute (OTel's limit for the attributes of a span)."""

OWN: Final = ("sentry.tag.", "sentry.measurement.")
"""What an application says to Sentry through attributes, by prefix."""

_HOST_AND_PORT: Final = later(r"(?:\[([^\]]+)\]|([^:]+))(?::([0-9]{1,5}))?")

Own = list[tuple[str, Any]]

_MAX_KNOWN = 4_096
_MAX_KNOWN_KEY = 200


class _Names(dict[str, str]):
    """Old name to current one, and every other usual key to itself: one look-up for each attribute
    of each span. Bounded, because keys may be anything."""

    def __missing__(self, key: str) -> str:
        name = to_text(key)
        if len(self) < _MAX_KNOWN and len(key) <= _MAX_KNOWN_KEY and not key.startswith(OWN):
            self[key] = name
        return name


_names = _Names(RENAMED)
_names_on_servers = _Names(RENAMED_ON_SERVERS)


def to_current(attributes: Mapping[str, Any] | None, own: Own, *, on_server: bool) -> Data:
    """A span's attributes as JSON values under current names; where both generations are there,
    the current one counts. What the application says to Sentry is added to *own* instead."""
    names = _names_on_servers if on_server else _names
    data: Data = {}
    for key, value in plain(attributes).items():
        name = names[key]
        if name != key and data.get(name):
            continue
        kind = type(value)
        if kind is str and len(value) <= MAX_TEXT and value.isascii():  # The common case.
            data[name] = value
        else:
            add_value(data, name, value)
        if key not in names and name.startswith(OWN):
            said = [one for one in data if one == name or one.startswith(f"{name}.")]
            own.extend((one, data.pop(one)) for one in said)
    if OLD_TARGET in data:
        _split_target(data)
    address = data.get(SERVER_ADDRESS)
    if type(address) is str and ":" in address:
        _split_address(data, address)
    return data


def plain(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A plain dict of the attributes where there is a fast way to it."""
    if attributes is None:
        return {}
    copy = getattr(attributes, "copy", None)
    return attributes if copy is None else copy()


def _split_target(data: Data) -> None:
    path, query = split_target(data.pop(OLD_TARGET))
    if path:
        data.setdefault(URL_PATH, path)
    if query:
        data.setdefault(URL_QUERY, query)


def _split_address(data: Data, address: str) -> None:
    """OTel's ASGI and WSGI instrumentations write host and port into one, in either generation;
    ASGI's an IPv6 address without brackets, so that only the port tells where it ends."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is not None:
        data[SERVER_ADDRESS] = match[1] or match[2]
        if match[3]:
            data.setdefault(SERVER_PORT, int(match[3]))
        return
    host = address.removesuffix(f":{data.get(SERVER_PORT)}")
    if ":" in host and not host.endswith(":"):
        data[SERVER_ADDRESS] = host


def to_json_values(attributes: Mapping[str, Any]) -> Data:
    """Attributes as JSON values, under the names they have. What is nested comes out flat, under
    keys joined by dots, so that the policy sees each key."""
    flat: Data = {}
    for key, value in plain(attributes).items():
        add_value(flat, to_text(str(key)), value)
    return flat


def add_value(flat: Data, key: str, value: object) -> None:
    """Add one attribute's value to *flat*."""
    if isinstance(value, (str, int, float)):
        flat[key] = to_json_value(value)
    else:
        for path, leaf in _leaves(key, value):
            flat[to_text(path)] = to_json_value(leaf)


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """The value itself, or the first `MAX_ITEMS` of what is nested in it."""
    pending = [(key, value)]
    left = MAX_ITEMS
    while pending and left:
        key, value = pending.pop()
        items: Iterable[tuple[object, object]]
        if isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, (list, tuple)) and any(map(_is_nested, value)):
            items = enumerate(value)
        else:
            if value is not None:
                left -= 1
                yield key, value
            continue
        children = [(f"{key}.{name}", item) for name, item in islice(items, left)]
        pending.extend(reversed(children))


def _is_nested(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def to_json_value(value: object) -> Any:
    """What Sentry takes for an attribute: scalars, lists of strings; other lists as JSON text."""
    if isinstance(value, int):
        # Longer numbers lose digits in most readers, and Python does not print the longest.
        return value if isinstance(value, bool) or value.bit_length() < 64 else to_text(hex(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return to_text(value)
    if isinstance(value, (bytes, bytearray)):
        return to_text(bytes(value[:MAX_TEXT]).decode("utf-8", "replace"))
    if isinstance(value, (list, tuple)):
        items = [to_json_value(item) for item in value[:MAX_ITEMS]]
        texts = all(isinstance(item, str) for item in value)
        return items if texts else to_text(json.dumps(items))
    return None if value is None else to_text(str(value))
