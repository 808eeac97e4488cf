"""What a profile holds, and what it must not."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from sentry_sdk.envelope import Envelope

from otel_sentry_asgi import _guard, sentry
from otel_sentry_asgi._profiles import Profiles, stop
from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._worker import Worker
from otel_sentry_asgi.testing import span
from tests.support.by_hand import ByHand, Chunks, begin_by_hand, end_by_hand, handler, profile_of
from tests.support.stage import Pause, Stage, named


@pytest.fixture
def client() -> Iterator[ByHand]:
    yield begin_by_hand()
    end_by_hand()


class Run:
    """A request on a loop, and a pool of one thread."""

    def __init__(self, sampler: ByHand) -> None:
        self.sampler = sampler
        self.profiles = Profiles(Stats(), lambda: 0.0)
        self.exchange = Exchange(None, asgi_scope={"type": "http"}, root=span(kind=SpanKind.SERVER))

    async def begin(self) -> None:
        assert self.exchange.root is not None
        current_exchange.set(self.exchange)
        self.profiles.started(self.exchange.root, self.exchange, dict, sentry.options())

    def look(self, pause: Pause) -> None:
        """Two samples, which are the fewest that are sent."""
        pause.reached()
        self.sampler.sampler()
        self.sampler.sampler()
        pause.end()

    def profile(self) -> dict[str, int] | None:
        return profile_of(self.profiles, self.exchange)


@pytest.fixture
def run(client: ByHand) -> Iterator[Run]:
    run = Run(client)
    with Stage() as stage:
        stage.run(run.begin())
        yield run


def in_request(run: Run, function: Callable[..., None]) -> Callable[..., None]:
    """A handler, in a copy of the request's context."""
    wrapped, context = handler(run.exchange, function), Context()
    context.run(current_exchange.set, run.exchange)
    return lambda *args: context.run(wrapped, *args)


def test_work_after_a_handler_is_not_that_requests(run: Run) -> None:
    """A handler's context can outlive it: whatever took a copy keeps what is in it."""
    kept: list[Context] = []
    first, second = Pause(), Pause()

    def keeping() -> None:
        kept.append(copy_context())
        named("work_first")(first)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_request(run, keeping))
        run.look(first)
        pool.submit(named("work_of_another"), second)
        run.look(second)
    assert run.profile() == {"work_first": 2}


def test_the_next_handler_on_the_same_thread_may_run_the_same_code(run: Run) -> None:
    """A frame that is like the handler's, in the same place, is not the handler's."""
    first, second = Pause(), Pause()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_request(run, partial(named("work_alike"), first)))
        run.look(first)
        pool.submit(handler(Exchange(None), partial(named("work_alike"), second)))
        run.look(second)
    assert run.profile() == {"work_alike": 2}


def test_what_a_copied_scope_brings_along_is_not_the_profiles(run: Run) -> None:
    """sentry-sdk copies scopes with the profile of the request that they come from."""
    pause = Pause()
    wrapped = handler(run.exchange, partial(named("work_of_another"), pause))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(wrapped)  # In the context of no exchange.
        run.look(pause)
    assert run.profile() is None


def test_only_the_integrations_are_believed(run: Run) -> None:
    """A loop that serves many could be the caller of anything else."""
    pause = Pause()

    def telling() -> None:
        run.exchange.profile.update_active_thread_id()
        named("work_unclaimed")(pause)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(partial(Context().run, _as_request, run.exchange, telling))
        run.look(pause)
    assert run.profile() is None


def _as_request(exchange: Exchange, work: Callable[[], None]) -> None:
    current_exchange.set(exchange)
    work()


def test_callers_of_the_handler_are_not_in_the_profile(run: Run) -> None:
    """They may work for many, or for another."""
    pause = Pause()
    inner = in_request(run, partial(named("work_of_the_request"), pause))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work_of_a_batch, inner)
        run.look(pause)
    assert run.profile() == {"work_of_the_request": 2}


def work_of_a_batch(handler: Callable[[], None]) -> None:
    handler()


