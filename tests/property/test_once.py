"""One exception object is one issue, whoever saw it, in whatever order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import sentry_sdk
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi
from otel_sentry_asgi import SentryMiddleware
from tests.integration.prelude import Kept

HTTP = {"type": "http", "method": "GET", "path": "/a", "headers": [], "query_string": b""}


class Known(Exception):
    """Can be referred to weakly; the built-in ones cannot."""


steps = st.lists(
    st.tuples(st.sampled_from(["record", "capture", "log", "pass", "task"]), st.integers(0, 3)),
    max_size=8,
)


class Service:
    """An application that does the steps of a plan, and what Sentry was sent of it."""

    def __init__(self) -> None:
        self.transport = Kept()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.tracer = self.provider.get_tracer("shop")
        self.app = OpenTelemetryMiddleware(
            SentryMiddleware(self._app), tracer_provider=self.provider
        )
        self.plan: list[tuple[str, int]] = []
        self.leaves: int | None = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        kinds = (ValueError, Known, KeyError, Known)
        errors = [kind(number) for number, kind in enumerate(kinds)]
        for step, number in self.plan:
            await self._do(step, errors[number])
        if self.leaves is not None:
            with self.tracer.start_as_current_span("last"):
                raise errors[self.leaves]

    async def _do(self, step: str, error: Exception) -> None:
        if step == "record":
            with self.tracer.start_as_current_span("inner") as span:
                span.record_exception(error)
        elif step == "capture":
            sentry_sdk.capture_exception(error)
        elif step == "log":
            logging.getLogger("shop").error("failed", exc_info=error)
        elif step == "pass":
            with suppress(type(error)), self.tracer.start_as_current_span("inner"):
                raise error
        else:
            with suppress(type(error)):
                await asyncio.create_task(self._raise(error))

    async def _raise(self, error: Exception) -> None:
        with self.tracer.start_as_current_span("in a task"):
            raise error

    def run(self, plan: list[tuple[str, int]], leaves: int | None) -> list[tuple[int, bool]]:
        """The number of each exception that was reported, and whether as handled."""
        self.plan, self.leaves = plan, leaves
        self.transport.envelopes.clear()

        async def nothing(message: Any = None) -> Any:
            return {}

        with suppress(ValueError, Known, KeyError):
            asyncio.run(self.app(dict(HTTP), nothing, nothing))
        found = []
        for envelope in self.transport.envelopes:
            for item in envelope.items:
                if item.type == "event" and item.payload.json is not None:
                    value = item.payload.json["exception"]["values"][-1]
                    found.append((int(value["value"]), value["mechanism"]["handled"]))
        return sorted(found)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    sentry_sdk.init(dsn="http://k@127.0.0.1:9/1", transport=service.transport, traces_sample_rate=1)
    otel_sentry_asgi.instrument(tracer_provider=service.provider)
    yield service
    otel_sentry_asgi.uninstrument()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


@given(plan=steps, leaves=st.none() | st.integers(0, 3))
def test_one_exception_is_one_issue(
    service: Service, plan: list[tuple[str, int]], leaves: int | None
) -> None:
    """Those that were only passed on and dealt with are none; what leaves is unhandled, unless the
    application itself reported it before."""
    explicit = {number for step, number in plan if step in ("capture", "log")}
    recorded = {number for step, number in plan if step == "record"}
    expected = dict.fromkeys(explicit | recorded, True)
    if leaves is not None and leaves not in explicit:
        expected[leaves] = False

    assert service.run(plan, leaves) == sorted(expected.items())
