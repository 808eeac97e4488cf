"""Code that runs, on an event loop or in a thread pool, only as far as the test lets it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import FunctionType, TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

T = TypeVar("T")

_TIMEOUT = 10.0


class Pause:
    """A place in the code where a thread waits until the test has looked at it."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._over = threading.Event()

    def here(self) -> None:
        """Called by the code."""
        self._reached.set()
        assert self._over.wait(_TIMEOUT)

    def reached(self) -> None:
        """Called by the test: return once the code is there."""
        assert self._reached.wait(_TIMEOUT)

    def end(self) -> None:
        """Called by the test: let the code go on."""
        self._over.set()


def _template(pause: Pause) -> None:
    pause.here()


def named(name: str) -> Callable[[Pause], None]:
    """A function of that name, which pauses."""
    renamed: dict[str, Any] = {"co_name": name}
    if sys.version_info >= (3, 11):
        renamed["co_qualname"] = name
    return FunctionType(_template.__code__.replace(**renamed), globals())


class Stage:
    """An event loop in a thread of its own, with a thread pool of two."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(2))
        self.thread = threading.Thread(target=self.loop.run_forever, name="stage", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(_TIMEOUT)
        self.loop.close()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Have the loop run it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Have the loop run it, and wait for what it returns."""
        return self.start(coroutine).result(_TIMEOUT)
