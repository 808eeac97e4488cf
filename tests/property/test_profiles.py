"""Profiles of requests that interleave do not mix.

Requests run on one event loop and in a thread pool of two, step by step; the sampler looks
whenever hypothesis says so. A model keeps which function ran for which request at each look: that
is what each profile must hold, and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, precondition, rule
from opentelemetry.trace import SpanKind

from otel_sentry_asgi import sentry
from otel_sentry_asgi._profiles import Profiles, stop
from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi.testing import span
from tests.support.by_hand import begin_by_hand, end_by_hand, handler, profile_of
from tests.support.stage import Pause, Stage, named


@dataclass(eq=False)
class Request:
    """A request that waits for what to do next."""

    exchange: Exchange
    profiled: bool
    seen: Counter[str] = field(default_factory=Counter)
    """How often a look met which of its functions, at work for it."""
    kept: list[Context] = field(default_factory=list)
    """Copies of its context, as a timer or a future that it made in the pool would keep them."""
    ended: Future[None] | None = None
    inbox: asyncio.Queue[Callable[[], Any] | None] = field(default_factory=asyncio.Queue)


@dataclass(eq=False)
class Job:
    """Work in the pool that has begun and not ended."""

    request: Request
    name: str
    noted: bool
    pause: Pause
    done: Future[None]


class Interleaving(RuleBasedStateMachine):
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = begin_by_hand()
        self.stage = Stage()
        self.stage.__enter__()
        self.chosen = True
        self.profiles = Profiles(Stats(), lambda: 0.0 if self.chosen else 0.9)
        self.open: list[Request] = []
        self.jobs: list[Job] = []
        self.names = 0

    def teardown(self) -> None:
        rest = list(self.open)
        for request in rest:
            self.close(request)
        self.stage.__exit__(None, None, None)
        for request in rest:
            self.check(request)
        end_by_hand()

    @rule(target=requests, profiled=st.booleans())
    def begin(self, profiled: bool) -> Request:
        self.names += 1
        root = span(span_id=self.names, kind=SpanKind.SERVER)
        exchange = Exchange(None, asgi_scope={"type": "http"}, root=root)
        request = Request(exchange, profiled)
        self.chosen = profiled

        async def serve() -> None:
            current_exchange.set(exchange)
            self.profiles.started(root, exchange, dict, sentry.options())
            begun.set()
            while (step := await request.inbox.get()) is not None:
                await step()
            stop(exchange)

        begun = threading.Event()
        request.ended = self.stage.start(serve())
        assert begun.wait(10)
        self.open.append(request)
        return request

    @rule(request=requests, in_a_task=st.booleans())
    def work_on_the_loop(self, request: Request, in_a_task: bool) -> None:
        """The loop stands still meanwhile; what is in the pool goes on."""
        name, pause = self._name("on_loop"), Pause()

        async def work() -> None:
            named(name)(pause)

        done: Future[None] = Future()

        async def step() -> None:
            await (asyncio.create_task(work()) if in_a_task else work())
            done.set_result(None)

        self._tell(request, step)
        pause.reached()
        self.look(also=[(request, name)])
        pause.end()
        done.result(10)

    @precondition(lambda self: len(self.jobs) < 2)
    @rule(request=requests, noted=st.booleans())
    def work_in_the_pool(self, request: Request, noted: bool) -> None:
        """Where no integration tells, nobody can tell whose work it is."""
        name, pause = self._name("in_pool"), Pause()

        def work() -> None:
            request.kept.append(copy_context())
            named(name)(pause)

        done: Future[None] = Future()

        async def job() -> None:
            await asyncio.to_thread(handler(request.exchange, work) if noted else work)
            done.set_result(None)

        tasks = []

        async def step() -> None:
            tasks.append(asyncio.create_task(job()))

        self._tell(request, step)
        pause.reached()
        self.jobs.append(Job(request, name, noted, pause, done))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def end_work_in_the_pool(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.jobs)))

    @rule()
    def look(self, also: list[tuple[Request, str]] = []) -> None:  # noqa: B006 - only read
        self.scheduler.sampler()
        for request, name in [(job.request, job.name) for job in self.jobs if job.noted] + also:
            if request.profiled:
                request.seen[name] += 1

    @rule(request=consumes(requests))
    def end_request(self, request: Request) -> None:
        self.close(request)
        self.check(request)

    def close(self, request: Request) -> None:
        self.open.remove(request)
        for job in [job for job in self.jobs if job.request is request]:
            self.end(job)
        self.stage.run(self._put(request, None))
        assert request.ended is not None
        request.ended.result(10)

    def check(self, request: Request) -> None:
        seen = profile_of(self.profiles, request.exchange)
        if seen is None:
            # Two looks at one thread are needed, and in the pool there are two threads.
            assert sum(request.seen.values()) < 4
        else:
            assert seen == request.seen

    def end(self, job: Job) -> None:
        self.jobs.remove(job)
        job.pause.end()
        job.done.result(10)

    def _name(self, where: str) -> str:
        self.names += 1
        return f"work_{where}_{self.names}"

    def _tell(self, request: Request, step: Callable[[], Any]) -> None:
        self.stage.start(self._put(request, step))

    async def _put(self, request: Request, step: Callable[[], Any] | None) -> None:
        request.inbox.put_nowait(step)


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=40, stateful_step_count=25)
