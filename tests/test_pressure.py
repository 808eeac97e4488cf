"""Less is sampled while more comes than can be sent, no sooner, and not for longer than that."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sentry_sdk
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi
from otel_sentry_asgi import _guard, _pressure
from otel_sentry_asgi._active import active
from otel_sentry_asgi._pipeline import LAGGING, MANY, Pipeline
from otel_sentry_asgi._pressure import COMPLAIN_EVERY, FALL, MAX_FACTOR, RISE, Pressure
from otel_sentry_asgi._worker import Worker
from otel_sentry_asgi.testing import HandClock, RecordingExporter
from tests.integration.prelude import DSN, Kept


def test_it_rises_while_there_is_more_than_can_be_sent_without_a_break() -> None:
    pressure = Pressure()
    for now, strained, factor in (
        (0.0, True, 0),
        (RISE * 0.9, True, 0),
        (RISE * 0.95, False, 0),
        (RISE * 1.0, True, 0),
        (RISE * 1.9, True, 0),
        (RISE * 2.0, True, 1),
        (RISE * 2.9, True, 1),
        (RISE * 3.0, True, 2),
    ):
        pressure.look(now, is_strained=strained)
        assert pressure.factor == factor, now


def test_it_falls_with_care() -> None:
    pressure = Pressure()
    for now in (0.0, RISE, RISE * 2):
        pressure.look(now, is_strained=True)
    assert pressure.next_due(RISE * 2) == RISE * 2 + FALL
    for now, factor in ((RISE * 2 + FALL * 0.9, 2), (RISE * 2 + FALL, 1), (RISE * 2 + FALL * 2, 0)):
        pressure.look(now, is_strained=False)
        assert pressure.factor == factor
    assert pressure.next_due(now) is None


@given(st.lists(st.tuples(st.floats(0.01, 2 * FALL), st.booleans()), max_size=60))
def test_it_moves_by_one_within_its_bounds_and_no_faster_than_it_may(
    looks: list[tuple[float, bool]],
) -> None:
    pressure, now, rose_at, fell_at = Pressure(), 0.0, 0.0, -FALL
    for passed, strained in looks:
        now, before = now + passed, pressure.factor
        pressure.look(now, is_strained=strained)
        assert 0 <= pressure.factor <= MAX_FACTOR
        if pressure.factor > before:
            assert strained
            assert pressure.factor == before + 1
            assert now - rose_at >= RISE
            rose_at = now
        elif pressure.factor < before:
            assert not strained
            assert pressure.factor == before - 1
            assert now - max(rose_at, fell_at) >= FALL - 1e-9
            fell_at = now
        due = pressure.next_due(now)  # Never at once: the worker would turn without end.
        assert due is None or due >= now + RISE


def test_it_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    pressure, now = Pressure(), 0.0
    with caplog.at_level(logging.DEBUG, logger="otel_sentry_asgi"):
        while now <= COMPLAIN_EVERY + 4 * RISE:
            pressure.factor = min(pressure.factor, 2)
            pressure.look(now, is_strained=True)
            now += RISE
    levels = Counter(record.levelname for record in caplog.records)
    assert levels["WARNING"] == 2
    assert levels["DEBUG"] > 10
    assert "of 2 that the rate would keep one is sampled" in caplog.messages[0]


# -- who says so ----------------------------------------------------------------------------------


class Healthy(RecordingExporter):
    """An exporter that can tell whether it can send what it is given."""

    health = True

    def is_healthy(self) -> bool:
        return self.health


Serve = Callable[..., TracerProvider]


@pytest.fixture
def exporter() -> Healthy:
    return Healthy()


@pytest.fixture
def serve(exporter: Healthy) -> Iterator[Serve]:
    def serve(**options: Any) -> TracerProvider:
        sentry_sdk.init(dsn=DSN, transport=Kept(), **{"traces_sample_rate": 1.0, **options})
        provider = TracerProvider(shutdown_on_exit=False)
        otel_sentry_asgi.instrument(tracer_provider=provider, exporter=exporter)
        return provider

    yield serve
    otel_sentry_asgi.uninstrument()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def pipeline() -> Pipeline:
    bridge = active()
    assert bridge is not None
    return bridge.pipeline


@pytest.mark.parametrize(
    ("taken", "waiting", "turn_is_over", "health", "before", "after"),
    [
        (LAGGING * 1.1, MANY, False, True, 3, 4),
        (LAGGING * 1.1, MANY, True, True, 3, 4),
        (LAGGING * 0.9, MANY, True, True, 3, 2),  # May be a moment.
        (LAGGING * 9.0, MANY - 1, True, True, 3, 2),  # The process slept, say.
        (LAGGING * 0.9, MANY, False, True, 3, 3),  # Nobody knows yet how long it will take.
        (0.01, 0, True, True, 3, 2),
        (0.01, 0, True, False, 3, 4),
        (0.01, 0, True, True, 0, 0),
    ],
)
def test_the_worker_or_the_exporter_does_not_keep_up(
    taken: float,
    waiting: int,
    turn_is_over: bool,
    health: bool,
    before: int,
    after: int,
    serve: Serve,
    exporter: Healthy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    subject, clock = pipeline(), HandClock(100.0)
    subject.force_flush(10.0)
    exporter.health = health
    monkeypatch.setattr(Worker, "waiting", waiting)
    monkeypatch.setattr(subject, "_clock", clock)
    pressure = subject._decisions.pressure
    pressure.factor, pressure._rise_at, pressure._fall_at = before, clock(), clock()
    subject._turn_began = clock()
    clock.advance(taken)
    subject._look_at_pressure(turn_is_over=turn_is_over)
    assert pressure.factor == after


def test_a_trace_that_pressure_leaves_out_is_left_out_as_a_whole_and_counted(
    serve: Serve, exporter: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pressure, "RISE", 0.0)
    monkeypatch.setattr(_pressure, "FALL", 0.01)
    provider = serve()
    tracer = provider.get_tracer("shop")
    exporter.health = False
    while pipeline()._decisions.pressure.factor < 2:
        assert provider.force_flush()
    monkeypatch.setattr(_pressure, "RISE", 1_000.0)
    for _ in range(400):
        with tracer.start_as_current_span("order"), tracer.start_as_current_span("query"):
            pass
    assert provider.force_flush()
    sent = exporter.transactions
    assert 0 < len(sent) < 200
    assert all(len(one["spans"]) == 1 for one in sent)
    rates = {one["contexts"]["trace"]["dynamic_sampling_context"]["sample_rate"] for one in sent}
    assert rates <= {"0.25", "0.125"}
    assert otel_sentry_asgi.stats()["lost.backpressure"] == 2 * (400 - len(sent))
    exporter.health = True
    while pipeline()._decisions.pressure.factor:
        assert provider.force_flush()
    with tracer.start_as_current_span("order"):
        pass
    assert provider.force_flush()
    last = exporter.transactions[-1]["contexts"]["trace"]["dynamic_sampling_context"]
    assert last["sample_rate"] == "1.0"


def test_nothing_is_left_out_where_the_client_is_not_to_handle_backpressure(
    serve: Serve, exporter: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pressure, "RISE", 0.0)
    provider = serve(enable_backpressure_handling=False)
    exporter.health = False
    for _ in range(5):
        assert provider.force_flush()
    assert pipeline()._decisions.pressure.factor == 0


def test_it_falls_also_when_nothing_comes_any_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = serve()
    assert provider.force_flush()
    pressure = pipeline()._decisions.pressure
    pressure.factor, pressure._fall_at = 1, 10.0
    monkeypatch.setattr(pipeline(), "_clock", HandClock(5.0))
    assert pipeline()._turn([], False) == 10.0


def test_an_exporter_that_cannot_tell_loses_nothing_and_keeps_nobody_busy(
    serve: Serve, exporter: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, _: failures.append(where))
    provider = serve()
    monkeypatch.setattr(Worker, "waiting", MANY)
    monkeypatch.setattr("otel_sentry_asgi._pipeline.LONG_SLICE", 0.0)
    monkeypatch.setattr(pipeline(), "_can_send", lambda: 1 / 0)
    for _ in range(10):
        with provider.get_tracer("shop").start_as_current_span("order"):
            pass
    assert provider.force_flush()
    assert len(exporter.transactions) == 10
    assert set(failures) == {"backpressure"}
    pressure = pipeline()._decisions.pressure
    pressure.factor, pressure._fall_at = 1, 0.0
    due = pipeline()._turn([], False)
    assert due is not None
    assert due > time.monotonic()


def test_a_forked_child_begins_without(serve: Serve) -> None:
    serve()
    bridge = active()
    assert bridge is not None
    bridge.decisions.pressure.factor = 3
    bridge.begin_in_child()
    assert bridge.decisions.pressure.factor == 0


# -- pauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "wanted", "pauses"), [(MANY, True, 1), (MANY, False, 0), (MANY - 1, True, 0)]
)
def test_with_much_to_do_the_worker_leaves_the_lock_to_who_wants_it_for_a_while(
    waiting: int, wanted: bool, pauses: int, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    subject, now, slept = pipeline(), [1.0], list[float]()
    subject.force_flush(10.0)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds + (0.001 if wanted else 0.00001)

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(Worker, "waiting", waiting)
    monkeypatch.setattr("otel_sentry_asgi._pipeline.time", clock)
    subject._slice_ends = 0.0
    subject._breathe()
    assert slept == [0, *[0.004] * pauses]
