"""Whatever is put into the queue is taken, soon, once, by one thread at a time."""

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import pytest

from otel_sentry_asgi import _guard, _worker
from otel_sentry_asgi._worker import Item, Worker
from tests.support._wait import until

PATIENCE = 10.0
"""Seconds. Only what is broken takes so long."""


Threads = Callable[[], list[threading.Thread]]


class Turns:
    """A turn that notes what it gets, and can be held, answered for, or made to fail."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.flushes: list[bool] = []
        self.began = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.taken = threading.Condition()
        self.answer: Callable[[], float | None] = lambda: None
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, items: list[Item], flush: bool) -> float | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.release()
        try:
            self.go_on.wait(PATIENCE)
            with self.taken:
                self.items.extend(items)
                self.flushes.append(flush)
                self.taken.notify_all()
            return self.answer()
        finally:
            self.at_once -= 1

    def wait_for(self, *items: Item) -> bool:
        """Wait until all *items* have been taken."""
        with self.taken:
            return self.taken.wait_for(lambda: set(items) <= set(self.items), PATIENCE)


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def worker(turns: Turns) -> Iterator[Worker]:
    worker = Worker(turns, max_queue=10)
    yield worker
    turns.go_on.set()
    worker.stop(PATIENCE)


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    seen: list[BaseException] = []
    monkeypatch.setattr(_guard, "on_failure", lambda _, error: seen.append(error))
    return seen


def test_what_comes_in_a_turn_without_an_item_has_another_turn(
    worker: Worker, turns: Turns
) -> None:
    """Sessions of requests, say: nothing else might wake it until the process ends."""
    turns.go_on.clear()
    worker.put((0, 1, None), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    worker.look_again()
    turns.go_on.set()
    assert turns.began.acquire(timeout=PATIENCE)


@pytest.mark.parametrize("timeout", [-5.0, 1e30])
def test_any_timeout_is_taken(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    worker.put((0, 1, None), wake=False)
    assert worker.flush(timeout)


def refuse_to_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread at interpreter shutdown")


@pytest.fixture
def threads() -> Threads:
    """The threads of workers made in the test."""
    before = set(threading.enumerate())
    name = "otel-sentry-asgi"
    return lambda: [
        thread for thread in threading.enumerate() if thread.name == name and thread not in before
    ]


# -- queue and wake -------------------------------------------------------------------------------


def test_nothing_runs_before_there_is_something_to_do(worker: Worker, threads: Threads) -> None:
    assert threads() == []
    assert worker.put((1,), wake=False)
    assert threads() == []


def test_what_wakes_is_taken_with_all_that_waits_in_order(worker: Worker, turns: Turns) -> None:
    worker.put((1,), wake=False)
    worker.put((2,), wake=True)
    assert turns.wait_for((1,), (2,))
    assert turns.items == [(1,), (2,)]
    assert turns.flushes[0] is False


def test_the_thread_is_a_daemon_so_that_it_keeps_no_process_alive(
    worker: Worker, turns: Turns, threads: Threads
) -> None:
    worker.put((1,), wake=True)
    assert turns.wait_for((1,))
    assert [thread.daemon for thread in threads()] == [True]


@pytest.mark.parametrize("seconds", [3_600.0, 1e300, math.inf])
def test_what_comes_during_a_turn_is_taken_however_far_the_next_turn_is(
    worker: Worker, turns: Turns, seconds: float
) -> None:
    turns.answer = lambda: time.monotonic() + seconds
    turns.go_on.clear()
    worker.put((1,), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    worker.put((2,), wake=True)
    turns.go_on.set()
    assert turns.wait_for((1,), (2,))


def test_a_turn_is_repeated_when_it_asks_for_it(worker: Worker, turns: Turns) -> None:
    answers = iter([0.0, 0.0])
    turns.answer = lambda: next(answers, None)
    worker.put((1,), wake=True)
    for _ in range(3):
        assert turns.began.acquire(timeout=PATIENCE)


# -- full queue -----------------------------------------------------------------------------------


def test_a_full_queue_takes_no_more_and_says_so(worker: Worker, turns: Turns) -> None:
    turns.go_on.clear()
    worker.put((-1,), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    assert [worker.put((number,), wake=False) for number in range(12)] == [True] * 10 + [False] * 2
    turns.go_on.set()
    assert worker.flush(PATIENCE)
    assert turns.items == [(number,) for number in range(-1, 10)]


def test_a_queue_that_fills_up_is_drained_though_nobody_wakes(worker: Worker, turns: Turns) -> None:
    """A request may have more spans than the queue has room before its root ends."""
    for number in range(6):
        worker.put((number,), wake=False)
    assert turns.wait_for(*((number,) for number in range(6)))


def test_after_the_queue_was_full_there_is_room_again(worker: Worker, turns: Turns) -> None:
    turns.go_on.clear()
    for number in range(30):
        worker.put((number,), wake=False)
    turns.go_on.set()
    assert worker.flush(PATIENCE)
    assert worker.put((99,), wake=True)
    assert turns.wait_for((99,))


# -- flush and stop -------------------------------------------------------------------------------


def test_a_flush_takes_what_was_queued_before_it(worker: Worker, turns: Turns) -> None:
    worker.put((1,), wake=False)
    assert worker.flush(PATIENCE)
    assert turns.items == [(1,)]
    assert turns.flushes[-1] is True


def test_a_flush_of_nothing_is_a_turn_too(worker: Worker, turns: Turns) -> None:
    assert worker.flush(PATIENCE)
    assert turns.flushes[-1] is True


def test_each_flush_is_one_turn_that_flushes(worker: Worker, turns: Turns) -> None:
    assert worker.flush(PATIENCE)
    assert worker.flush(PATIENCE)
    worker.put((1,), wake=True)
    assert turns.wait_for((1,))
    assert sum(turns.flushes) == 2


def test_a_flush_during_a_turn_waits_for_the_next(worker: Worker, turns: Turns) -> None:
    turns.go_on.clear()
    worker.put((1,), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    worker.put((2,), wake=False)
    results: list[bool] = []
    flushing = threading.Thread(target=lambda: results.append(worker.flush(PATIENCE)))
    flushing.start()
    turns.go_on.set()
    flushing.join()
    assert results == [True]
    assert turns.items == [(1,), (2,)]


def test_a_flush_that_takes_too_long_says_so(worker: Worker, turns: Turns) -> None:
    turns.go_on.clear()
    assert not worker.flush(0.0)


def test_a_flush_from_within_a_turn_does_not_wait_for_itself(worker: Worker, turns: Turns) -> None:
    """An exporter's callback may flush the tracer provider."""
    results: list[bool] = []

    def answer() -> None:
        if not results:
            results.append(worker.flush(PATIENCE))

    turns.answer = answer
    assert worker.flush(PATIENCE)
    assert results == [False]


