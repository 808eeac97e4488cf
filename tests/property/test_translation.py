"""Translation takes whatever OTel does, and Relay takes whatever translation makes."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi import _semconv
from otel_sentry_asgi._semconv import RENAMED
from otel_sentry_asgi._translate.attributes import MAX_ITEMS, to_current, to_json_values
from otel_sentry_asgi._translate.naming import to_description, to_name
from otel_sentry_asgi._translate.reading import Reading
from otel_sentry_asgi._translate.request import (
    merged_headers,
    parse_cookies,
    route_in,
    to_request,
)
from otel_sentry_asgi._translate.resource import resource_defaults
from otel_sentry_asgi._translate.routes import best_template, template_of
from otel_sentry_asgi._translate.segment import RequestFacts, to_transaction
from otel_sentry_asgi._translate.text import MAX_TEXT, to_text
from otel_sentry_asgi._translate.urls import client_url, path_of
from otel_sentry_asgi.testing import span
from tests.payload import encoded, problems
from tests.policies import PRIVATE
from tests.property.strategies import (
    ANY_TEXT,
    ATTRIBUTES,
    HEADERS,
    SCOPES,
    TEXT,
    VALUES,
    facts,
    spans,
)


def current(attributes: dict[str, Any], *, on_server: bool = False) -> dict[str, Any]:
    return to_current(attributes, [], on_server=on_server)


@given(
    root=spans(),
    children=st.lists(st.integers(2, 9).flatmap(lambda i: spans(span_id=i, parent=1)), max_size=3),
    known=facts(),
    late=st.booleans(),
)
@limits(max_examples=150)
def test_every_transaction_is_accepted_by_relay_as_it_is(
    root: ReadableSpan, children: list[ReadableSpan], known: RequestFacts, late: bool
) -> None:
    transaction = to_transaction(root, children, event_id="e" * 32, facts=known, late=late)
    cleaned: Any = PRIVATE.clean(transaction).payload
    assert problems({**cleaned, **resource_defaults(root.resource)}) == []


@given(attributes=ATTRIBUTES)
def test_every_attribute_becomes_a_value_that_json_takes_and_that_has_an_end(
    attributes: dict[str, Any],
) -> None:
    values = to_json_values(attributes)
    encoded(values)
    for value in values.values():
        assert value is not None
        assert isinstance(value, (str, bool, int, float, list))
        assert len(value if isinstance(value, (str, list)) else "") <= MAX_TEXT


@given(value=VALUES)
def test_what_is_nested_comes_out_flat_and_bounded(value: Any) -> None:
    values = to_json_values({"k": value})
    assert len(values) <= MAX_ITEMS
    assert all(key == "k" or key.startswith("k.") for key in values)


# -- names ----------------------------------------------------------------------------------------

_HTTP = """
    http.method http.request.method http.target url.path http.url url.full http.route url.template
    http.scheme url.scheme server.address http.host net.peer.name
