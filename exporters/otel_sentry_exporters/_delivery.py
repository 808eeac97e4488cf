"""Delivery of encoded envelopes: a queue bounded in bytes, and threads that hold a connection each.

1. What is put waits in one queue. There is one thread as long as that sends it in time. When
   something is put or taken while the first has waited for `LATE`, there is one more, up to
   `MAX_CONNECTIONS`; one each `LATE` if answers come within `FAR`. A thread ends when it has
   nothing to do and nothing has been late for `IDLE`, the last one after `LAST_IDLE`: a delivery
   that is not used any more holds nothing.
2. What could not be sent for want of a connection goes back to the head of the queue, and one
   thread tries again, after pauses that grow up to `LONGEST_PAUSE`. What does not fit into the
   queue meanwhile is lost as `queue_overflow`.
3. Every envelope that was put ends in one call of `done`: without a reason if an answer took it
   (below 300, or 429, which the server counts itself), else with the reason for which it is lost.
4. A forked child begins with nothing: what waits is its parent's to send.
"""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
import zlib
from collections.abc import Callable
from typing import Protocol

from otel_sentry_exporters._backlog import Backlog, Counts, Parcel
from otel_sentry_exporters._http import NotConnected, Response
from otel_sentry_exporters._limits import RateLimits

logger = logging.getLogger("otel_sentry_asgi.envelope")

MAX_CONNECTIONS = 32
"""With 50 ms to Sentry these are 600 envelopes a second."""

MAX_BYTES = 16 * 1024 * 1024
"""Bytes that wait or are under way, as they are sent."""

PATIENCE = 0.025
"""Seconds that the head of the queue may wait before somebody is woken unasked."""

LATE = 0.05
"""Seconds that it may wait before there is another connection: Sentry is far, or hangs, or the
process is never idle and each of our threads waits for the interpreter's lock."""

FAR = 0.025
"""Seconds for an answer, above which many connections are needed, and at once."""

IDLE = 10.0
"""Seconds without anything late, after which threads that have nothing to do end, but for the last
one."""

LAST_IDLE = 60.0
"""Seconds after which the last thread ends: servers hang up about then."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries to connect."""

COMPLAIN_EVERY = 60.0
"""Seconds between two warnings in the log; in between they are on the debug level."""

_FIRST_PAUSE = 0.25
_AGAIN = "again"

COMPRESS_FROM = 1_024
"""Bytes: what is smaller is one packet anyway."""

_LEVEL = 1
_GZIP_WINDOW = 16 + 13
_MEMORY = 6
"""A window of 8 KiB: the usual 32 take 40 us to set up, three times what a small envelope takes
to compress, and spare nothing."""


def _compressed(body: bytes) -> bytes:
    gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW, _MEMORY)
    return gzip.compress(body) + gzip.flush()


Done = Callable[[str | None, Counts], None]
"""Called from any thread with what was delivered, or with what is lost and a discard reason."""


class Poster(Protocol):
    """What `_http.Connection` does."""

    def post(
        self, body: bytes, *, encoding: str | None = None, timeout: float | None = None
    ) -> Response:
        """Send, and wait for the answer."""

    def close(self) -> None:
        """Hang up."""


