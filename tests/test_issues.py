"""Which exceptions are issues: of tasks that outlive their request, and of what is held until a
request ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest
import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi
from otel_sentry_asgi._active import active
from otel_sentry_asgi._bridge import Bridge
from otel_sentry_asgi._events import Events
from otel_sentry_asgi._issues import LOGGED_WITHIN, Issues
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._scope import Exchange, Held, current_exchange
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi.sampling import Decisions
from otel_sentry_asgi.testing import HandClock, RecordingExporter, span_context
from tests.integration.prelude import DSN, Kept
from tests.support.between import in_between

HTTP = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}


class ShopError(Exception):
    pass


class Service:
    """An instrumented application, and a client that keeps what it would send."""

    def __init__(self) -> None:
        self.transport = Kept()
        self.provider = TracerProvider(shutdown_on_exit=False)
        sentry_sdk.init(dsn=DSN, transport=self.transport, traces_sample_rate=1.0)
        otel_sentry_asgi.instrument(tracer_provider=self.provider, exporter=RecordingExporter())
        self.tracer = self.provider.get_tracer("shop")

    async def request(self, handler: Callable[[], Awaitable[object]]) -> None:
        """A request whose handler is *handler*."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await handler()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            """To nobody."""

        app = OpenTelemetryMiddleware(app, tracer_provider=self.provider)
        await asyncio.create_task(app(dict(HTTP), receive, send))

    @property
    def bridge(self) -> Bridge:
        bridge = active()
        assert bridge is not None
        return bridge

    @property
    def errors(self) -> list[tuple[str, bool]]:
        """Each issue's message, and whether it was handled."""
        values = [
            item.payload.json["exception"]["values"][-1]
            for envelope in self.transport.envelopes
            for item in envelope.items
            if item.type == "event" and item.payload.json is not None
        ]
        return [(one["value"], one["mechanism"]["handled"]) for one in values]


@pytest.fixture
def service() -> Iterator[Service]:
    yield Service()
    otel_sentry_asgi.uninstrument()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


# -- tasks that outlive their request -------------------------------------------------------------


def outlive(service: Service, work: Callable[[], Awaitable[object]]) -> None:
    """Do *work* in a task that a request has started, after its end."""
    tasks: list[asyncio.Task[Any]] = []

    async def main() -> None:
        answered = asyncio.Event()

        async def outliving() -> None:
            await answered.wait()
            await work()

        async def handler() -> None:
            tasks.append(asyncio.create_task(outliving()))

        await service.request(handler)
        answered.set()
        await asyncio.wait(tasks)
        tasks.pop().exception()

    asyncio.run(main())


def test_a_task_keeps_nothing_of_the_exceptions_that_it_has_dealt_with(service: Service) -> None:
    """Pollers live as long as the process, and a traceback keeps what its frames have."""
    raised: list[weakref.ref[ShopError]] = []
    alive: list[bool] = []

    async def poll() -> None:
        for number in range(5):
            with suppress(ShopError), service.tracer.start_as_current_span("poll"):
                error = ShopError(number)
                raised.append(weakref.ref(error))
                try:
                    raise error
                finally:
                    del error
        gc.collect()
        alive.extend(one() is not None for one in raised)

    outlive(service, poll)

    assert alive == [False] * 4 + [True], "the last may be what ends the task"
    gc.collect()
    assert raised[-1]() is None
    assert service.errors == []


def test_after_many_that_it_dealt_with_the_one_that_ends_a_task_is_reported(
    service: Service,
) -> None:
    async def work() -> None:
        with suppress(ShopError), service.tracer.start_as_current_span("first"):
            raise ShopError("dealt with")
        with service.tracer.start_as_current_span("last"):
            raise ShopError("ends it")

    outlive(service, work)

    assert service.errors == [("ends it", False)]


def test_what_ends_a_task_is_reported_whatever_happened_while_it_was_handled(
    service: Service,
) -> None:
    async def work() -> None:
        try:
            with service.tracer.start_as_current_span("work"):
                raise ShopError("ends it")
        finally:
            with suppress(KeyError), service.tracer.start_as_current_span("clean up"):
                raise KeyError("dealt with")

    outlive(service, work)

    assert service.errors == [("ends it", False)]


def test_an_exception_that_is_raised_again_later_ends_a_task_with_its_own_report(
    service: Service,
) -> None:
    """As after other work that failed, and was dealt with, in between."""

    async def work() -> None:
        first: ShopError | None = None
        try:
            with service.tracer.start_as_current_span("work"):
                raise ShopError("ends it")
        except ShopError as error:
            first = error
        with suppress(KeyError), service.tracer.start_as_current_span("clean up"):
            raise KeyError("dealt with")
        raise first

    outlive(service, work)

    assert service.errors == [("ends it", False)]


# -- what is held until a request ends ------------------------------------------------------------


def record(error: Exception, local: object = None) -> None:
    """Record it on purpose; *local* is shown in its event."""
    try:
        raise error
    except ShopError:
        trace.get_current_span().record_exception(error)


class Slow:
    """What takes its time when it is shown."""

    def __init__(self) -> None:
        self.shown, self.over = threading.Event(), threading.Event()

    def __repr__(self) -> str:
        self.shown.set()
        assert self.over.wait(10)
        return "slow"


