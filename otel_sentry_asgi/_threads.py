"""For which exchange a thread works, as another thread sees it, and since which of its functions.

A profiler samples the stacks of all threads at once, and an event loop runs many requests on one
of them. A stack belongs to an exchange by what is on it, so that no timing can mix them up: below
a function that runs in the exchange's context, everything has been called for it. That function,
the *base*, is

* on the thread of a running asyncio loop, the coroutine of its current task;
* on another thread, the wrapper in which an integration of sentry-sdk calls a handler, and which
  tells the profile of the request that it does. A function runs in one context from its call to
  its return, so the wrapper's being on the stack is the proof. The context itself is none: copies
  of it outlive the handler, and the thread has gone on to other work.
* on a thread without a loop, the function that began the exchange's root, until the root ends. If
  it has returned before (spans of signal handlers), nobody can tell.

Other threads, and loops of other libraries (trio), cannot be seen into from outside: they work for
nobody.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref
from contextvars import Context
from types import FrameType
from typing import Any, Final, NamedTuple

from otel_sentry_asgi._scope import Exchange, current_exchange

_MANY_CONTEXTS: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Work(NamedTuple):
    """What runs below *base* runs for *exchange*."""

    exchange: Exchange
    base: FrameType


class Threads:
    """Threads that have worked for exchanges. Any thread may call it; it takes no lock."""

    def __init__(self) -> None:
        self._loops: dict[int, weakref.ref[asyncio.AbstractEventLoop]] = {}
        self._claims: dict[int, Work] = {}
        """They keep the locals of a function, so none stays longer than it must."""

    def note_loop(self) -> None:
        """The calling thread runs a loop, or not."""
        loop = _running_loop()
        if loop is not None:
            self._loops[threading.get_ident()] = weakref.ref(loop)

    def claim(self, exchange: Exchange, base: FrameType) -> None:
        """On the calling thread, *base* has begun to work for *exchange*."""
        if _running_loop() is None and not base.f_code.co_flags & _MANY_CONTEXTS:
            self._claims[threading.get_ident()] = Work(exchange, base)

    def work(self) -> dict[int, Work]:
        """By thread, what it may be at: it is, if the base is on its stack."""
        found = self._claims.copy()
        for thread, reference in self._loops.copy().items():
            loop = reference()
            if loop is not None and loop.is_running():
                found.pop(thread, None)
                work = _work_of(asyncio.current_task(loop))
                if work is not None:
                    found[thread] = work
        return found

    def over(self, thread: int, work: Work) -> None:
        """The base has returned."""
        if self._claims.get(thread) is work:
            self._claims.pop(thread, None)

    def forget(self, exchange: Exchange) -> None:
        """Nobody asks about *exchange* any more."""
        for thread, work in self._claims.copy().items():
            if work.exchange is exchange:
                self.over(thread, work)


def frames_by_thread() -> dict[int, FrameType]:
    """What every thread runs. Never while the garbage collector does: CPython 3.11 takes a lock for
    the list that it wants again if it frees a `threading.local` meanwhile, and hangs."""
    if not gc.isenabled():
        return sys._current_frames()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        gc.enable()


def stack_of(frame: FrameType | None) -> list[FrameType]:
    """From the innermost outwards. A function that has returned still knows its caller, and a
    coroutine that is suspended has none."""
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _work_of(task: asyncio.Task[Any] | None) -> Work | None:
    if task is None:
        return None
    context = _context_of(task)
    exchange = context.get(current_exchange) if context is not None else None
    base = getattr(task.get_coro(), "cr_frame", None)
    return Work(exchange, base) if exchange is not None and base is not None else None


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    """The context that a task runs in. Before Python 3.12 a task does not tell, but it refers to
    it, before it refers to any other."""
    get_context = getattr(task, "get_context", None)
    if get_context is not None:
        return get_context()  # type: ignore[no-any-return]
    found = (one for one in gc.get_referents(task) if type(one) is Context)
    return next(found, None)