def test_stopped_means_flushed_and_no_thread(
    worker: Worker, turns: Turns, threads: Threads
) -> None:
    worker.put((1,), wake=False)
    assert worker.stop(PATIENCE)
    assert turns.items == [(1,)]
    assert threads() == []


def test_what_is_queued_after_a_stop_is_taken_too(worker: Worker, turns: Turns) -> None:
    worker.put((1,), wake=True)
    assert worker.stop(PATIENCE)
    worker.put((2,), wake=True)
    assert turns.wait_for((1,), (2,))


def test_signals_that_nobody_has_waited_for_yet_are_one(worker: Worker, turns: Turns) -> None:
    def signal() -> None:
        """In a turn nobody waits."""
        turns.answer = lambda: None
        for number in (2, 3):
            worker._idle = True
            worker.put((number,), wake=True)

    turns.answer = signal
    worker.put((1,), wake=True)
    assert turns.wait_for((1,), (2,), (3,))


@pytest.mark.parametrize("again", [False, True])
def test_what_comes_while_the_thread_is_stopped_is_taken_too(
    worker: Worker, turns: Turns, again: bool
) -> None:
    """It comes in a turn, and that is the thread's last."""

    def stop() -> None:
        turns.answer = lambda: None
        worker.look_again() if again else worker.put((2,), wake=True)
        assert not worker.stop(0.0)

    turns.answer = stop
    worker.put((1,), wake=True)
    assert turns.wait_for((1,), *[] if again else [(2,)])
    for _ in range(2):
        assert turns.began.acquire(timeout=PATIENCE)