class Delivery:
    """Sends what is put into it. Any thread may call it; only `flush` waits."""

    def __init__(
        self,
        connect: Callable[[], Poster],
        done: Done,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*connect* makes a poster for a thread; it must not raise."""
        self._connect = connect
        self._tell = done
        self._max_bytes = max_bytes
        self._clock = clock
        self._posters: set[Poster] = set()
        self._begin()

    def _begin(self) -> None:
        self.limits = RateLimits(self._clock)
        # A signal handler may flush. Taken by itself: a condition's `with` is Python.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._queue = Backlog()
        self._bytes = 0
        self._threads = self._idle = self._under_way = 0
        self._failures = 0
        self._is_unanswered = False
        """Whether the last upload had no answer."""
        self._resume_at = 0.0
        self._round_trip = math.inf
        self._late_at = self._more_at = self._complain_at = self._clock()
        self._closed = self._called = False

    def begin_in_child(self) -> None:
        """After a fork: forget everything, and hang up without a word to the server."""
        for poster in self._posters:
            poster.close()
        self._posters = set()
        self._begin()

    def put(self, body: bytes, counts: Counts, *, wake: bool = True) -> None:
        """Queue an envelope, compressed where that is worth it. Without *wake* it may lie there
        until the next `wake`: threads that take turns for each envelope are dear."""
        encoding = None
        if len(body) >= COMPRESS_FROM:
            body, encoding = _compressed(body), "gzip"
        parcel = Parcel(body, encoding, counts, self._clock())
        with self._lock:
            fits = not self._closed and self._bytes + len(body) <= self._max_bytes
            starts = False
            if fits:
                self._bytes += len(body)
                self._queue.append(parcel)
                if wake or parcel.since - self._queue.first[0].since > PATIENCE:
                    starts = self._call(parcel.since)
        if not fits:
            self._tell("queue_overflow", counts)
        if starts:
            self._start()

    def wake(self) -> None:
        """See to it that what waits is sent."""
        with self._lock:
            starts = self._call(self._clock())
        if starts:
            self._start()

    def is_healthy(self) -> bool:
        """Whether the queue is not half full."""
        return self._bytes <= self._max_bytes // 2

    def is_clear(self) -> bool:
        """Whether nothing waits or is under way, and the last upload had an answer: else the next
        one will tell whether Sentry can be reached."""
        return self._is_empty() and not self._is_unanswered

    def flush(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until nothing waits and nothing is under way."""
        until = self._clock() + timeout
        with self._lock:
            self._resume_at = 0.0
            self._work.notify()
            alone = bool(self._queue.first) and not self._threads
        if alone:  # The interpreter is about to end and starts no threads.
            self._run(until)
        left = 0.0 if alone else max(0.0, until - self._clock())
        with self._lock:
            return self._done.wait_for(self._is_empty, left)

    def close(self) -> None:
        """End the threads; what still waits is lost."""
        with self._lock:
            self._closed = True
            left = []
            while self._queue.first:
                left.append(self._queue.popleft())
            self._under_way += len(left)  # Until they are settled.
            self._work.notify_all()
        for parcel in left:
            self._settle(parcel, "network_error")

    def _is_empty(self) -> bool:
        return not self._queue.first and not self._under_way

    # -- the threads; what is called with the lock held says so ---------------------------------

    def _call(self, now: float) -> bool:
        """See to it that somebody takes what waits; True if that needs a new thread. Locked."""
        if not self._queue.first:
            return False
        is_late = now - self._queue.first[0].since > LATE
        if is_late:
            self._late_at = now
        if self._idle:
            # In a pause they would only wait on.
            if (is_late or not self._called) and not (self._failures and self._pause(now)):
                self._called = True
                self._work.notify()
            return False
        if self._threads:
            is_time = is_late and (now >= self._more_at or self._round_trip > FAR)
            if not is_time or self._failures or self._threads >= MAX_CONNECTIONS:
                return False
        self._more_at = now + LATE
        self._threads += 1
        return True

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="otel-sentry-upload", daemon=True)
        try:
            # In an empty context: the scopes of the code that starts it are none of its own.
            contextvars.Context().run(thread.start)
        except RuntimeError:
            with self._lock:
                self._threads -= 1

    def _run(self, until: float | None = None) -> None:
        """Send until there is nothing to do any more; with *until*, as a part of `flush`."""
        poster = self._connect()
        self._posters.add(poster)
        try:
            while (parcel := self._take(until)) is not None:
                self._send(poster, parcel, until)
        finally:
            self._posters.discard(poster)
            poster.close()

    def _take(self, until: float | None) -> Parcel | None:
        """The next envelope, as soon as there is one; None when the thread is to end."""
        with self._lock:
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
            if until is not None and (now >= until or pause or not self._queue.first):
                return None
            if self._queue.first and not pause:
                self._under_way += 1
                return self._queue.popleft()
            is_last = self._threads == 1
            if not self._queue.first and not is_last and now - self._late_at > IDLE:
                return None
            self._idle += 1
            woken = self._work.wait(pause or (LAST_IDLE if is_last else IDLE))
            self._idle -= 1
            self._called = False
            if not woken and not self._queue.first and (is_last or self._threads > 1):
                return None
        return None

    def _pause(self, now: float) -> float:
        """Seconds until the next try to connect. Locked."""
        return IDLE if self._under_way else max(0.0, self._resume_at - now)

    def _send(self, poster: Poster, parcel: Parcel, until: float | None) -> None:
        outcome: str | None = "internal_sdk_error"
        try:
            outcome = self._outcome(poster, parcel, until)
        except Exception:
            logger.warning("an upload to Sentry failed", exc_info=True)
        if outcome == _AGAIN:
            self._put_back(parcel)
        else:
            self._settle(parcel, outcome)

    def _outcome(self, poster: Poster, parcel: Parcel, until: float | None) -> str | None:
        """None if it was taken, a discard reason if it is lost, or `_AGAIN`."""
        if self.limits.are_over(parcel.counts[0][0]):
            return "ratelimit_backoff"
        begin = self._clock()
        timeout = None if until is None else until - begin
        self._is_unanswered = True
        try:
            response = poster.post(parcel.body, encoding=parcel.encoding, timeout=timeout)
        except NotConnected as error:
            self._complain("no way to Sentry, trying again: %s", error)
            return _AGAIN
        except (OSError, ValueError) as error:
            self._complain("an upload to Sentry had no answer: %s", error)
            return "network_error"
        self._is_unanswered = False
        self.limits.update(response.status, response.headers)
        with self._lock:
            self._round_trip = self._clock() - begin
            if self._failures:
                self._failures = 0
                self._work.notify_all()
        if 200 <= response.status < 300 or response.status == 429:
            return None
        self._complain("Sentry answers an upload with %d", response.status)
        return "send_error" if response.status == 413 else "network_error"

    def _put_back(self, parcel: Parcel) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                now = self._clock()
                if now >= self._resume_at:  # Those that fail together are one failure.
                    pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
                    self._failures += 1
                    self._resume_at = now + pause
                self._under_way -= 1
                self._queue.appendleft(parcel)
        if closed:
            self._settle(parcel, "network_error")

    def _settle(self, parcel: Parcel, reason: str | None) -> None:
        """*parcel* is done with."""
        try:
            self._tell(reason, parcel.counts)
        except Exception:
            logger.warning("what became of an upload could not be noted", exc_info=True)
        with self._lock:
            self._bytes -= len(parcel.body)
            self._under_way -= 1
            if self._is_empty():
                self._done.notify_all()

    def _complain(self, text: str, *arguments: object) -> None:
        now = self._clock()
        is_due = now >= self._complain_at
        if is_due:
            self._complain_at = now + COMPLAIN_EVERY
        logger.log(logging.WARNING if is_due else logging.DEBUG, text, *arguments)