def test_it_ends_after_thirty_seconds(run: Run) -> None:
    first, second = Pause(), Pause()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_request(run, partial(named("work_early"), first)))
        run.look(first)
        run.exchange.profile.start_ns -= 30_000_000_001
        pool.submit(in_request(run, partial(named("work_late"), second)))
        run.look(second)
    assert not run.exchange.profile.active
    assert run.sampler.active_profiles == set()
    assert run.profile() == {"work_early": 2}


def test_a_handlers_locals_are_let_go_with_the_next_sample(run: Run) -> None:
    """As long as the profile goes on; with its end at the latest."""
    gone: list[weakref.ref[object]] = []

    def keeping(pause: Pause) -> None:
        gone.append(weakref.ref(pause))
        pause.here()

    with ThreadPoolExecutor(1) as pool:
        ends: list[Callable[[], None]] = [run.sampler.sampler, lambda: stop(run.exchange)]
        for end in ends:
            pause = Pause()
            done = pool.submit(in_request(run, keeping), pause)
            run.look(pause)
            done.result(10)
            del pause
            end()
            assert gone.pop()() is None


@pytest.fixture
def chunks(client: ByHand) -> Chunks:
    return Chunks()


def packages(chunk: dict[str, Any]) -> set[str]:
    return {frame["module"].partition(".")[0] for frame in chunk["profile"]["frames"]}


def sampled_in_worker(chunks: Chunks) -> int:
    """Take a sample of each thread while a worker of ours is at work; the worker's thread."""
    pause = Pause()
    threads: list[int] = []

    def turn(_items: object, _flush: bool) -> None:
        if threading.current_thread().name == "otel-sentry-asgi" and not threads:
            threads.append(threading.get_ident())
            pause.here()

    worker = Worker(turn, max_queue=1)
    worker.wake()
    pause.reached()
    chunks.sampler()
    pause.end()
    assert worker.stop(10)
    return threads[0]


def test_a_chunk_leaves_without_our_frames_and_threads(chunks: Chunks) -> None:
    chunks.reset_buffer()
    Profiles(Stats()).watch()  # In the middle of a session.
    worker = str(sampled_in_worker(chunks))
    chunk = chunks.flush()
    here = str(threading.get_ident())
    assert not packages(chunk) & {"otel_sentry_asgi", "otel_sentry_exporters"}
    sampled = {sample["thread_id"] for sample in chunk["profile"]["samples"]}
    assert here in sampled
    assert worker not in sampled
    assert sampled >= set(chunk["profile"]["thread_metadata"])


def test_each_session_is_watched_once_until_the_end(chunks: Chunks) -> None:
    profiles, before = Profiles(Stats()), chunks.capture_func
    profiles.watch()
    profiles.watch()
    chunks.reset_buffer()
    sampled_in_worker(chunks)
    assert not packages(chunks.flush()) & {"otel_sentry_asgi"}
    assert len(chunks.sent) == 1
    profiles.stop_all()
    assert chunks.capture_func == before
    chunks.reset_buffer()
    sampled_in_worker(chunks)
    assert packages(chunks.flush()) >= {"otel_sentry_asgi"}


def test_a_profiler_without_a_place_for_us_goes_on(
    chunks: Chunks, caplog: pytest.LogCaptureFixture
) -> None:
    chunks.reset_buffer()
    del chunks.capture_func
    profiles = Profiles(Stats())
    profiles.watch()
    profiles.watch()
    profiles.stop_all()
    assert [record.getMessage() for record in caplog.records] == [
        "continuous profiles hold frames of this package: "
        "'Chunks' object has no attribute 'capture_func'"
    ]


def test_a_chunk_of_another_form_leaves_as_it_is(
    chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, _error: failures.append(where))
    Profiles(Stats()).watch()
    envelope = Envelope()
    envelope.add_profile_chunk({"profile": {"frames": 1}})
    chunks.capture_func(envelope)
    assert chunks.sent == [{"profile": {"frames": 1}}]
    assert failures == ["profile"]
