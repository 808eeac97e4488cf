"""Profiles of requests that interleave do not mix.

Requests run on one event loop and in a thread pool of two, step by step; the sampler looks
whenever hypothesis says so. A model keeps which function ran for which request at each look: that
is what each profile must hold, and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import sentry_sdk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, precondition, rule
from opentelemetry.trace import SpanKind
from sentry_sdk.profiler import transaction_profiler
from sentry_sdk.transport import Transport

from otel_sentry_asgi._assembly import Segment
from otel_sentry_asgi._model import Transaction
from otel_sentry_asgi._profiles import Profiles, stop
from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi.testing import span
from tests.support.stage import Pause, Stage, named


class _Nowhere(Transport):
    def capture_envelope(self, envelope: Any) -> None:
        raise AssertionError("nothing is sent here")


class _ByHand(transaction_profiler.ThreadScheduler):
    """sentry-sdk's scheduler without its thread: the test calls its sampler."""

    def ensure_running(self) -> None:
        pass


@dataclass(eq=False)
class Request:
    """A request that waits for what to do next."""

    exchange: Exchange
    profiled: bool
    seen: Counter[str] = field(default_factory=Counter)
    """How often a look met which of its functions, at work for it."""
    untold: set[str] = field(default_factory=set)
    """Functions of its own of which nobody was told."""
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            sentry_sdk.init(
                dsn="http://public@127.0.0.1:9/1",
                transport=_Nowhere,
                profiles_sample_rate=0.5,
                default_integrations=False,
                auto_enabling_integrations=False,
            )
        self.scheduler = _ByHand(101)
        transaction_profiler._scheduler = self.scheduler
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
        transaction_profiler._scheduler = None
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)

    @rule(target=requests, profiled=st.booleans())
    def begin(self, profiled: bool) -> Request:
        self.names += 1
        root = span(span_id=self.names, kind=SpanKind.SERVER)
        exchange = Exchange(None, asgi_scope={"type": "http"}, root=root)
        request = Request(exchange, profiled)
        self.chosen = profiled

        async def serve() -> None:
            current_exchange.set(exchange)
            self.profiles.started(root, exchange, dict)
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
        """Without a span there, nobody can tell whose work it is."""
        name, pause = self._name("in_pool"), Pause()

        def work() -> None:
            if noted:
                self.profiles.span_started()
            named(name)(pause)

        done: Future[None] = Future()

        async def job() -> None:
            await asyncio.to_thread(work)
            done.set_result(None)

        if not noted:
            request.untold.add(name)
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
        assert request.exchange.root is not None
        transaction: Transaction = {"contexts": {"trace": {"span_id": "", "data": {}}}, "spans": []}
        segment = Segment(request.exchange.root, [], request.exchange)
        profile: Any = self.profiles.link(transaction, segment)
        if profile is None:
            # Two looks at one thread are needed, and in the pool there are two threads.
            assert "profile" not in transaction["contexts"]
            assert sum(request.seen.values()) < 4
            return
        assert transaction["contexts"]["profile"] == {"profile_id": profile.event_id}
        seen = seen_in(profile.to_item(EVENT))
        for name in request.untold:
            seen.pop(name, None)
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


EVENT = {
    "event_id": "0" * 32,
    "transaction": "GET /",
    "start_timestamp": 0.0,
    "contexts": {"trace": {"trace_id": "0" * 32}},
}


def seen_in(item: dict[str, Any]) -> Counter[str]:
    """How many samples hold which of the functions that the test made."""
    profile = item["profile"]
    functions = [frame["function"] for frame in profile["frames"]]
    stacks = [{functions[n] for n in stack} for stack in profile["stacks"]]
    return Counter(
        name
        for sample in profile["samples"]
        for name in stacks[sample["stack_id"]]
        if name.startswith("work_")
    )


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=40, stateful_step_count=25)
