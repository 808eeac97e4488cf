"""Which exceptions have been seen: by identity, since one object is one issue in a piece of work.

A piece of work is a request with the units of work that begin in it, or a unit outside of requests.
Applications raise one object in several requests (an instance in a module, the failure of a future
that many await), and each of them has failed. Where an exception is seen outside of any work, it
is what one has reported before (servers log what left the application, asyncio what nobody
retrieved), or what one is about to report (a thread without the context of its request logs it).

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
from otel_sentry_asgi._scope import Exchange

KEPT_FOR = 10.0
"""Seconds. Servers log an exception that left the application at once; daphne within a second."""

MAX_KEPT = 1_024

MAX_EVENTS = 4_096
"""Span events remembered as seen alive, until their span has been looked at."""


class _Seen:
    """Of an exception: the span that recorded it first, and whether it has been reported."""

    __slots__ = ("reported", "span")

    def __init__(self) -> None:
        self.span: SpanContext | None = None
        self.reported = False


class _Entry:
    """An exception, what is known of it at all, and what in each piece of work."""

    __slots__ = ("by_work", "get", "is_free", "known", "owner", "until")

    def __init__(self, get: Callable[[], BaseException | None], until: float) -> None:
        self.get = get
        self.until = until
        self.known = _Seen()
        self.by_work: weakref.WeakKeyDictionary[Exchange, _Seen] = weakref.WeakKeyDictionary()
        self.owner: weakref.ref[Exchange] | None = None
        self.is_free = False
        """It was reported outside of any work: so it is for the next that sees it."""

    def is_reported(self, work: Exchange | None) -> bool:
        if work is None:
            return self.known.reported
        seen = self.by_work.get(work)
        return self.is_free or (seen is not None and seen.reported)

    def span(self, work: Exchange | None) -> SpanContext | None:
        seen = self.by_work.get(work) if work is not None else None
        if seen is not None and seen.span is not None:
            return seen.span
        return self.known.span if work is None or self.owner is None else None


class Ledger:
    """Remembers exceptions: the span that recorded each first, and whether it has been reported.

    Any thread may call it at any time; also what runs when an exception is freed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.on_kept: Callable[[], None] = lambda: None
        """Called when an exception is kept alive, so that somebody will call `expire`."""
        self.clear()

    def note(
        self, error: BaseException, span: SpanContext, exchange: Exchange | None = None
    ) -> None:
        """Remember the first, that is the innermost, span that recorded *error*, and for whom."""
        with self._lock:
            entry = self._entry(error)
            if entry.known.span is None:
                entry.known.span = span
                entry.owner = weakref.ref(exchange) if exchange is not None else None
            if exchange is not None:
                seen = self._seen(error, entry, exchange.work)
                if seen.span is None:
                    seen.span = span

    def owner_of(self, error: BaseException) -> Exchange | None:
        """For whom *error* was noted first; None if for nobody, or they are gone."""
        with self._lock:
            entry = self._find(error)
            return entry.owner() if entry is not None and entry.owner is not None else None

    def span_of(self, error: BaseException, exchange: Exchange | None = None) -> SpanContext | None:
        """The span on which *error*, or for a group one of its members, was recorded first: in the
        exchange's piece of work; without one, anywhere."""
        work = exchange.work if exchange is not None else None
        with self._lock:
            for member in members(error):
                entry = self._find(member)
                span = entry.span(work) if entry is not None else None
                if span is not None:
                    return span
            return None

    def claim(self, error: BaseException, exchange: Exchange | None = None) -> bool:
        """True for the first caller only: of the exchange's piece of work; without one, of all. A
        group is reported when all its members have been."""
        work = exchange.work if exchange is not None else None
        with self._lock:
            fresh = [member for member in members(error) if self._claim(member, work)]
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

    def is_reported(self, error: BaseException, exchange: Exchange | None = None) -> bool:
        """Whether somebody has claimed *error*: in the exchange's piece of work; without one,
        anywhere."""
        work = exchange.work if exchange is not None else None
        with self._lock:
            entry = self._find(error)
            return entry is not None and entry.is_reported(work)

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

    def _claim(self, error: BaseException, work: Exchange | None) -> bool:
        entry = self._entry(error)
        fresh = not entry.is_reported(work)
        if work is not None:
            self._seen(error, entry, work).reported = True
            entry.is_free = False
        elif fresh:
            entry.is_free = True
        entry.known.reported = True
        return fresh

    def _seen(self, error: BaseException, entry: _Entry, work: Exchange) -> _Seen:
        """What *work* knows of the exception: from now on for `KEPT_FOR` if that is nothing yet."""
        seen = entry.by_work.get(work)
        if seen is None:
            seen = entry.by_work[work] = _Seen()
            entry.until = self._clock() + KEPT_FOR
            self._entries.move_to_end(id(error))
        return seen

    def _find(self, error: BaseException) -> _Entry | None:
        entry = self._entries.get(id(error))
        if entry is None or entry.until <= self._clock():
            return None
        return entry if entry.get() is error else None

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
