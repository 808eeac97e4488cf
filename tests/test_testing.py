"""The public test tools do what they say."""

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi.export import Exporter, Origin
from otel_sentry_asgi.sampling import sample_rand
from otel_sentry_asgi.testing import (
    EPOCH,
    CountingIds,
    HandClock,
    RecordingExporter,
    span,
    span_context,
)

NANOSECONDS = 1_000_000_000


def test_a_hand_clock_stands_still_until_told() -> None:
    clock = HandClock()
    assert [clock(), clock()] == [0.0, 0.0]
    assert clock.advance(1.5) == clock() == clock.now == 1.5
    assert HandClock(7.0)() == 7.0


def test_ids_count_from_one() -> None:
    ids = CountingIds()
    assert [ids.generate_trace_id(), ids.generate_trace_id()] == [1, 2]
    assert [ids.generate_span_id(), ids.generate_span_id()] == [1, 2]
    assert sample_rand(1_000_000) == 0.0


def test_a_provider_takes_counting_ids() -> None:
    tracer = TracerProvider(id_generator=CountingIds()).get_tracer("test")
    with tracer.start_as_current_span("a"), tracer.start_as_current_span("b") as inner:
        assert (inner.get_span_context().trace_id, inner.get_span_context().span_id) == (1, 2)


def test_an_exporter_that_records_is_an_exporter() -> None:
    exporter = RecordingExporter()
    assert isinstance(exporter, Exporter)
    clean, origin = Policy().clean({"type": "transaction"}), Origin()
    exporter.export(clean, origin)
    assert exporter.exported == [(clean, origin)]
    assert exporter.transactions == [{"type": "transaction"}]
    assert exporter.force_flush(1.0)
    assert exporter.flushes == 1
    assert not exporter.is_shut_down
    exporter.shutdown()
    assert exporter.is_shut_down


def test_a_span_has_ended_and_is_a_root_by_default() -> None:
    made = span()
    assert made.name == "span"
    assert made.context == span_context(1, 1)
    assert made.context.trace_flags.sampled
    assert made.parent is None
    assert made.start_time == EPOCH * NANOSECONDS
    assert made.end_time == (EPOCH + 1) * NANOSECONDS
    assert made.kind is SpanKind.INTERNAL
    assert made.status.status_code is StatusCode.UNSET
    assert dict(made.attributes or {}) == {}
    assert made.resource.attributes == {}
    assert made.instrumentation_scope is None


def test_everything_about_a_span_can_be_chosen() -> None:
    link, resource = Link(span_context(9)), Resource({"service.name": "shop"})
    scope = InstrumentationScope("shop", "1.0")
    made = span(
        "work",
        span_id=2,
        trace_id=3,
        parent=1,
        start=0.25,
        end=0.5,
        kind=SpanKind.CLIENT,
        attributes={"a": 1},
        status=Status(StatusCode.ERROR, "broken"),
        links=[link],
        resource=resource,
        scope=scope,
    )
    assert made.name == "work"
    assert made.context == span_context(2, 3)
    assert made.parent == span_context(1, 3)
    assert made.start_time == EPOCH * NANOSECONDS + 250_000_000
    assert made.end_time == EPOCH * NANOSECONDS + 500_000_000
    assert made.kind is SpanKind.CLIENT
    assert dict(made.attributes or {}) == {"a": 1}
    assert made.status.description == "broken"
    assert list(made.links) == [link]
    assert made.resource is resource
    assert made.instrumentation_scope == scope


def test_a_parent_may_be_an_id_a_context_or_a_span() -> None:
    remote = span_context(9, 1, is_remote=True)
    cases: list[tuple[Any, Any]] = [
        (9, span_context(9)),
        (remote, remote),
        (span(), span().context),
    ]
    for given, expected in cases:
        assert span(span_id=2, parent=given).parent == expected


def test_status_and_scope_may_be_short() -> None:
    made = span(status=StatusCode.OK, scope="shop")
    assert made.status.is_ok
    assert made.instrumentation_scope == InstrumentationScope("shop")


def test_a_context_can_be_unsampled() -> None:
    assert not span_context(sampled=False).trace_flags.sampled
