"""Which exceptions have been seen: by identity, since one object is one issue.

Most exceptions cannot be weakly referenced (the built-in types), and a strong reference keeps
the locals of all its frames alive, so those are forgotten after `KEPT_FOR` seconds, and the
oldest when there are more than `MAX_KEPT`.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable

from opentelemetry.trace import SpanContext

from otel_sentry_asgi._errors import is_group, members

KEPT_FOR = 10.0
"""Seconds. Servers log an exception that left the application at once; daphne within a second."""

MAX_KEPT = 1_024

MAX_EVENTS = 4_096
"""Span events remembered as seen alive, until their span has been looked at."""


class _Entry:
    __slots__ = ("get", "owner", "reported", "span", "until")

    def __init__(self, get: Callable[[], BaseException | None], until: float) -> None:
        self.get = get
        self.until = until
        self.span: SpanContext | None = None
        self.reported = False
        self.owner: weakref.ref[object] | None = None


class Ledger:
    """Remembers exceptions: the span that recorded each first, and whether it has been reported.

    Any thread may call it at any time; also what runs when an exception is freed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.on_kept: Callable[[], None] = lambda: None
        """Called when an exception is kept alive, so that somebody will call `expire`."""
        self.clear()

    def note(self, error: BaseException, span: SpanContext, owner: object = None) -> None:
        """Remember the first, that is the innermost, span that recorded *error*, and for whom."""
        with self._lock:
            entry = self._entry(error)
            if entry.span is None:
                entry.span = span
                entry.owner = weakref.ref(owner) if owner is not None else None

    def owner_of(self, error: BaseException) -> object:
        """For whom *error* was noted; None if for nobody, or they are gone."""
        with self._lock:
            entry = self._find(error)
            return entry.owner() if entry is not None and entry.owner is not None else None

    def span_of(self, error: BaseException) -> SpanContext | None:
        """The span on which *error*, or for a group one of its members, was recorded first."""
        with self._lock:
            for member in members(error):
                entry = self._find(member)
                if entry is not None and entry.span is not None:
                    return entry.span
            return None

    def claim(self, error: BaseException) -> bool:
        """True for the first caller only. A group is reported when all its members have been."""
        with self._lock:
            fresh = [member for member in members(error) if not self._is_reported(member)]
            for member in fresh:
                self._entry(member).reported = True
            return not all(is_group(member) for member in fresh)

    def note_event(self, span_id: int, timestamp: int) -> None:
        """Remember that the exception of this span event has been seen alive."""
        with self._lock:
            self._events[span_id, timestamp] = None
            if len(self._events) > MAX_EVENTS:
                self._events.popitem(last=False)

    def knows_event(self, span_id: int, timestamp: int) -> bool:
        """Whether the exception of this span event has been seen alive."""
        return (span_id, timestamp) in self._events

    def is_reported(self, error: BaseException) -> bool:
        """Whether somebody has claimed *error*."""
        with self._lock:
            return self._is_reported(error)

    def expire(self, now: float) -> float | None:
        """Forget what is too old; return when to call again, None if nothing is left."""
        with self._lock:
            while self._entries:
                key, entry = next(iter(self._entries.items()))
                if entry.until > now and len(self._entries) <= MAX_KEPT:
                    return entry.until
                self._entries.pop(key, None)
            return None

    def clear(self) -> None:
        """Forget everything, also who holds the lock: after a fork that may be nobody."""
        self._lock = threading.RLock()
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._events: OrderedDict[tuple[int, int], None] = OrderedDict()

    def _is_reported(self, error: BaseException) -> bool:
        entry = self._find(error)
        return entry is not None and entry.reported

    def _find(self, error: BaseException) -> _Entry | None:
        entry = self._entries.get(id(error))
        return entry if entry is not None and entry.get() is error else None

    def _entry(self, error: BaseException) -> _Entry:
        entry = self._find(error)
        if entry is None:
            now = self._clock()
            entry = _Entry(_reference(error), now + KEPT_FOR)
            self._entries.pop(id(error), None)
            self._entries[id(error)] = entry
            self.expire(now)
            if not isinstance(entry.get, weakref.ref):
                self.on_kept()
        return entry


def _reference(error: BaseException) -> Callable[[], BaseException | None]:
    try:
        return weakref.ref(error)
    except TypeError:
        return lambda: error
