"""For which exchange a thread works at this moment, as another thread sees it.

A profiler samples the stacks of all threads at once, and an event loop runs many requests on one
of them. Whose a stack is, the context tells that the code runs in:

* On the thread of a running asyncio loop it is that of the current task.
* Other threads are *claimed* where code of ours runs on them in the context of an exchange: a span
  starts, or an integration of sentry-sdk says that a handler runs there. A claim lives as long as
  the context does; thread pools make one for each job and drop it with the job.
* Of the loop of another library (trio) the tasks cannot be seen from outside: its thread is
  everybody's.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextvars import Context, ContextVar
from typing import Any, Final

from otel_sentry_asgi._scope import Exchange, current_exchange

EVERYBODY: Final = object()
"""The owner of a thread that runs a loop whose tasks cannot be seen."""


class _Claim:
    """Held by the context in which a thread works for an exchange."""

    __slots__ = ("__weakref__", "exchange", "thread")

    def __init__(self, exchange: Exchange, thread: int) -> None:
        self.exchange = exchange
        self.thread = thread


_claim: ContextVar[_Claim | None] = ContextVar("otel_sentry_claim", default=None)


class Threads:
    """Threads that have worked for exchanges. Any thread may call it; it takes no lock."""

    def __init__(self) -> None:
        self._loops: dict[int, weakref.ref[asyncio.AbstractEventLoop]] = {}
        self._others: set[int] = set()
        """Threads of loops that are not asyncio's."""
        self._claims: dict[int, weakref.ref[_Claim]] = {}

    def note(self, exchange: Exchange, *, starts_request: bool = False) -> None:
        """The calling thread works for *exchange*, which is that of its context. A request starts
        on the thread of a loop."""
        thread = threading.get_ident()
        loop = _running_loop()
        if loop is not None:
            self._loops[thread] = weakref.ref(loop)
        elif starts_request:
            self._others.add(thread)
        elif thread not in self._others:
            held = _claim.get()
            if held is None or held.exchange is not exchange or held.thread != thread:
                held = _Claim(exchange, thread)
                _claim.set(held)
            self._claims[thread] = weakref.ref(held)

    def known(self) -> set[int]:
        """The threads of which `owner` can tell."""
        return {*self._loops, *self._others, *self._claims}

    def owner(self, thread: int) -> Any:
        """The exchange that *thread* works for; None if for none, or `EVERYBODY`."""
        reference = self._loops.get(thread)
        loop = reference() if reference is not None else None
        if loop is not None and loop.is_running():
            return _exchange_of(asyncio.current_task(loop))
        if thread in self._others:
            return EVERYBODY
        claim = self._claims.get(thread)
        held = claim() if claim is not None else None
        return held.exchange if held is not None else None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _exchange_of(task: asyncio.Task[Any] | None) -> Exchange | None:
    if task is None:
        return None
    context = _context_of(task)
    return context.get(current_exchange) if context is not None else None


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    """The context that a task runs in. Before Python 3.12 a task does not tell, but it refers to
    it, before it refers to any other."""
    get_context = getattr(task, "get_context", None)
    if get_context is not None:
        return get_context()  # type: ignore[no-any-return]
    found = (one for one in gc.get_referents(task) if type(one) is Context)
    return next(found, None)
