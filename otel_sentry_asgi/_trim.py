"""No transaction is larger than what Sentry takes: pure, on what the policy has been over.

Relay answers 413 to an item of more than 1 MiB, and the whole transaction is lost. Where spans,
request, trace and resource are larger than `LIMIT`, they lose, in this order and only as much as is
needed:

1. the ends of texts: over 2,048 characters, then 512, then 128;
2. of each span, attributes after the first 128, and those with names over 200 characters;
3. children, those that started last first;
4. the resource, the request's parts, and the root's attributes.

Where all of it with what scopes and hooks have added is larger than `MOST`, it loses the ends of
texts, and then the largest parts.

Each loss is marked in `_meta`, where Relay looks for it; children in `_dropped_spans`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import accumulate
from operator import add
from typing import Any, Final

from otel_sentry_asgi._model import Data, Transaction

LIMIT: Final = 819_200
"""Bytes of JSON. Relay keeps as much of a list of spans."""

MOST: Final = 1_000_000
"""The same with what others add: tags, contexts, extra. A little below 1 MiB."""

_MOST_ATTRIBUTES: Final = 128
_LONGEST_NAME: Final = 200

_Path = tuple[str, ...]
_Cut = Callable[[Any, Data], None]
"""Makes what it is given smaller, and marks that in what is `_meta` there."""


def trim(transaction: Transaction, limit: int = LIMIT, most: int = MOST) -> int:
    """Make the bridge's part of the transaction fit into *limit* bytes, and all of it into *most*,
    in place; return how many children it lost."""
    if _size(transaction) <= min(limit, most):
        return 0
    event: Any = transaction
    event.update({"spans": [], **_copied(event)})
    meta: Data = event.pop("_meta", {})

    def own_fits() -> bool:
        return _size([meta, *_own(event).values()]) <= limit

    def all_fits() -> bool:
        return _size([meta, event]) <= most

    lost = 0
    if not own_fits():
        _shorten(_own(event), meta, (*_TEXTS, _surplus), own_fits)
        lost = 0 if own_fits() else _drop_latest(event, meta, limit)
        _remove(event, meta, _LAST, own_fits)
    if not all_fits():
        _shorten({(): event}, meta, _TEXTS, all_fits)
        _remove(event, meta, _by_size(event), all_fits)
    event["_meta"] = _without_empty(meta)
    return lost


def _copied(value: Any) -> Any:
    """What scopes hold, and what the policy remembers, is theirs."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def _size(payload: Any) -> int:
    """Bytes as sentry-sdk encodes them; in UTF-8 they are no more."""
    return len(json.dumps(payload, separators=(",", ":"), default=str))


def _own(event: Any) -> dict[_Path, Any]:
    """What the bridge writes and may be large, by path."""
    contexts = event.get("contexts") or {}
    return {
        ("spans",): event["spans"],
        ("contexts", "trace"): contexts.get("trace"),
        ("contexts", "otel"): contexts.get("otel"),
        ("request",): event.get("request"),
    }


def _by_size(event: Any) -> list[_Path]:
    """The parts that others add to, the largest first."""
    contexts = event.get("contexts") or {}
    parts: dict[_Path, Any] = {
        ("contexts", name): part for name, part in contexts.items() if name != "trace"
    }
    for name, part in event.items():
        if name not in ("contexts", "spans") and isinstance(part, (dict, list)):
            parts[name,] = part
    return sorted(parts, key=lambda path: -_size(parts[path]))


_LAST: Final = (
    *(("contexts", "otel"), ("request", "data"), ("request", "headers"), ("request", "cookies")),
    *(("request", "query_string"), ("contexts", "trace", "links"), ("contexts", "trace", "data")),
    ("request",),
)


def _shorten(
    parts: dict[_Path, Any], meta: Data, cuts: Iterable[_Cut], fits: Callable[[], bool]
) -> None:
    for cut in cuts:
        for path, part in parts.items():
            cut(part, _at(meta, path))
        if fits():
            return


def _texts_over(longest: int) -> _Cut:
    def shorten(value: Any, meta: Data) -> None:
        is_list = isinstance(value, list)
        if not is_list and not isinstance(value, dict):
            return
        for key, item in enumerate(value) if is_list else list(value.items()):
            if isinstance(item, str) and len(item) > longest:
                value[key] = item[: longest - 3] + "..."
                note = meta.setdefault(str(key), {}).setdefault("", {})
                note.setdefault("len", len(item))
                note["rem"] = [["!limit", "s", longest - 3, longest]]
            elif isinstance(item, (dict, list)):
                shorten(item, meta.setdefault(str(key), {}))

    return shorten


_TEXTS: Final = tuple(map(_texts_over, (2_048, 512, 128)))


def _surplus(part: Any, meta: Data) -> None:
    if isinstance(part, list):
        for index, one in enumerate(part):
            _surplus(one, meta.setdefault(str(index), {}))
    elif isinstance(part, dict):
        for name in ("data", "resource", "headers", "cookies"):
            _first(part, name, meta)
        for link in part.get("links") or ():
            _first(link, "attributes", {})


def _first(holder: Any, name: str, meta: Data) -> None:
    values = holder.get(name)
    if not isinstance(values, dict):
        return
    kept = [key for key in values if len(str(key)) <= _LONGEST_NAME][:_MOST_ATTRIBUTES]
    if len(kept) < len(values):
        below = meta.setdefault(name, {})
        meta[name] = {key: below[key] for key in ("", *kept) if key in below}
        meta[name].setdefault("", {})["len"] = len(values)
        holder[name] = {key: values[key] for key in kept}


def _drop_latest(event: Any, meta: Data, limit: int) -> int:
    """The spans stand in the order of their start. Their marks go with them."""
    spans, notes = event["spans"] or [], meta.setdefault("spans", {})
    marks = [_size(notes.get(str(index), {})) + 10 for index in range(len(spans))]
    sizes = [_size(span) + 1 for span in spans]
    rest = _size([meta, *_own(event).values()]) - sum(sizes) - sum(map(_size, notes.values()))
    kept = sum(size <= limit - rest for size in accumulate(map(add, sizes, marks)))
    lost: int = len(spans) - kept
    for index in range(kept, len(spans)):
        notes.pop(str(index), None)
    del spans[kept:]
    if lost:
        event["_dropped_spans"] = event.get("_dropped_spans", 0) + lost
    return lost


def _remove(event: Any, meta: Data, paths: Iterable[_Path], fits: Callable[[], bool]) -> None:
    for *above, name in paths:
        if fits():
            return
        holder = event
        for key in above:
            holder = holder.get(key) or {}
        if isinstance(holder, dict) and holder.pop(name, None) is not None:
            below = _at(meta, (*above, name))
            below.clear()
            below[""] = {"rem": [["!limit", "x"]]}


def _at(meta: Data, path: _Path) -> Data:
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
