"""The bounded queue and the thread that drains it.

The request path appends to a deque and, at most, sets an event; everything else happens here.
The thread is started by the first item and again after a fork. It sleeps without a timeout while
nothing waits, and is woken only then: under load it wakes by its own deadline and takes what has
gathered.
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

    def wake(self) -> None:
        """Let the thread look at the queue, if it is not going to by itself."""
        if self._thread is None:
            self._start()
        if self._idle:
            self._idle = False
            self._wakeup.set()

    def flush(self, timeout: float) -> bool:
        """Have everything that was queued before the call taken and flushed; False on timeout, and
        at once when called from a turn."""
        if self._in_turn == threading.get_ident():
            return False
        until = time.monotonic() + timeout
        with self._condition:
            self._wanted += 1
            wanted = self._wanted
        self.wake()
        self._wakeup.set()
        if self._thread is None:
            self._one_turn(timeout)
        with self._condition:
            left = until - time.monotonic()
            return self._condition.wait_for(lambda: self._flushed >= wanted, max(0.0, left))

    def stop(self, timeout: float) -> bool:
        """Flush, then end the thread. What is queued later starts it again."""
        until = time.monotonic() + timeout
        flushed = self.flush(timeout)
        with self._start_lock:
            thread, self._thread = self._thread, None
            stopping, wakeup = self._stopping, self._wakeup
        if thread is not None:
            stopping.set()
            wakeup.set()
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        return flushed

    def reset(self) -> None:
        """Begin with nothing: in a forked child there is no thread, and the items are the
        parent's."""
        self._queue: deque[Item] = deque()
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._condition = threading.Condition()
        self._start_lock = threading.RLock()  # A finalizer may come back here.
        self._turn_lock = threading.Lock()
        self._in_turn = None
        self._thread = None
        self._idle = True
        self._wanted = 0
        self._flushed = 0

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is not None:
                return
            self._stopping = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(self._stopping,), name="otel-sentry-asgi", daemon=True
            )
            if self._thread is not None:
                return  # A finalizer that ran meanwhile has done it.
            self._thread = thread
            try:
                # In a context of its own: sentry-sdk has a thread inherit the scopes of the code
                # that starts it, here those of whichever request came first.
                contextvars.Context().run(thread.start)
            except RuntimeError:
                # The interpreter is shutting down and starts no threads; `flush` does the work
                # itself.
                self._thread = None

    def _run(self, stopping: threading.Event) -> None:
        due: float | None = None
        try:
            while not stopping.is_set():
                # First this, then a look at the queue: who puts something there in between sees
                # it and wakes us.
                self._idle = due is None or due - time.monotonic() > SOON
                if not (self._idle and self._queue):
                    self._wakeup.wait(_until(due))
                self._wakeup.clear()
                self._idle = False
                due = self._one_turn()
        finally:
            with self._start_lock:
                if self._thread is threading.current_thread():
                    self._thread = None

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
        with self._condition:
            wanted = self._wanted
        flush = wanted > self._flushed
        items = []
        while self._queue:
            items.append(self._queue.popleft())
        due: float | None = time.monotonic() + AFTER_FAILURE
        with contained("worker"):
            due = self._turn(items, flush)
        if flush:
            with self._condition:
                self._flushed = wanted
                self._condition.notify_all()
        return due


def _until(due: float | None) -> float | None:
    """Seconds to wait, of which no clock is asked for more than it can count."""
    if due is None:
        return None
    return min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)