"""
HTTP = st.fixed_dictionaries({}, optional=dict.fromkeys(_HTTP.split(), TEXT))


@given(name=TEXT, attributes=HTTP, route=st.one_of(st.none(), TEXT), websocket=st.booleans())
def test_names_of_server_spans_have_no_query_or_fragment(
    name: str, attributes: dict[str, str], route: str | None, websocket: bool
) -> None:
    """Of those, that is, that are named by what was requested and not by the application."""
    made = span(name, kind=SpanKind.SERVER, attributes=attributes)
    named, source = to_name(Reading(made, websocket=websocket), routes=[route])
    if source != "custom":
        assert not {"?", "#"} & set(named)


@given(attributes=HTTP)
def test_urls_of_outgoing_requests_have_no_query_fragment_or_credentials(
    attributes: dict[str, str],
) -> None:
    made = span("own name", kind=SpanKind.CLIENT, attributes=attributes)
    for text in (client_url(current(attributes)), to_description(Reading(made))):
        authority, _, path = (text or "").partition("://")[2].partition("/")
        assert "@" not in authority
        assert not {"?", "#"} & set(authority + path)


@given(user=st.text("abc?#@:", min_size=1), path=TEXT)
def test_credentials_never_get_into_a_name(user: str, path: str) -> None:
    url = f"https://{user}-secret-@h/{path}"
    for kind in SpanKind:
        for name in ("http.url", "url.full", "http.target", "url.path"):
            attributes = {"http.method": "GET", name: url}
            made = span("GET", kind=kind, attributes=attributes)
            transaction = to_transaction(made, [made], event_id="e" * 32)
            cleaned = PRIVATE.clean(transaction).payload
            assert "-secret-" not in cleaned["transaction"]
            assert "-secret-" not in cleaned["spans"][0]["description"]


@given(url=TEXT)
def test_a_path_has_no_query_or_fragment(url: str) -> None:
    for name in ("url.path", "http.target", "url.full", "http.url"):
        assert not {"?", "#"} & set(path_of(current({name: url})) or "")


@given(route=TEXT, path=st.one_of(st.none(), TEXT))
def test_a_template_is_a_path(route: str, path: str | None) -> None:
    template = template_of(route, path)
    assert template is None or (template.startswith("/") and not {"?", "#"} & set(template))


# -- the ASGI scope -------------------------------------------------------------------------------


@given(scope=SCOPES)
def test_every_scope_gives_a_request(scope: dict[str, Any]) -> None:
    request = to_request(scope)
    encoded(request["url"])
    route = route_in(scope)
    assert route is None or isinstance(route, str)


@given(scope=st.fixed_dictionaries({"headers": HEADERS}))
def test_no_header_is_lost(scope: dict[str, Any]) -> None:
    merged = merged_headers(scope)
    for name, value in scope["headers"]:
        assert value.decode("latin-1") in merged[name.decode("latin-1").lower()]


PLAIN = st.text(
    st.characters(
        exclude_characters=";= \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0", max_codepoint=255
    ),
    min_size=1,
)


@given(cookies=st.dictionaries(PLAIN, PLAIN))
def test_cookies_are_read_as_they_were_written(cookies: dict[str, str]) -> None:
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert dict(parse_cookies(header)) == cookies


@given(header=ANY_TEXT)
def test_any_text_may_stand_in_a_cookie_header(header: str) -> None:
    assert all(name for name, _ in parse_cookies(header))


@given(attributes=ATTRIBUTES)
def test_any_resource_gives_defaults(attributes: dict[str, Any]) -> None:
    encoded(resource_defaults(Resource(attributes)))


@given(
    templates=st.lists(TEXT.filter(bool), max_size=3),
    path=st.one_of(st.none(), TEXT),
    root_path=st.sampled_from(["", "/root"]),
)
def test_the_best_template_is_one_of_those_given(
    templates: list[str], path: str | None, root_path: str
) -> None:
    best = best_template(templates, path, root_path)
    assert best in [*templates, *(f"{root_path}{one}" for one in templates)] or not templates


@given(attributes=ATTRIBUTES)
def test_no_old_name_is_left_and_no_fact_is_lost(attributes: dict[str, Any]) -> None:
    plain = {key: value for key, value in attributes.items() if isinstance(value, (int, float))}
    own: list[tuple[str, Any]] = []
    data = to_current(plain, own, on_server=False)
    assert not set(data) & (RENAMED.keys() | {"http.target"})
    kept = {*data, *(name for name, _ in own)}
    for key in plain:
        assert key == "http.target" or to_text(RENAMED.get(key, key)) in kept


@example(attributes={"sentry.measurement.a": {"0": ""}}, on_server=False)
@given(attributes=ATTRIBUTES, on_server=st.booleans())
def test_names_that_are_current_stay(attributes: dict[str, Any], on_server: bool) -> None:
    once = current(attributes, on_server=on_server)
    assert current(once, on_server=on_server) == once


KNOWN = sorted(
    name
    for names in vars(_semconv).values()
    for name in ([names] if isinstance(names, str) else names if isinstance(names, tuple) else ())
    if isinstance(name, str) and "." in name
)
ODD: list[Any] = [["a", "b"], (1, 2), {"a": 1}, b"bytes", None, True, 1.5, 1 << 70, ""]


@pytest.mark.parametrize("kind", SpanKind)
def test_any_known_attribute_may_have_any_value(kind: SpanKind) -> None:
    """Alone, and beside one that says what the span is about."""
    about: list[dict[str, Any]] = [
        {},
        {"http.request.method": "GET"},
        {"db.system.name": "redis"},
        {"messaging.system": "kafka"},
        {"rpc.system": "grpc"},
    ]
    for name in KNOWN:
        for odd in ODD:
            for beside in about:
                root = span("odd", kind=kind, attributes={**beside, name: odd})
                to_transaction(root, [to_child(root)], event_id="0" * 32)


def to_child(root: ReadableSpan) -> ReadableSpan:
    return span(
        "odd", span_id=2, parent=root, kind=root.kind, attributes=dict(root.attributes or {})
    )