def test_what_is_built_while_its_request_ends_is_sent(service: Service) -> None:
    """In a thread that nobody waits for, or whose request has been cancelled."""
    slow, threads = Slow(), list[threading.Thread]()

    async def handler() -> None:
        work = (record, ShopError("no payment"), slow)
        threads.append(threading.Thread(target=copy_context().run, args=work))
        threads[0].start()
        assert await asyncio.to_thread(slow.shown.wait, 10)

    asyncio.run(service.request(handler))
    slow.over.set()
    threads[0].join()

    assert service.errors == [("no payment", True)]


class Contended(Exchange):
    """In the middle of a change of what it holds it lets another thread work."""

    __slots__ = ("_held", "other")

    def __init__(self) -> None:
        self.other: threading.Thread | None = None
        super().__init__(None)

    @property
    def held(self) -> Sequence[Held]:
        return self._held

    @held.setter
    def held(self, held: Sequence[Held]) -> None:
        other, self.other = self.other, None
        if other is not None:
            other.start()
            other.join(0.2)  # In vain if it has to wait for the change.
        self._held = held


def test_to_hold_is_concurrent_safe(service: Service) -> None:
    exchange, issues = Contended(), service.bridge.issues

    def hold(text: str) -> None:
        issues._hold(ShopError(text), exchange, span_context(1))

    hold("first")
    exchange.other = thread = threading.Thread(target=hold, args=("second",))
    hold("third")
    thread.join()
    issues.finished(exchange)

    assert sorted(service.errors) == [("first", True), ("second", True), ("third", True)]


def test_to_record_on_one_span_is_concurrent_safe(service: Service) -> None:
    """Each exception is known by its own event, whichever came last: else it would be sent once
    more, as text."""
    span: Any = service.tracer.start_span("work")
    errors = [ShopError("first"), ShopError("second")]
    for error in errors:
        type(span).record_exception(span, error)
    for error in errors:
        service.bridge.issues.recorded(span, error, on_purpose=False)
    span.end()

    ledger, span_id = service.bridge._ledger, span.get_span_context().span_id
    assert [ledger.knows_event(span_id, event.timestamp) for event in span.events] == [True, True]


def test_a_child_forked_in_a_request_sends_nothing_that_its_parent_holds(
    service: Service,
) -> None:
    async def handler() -> None:
        record(ShopError("the parent's"))
        service.bridge.begin_in_child()
        record(ShopError("the child's"))

    asyncio.run(service.request(handler))

    assert service.errors == [("the child's", True)]


def test_while_all_that_is_held_is_sent_others_begin_to_hold(service: Service) -> None:
    """At the end of the process, in threads that still work."""
    issues, exchanges = service.bridge.issues, list[Exchange]()

    def hold() -> None:
        exchanges.append(Exchange(None))
        issues._hold(ShopError(), exchanges[-1], span_context(1))

    for _ in range(5):
        hold()
    with in_between(hold):
        issues.release_all()
    issues.release_all()

    assert len(service.errors) == len(exchanges) > 5


# -- what servers log of a failed lifespan --------------------------------------------------------


def test_what_a_server_logs_as_text_is_no_issue_only_for_a_while_after_a_failed_lifespan(
    service: Service,
) -> None:
    """Uvicorn serves all the same if it does not insist, tests start several servers."""
    settings, stats, clock, decisions = Settings(), Stats(), HandClock(), Decisions()
    ledger = Ledger(clock)
    issues = Issues(settings, stats, ledger, clock)
    events = Events(settings, stats, ledger, decisions, issues)

    def is_issue() -> bool:
        return events.process({"logger": "uvicorn.error", "logentry": {}}, {}) is not None

    assert is_issue()
    issues.failed(None, "no database", "auto")
    assert not is_issue()
    clock.advance(LOGGED_WITHIN)
    assert is_issue()


# -- one object in several requests ---------------------------------------------------------------


@pytest.mark.parametrize("logger", ["asyncio", "uvicorn.error"])
def test_what_is_logged_in_the_context_of_another_request_is_what_one_has_reported(
    service: Service, logger: str
) -> None:
    """asyncio logs whenever an object is freed, a server in the context that the request before on
    its connection has left."""
    bridge, error = service.bridge, ShopError()
    saw, failed, another = Exchange(None), Exchange(None), Exchange(None, finished=True)
    logged = {"exc_info": (ShopError, error, None)}

    def process(exchange: Exchange, logger: str) -> Any:
        token = current_exchange.set(exchange)
        try:
            return bridge.events.process({"logger": logger}, logged)
        finally:
            current_exchange.reset(token)

    bridge._ledger.note(error, span_context(1), saw)
    bridge.issues.crashed(error, failed, "auto")

    assert process(another, logger) is None
    assert process(another, "shop") is not None
    assert len(service.errors) == 1


def test_what_units_of_work_in_one_context_raise_is_an_issue_of_each(service: Service) -> None:
    """A consumer's loop, say. sentry-sdk takes what it saw last in a context for a duplicate."""
    error = ShopError("closed")
    for _ in range(3):
        with suppress(ShopError), service.tracer.start_as_current_span("job"):
            raise error
    assert service.errors == [("closed", False)] * 3


def test_a_unit_of_work_that_outlives_uninstrument_is_over() -> None:
    """What begins in its context later is work of its own, with issues of its own."""
    error = ShopError("closed")
    open_span = Service().tracer.start_span("open")
    otel_sentry_asgi.uninstrument()
    open_span.end()
    service = Service()
    for _ in range(2):
        with suppress(ShopError), service.tracer.start_as_current_span("job"):
            raise error
    otel_sentry_asgi.uninstrument()
    assert service.errors == [("closed", False)] * 2
