"""Delivery of encoded envelopes: a queue bounded in bytes, and threads that hold a connection each.

1. What is put waits in one queue. There is one thread as long as Sentry is near. When what waits
   has waited for `PATIENCE` and an answer takes longer than `FAR`, or none comes for `STALLED`,
   there is one more, up to `MAX_CONNECTIONS`. One that has nothing to do for `IDLE` ends.
2. What could not be sent for want of a connection goes back to the head of the queue, and one
   thread tries again, after pauses that grow up to `LONGEST_PAUSE`. What does not fit into the
   queue meanwhile is lost as `queue_overflow`.
3. Every envelope that was put ends in one way: an answer that took it (below 300, or 429, which the
   server counts itself), or one call of `lost` with a discard reason.
4. A forked child begins with nothing: what waits is its parent's to send.
"""

from __future__ import annotations

import contextvars
import gzip
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from otel_sentry_exporters._http import NotConnected, Response
from otel_sentry_exporters._limits import RateLimits

logger = logging.getLogger("otel_sentry_asgi.envelope")

MAX_CONNECTIONS = 32
"""With 50 ms to Sentry these are 600 envelopes a second."""

MAX_BYTES = 16 * 1024 * 1024
"""Bytes that wait or are under way, as they are sent."""

PATIENCE = 0.025
"""Seconds that the head of the queue may wait before another connection is thought of."""

FAR = 0.01
"""Seconds for an answer, above which more connections send more: below it the time is our own."""

STALLED = 1.0
"""Seconds without any answer, after which the threads there are hang."""

IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends, but for the last one."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries to connect."""

_FIRST_PAUSE = 0.25
_AGAIN = "again"

COMPRESS_FROM = 1_024
"""Bytes: what is smaller is one packet anyway."""

Counts = tuple[tuple[str, int], ...]
"""The categories of what is in an envelope, with quantities."""

Lost = Callable[[str, Counts], None]
"""Called with a discard reason and what is lost, from any thread."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """An encoded envelope."""

    body: bytes
    encoding: str | None
    counts: Counts
    since: float
    """When it was put, in the seconds of the delivery's clock."""


class Poster(Protocol):
    """What `_http.Connection` does."""

    def post(self, body: bytes, *, encoding: str | None = None) -> Response:
        """Send, and wait for the answer."""

    def close(self) -> None:
        """Hang up."""


