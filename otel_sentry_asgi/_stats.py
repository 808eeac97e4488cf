"""Counters of what came, what went, and what was lost why."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Stats:
    """Named counters. Names are stable; `lost.<reason>` uses Sentry's discard reasons."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin at zero. The lock is new: after a fork nobody may hold the old one. It may be taken
        again by what interrupts its holder: a signal handler, a finalizer."""
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, quantity: int = 1) -> None:
        """Count *quantity* more of *name*."""
        with self._lock:
            self._counts[name] += quantity

    def snapshot(self, lost: Mapping[str, int] | None = None) -> dict[str, int]:
        """The counts so far; *lost*, by reason, is what others count on their own."""
        with self._lock:
            counts = self._counts.copy()
        counts.update({f"lost.{reason}": quantity for reason, quantity in dict(lost or {}).items()})
        return dict(sorted(counts.items()))
