"""The other leg gets its own, cleaned copies; what the application made is not touched."""

import warnings
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otel_sentry_asgi import Settings, _guard
from otel_sentry_asgi.cleaning import CleaningLogExporter, CleaningSpanExporter, clean_span
from otel_sentry_asgi.testing import span_context
from tests.policies import OPEN, PRIVATE

RESOURCE = Resource(
    {"service.name": "shop", "process.command_args": "pw", "service.instance.id": "5"}
)


class Legs:
    """A provider with two legs: as it is, and cleaned."""

    def __init__(self, **given: Any) -> None:
        self.provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False, **given)
        self.raw, self.clean = InMemorySpanExporter(), InMemorySpanExporter()
        self.cleaning = CleaningSpanExporter(self.clean)
        self.provider.add_span_processor(SimpleSpanProcessor(self.cleaning))
        self.provider.add_span_processor(SimpleSpanProcessor(self.raw))

    def record(self) -> tuple[ReadableSpan, ReadableSpan]:
        link = Link(span_context(9, 9), {"my.token": "bob", "n": 1})
        with self.provider.get_tracer("shop", "1").start_as_current_span(
            "GET https://bob:pw@h/p?token=bob",
            kind=SpanKind.SERVER,
            attributes={
                "user.id": "bob",
                "net.peer.ip": "bob",
                "url.full": "https://bob:pw@h/p?token=bob&q=1",
                "http.request.header.x_forwarded_for": ("bob",),
                "db.statement": "SELECT 'bob'",
                "n": 1,
            },
            links=[link],
        ) as span:
            span.add_event("login", {"password": "bob", "n": 1}, timestamp=5)
            span.record_exception(ValueError("for bob"))
            span.set_status(Status(StatusCode.ERROR, "for bob"))
        (raw,), (clean,) = self.raw.get_finished_spans(), self.clean.get_finished_spans()
        return raw, clean


def test_a_span_is_cleaned_in_every_part_and_its_original_is_not_touched() -> None:
    raw, clean = Legs().record()

    assert raw.to_json().count("bob") > 9
    assert "bob" not in clean.to_json()
    assert clean.name == "GET https://h/p"
    assert dict(clean.attributes or {}) == {
        "url.full": "https://h/p?token=[Filtered]&q=1",
        "http.request.header.x_forwarded_for": "[Filtered]",
        "db.statement": "SELECT ?",
        "n": 1,
    }
    assert dict(clean.events[0].attributes or {}) == {"password": "[Filtered]", "n": 1}
    assert dict(clean.events[1].attributes or {})["exception.type"] == "ValueError"
    assert dict(clean.links[0].attributes or {}) == {"my.token": "[Filtered]", "n": 1}
    assert dict(clean.resource.attributes) == {"service.name": "shop", "service.instance.id": "5"}


def test_all_that_is_not_private_is_the_same() -> None:
    raw, clean = Legs().record()
    for name in ("context", "parent", "kind", "start_time", "end_time", "instrumentation_scope"):
        assert getattr(clean, name) == getattr(raw, name)
    assert clean.status.status_code is StatusCode.ERROR
    assert [event.timestamp for event in clean.events] == [event.timestamp for event in raw.events]
    assert clean.links[0].context == raw.links[0].context


def test_what_limits_have_dropped_stays_counted() -> None:
    legs = Legs(span_limits=SpanLimits(max_attributes=1, max_events=1, max_links=0))
    raw, clean = legs.record()
    for name in ("dropped_attributes", "dropped_events", "dropped_links"):
        assert getattr(clean, name) == getattr(raw, name) > 0


def test_with_personal_data_stack_traces_stay_without_credentials_of_urls() -> None:
    legs = Legs()
    with (
        pytest.raises(ValueError, match="no"),
        legs.provider.get_tracer("a").start_as_current_span("work"),
    ):
        raise ValueError("no https://bob:pw@h/")
    (raw,) = legs.raw.get_finished_spans()
    (event,) = clean_span(raw, OPEN).events
    assert "Traceback" in str((event.attributes or {})["exception.stacktrace"])
    assert "bob" not in str((event.attributes or {})["exception.stacktrace"])
    (event,) = clean_span(raw, PRIVATE).events
    assert set(event.attributes or {}) == {"exception.type", "exception.escaped"}


def test_the_policy_is_that_of_the_client_of_the_moment() -> None:
    legs = Legs()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            sentry_sdk.init(send_default_pii=True)
        _, open_ = legs.record()
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    assert (open_.attributes or {})["user.id"] == "bob"
    legs.raw.clear()
    legs.clean.clear()
    _, private = legs.record()
    assert "user.id" not in (private.attributes or {})


