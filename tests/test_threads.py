"""For which exchange a thread works, as another thread sees it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

import pytest
import trio

from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._threads import EVERYBODY, Threads
from tests.support.stage import Pause, Stage

Owner = Any


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


class Asked:
    """Code that stands still where the test asks for the owner of its thread."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._pause = Pause()
        self._thread = 0

    def here(self) -> None:
        self._thread = threading.get_ident()
        self._pause.here()

    def answer(self) -> Owner:
        self._pause.reached()
        owner = self._threads.owner(self._thread)
        self._pause.end()
        return owner

    def now(self) -> Owner:
        """When the code has gone on."""
        return self._threads.owner(self._thread)


async def request(threads: Threads, exchange: Exchange, work: Callable[[], Any]) -> None:
    current_exchange.set(exchange)
    threads.note(exchange)
    result = work()
    if asyncio.iscoroutine(result):
        await result


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


def test_a_pools_thread_works_for_the_job_that_noted_it_until_that_ends(stage: Stage) -> None:
    threads, exchange = Threads(), Exchange(None)
    first, second = Asked(threads), Asked(threads)

    def noted() -> None:
        threads.note(exchange)
        first.here()

    async def in_pool() -> None:
        await asyncio.to_thread(noted)

    stage.loop.set_default_executor(executor := ThreadPoolExecutor(1))
    done = stage.start(request(threads, exchange, in_pool))
    assert first.answer() is exchange
    done.result(5)
    later = executor.submit(second.here)
    assert second.answer() is None
    later.result(5)
    executor.shutdown()


def test_a_loop_inside_a_job_counts_while_it_runs() -> None:
    threads, outer, inner = Threads(), Exchange(None), Exchange(None)
    in_loop, after = Asked(threads), Asked(threads)

    async def nested() -> None:
        await asyncio.create_task(request(threads, inner, in_loop.here))

    def job() -> None:
        threads.note(outer)
        asyncio.run(nested())
        after.here()

    thread = threading.Thread(target=copy_context().run, args=(job,))
    thread.start()
    assert in_loop.answer() is inner
    assert after.answer() is outer
    thread.join(5)


def test_of_trios_loop_the_tasks_cannot_be_seen() -> None:
    threads, exchange = Threads(), Exchange(None)
    asked = Asked(threads)

    async def served() -> None:
        threads.note(exchange, starts_request=True)
        threads.note(exchange)
        asked.here()

    thread = threading.Thread(target=trio.run, args=(served,))
    thread.start()
    assert asked.answer() is EVERYBODY
    thread.join(5)


def test_what_never_worked_for_anybody_is_nobodys() -> None:
    threads = Threads()
    assert threads.owner(threading.get_ident()) is None
    assert threads.known() == set()


def test_it_keeps_no_exchange_alive(stage: Stage) -> None:
    threads, exchange = Threads(), Exchange(None)
    gone = weakref.ref(exchange)
    stage.run(request(threads, exchange, lambda: None))
    copy_context().run(threads.note, exchange)
    del exchange
    gc.collect()
    assert gone() is None