def test_a_thread_that_could_not_be_stopped_in_time_is_not_joined_by_another(
    worker: Worker, turns: Turns, threads: Threads
) -> None:
    """One call at a time, even so."""
    turns.go_on.clear()
    worker.put((1,), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    assert not worker.stop(0.0)
    worker.put((2,), wake=True)
    assert len(threads()) == 2
    turns.go_on.set()
    assert worker.flush(PATIENCE)
    assert turns.items == [(1,), (2,)]
    assert turns.most_at_once == 1


def test_at_interpreter_exit_a_flush_does_the_work_itself(
    worker: Worker, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    worker.put((1,), wake=True)
    assert worker.flush(PATIENCE)
    assert turns.items == [(1,)]
    assert worker.stop(PATIENCE)


def test_at_interpreter_exit_a_turn_that_hangs_is_not_waited_for_longer_than_asked(
    worker: Worker, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns.go_on.clear()
    worker.put((1,), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    assert not worker.stop(0.0)
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    assert not worker.flush(0.0)


# -- failures -------------------------------------------------------------------------------------


def test_a_turn_that_fails_is_told_and_the_next_one_comes(
    worker: Worker, turns: Turns, failures: list[BaseException]
) -> None:
    error = ValueError()

    def fail() -> None:
        raise error

    turns.answer = fail
    assert worker.flush(PATIENCE)
    assert failures == [error]
    turns.answer = lambda: None
    worker.put((1,), wake=True)
    assert worker.flush(PATIENCE)
    assert turns.items == [(1,)]


def test_after_a_failure_a_turn_comes_by_itself(
    worker: Worker, turns: Turns, failures: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been due when it failed is due still."""
    monkeypatch.setattr("otel_sentry_asgi._worker.AFTER_FAILURE", 0.0)
    answers: Iterator[Any] = iter([ValueError()])

    def fail_once() -> None:
        for error in answers:
            raise error

    turns.answer = fail_once
    worker.put((1,), wake=True)
    assert turns.began.acquire(timeout=PATIENCE)
    assert turns.began.acquire(timeout=PATIENCE)
    assert len(failures) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(worker: Worker, turns: Turns, threads: Threads) -> None:
    """A callback of the application may call `sys.exit()`."""

    def leave() -> None:
        raise SystemExit

    turns.answer = leave
    worker.put((1,), wake=True)
    assert turns.wait_for((1,))
    for thread in threads():
        thread.join(PATIENCE)
    turns.answer = lambda: None
    worker.put((2,), wake=True)
    assert turns.wait_for((2,))


# -- signal handlers and finalizers ---------------------------------------------------------------


class Interruption:
    """A trace function that calls *action* once, like a signal handler or a finalizer: before line
    *at* of those that its thread runs in the worker and in `threading`."""

    def __init__(self, at: int, action: Callable[[], Any]) -> None:
        self._left = at
        self._action = action
        self.has_come = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> "Interruption | None":
        if frame.f_code.co_filename not in _INTERRUPTED:
            return None
        if event == "line" and not self.has_come:
            self._left -= 1
            if self._left < 0:
                self.has_come = True
                self._action()
        return self


_INTERRUPTED = {_worker.__file__, threading.__file__}


class Signal:
    """A profile function that raises once, like the handler of a signal: where the interpreter
    looks for signals in the worker and in `threading`, for the time number *at*."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.has_come = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "c_return") or self.has_come:
            return
        if frame.f_code.co_filename in _INTERRUPTED:
            self._left -= 1
            if self._left < 0:
                self.has_come = True
                raise KeyboardInterrupt


@contextmanager
def raised_inside(at: int) -> Iterator[Signal]:
    before, signal = sys.getprofile(), Signal(at)
    sys.setprofile(signal)
    try:
        yield signal
    finally:
        sys.setprofile(before)


def ends_though_interrupted(action: Callable[[], Any], trace: Interruption) -> bool:
    def run() -> None:
        sys.settrace(trace)
        try:
            action()
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE / 2)
    return not thread.is_alive()


@pytest.mark.parametrize("flushes", [False, True])
def test_a_signal_handler_may_flush_whatever_it_interrupts(flushes: bool) -> None:
    at = 0
    comes = True
    while comes:
        turns = Turns()
        worker = Worker(turns, max_queue=10)
        assert worker.flush(PATIENCE)
        results: list[bool] = []
        flush = partial(_flush_into, results, worker)
        put = partial(worker.put, (1,), wake=True)
        handler = Interruption(at, flush)
        assert ends_though_interrupted(flush if flushes else put, handler), f"hangs at {at}"
        assert turns.wait_for(*() if flushes else [(1,)])
        comes = handler.has_come
        assert results == [True] * (flushes + comes)
        assert worker.stop(PATIENCE)
        at += 1
    assert at > 5


def _flush_into(results: list[bool], worker: Worker) -> None:
    results.append(worker.flush(PATIENCE))


@pytest.mark.parametrize("sleeps", [False, True])
def test_a_signal_handler_may_raise_whatever_it_interrupts(sleeps: bool) -> None:
    """Of what comes next everything is taken."""
    at = 0
    comes = True
    while comes:
        turns = Turns()
        worker = Worker(turns, max_queue=10)
        if sleeps:
            assert worker.flush(PATIENCE)
            until(partial(getattr, worker, "_idle"), timeout=PATIENCE, describe=lambda: "no sleep")
        with raised_inside(at) as signal, suppress(KeyboardInterrupt):
            worker.put((1,), wake=True)
        comes = signal.has_come
        worker.put((2,), wake=True)
        assert turns.wait_for((2,)), f"not taken at {at}"
        assert worker.stop(PATIENCE)
        at += 1
    assert at > 3


@pytest.mark.parametrize("flushes", [False, True])
def test_a_finalizer_may_end_a_span_whatever_it_interrupts_on_the_workers_thread(
    flushes: bool,
) -> None:
    """It may even flush, which does not wait for itself."""
    before = threading.gettrace()
    for at in range(60):  # More than two rounds.
        turns = Turns()
        worker = Worker(turns, max_queue=10)
        results: list[bool] = []

        def finalize(worker: Worker = worker, results: list[bool] = results) -> None:
            worker.put((-1,), wake=True)
            if flushes:
                results.append(worker.flush(PATIENCE))

        finalizer = Interruption(at, finalize)
        threading.settrace(finalizer)
        try:
            worker.put((0,), wake=True)
            assert turns.wait_for((0,))
        finally:
            threading.settrace(before)
        number = 0
        while not finalizer.has_come:
            number += 1
            worker.put((number,), wake=True)
            assert turns.wait_for((number,))
        assert turns.wait_for((-1,)), f"not taken at {at}"
        assert worker.stop(PATIENCE)
        assert results == [False] * flushes


# -- forks ----------------------------------------------------------------------------------------


def test_reset_forgets_what_waits_and_starts_anew(worker: Worker, turns: Turns) -> None:
    worker.put((1,), wake=False)
    worker.reset()
    worker.put((2,), wake=True)
    assert worker.flush(PATIENCE)
    assert turns.items == [(2,)]


_FORK = """
import os
from otel_sentry_asgi._worker import Worker

taken = []
worker = Worker(lambda items, flush: taken.extend(items), max_queue=10)
os.register_at_fork(after_in_child=worker.reset)
worker.put(("parent",), wake=True)
assert worker.flush(10)
worker.put(("of the parent only",), wake=False)
child = os.fork()
if child == 0:
    worker.put(("child",), wake=True)
    assert worker.flush(10)
    os._exit(0 if taken == [("parent",), ("child",)] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert worker.flush(10)
assert taken == [("parent",), ("of the parent only",)]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_thread_of_its_own_and_nothing_of_the_parents() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _FORK], check=True, timeout=60)


# -- races ----------------------------------------------------------------------------------------


def test_putting_is_concurrent_safe() -> None:
    """Nothing is taken twice, nothing stays behind, whoever puts, wakes and flushes."""
    turns = Turns()
    worker = Worker(turns, max_queue=100_000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def put(start: int) -> None:
        for number in range(start, start + 1_000):
            worker.put((number,), wake=number % 3 == 0)
            if number % 250 == 0:
                worker.flush(PATIENCE)

    try:
        putting = [threading.Thread(target=put, args=(at * 1_000,)) for at in range(4)]
        for thread in putting:
            thread.start()
        for thread in putting:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert worker.stop(PATIENCE)
    assert sorted(turns.items) == [(number,) for number in range(4_000)]
    assert turns.most_at_once == 1
