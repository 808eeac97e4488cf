"""Which exceptions are issues: of tasks that outlive their request, and of what is held until a
request ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi
from otel_sentry_asgi.testing import RecordingExporter
from tests.integration.prelude import DSN, Kept

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
