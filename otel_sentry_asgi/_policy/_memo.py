"""Decisions that are made once for each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

V = TypeVar("V")

MAX_KEYS: Final = 4_096
"""Keys that one memo remembers. Names of headers and parameters are the caller's to choose."""


class Memo(dict[str, V]):
    """`memo[key]` is what *decide* says of the key; it is asked once. A full memo begins anew."""

    def __init__(self, decide: Callable[[str], V]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, key: str) -> V:
        if len(self) >= MAX_KEYS:
            self.clear()
        self[key] = decision = self._decide(key)
        return decision
