"""No transaction is larger than what Sentry takes: pure, on what the policy has been over.

Relay answers 413 to an item of more than 1 MiB, and the whole transaction is lost. What is larger
than `LIMIT` loses, in this order and only as much as is needed:

1. the ends of texts: over 2,048 characters, then 512, then 128;
2. of each span, attributes after the first 128, and those with names over 200 characters;
3. children, those that started last first;
4. the resource, the request's parts, and the root's attributes.

Each loss is marked in `_meta`, where Relay looks for it; children in `_dropped_spans`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from operator import add
from typing import Any, Final

from otel_sentry_asgi._model import Data, Transaction

_encode: Callable[[Any], bytes] | None = None
with suppress(ImportError):
    import orjson

    _encode = orjson.dumps

LIMIT: Final = 819_200
"""Bytes of JSON. Relay keeps as much of a list of spans; up to 1 MiB remains for what the scope
adds: tags, contexts, modules."""

_LONGEST: Final = (2_048, 512, 128)
_MOST: Final = 128
_LONGEST_NAME: Final = 200
_WORST: Final = 12
"""Bytes of one character: two escapes."""
_PLAIN: Final = 2
"""Bytes of a printable one of ASCII: a quote or backslash has one before it."""
_EXPONENTS: Final = 1.25
"""`1e-07` for `1e-7`: at most one byte more for four, and there is a comma behind each."""
_SPAN: Final = 400
"""Bytes of a span, at most, without its texts, attributes and links."""


def trim(transaction: Transaction, limit: int = LIMIT) -> int:
    """Make the transaction fit into *limit* bytes, in place; return how many children it lost."""
    spans: Any = transaction.setdefault("spans", [])
    if _fits(transaction, limit) or _size(transaction) <= limit:
        return 0
    meta: Data = transaction.setdefault("_meta", {})
    for shorten in (*(_texts_over(length) for length in _LONGEST), _surplus):
        for path, holder in _holders(transaction):
            shorten(holder, _at(meta, path))
        if _size(transaction) <= limit:
            break
    lost = _drop_latest(transaction, spans, meta.setdefault("spans", {}), limit)
    for path in _LAST:
        if _size(transaction) <= limit:
            break
        _remove(transaction, path, meta)
    transaction["_meta"] = _without_empty(meta)
    return lost


_LAST: Final = (
    *(("contexts", "otel"), ("request", "data"), ("request", "headers"), ("request", "cookies")),
    *(("request", "query_string"), ("contexts", "trace", "links"), ("contexts", "trace", "data")),
    ("request",),
)


def _fits(transaction: Transaction, limit: int) -> bool:
    """Whether it is surely small enough; cheap, and False where in doubt."""
    if _encode is not None:
        # Some 1 us for each child; the walk below takes 5. sentry-sdk escapes all but ASCII, which
        # takes three times as many bytes as UTF-8 at most; of ASCII it makes the same, but for
        # exponents.
        with suppress(TypeError):
            encoded = _encode(transaction)
            return len(encoded) * (_EXPONENTS if encoded.isascii() else 3) <= limit
    return _at_most(transaction) <= limit


def _at_most(transaction: Transaction) -> int:
    """A number of bytes that the transaction does not exceed, without encoding it."""
    total = 4 * _SPAN
    for key, part in transaction.items():
        if key != "spans":
            total += _bytes(part)
    for span in transaction["spans"]:
        total += _SPAN
        for name in ("data", "links", "description", "op", "origin"):
            if name in span:
                total += _bytes(span[name])
    return total


def _bytes(value: Any) -> int:
    """At least those of a value as JSON, with what separates it from the next."""
    if type(value) is str:
        return 4 + len(value) * (_PLAIN if value.isascii() and value.isprintable() else _WORST)
    if isinstance(value, Mapping):
        return 4 + sum(_bytes(key) + _bytes(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return 4 + sum(map(_bytes, value))
    return 32


def _size(payload: Any) -> int:
    """Bytes as sentry-sdk encodes them."""
    return len(json.dumps(payload, separators=(",", ":"), default=str))


def _holders(transaction: Transaction) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where the large things are, each with its path."""
    for index, span in enumerate(transaction["spans"]):
        yield ("spans", str(index)), span
    for name in ("trace", "otel"):
        if context := transaction.get("contexts", {}).get(name):
            yield ("contexts", name), context
    if "request" in transaction:
        yield ("request",), transaction["request"]


def _texts_over(longest: int) -> Any:
    def shorten(value: Any, meta: Data) -> None:
        items = enumerate(value) if isinstance(value, list) else list(value.items())
        for key, item in items:
            if isinstance(item, str) and len(item) > longest:
                value[key] = item[: longest - 3] + "..."
                note = meta.setdefault(str(key), {}).setdefault("", {})
                note.setdefault("len", len(item))
                note["rem"] = [["!limit", "s", longest - 3, longest]]
            elif isinstance(item, (dict, list)):
                shorten(item, meta.setdefault(str(key), {}))

    return shorten


def _surplus(holder: Any, meta: Data) -> None:
    for name in ("data", "resource", "headers", "cookies"):
        values = holder.get(name)
        if not isinstance(values, dict):
            continue
        kept = [key for key in values if len(key) <= _LONGEST_NAME][:_MOST]
        if len(kept) < len(values):
            below = meta.setdefault(name, {})
            meta[name] = {key: below[key] for key in ("", *kept) if key in below}
            meta[name].setdefault("", {})["len"] = len(values)
            holder[name] = {key: values[key] for key in kept}
    for link in holder.get("links") or ():
        _surplus({"data": link["attributes"]}, {})


def _drop_latest(transaction: Transaction, spans: list[Any], meta: Data, limit: int) -> int:
    """The spans stand in the order of their start. Their marks go with them."""
    marks = [_size(meta.get(str(index), {})) + 10 for index in range(len(spans))]
    sizes = [_size(span) + 1 for span in spans]
    rest = _size(transaction) - sum(sizes) - sum(map(_size, meta.values()))
    kept = sum(size <= limit - rest for size in accumulate(map(add, sizes, marks)))
    lost = len(spans) - kept if _size(transaction) > limit else 0
    if lost:
        for index in range(kept, len(spans)):
            meta.pop(str(index), None)
        del spans[kept:]
        transaction["_dropped_spans"] = transaction.get("_dropped_spans", 0) + lost
    return lost


def _remove(transaction: Any, path: tuple[str, ...], meta: Data) -> None:
    *above, name = path
    for key in above:
        transaction = transaction.get(key) or {}
    if transaction.pop(name, None) is not None:
        below = _at(meta, path)
        below.clear()
        below[""] = {"rem": [["!limit", "x"]]}


def _at(meta: Data, path: tuple[str, ...]) -> Data:
    for key in path:
        meta = meta.setdefault(key, {})
    return meta


def _without_empty(meta: Data) -> Data:
    found = {}
    for key, below in meta.items():
        kept = below if key == "" else _without_empty(below)
        if kept:
            found[key] = kept
    return found