class Delivery:
    """Sends what is put into it. Any thread may call it; only `flush` waits."""

    def __init__(
        self,
        connect: Callable[[], Poster],
        lost: Lost,
        *,
        delivered: Callable[[], None] = lambda: None,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*connect* makes a poster for a thread; *delivered* is called after each that was taken,
        on the thread that sent it."""
        self._connect = connect
        self._lost = lost
        self._delivered = delivered
        self._max_bytes = max_bytes
        self._clock = clock
        self.limits = RateLimits(clock)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._done = threading.Condition(lock)
        self._queue: deque[Parcel] = deque()
        self._bytes = 0
        self._threads = self._idle = self._under_way = 0
        self._failures = 0
        self._resume_at = 0.0
        self._round_trip: float | None = None
        self._answered_at = self._clock()
        self._closed = self._retired = False

    def put(self, body: bytes, counts: Counts) -> None:
        """Queue an envelope, compressed where that is worth it."""
        self._begin_in_child()
        encoding = None
        if len(body) >= COMPRESS_FROM:
            body, encoding = gzip.compress(body, 1, mtime=0), "gzip"
        parcel = Parcel(body, encoding, counts, self._clock())
        with self._work:
            fits = not self._closed and self._bytes + len(body) <= self._max_bytes
            starts = False
            if fits:
                self._bytes += len(body)
                self._queue.append(parcel)
                starts = self._call(parcel.since)
        if not fits:
            self._lost("queue_overflow", counts)
        if starts:
            self._start()

    def flush(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until nothing waits and nothing is under way."""
        self._begin_in_child()
        until = self._clock() + timeout
        with self._work:
            self._resume_at = 0.0
            self._work.notify()
            alone = bool(self._queue) and not self._threads
        if alone:  # The interpreter is about to end and starts no threads.
            self._run(until)
        with self._done:
            return self._done.wait_for(self._is_empty, max(0.0, until - self._clock()))

    def close(self) -> None:
        """End the threads; what still waits is lost."""
        with self._work:
            self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._under_way += len(left)  # Until they are settled.
            self._work.notify_all()
        for parcel in left:
            self._settle(parcel, "network_error")

    def retire(self) -> None:
        """End the threads as soon as nothing waits any more."""
        with self._work:
            self._retired = True
            self._work.notify_all()

    def _begin_in_child(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def _is_empty(self) -> bool:
        return not self._queue and not self._under_way

    # -- the threads; what is called with the lock held says so ---------------------------------

    def _call(self, now: float) -> bool:
        """See to it that somebody takes what waits; True if that needs a new thread. Locked."""
        if not self._queue:
            return False
        is_far = self._is_far(now)
        if self._idle and (is_far or len(self._queue) == 1):
            self._work.notify()
        elif not self._threads or (
            is_far
            and not self._idle
            and not self._failures
            and now - self._queue[0].since > PATIENCE
            and self._threads < MAX_CONNECTIONS
        ):
            self._threads += 1
            return True
        return False

    def _is_far(self, now: float) -> bool:
        """Whether another connection would send more. Locked."""
        is_slow = self._round_trip is None or self._round_trip > FAR
        return is_slow or (self._under_way > 0 and now - self._answered_at > STALLED)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="otel-sentry-upload", daemon=True)
        try:
            # In an empty context: the scopes of the code that starts it are none of its own.
            contextvars.Context().run(thread.start)
        except RuntimeError:
            with self._work:
                self._threads -= 1

    def _run(self, until: float | None = None) -> None:
        """Send until there is nothing to do any more; with *until*, as a part of `flush`."""
        poster = self._connect()
        try:
            while (parcel := self._take(until)) is not None:
                self._send(poster, parcel)
        finally:
            poster.close()

    def _take(self, until: float | None) -> Parcel | None:
        """The next envelope, as soon as there is one; None when the thread is to end."""
        with self._work:
            parcel = self._next(until)
            starts = parcel is not None and self._call(self._clock())
            if parcel is None and until is None:
                self._threads -= 1
        if starts:
            self._start()
        return parcel

    def _next(self, until: float | None) -> Parcel | None:
        """Locked."""
        while not self._closed:
            now = self._clock()
            pause = self._pause(now) if self._failures else 0.0
            if self._queue and not pause:
                if not self._under_way:
                    self._answered_at = now
                self._under_way += 1
                return self._queue.popleft()
            is_spare = self._threads > 1 and not self._is_far(now)
            if until is not None or (not self._queue and (is_spare or self._retired)):
                return None
            self._idle += 1
            woken = self._work.wait(pause or (IDLE if self._threads > 1 else None))
            self._idle -= 1
            if not woken and not self._queue and self._threads > 1:
                return None
        return None

    def _pause(self, now: float) -> float:
        """Seconds until the next try to connect. Locked."""
        return IDLE if self._under_way else max(0.0, self._resume_at - now)

    def _send(self, poster: Poster, parcel: Parcel) -> None:
        outcome: str | None = (
            "internal_sdk_error"  # Should anything be raised that is not foreseen.
        )
        try:
            outcome = self._outcome(poster, parcel)
        finally:
            if outcome == _AGAIN:
                self._put_back(parcel)
            else:
                self._settle(parcel, outcome)
        if outcome is None:
            self._delivered()

    def _outcome(self, poster: Poster, parcel: Parcel) -> str | None:
        """None if it was taken, a discard reason if it is lost, or `_AGAIN`."""
        if any(self.limits.are_over(category) for category, _ in parcel.counts):
            return "ratelimit_backoff"
        begin = self._clock()
        try:
            response = poster.post(parcel.body, encoding=parcel.encoding)
        except NotConnected as error:
            log = logger.debug if self._failures else logger.warning
            log("no way to Sentry, trying again: %s", error)
            return _AGAIN
        except (OSError, ValueError) as error:
            logger.warning("an upload to Sentry had no answer: %s", error)
            return "network_error"
        self.limits.update(response.status, response.headers)
        with self._work:
            self._answered_at = self._clock()
            self._round_trip = self._answered_at - begin
            if self._failures:
                self._failures = 0
                self._work.notify_all()
        return _reason_of(response.status)

    def _put_back(self, parcel: Parcel) -> None:
        with self._work:
            closed = self._closed
            if not closed:
                pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
                self._failures += 1
                self._resume_at = self._clock() + pause
                self._under_way -= 1
                self._queue.appendleft(parcel)
        if closed:
            self._settle(parcel, "network_error")

    def _settle(self, parcel: Parcel, reason: str | None) -> None:
        """*parcel* is done with."""
        if reason is not None:
            self._lost(reason, parcel.counts)
        with self._work:
            self._bytes -= len(parcel.body)
            self._under_way -= 1
            if self._is_empty():
                self._done.notify_all()


def _reason_of(status: int) -> str | None:
    """Why an answer means that the envelope is lost; None if it was taken, and with 429, of which
    the server itself keeps count."""
    if 200 <= status < 300 or status == 429:
        return None
    if status == 413:
        logger.warning("Sentry takes no envelope of this size (413)")
        return "send_error"
    logger.warning("Sentry answers an upload with %d", status)
    return "network_error"
