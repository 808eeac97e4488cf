"""Decisions that are made once for each key, and once for each set of keys."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, Final, TypeVar

K = TypeVar("K", bound=Sized)
V = TypeVar("V")

MAX_KEYS: Final = 4_096
"""Keys that one memo remembers. Names of headers and parameters are the caller's to choose."""

LONGEST_KEY: Final = 200
"""Characters of a key that is remembered: a client may send 64 KiB of them in each request."""

MAX_SHAPES: Final = 512
LONGEST_SHAPE: Final = 4_096
"""Characters of the keys of a shape that is remembered."""


class Memo(dict[K, V]):
    """`memo[key]` is what *decide* says of the key; it is asked once. A full memo begins anew."""

    def __init__(self, decide: Callable[[K], V], most: int = MAX_KEYS) -> None:
        super().__init__()
        self._decide = decide
        self._most = most

    def __missing__(self, key: K) -> V:
        decision = self._decide(key)
        if self._is_kept(key):
            if len(self) >= self._most:
                self.clear()
            self[key] = decision
        return decision

    def _is_kept(self, key: K) -> bool:
        return len(key) <= LONGEST_KEY


class Answers(Memo[tuple[Any, ...], V]):
    """The same where the decision follows from more than the key, a text that comes first."""

    def _is_kept(self, key: tuple[Any, ...]) -> bool:
        return len(key[0]) <= LONGEST_KEY


class Shapes(Memo[tuple[str, ...], V]):
    """The same for all keys of a mapping, in their order: a service sends the same few sets."""

    def __init__(self, decide: Callable[[tuple[str, ...]], V]) -> None:
        super().__init__(decide, MAX_SHAPES)

    def _is_kept(self, key: tuple[str, ...]) -> bool:
        return sum(map(len, key)) <= LONGEST_SHAPE
