"""What is noise, and what is not."""

import re
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi import Settings
from otel_sentry_asgi._ids import span_hex
from otel_sentry_asgi._noise import Noise, adopt
from otel_sentry_asgi._settings import SettingsError
from otel_sentry_asgi._translate.reading import Reading
from otel_sentry_asgi._translate.segment import RequestFacts
from otel_sentry_asgi.testing import span, span_context

DEFAULT = Noise(paths=Settings().ignored_paths, methods=Settings().ignored_methods)


def server(path: str = "/orders", method: str = "GET", more: Any = None) -> ReadableSpan:
    given = {"url.path": path, "http.request.method": method, **(more or {})}
    return span(f"{method} {path}", kind=SpanKind.SERVER, attributes=given)


def old(path: str, method: str) -> ReadableSpan:
    given = {"http.target": path, "http.method": method}
    return span(kind=SpanKind.SERVER, attributes=given)


def has(noise: Noise, root: ReadableSpan, facts: RequestFacts) -> bool:
    return noise.has_segment(root, facts, Reading(root).data)


@pytest.mark.parametrize("path", ["/health", "/api/healthz", "/static/app.js", "/favicon.ico"])
def test_health_checks_and_static_files_are_noise(path: str) -> None:
    assert has(DEFAULT, server(path), RequestFacts())
    assert has(DEFAULT, old(path, "GET"), RequestFacts())


@pytest.mark.parametrize("path", ["/orders", "/healthy-food", "/health/report", "/js", "/"])
def test_the_rest_is_not(path: str) -> None:
    assert not has(DEFAULT, server(path), RequestFacts())


def test_a_route_with_parameters_counts_in_place_of_the_path() -> None:
    facts = RequestFacts(route="/files/{name}")
    assert not has(DEFAULT, server("/files/app.js"), facts)
    assert has(Noise(paths=("/files/*",)), server("/files/app.js"), facts)
    assert has(DEFAULT, server("/acme/health"), RequestFacts(route="/{tenant}/health"))


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_methods_that_ask_for_nothing_are_noise(method: str) -> None:
    assert has(DEFAULT, server(method=method), RequestFacts())
    assert has(DEFAULT, old("/orders", method), RequestFacts())


def test_statuses_by_the_response_or_by_the_span() -> None:
    noise = Noise(statuses={404})
    assert has(noise, server(), RequestFacts(status_code=404))
    assert has(noise, server(more={"http.response.status_code": 404}), RequestFacts())
    assert not has(noise, server(), RequestFacts(status_code=200))


def test_what_only_looks_like_a_request_is_none() -> None:
    attributes = {"url.path": "/health", "http.request.method": "HEAD"}
    assert not has(DEFAULT, span(attributes=attributes), RequestFacts())


def test_outgoing_calls_with_nothing_above_them() -> None:
    noise = Noise(orphan_clients=True)
    remote = span_context(9, is_remote=True)
    assert has(noise, span(kind=SpanKind.CLIENT), RequestFacts())
    assert has(noise, span(kind=SpanKind.CLIENT, parent=remote), RequestFacts())
    assert not has(noise, span(kind=SpanKind.CLIENT, parent=9), RequestFacts())
    assert not has(noise, span(kind=SpanKind.INTERNAL), RequestFacts())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("work", True),
        ("wor", False),
        (re.compile("w.*"), True),
        (re.compile("w"), False),
        ({"name": "work"}, True),
        ({"attributes": {"kind": "poll"}}, True),
        ({"attributes": {"kind": re.compile("p.*")}}, True),
        ({"attributes": {"kind": "poll", "more": 1}}, False),
        ({"name": "other", "attributes": {"kind": "poll"}}, False),
        ({"attributes": {"number": re.compile("1")}}, False),
    ],
    ids=str,
)
def test_rules_match_as_those_of_sentry_sdk(rule: Any, expected: bool) -> None:
    made = span("work", attributes={"kind": "poll", "number": 1})
    assert has(Noise(spans=(rule,)), made, RequestFacts()) is expected


def test_a_rule_may_give_the_name_that_sentry_shows() -> None:
    noise = Noise(spans=("GET /orders/{id}",))
    assert has(noise, server("/orders/7"), RequestFacts(route="/orders/{id}"))


def test_children_of_ignored_spans_hang_below_the_next_that_is_sent() -> None:
    noise = Noise(spans=("poll",))
    spans = [
        span("a", span_id=2, parent=1),
        span("poll", span_id=3, parent=2),
        span("poll", span_id=4, parent=3),
        span("b", span_id=5, parent=4),
    ]
    kept, ignored = noise.split(spans)
    assert [one.name for one in kept] == ["a", "b"]
    payloads: Any = [{"parent_span_id": span_hex(one.parent.span_id)} for one in kept if one.parent]
    adopt(payloads, ignored)
    assert payloads == [{"parent_span_id": span_hex(1)}, {"parent_span_id": span_hex(2)}]


def test_ignored_spans_in_a_ring_have_an_end() -> None:
    payloads: Any = [{"parent_span_id": "a"}]
    adopt(payloads, {"a": "b", "b": "a"})
    assert payloads == [{"parent_span_id": "a"}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ignore_spans", "work"),
        ("ignore_spans", [1]),
        ("ignore_spans", [{}]),
        ("ignore_spans", [{"nmae": "work"}]),
        ("ignored_paths", [""]),
        ("ignored_methods", [None]),
        ("trace_ignore_status_codes", [4]),
        ("ignore_orphan_clients", 1),
    ],
)
def test_settings_that_cannot_be_used(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings(**{name: value})


def test_settings_from_the_environment() -> None:
    settings = Settings.from_env(
        {
            "OTEL_SENTRY_IGNORED_PATHS": "/up, /internal/*",
            "OTEL_SENTRY_IGNORED_METHODS": "trace",
            "OTEL_SENTRY_TRACE_IGNORE_STATUS_CODES": "404,300-302",
            "OTEL_SENTRY_IGNORE_SPANS": "poll",
            "OTEL_SENTRY_IGNORE_ORPHAN_CLIENTS": "no",
        }
    )
    assert settings.ignored_paths == ("/up", "/internal/*")
    assert settings.ignored_methods == ("TRACE",)
    assert settings.trace_ignore_status_codes == {300, 301, 302, 404}
    assert settings.ignore_spans == ("poll",)
    assert settings.ignore_orphan_clients is False
