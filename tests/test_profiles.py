"""What becomes of a profile whose transaction is not sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from sentry_sdk.profiler import teardown_profiler

import otel_sentry_asgi
from otel_sentry_asgi import _guard
from otel_sentry_asgi.testing import RecordingExporter
from tests.integration.prelude import DSN, Kept

pytestmark = pytest.mark.filterwarnings("ignore:Transaction-based profiling:DeprecationWarning")


@pytest.fixture
def transport() -> Iterator[Kept]:
    transport = Kept()
    sentry_sdk.init(
        dsn=DSN, transport=transport, traces_sample_rate=1.0, profiles_sample_rate=1.0
    )
    yield transport
    otel_sentry_asgi.uninstrument()
    teardown_profiler()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


class Failing(RecordingExporter):
    def export(self, transaction: Any, origin: Any) -> None:
        raise OSError("no space")


def profiled(**settings: Any) -> dict[str, int]:
    """A request that is profiled, in a task; what the bridge counted of its profile."""
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sentry_asgi.instrument(
        tracer_provider=provider, **{"exporter": RecordingExporter(), **settings}
    )
    attributes = {"url.path": "/stock", "http.request.method": "GET"}

    async def serve() -> None:
        tracer, deadline = provider.get_tracer("shop"), time.monotonic() + 10
        with tracer.start_as_current_span("s", kind=SpanKind.SERVER, attributes=attributes):
            profile: Any = sentry_sdk.get_isolation_scope().profile
            while len(profile.samples) < 3:
                assert time.monotonic() < deadline

    asyncio.run(serve())
    assert provider.force_flush()
    provider.shutdown()
    return {key: n for key, n in otel_sentry_asgi.stats().items() if "profile" in key}


CAUSES: list[tuple[str, dict[str, Any]]] = [
    ("ignored", {"ignored_paths": ["/stock"]}),
    ("before_send", {"on_payload": lambda _: None}),
    ("internal_sdk_error", {"exporter": Failing()}),
]


@pytest.mark.parametrize(("reason", "settings"), CAUSES)
def test_a_profile_is_lost_with_its_transaction(
    transport: Kept, monkeypatch: pytest.MonkeyPatch, reason: str, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(_guard, "on_failure", lambda *_: None)
    counted = profiled(**settings)
    assert counted == {f"lost_profiles.{reason}": 1}
    assert [one for one in transport.lost if one[1] == "profile"] == [(reason, "profile", 1)]


def test_a_profile_that_is_sent_is_not_lost(transport: Kept) -> None:
    assert profiled() == {"profiles": 1}
    assert not [one for one in transport.lost if one[1] == "profile"]
