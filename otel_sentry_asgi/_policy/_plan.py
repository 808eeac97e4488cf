"""What is to be done to the values of one set of keys, found out once for that set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._decide import DROP, Rule, dropped, filtered, is_free_text
from otel_sentry_asgi._policy._memo import Memo
from otel_sentry_asgi._policy._pairs import is_plain_text
from otel_sentry_asgi._policy._rules import FILTERED
from otel_sentry_asgi._policy._values import texts_in

_WORTH_A_LOOK: Final = 3
"""Texts from which on it is cheaper to look at all of them at once."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


class Plan:
    """For attributes or headers with the same keys."""

    __slots__ = ("_changing", "_changing_plain", "_dropped", "_filtered", "_leaving_plain", "free")

    def __init__(self, keys: tuple[str, ...], rules: Memo[str, Rule]) -> None:
        of_keys = [(key, rules[key]) for key in keys]
        self._dropped = [key for key, rule in of_keys if rule.clean is dropped]
        self._filtered = {key: FILTERED for key, rule in of_keys if rule.clean is filtered}
        changing = [
            (key, rule.clean, rule.leaves_plain)
            for key, rule in of_keys
            if rule.clean not in (None, dropped, filtered)
        ]
        self.free = [key for key in keys if is_free_text(key)]
        """Keys that say nothing about their values."""
        leaving_plain = [key for key, _, leaves_plain in changing if leaves_plain]
        seen = {*leaving_plain, *self._dropped, *self._filtered}
        at_once = len(leaving_plain) >= _WORTH_A_LOOK and seen.issuperset(self.free)
        self._changing = [(key, clean) for key, clean, _ in changing]
        self._changing_plain = [
            (key, clean) for key, clean, leaves_plain in changing if not leaves_plain
        ]
        self._leaving_plain = leaving_plain if at_once else []

    def clean(
        self, values: Mapping[str, Any], around: Mapping[str, Any]
    ) -> tuple[Data, list[str], str]:
        """A copy, with what is to be changed; the keys of what is filtered; and all text below keys
        that are *free*, and maybe more."""
        changing, text = self._changing, None
        if leaving_plain := self._leaving_plain:
            together = joined([values[key] for key in leaving_plain])
            if together is not None and is_plain_text(together):
                changing, text = self._changing_plain, together
        cleaned = values.copy() if type(values) is dict else dict(values)
        marked = list(self._filtered)
        cleaned.update(self._filtered)
        for key in self._dropped:
            del cleaned[key]
        for key, clean in changing:
            kept = clean(values[key], around)
            if kept is DROP:
                del cleaned[key]
            else:
                cleaned[key] = kept
                if kept == FILTERED:
                    marked.append(key)
        if text is None:
            free = self.free
            text = texts_in([cleaned[key] for key in free if key in cleaned]) if free else ""
        return cleaned, marked, text


def joined(values: Collection[Any]) -> str | None:
    """All in one text; None where a value may hold others."""
    return "\n".join(map(str, values)) if _SCALARS.issuperset(map(type, values)) else None
