"""Sentry's `_meta`: beside a payload, for each value that was filtered, that it was.

Only where Sentry shows it: the request, attributes, and the data of the scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._rules import FILTERED


def mark(meta: Data, keys: Sequence[str], *path: str) -> None:
    """Say in *meta* that what *path* leads to has filtered values under *keys*."""
    if not keys:
        return
    for part in path:
        meta = meta.setdefault(part, {})
    for key in keys:
        # What sentry-sdk writes for `[Filtered]`. New for each value: others add to remarks.
        meta[key] = {"": {"rem": [["!config", "s"]]}}


def mark_all(meta: Data, value: Any, *path: str) -> None:
    """The same for all that is `[Filtered]` anywhere in *value*."""
    if type(value) is dict:
        items: Any = value.items()
    elif type(value) is list:
        items = enumerate(value)
    else:
        return
    for key, item in items:
        if type(item) is str:
            if item == FILTERED:
                mark(meta, (str(key),), *path)
        else:
            mark_all(meta, item, *path, str(key))


def removed(rule: str, size: int | None) -> Data:
    """For a body that was left out."""
    note: Data = {"rem": [[rule, "x"]]}
    if size is not None:
        note["len"] = size
    return {"": note}
