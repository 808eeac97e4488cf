"""For which exchange a thread works, as another thread sees it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
import trio

from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._threads import Threads, frames_by_thread, stack_of
from tests.support.stage import Pause, Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


class Asked:
    """Code that stands still where the test asks for whom its thread works."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._pause = Pause()
        self._thread = 0

    def here(self) -> None:
        self._thread = threading.get_ident()
        self._pause.here()

    def answer(self) -> Exchange | None:
        self._pause.reached()
        owner = self.now()
        self._pause.end()
        return owner

    def now(self) -> Exchange | None:
        work = self._threads.work().get(self._thread)
        frame = frames_by_thread().get(self._thread)
        if work is None or work.base not in stack_of(frame):
            return None
        return work.exchange


async def request(threads: Threads, exchange: Exchange, work: Callable[[], Any]) -> None:
    current_exchange.set(exchange)
    threads.note_loop()
    result = work()
    if asyncio.iscoroutine(result):
        await result


def claimed(threads: Threads, exchange: Exchange, work: Callable[[], Any]) -> Any:
    """A handler in its wrapper."""
    threads.claim(exchange, sys._getframe())
    return work()


def test_a_loops_thread_works_for_the_task_that_runs(stage: Stage) -> None:
    threads = Threads()
    one, two = Exchange(None), Exchange(None)
    for exchange in (one, two, one):
        asked = Asked(threads)
        done = stage.start(request(threads, exchange, asked.here))
        assert asked.answer() is exchange
        done.result(5)
        assert asked.now() is None


def test_a_request_owns_the_tasks_that_it_starts(stage: Stage) -> None:
    threads, exchange = Threads(), Exchange(None)
    asked = Asked(threads)

    async def child() -> None:
        asked.here()

    async def parent() -> None:
        await asyncio.create_task(child())

    done = stage.start(request(threads, exchange, parent))
    assert asked.answer() is exchange
    done.result(5)


def test_a_callback_of_the_loop_is_nobodys(stage: Stage) -> None:
    threads = Threads()
    stage.run(request(threads, Exchange(None), lambda: None))
    asked = Asked(threads)
    stage.loop.call_soon_threadsafe(asked.here, context=Context())
    assert asked.answer() is None


def test_a_pools_thread_works_for_a_handler_until_that_returns(stage: Stage) -> None:
    threads, exchange = Threads(), Exchange(None)
    first, second = Asked(threads), Asked(threads)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(claimed, threads, exchange, first.here)
        assert first.answer() is exchange
        done.result(5)
        later = pool.submit(second.here)
        assert second.answer() is None
        later.result(5)


def test_a_generator_may_go_on_in_another_context() -> None:
    threads, exchange = Threads(), Exchange(None)
    asked = Asked(threads)

    def generator() -> Iterator[None]:
        threads.claim(exchange, sys._getframe())
        yield
        asked.here()

    with ThreadPoolExecutor(1) as pool:
        stream = generator()
        pool.submit(next, stream).result(5)
        done = pool.submit(next, stream, None)
        assert asked.answer() is None
        done.result(5)


def test_a_loop_inside_a_handler_counts_while_it_runs() -> None:
    threads, outer, inner = Threads(), Exchange(None), Exchange(None)
    in_loop, after = Asked(threads), Asked(threads)

    async def nested() -> None:
        await asyncio.create_task(request(threads, inner, in_loop.here))

    def handler() -> None:
        asyncio.run(nested())
        after.here()

    thread = threading.Thread(target=claimed, args=(threads, outer, handler))
    thread.start()
    assert in_loop.answer() is inner
    assert after.answer() is outer
    thread.join(5)


def test_trios_loop_works_for_nobody() -> None:
    threads, exchange = Threads(), Exchange(None)
    asked = Asked(threads)
    thread = threading.Thread(
        target=trio.run, args=(request, threads, exchange, asked.here), daemon=True
    )
    thread.start()
    assert asked.answer() is None
    thread.join(5)


def test_a_task_that_is_no_coroutine_works_for_nobody(stage: Stage) -> None:
    threads = Threads()
    asked = Asked(threads)

    class Compiled(Coroutine[None, None, None]):
        """As compilers to C make them: there is no frame."""

        def send(self, _: None) -> None:
            current_exchange.set(Exchange(None))
            threads.note_loop()
            asked.here()
            raise StopIteration

        def throw(self, *error: Any) -> None:
            raise AssertionError

        def __await__(self) -> Generator[Any, Any, None]:
            raise AssertionError

        def close(self) -> None:
            pass

    stage.loop.call_soon_threadsafe(lambda: stage.loop.create_task(Compiled()))
    assert asked.answer() is None


def test_what_never_worked_for_anybody_is_nobodys() -> None:
    assert Threads().work() == {}


def test_it_keeps_no_exchange_alive_that_is_forgotten(stage: Stage) -> None:
    threads, exchange = Threads(), Exchange(None)
    gone = weakref.ref(exchange)
    stage.run(request(threads, exchange, lambda: None))
    claimed(threads, exchange, lambda: None)
    threads.forget(Exchange(None))
    assert threads.work()
    threads.forget(exchange)
    del exchange
    gc.collect()
    assert gone() is None


COLLECTING = """
import gc, sys, threading
from otel_sentry_asgi._threads import frames_by_thread

class Cycle:
    def __init__(self):
        self.itself, self.local = self, threading.local()
        self.local.value = 1

over = threading.Event()
for _ in range(100):
    threading.Thread(target=over.wait, daemon=True).start()
gc.set_threshold(50)
for _ in range(5_000):
    Cycle()
    assert threading.get_ident() in frames_by_thread()
assert gc.isenabled()
gc.disable()
frames_by_thread()
assert not gc.isenabled()
"""


def test_a_look_at_all_threads_does_not_hang_with_the_garbage_collector() -> None:
    """CPython 3.11.7 does, in the first of these rounds: hence a process of its own."""
    subprocess.run([sys.executable, "-c", COLLECTING], check=True, timeout=60)
