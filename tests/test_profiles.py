"""Profiles from the span to the exporter: of roots outside of requests, and of what is not sent."""

from __future__ import annotations

import asyncio
import threading
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
from otel_sentry_asgi._profiles import Profiles
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi.testing import RecordingExporter, span
from tests.integration.prelude import DSN, Kept
from tests.support.between import in_between
from tests.support.by_hand import EVENT, seen_in

pytestmark = pytest.mark.filterwarnings("ignore:Transaction-based profiling:DeprecationWarning")


@pytest.fixture
def transport() -> Iterator[Kept]:
    transport = Kept()
    sentry_sdk.init(dsn=DSN, transport=transport, traces_sample_rate=1.0, profiles_sample_rate=1.0)
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


def wait_for_samples(profile: Any, count: int) -> None:
    before, deadline = len(profile.samples), time.monotonic() + 10
    while len(profile.samples) < before + count:
        assert time.monotonic() < deadline


def test_a_local_root_on_a_plain_thread_is_profiled(transport: Kept) -> None:
    """What is called below the function that began it, and until it ends."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), RecordingExporter()
    otel_sentry_asgi.instrument(tracer_provider=provider, exporter=exporter)
    tracer = provider.get_tracer("shop")

    def work_inside() -> None:
        wait_for_samples(sentry_sdk.get_isolation_scope().profile, 3)

    def work_after(over: Any) -> None:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            assert not over.active

    def job() -> None:
        with tracer.start_as_current_span("job"):
            over = sentry_sdk.get_isolation_scope().profile
            work_inside()
        work_after(over)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert provider.force_flush()
    provider.shutdown()
    ((_, origin),) = exporter.exported
    assert origin.profile is not None
    item = origin.profile.to_item(EVENT)
    assert set(seen_in(item)) == {"work_inside"}
    assert item["transactions"][0]["active_thread_id"] == str(thread.ident)
    frames = {frame["function"].rpartition(".")[2] for frame in item["profile"]["frames"]}
    assert "job" in frames
    assert "run" not in frames  # What is further out works for others, too.


def test_while_all_profiles_are_ended_others_start(transport: Kept) -> None:
    profiles, exchanges = Profiles(Stats()), list[Exchange]()
    options = sentry_sdk.get_client().options

    def start() -> None:
        root = span()
        exchanges.append(Exchange(sentry_sdk.get_isolation_scope(), root=root))
        profiles.started(root, exchanges[-1], dict, options)

    for _ in range(3):
        start()
    with in_between(start):
        profiles.stop_all()
    profiles.stop_all()

    assert len(exchanges) > 3
    assert not [one for one in exchanges if one.profile.active]


def test_a_profile_that_is_sent_is_not_lost(transport: Kept) -> None:
    assert profiled() == {"profiles": 1}
    assert not [one for one in transport.lost if one[1] == "profile"]


def test_a_client_that_wants_no_profiles_ends_no_others(transport: Kept) -> None:
    """Requests may have a client of their own."""
    stats = Stats()
    profiles = Profiles(stats)
    root, other = span(), span()
    exchange = Exchange(sentry_sdk.get_isolation_scope(), root=root)
    profiles.started(root, exchange, dict, sentry_sdk.get_client().options)
    assert exchange.profile.active

    profiles.started(other, Exchange(None, root=other), dict, {})
    profiles.lost(root, exchange, "before_send")

    assert stats.snapshot() == {"lost_profiles.before_send": 1}