def test_settings_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    settings = Settings(attribute_actions={"user.id": "hash", "n": "drop"}, hash_key="k")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(CleaningSpanExporter(exporter, settings)))
    for name in ("bob", "bob", "ann"):
        provider.get_tracer("a").start_span("a", attributes={"user.id": name, "n": 1}).end()
    one, two, three = [span.attributes or {} for span in exporter.get_finished_spans()]
    assert one == two != three
    assert str(one["user.id"]).startswith("hmac:")
    assert set(one) == {"user.id"}


def test_a_span_that_cannot_be_cleaned_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: seen.append(where))
    exporter = InMemorySpanExporter()
    good = Legs().record()[0]
    result = CleaningSpanExporter(exporter).export([object(), good])  # type: ignore[list-item]
    assert result is SpanExportResult.SUCCESS
    assert len(exporter.get_finished_spans()) == 1
    assert seen == ["cleaning"]


def test_flush_and_shutdown_are_handed_on() -> None:
    legs = Legs()
    assert legs.cleaning.force_flush(5)
    legs.cleaning.shutdown()
    assert legs.clean.export(()) is SpanExportResult.FAILURE


class Records:
    """A log exporter that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def export(self, batch: Any) -> None:
        self.got.extend(batch)

    def shutdown(self) -> None:
        self.got.clear()


def test_bytes_and_names_of_events_are_cleaned_like_texts() -> None:
    records = Records()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(CleaningLogExporter(records)))
    attributes: Any = {
        "http.url": b"https://bob:pw@h/?token=bob",
        "http.request.header.x": [b"https://bob:pw@h/"],
        "nested": {"urls": [[b"https://bob:pw@h/"]]},
        "db.system": "postgresql",
        "db.statement": b"SELECT 'bob'",
        "blob": b"\xff\x00",
    }
    given = {"body": {"url": b"https://bob:pw@h/"}, "attributes": attributes}
    logger = provider.get_logger("shop")
    logger.emit(event_name="login https://bob:pw@h/?token=bob", **given)
    logger.emit(body=b"bob")
    first, second = [one.log_record for one in records.got]
    assert first.event_name == "login https://h/"
    assert first.body == {"url": "https://[Filtered]@h/"}
    assert dict(first.attributes) == {
        "http.url": "https://h/?token=[Filtered]",
        "http.request.header.x": ("https://[Filtered]@h/",),
        "nested": {"urls": (("https://[Filtered]@h/",),)},
        "db.system": "postgresql",
        "db.statement": "SELECT ?",
        "blob": b"\xff\x00",
    }
    assert second.body == "[Filtered]"


def test_what_is_said_to_a_model_leaves_in_no_log() -> None:
    records = Records()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(CleaningLogExporter(records)))
    said: Any = {"body": {"content": "I am Bob"}, "attributes": {"gen_ai.system": "x"}}
    logger = provider.get_logger("shop")
    logger.emit(event_name="gen_ai.user.message", **said)
    logger.emit(event_name="shop.user.message", **said)
    first, second = [one.log_record for one in records.got]
    assert (first.body, second.body) == ("[Filtered]", {"content": "I am Bob"})


def test_log_records_are_cleaned_in_copies() -> None:
    raw, clean = Records(), Records()
    provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    wrapper = CleaningLogExporter(clean)
    provider.add_log_record_processor(SimpleLogRecordProcessor(wrapper))
    provider.add_log_record_processor(SimpleLogRecordProcessor(raw))  # type: ignore[arg-type]
    logger = provider.get_logger("shop")
    attributes: Any = {"user.id": "bob", "n": 1, "nested": {"token": "bob", "n": [{"pwd": "bob"}]}}
    logger.emit(
        body="no postgresql://bob:pw@db", attributes=attributes, severity_text="ERROR", timestamp=5
    )
    logger.emit(body={"password": "bob", "n": 1})

    assert "bob" in str([one.log_record.body for one in raw.got])
    first, second = clean.got
    assert first.log_record.body == "no postgresql://[Filtered]@db"
    assert dict(first.log_record.attributes) == {
        "n": 1,
        "nested": {"token": "[Filtered]", "n": ({"pwd": "[Filtered]"},)},
    }
    assert (first.log_record.timestamp, first.log_record.severity_text) == (5, "ERROR")
    assert second.log_record.body == {"password": "[Filtered]", "n": 1}
    assert first.instrumentation_scope == raw.got[0].instrumentation_scope
    assert "pw" not in str(dict(first.resource.attributes))
    assert dict(raw.got[0].log_record.attributes)["user.id"] == "bob"
    assert wrapper.force_flush()
    wrapper.shutdown()
    assert clean.got == []
