"""The bounded queue and the thread that drains it.

The request path appends to a deque and, at most, releases a lock; everything else happens here.
The thread is started by the first item and again after a fork. It sleeps without a timeout while
nothing waits, and is woken only then: under load it wakes by its own deadline and takes what has
gathered.

A signal handler or a finalizer may call any method in the middle of any other, on any thread, the
worker's own included. So what wakes is a bare lock that the sleeper waits for and anybody releases:
an `Event` or a `Condition` has a lock of its own, which its holder would wait for.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from otel_sentry_asgi._guard import contained

Item = tuple[Any, ...]
Turn = Callable[[list[Item], bool], float | None]
"""Called with what has gathered and whether to flush; returns when to be called again (monotonic
seconds), or None."""


SOON = 0.1
"""Seconds. A thread that wakes by itself within this time is not woken."""

AFTER_FAILURE = 1.0
"""Seconds until the next turn when one has failed: what it left may be taken then."""


class Worker:
    """Calls *turn* on a thread of its own, one call at a time."""

    def __init__(self, turn: Turn, *, max_queue: int) -> None:
        self._turn = turn
        self._max_queue = max_queue
        self._half_full = max_queue // 2
        self._thread: threading.Thread | None = None
        self._in_turn: int | None = None
        self._idle = True
        self.reset()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._queue)

    def put(self, item: Item, *, wake: bool) -> bool:
        """Queue an item, False if there is no room; with *wake*, or when the queue is half full,
        see to it that the thread looks."""
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._max_queue:
            self.wake()
            return False
        queue.append(item)
        if wake or waiting >= self._half_full:
            self.wake()
        return True

    def look_again(self) -> None:
        """Have a turn for what is in no queue, and another if that comes during one."""
        self._again = True
        self.wake()

    def wake(self) -> None:
        """Let the thread look at the queue, if it is not going to by itself."""
        if self._thread is None:
            self._start()
        if self._idle:
            # What a signal handler raises comes at the end of a call or at the beginning of one of
            # Python's. So there is none in between: nobody else would wake it any more.
            self._idle = False
            try:
                self._wakeup.release()
            except RuntimeError:
                return  # There is a signal already.

    def flush(self, timeout: float) -> bool:
        """Have everything that was queued before the call taken and flushed; False on timeout, and
        at once when called from a turn, or else on the worker's thread."""
        if threading.get_ident() in (self._in_turn, getattr(self._thread, "ident", None)):
            return False
        until = time.monotonic() + timeout
        done = _nothing_yet()
        self._flushes.append(done)
        self.wake()
        _signal(self._wakeup)
        if self._thread is None:
            self._one_turn(min(max(0.0, timeout), threading.TIMEOUT_MAX))
        return done.acquire(timeout=_until(until))

    def stop(self, timeout: float) -> bool:
        """Flush, then end the thread. What is queued later starts it again."""
        until = time.monotonic() + timeout
        flushed = self.flush(timeout)
        with self._start_lock:
            thread, self._thread = self._thread, None
            wakeup = self._wakeup
        if thread is not None:
            _signal(wakeup)
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        return flushed

    def reset(self) -> None:
        """Begin with nothing: in a forked child there is no thread, and the items are the
        parent's."""
        self._queue: deque[Item] = deque()
        self._flushes: deque[threading.Lock] = deque()
        self._wakeup = _nothing_yet()
        self._start_lock = threading.RLock()
        self._turn_lock = threading.RLock()
        self._in_turn = None
        self._thread = None
        self._idle = True
        self._again = False

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is not None:
                return
            wakeup = _nothing_yet()
            thread = threading.Thread(
                target=self._run, args=(wakeup,), name="otel-sentry-asgi", daemon=True
            )
            if self._thread is not None:
                return  # A finalizer that ran meanwhile has done it.
            try:
                self._thread, self._wakeup = thread, wakeup
                # In a context of its own: sentry-sdk has a thread inherit the scopes of the code
                # that starts it, here those of whichever request came first.
                contextvars.Context().run(thread.start)
            except RuntimeError:
                # The interpreter is shutting down and starts no threads; `flush` does the work
                # itself.
                self._thread = None
            except BaseException:
                self._thread = None  # If it has begun all the same, that ends it.
                raise

    def _run(self, wakeup: threading.Lock) -> None:
        """*wakeup* is this thread's own: one that was stopped takes no signal from the next."""
        thread = threading.current_thread()
        due: float | None = None
        try:
            while self._thread is thread:
                # First this, then a look at what waits: who puts something there in between sees
                # it and wakes us.
                self._idle = due is None or due - time.monotonic() > SOON
                comes = self._idle and self._waits()
                wakeup.acquire(timeout=0.0 if comes else _until(due))
                self._idle = self._again = False
                due = self._one_turn()
        finally:
            with self._start_lock:
                if self._thread is thread:
                    self._thread = None
            if self._waits():  # Of somebody who came while it was stopped.
                self.wake()
            _signal(self._wakeup)  # A successor's: `_idle` is not what that has set any more.

    def _waits(self) -> bool:
        return bool(self._queue or self._flushes or self._again)

    def _one_turn(self, timeout: float = -1) -> float | None:
        if not self._turn_lock.acquire(timeout=timeout):
            return None
        try:
            self._in_turn = threading.get_ident()
            return self._locked_turn()
        finally:
            self._in_turn = None
            self._turn_lock.release()

    def _locked_turn(self) -> float | None:
        flushes = self._flushes
        wanted = len(flushes)
        items = []
        while self._queue:
            items.append(self._queue.popleft())
        due: float | None = time.monotonic() + AFTER_FAILURE
        with contained("worker"):
            due = self._turn(items, wanted > 0)
        for _ in range(wanted):
            flushes.popleft().release()
        return due


def _nothing_yet() -> threading.Lock:
    """A lock as a signal: who waits for it gets it when somebody has released it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _signal(lock: threading.Lock) -> None:
    """Never waits. Signals that nobody has waited for yet are one."""
    try:
        lock.release()
    except RuntimeError:
        return  # There is one already.


def _until(due: float | None) -> float:
    """Seconds to wait, for ever if negative, of which no clock is asked for more than it can
    count."""
    if due is None:
        return -1
    return min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)
