"""Release health: how the requests of each minute ended, counted.

sentry-sdk counts them as well, from a `Session` with a random id, a lock and several dates for each
request: 9 us. Here the client gets the same session to note errors on, and the rest is a counter.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

EVERY = 60.0
"""Seconds after which what has been counted is sent (sentry-sdk's own interval)."""

Key = tuple[str, str, int, "weakref.ref[Any] | None"]
"""Release, environment, the minute in which the requests began, in minutes since 1970, and the
Sentry client, None for the global one."""


class Sessions:
    """Counts; any thread may call it."""

    def __init__(self, clock: Callable[[], float], send: Callable[[dict[Key, Any]], None]) -> None:
        """*clock* tells monotonic seconds; *send* is given the counts by key."""
        self._clock = clock
        self._send = send
        self.on_first: Callable[[], None] = lambda: None
        """Called when there is something to send again, so that somebody will call `flush`."""
        self.clear()

    def clear(self) -> None:
        """Begin with nothing, also with nobody who holds the lock: after a fork."""
        self._lock = threading.RLock()
        self._counts: dict[Key, Counter[str]] = {}
        self._due: float | None = None

    def add(self, key: Key, how: str) -> None:
        """One more request ended: `exited`, `errored`, `crashed` or `abnormal`."""
        with self._lock:
            counts = self._counts.get(key)
            if counts is None:
                counts = self._counts[key] = Counter()
            counts[how] += 1
            is_first = self._due is None
            if is_first:
                self._due = self._clock() + EVERY
        if is_first:
            self.on_first()

    def flush(self, now: float | None = None) -> float | None:
        """Send what is due at *now*, or everything; return when the next is due, if any."""
        with self._lock:
            if self._due is None or (now is not None and now < self._due):
                return self._due
            counts, self._counts, self._due = self._counts, {}, None
        self._send(counts)
        with self._lock:  # A request may have ended meanwhile.
            return self._due
