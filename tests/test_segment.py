"""A segment as a transaction: name, follow-ups, response, what the resource says."""

from typing import Any
from urllib.parse import unquote

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otel_sentry_asgi._model import Transaction
from otel_sentry_asgi._translate.events import MAX_CRUMBS
from otel_sentry_asgi._translate.resource import resource_contexts, resource_defaults
from otel_sentry_asgi._translate.segment import (
    MAX_NAME,
    PARENT_ALREADY_SENT,
    RequestFacts,
    to_transaction,
    transaction_name,
)
from otel_sentry_asgi.testing import EPOCH, span, span_context
from tests.payload import problems
from tests.policies import PRIVATE

SERVER, CLIENT, INTERNAL = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL
HTTP = {"http.method": "GET", "http.target": "/items/5", "http.scheme": "http"}


def server(**given: Any) -> Any:
    attributes = {**HTTP, **given.pop("attributes", {})}
    return span(**{"name": "GET /items/5", "kind": SERVER, "attributes": attributes, **given})


def transaction(root: Any, *children: Any, **given: Any) -> Transaction:
    made = to_transaction(root, children, event_id="e" * 32, **given)
    assert problems(made) == []
    return made


@pytest.mark.parametrize("sign", ["%26", "%3b", "%3D", "%23", "%3f"])
def test_a_parameter_with_an_encoded_sign_is_filtered_whole(sign: str) -> None:
    """OTel's ASGI middleware decodes the query before anybody can see where values end."""
    query = f"password=ab{sign}rest&q=1"
    attributes = {
        "http.url": f"http://h/items/5?{unquote(query)}",
        "url.query": unquote(query),
    }
    facts = RequestFacts(request={"url": "http://h/items/5", "query_string": query})
    made: Any = PRIVATE.clean(transaction(server(attributes=attributes), facts=facts)).payload
    data = made["contexts"]["trace"]["data"]
    assert data["url.full"] == "http://h/items/5?password=[Filtered]&q=1"
    assert data["url.query"] == made["request"]["query_string"] == "password=[Filtered]&q=1"


def test_what_is_not_the_request_keeps_its_own_query() -> None:
    facts = RequestFacts(request={"url": "http://h/items/5", "query_string": "a=%26"})
    root = server(attributes={"http.url": "http://h/items/5"})
    assert transaction(root, facts=facts)["contexts"]["trace"]["data"]["url.full"] == (
        "http://h/items/5"
    )
    for kind, late in ((CLIENT, False), (SERVER, True)):
        root = server(kind=kind, attributes={"http.url": "http://h/?b=1"})
        made = transaction(root, facts=facts, late=late)
        assert made["contexts"]["trace"]["data"]["url.full"] == "http://h/?b=1"


def test_a_whole_transaction() -> None:
    root = server(
        span_id=1,
        trace_id=0xA,
        parent=span_context(9, 0xA, is_remote=True),
        attributes={"http.status_code": 200, "http.response_content_length": 12},
        scope="opentelemetry.instrumentation.asgi",
        resource=Resource({"service.name": "shop"}),
        links=[Link(span_context(7, 6))],
    )
    child = span("work", span_id=2, trace_id=0xA, parent=root, start=0.25, end=0.5)
    facts = RequestFacts(request={"url": "http://h/items/5"}, route="/items/{id}")
    dsc = {"trace_id": "0" * 31 + "a", "public_key": "public"}
    made = transaction(root, child, facts=facts, sampling_context=dsc)
    assert made == {
        "type": "transaction",
        "event_id": "e" * 32,
        "platform": "python",
        "transaction": "GET /items/{id}",
        "transaction_info": {"source": "route"},
        "start_timestamp": EPOCH,
        "timestamp": EPOCH + 1,
        "contexts": {
            "trace": {
                "trace_id": "0" * 31 + "a",
                "span_id": "0" * 15 + "1",
                "parent_span_id": "0" * 15 + "9",
                "op": "http.server",
                "status": "ok",
                "origin": "auto.http.otel.asgi",
                "data": {
                    "http.request.method": "GET",
                    "url.path": "/items/5",
                    "url.scheme": "http",
                    "http.response.status_code": 200,
                    "http.response.body.size": 12,
                    "sentry.kind": "server",
                    "otel.scope.name": "opentelemetry.instrumentation.asgi",
                },
                "links": [
                    {
                        "trace_id": "0" * 31 + "6",
                        "span_id": "0" * 15 + "7",
                        "sampled": True,
                    }
                ],
                "dynamic_sampling_context": {**dsc, "transaction": "GET /items/{id}"},
            },
            "response": {"status_code": 200, "body_size": 12},
            "otel": {"resource": {"service.name": "shop"}},
        },
        "spans": [
            {
                "trace_id": "0" * 31 + "a",
                "span_id": "0" * 15 + "2",
                "parent_span_id": "0" * 15 + "1",
                "description": "work",
                "status": "ok",
                "origin": "manual",
                "start_timestamp": EPOCH + 0.25,
                "timestamp": EPOCH + 0.5,
                "data": {},
            }
        ],
        "request": {"url": "http://h/items/5"},
    }


def test_a_root_that_nothing_is_known_of_is_a_function() -> None:
    made = transaction(span("job"))
    assert made["transaction"] == "job"
    assert made["transaction_info"] == {"source": "custom"}
    assert made["contexts"].keys() == {"trace"}
    assert made["contexts"]["trace"]["op"] == "function"
    assert made["spans"] == []
    assert "request" not in made


def test_children_stand_in_the_order_of_their_start() -> None:
    children = [span(span_id=number, parent=1, start=10 - number) for number in (2, 3, 4)]
    spans = transaction(server(), *children)["spans"]
    assert [payload["span_id"][-1] for payload in spans] == ["4", "3", "2"]


def test_a_child_without_a_parent_hangs_below_the_root() -> None:
    [payload] = transaction(server(span_id=0xA), span(span_id=2))["spans"]
    assert payload["parent_span_id"] == "000000000000000a"


def test_a_root_that_ends_before_it_starts_ends_when_it_starts() -> None:
    made = transaction(span(start=5, end=3))
    assert made["start_timestamp"] == made["timestamp"] == EPOCH + 5


@pytest.mark.parametrize("start", [-2.0 * EPOCH, 1e12, 1e20])
def test_a_child_with_an_absurd_time_does_not_cost_the_transaction(start: float) -> None:
    transaction(server(), span(span_id=2, parent=1, start=start, end=start))
    transaction(server(), span(span_id=2, parent=1, start=0, end=start))


def test_a_child_may_end_after_the_root() -> None:
    transaction(server(end=1), span(span_id=2, parent=1, start=0.5, end=5))


def test_a_child_that_starts_before_the_root_or_in_the_future_keeps_its_times() -> None:
    """The clock of the machine has been set: what OTel measured is told as it is."""
    early = span(span_id=2, parent=1, start=-30, end=0.5)
    future = span(span_id=3, parent=1, start=3_600, end=3_601)
    made = transaction(server(end=1), early, future)
    times = [(one["start_timestamp"], one["timestamp"]) for one in made["spans"]]
    assert times == [(EPOCH - 30, EPOCH + 0.5), (EPOCH + 3_600, EPOCH + 3_601)]
    assert (made["start_timestamp"], made["timestamp"]) == (EPOCH, EPOCH + 1)


# -- names ----------------------------------------------------------------------------------------


def test_the_route_of_a_nested_server_span_names_a_root_that_has_none() -> None:
    nested = server(span_id=2, parent=1, attributes={"http.route": "/items/{id}"})
    assert transaction_name(server(), [span(span_id=3, parent=2), nested]) == (
        "GET /items/{id}",
        "route",
    )


def test_the_innermost_server_span_wins_over_the_scope_and_the_root_over_both() -> None:
    nested = server(span_id=2, parent=1, attributes={"http.route": "/nested/{id}"})
    facts = RequestFacts(route="/scope/{id}")
    assert transaction_name(server(), [nested], facts=facts)[0] == "GET /nested/{id}"
    assert transaction_name(server(), [server(span_id=2)], facts=facts)[0] == "GET /scope/{id}"
    root = server(attributes={"http.route": "/outer/{id}"})
    assert transaction_name(root, [nested], facts=facts)[0] == "GET /outer/{id}"


def test_a_nested_route_that_is_really_a_path_is_no_route() -> None:
    nested = server(span_id=2, parent=1, attributes={"http.route": "GET /items/5"})
    assert transaction_name(server(), [nested]) == ("GET /items/5", "url")


def test_the_route_of_a_nested_client_span_is_none_of_ours() -> None:
    nested = span(span_id=2, parent=1, kind=CLIENT, attributes={"http.route": "/theirs/{id}"})
    assert transaction_name(server(), [nested]) == ("GET /items/5", "url")


def test_a_name_has_the_length_that_relay_takes() -> None:
    made = transaction(span("x" * 1_000))
    assert made["transaction"] == "x" * MAX_NAME


@pytest.mark.parametrize(("name", "expected"), [("", "span"), ("\ud800", "?")])
def test_every_transaction_has_a_name_that_can_be_encoded(name: str, expected: str) -> None:
    assert transaction(span(name))["transaction"] == expected


@pytest.mark.parametrize("kind", SpanKind)
@pytest.mark.parametrize(("given", "expected"), [(None, "span"), (5, "5")])
def test_otel_takes_anything_for_a_name(kind: SpanKind, given: Any, expected: str) -> None:
    scope = InstrumentationScope(given, given)
    root = span(given, kind=kind, scope=scope)
    made = transaction(root, span(given, span_id=2, parent=1, kind=kind, scope=scope))
    assert made["transaction"] == expected


def test_a_raw_path_does_not_get_into_the_sampling_context() -> None:
    dsc = {"public_key": "public"}
    made = transaction(server(), sampling_context=dsc)
    assert made["transaction_info"] == {"source": "url"}
    assert made["contexts"]["trace"]["dynamic_sampling_context"] == dsc


def test_a_name_that_came_with_the_sampling_context_stays() -> None:
    dsc = {"public_key": "public", "transaction": "theirs"}
    made = transaction(span("job"), sampling_context=dsc)
    assert made["contexts"]["trace"]["dynamic_sampling_context"] == dsc


def test_the_sampling_context_that_was_given_is_not_changed() -> None:
    dsc = {"public_key": "public"}
    transaction(span("job"), sampling_context=dsc)
    assert dsc == {"public_key": "public"}


# -- what the ASGI layer knows --------------------------------------------------------------------


def test_the_status_that_was_sent_counts_for_a_server_span_that_knows_of_none() -> None:
    made = transaction(server(), facts=RequestFacts(status_code=503))
    assert made["contexts"]["trace"]["status"] == "unavailable"
    assert made["contexts"]["response"] == {"status_code": 503}


def test_the_status_that_the_span_knows_of_wins() -> None:
    root = server(attributes={"http.status_code": 404})
    made = transaction(root, facts=RequestFacts(status_code=500))
    assert made["contexts"]["trace"]["status"] == "not_found"
    assert made["contexts"]["response"] == {"status_code": 404}


def test_a_span_that_failed_after_a_good_response_began_has_failed() -> None:
    root = server(status=Status(StatusCode.ERROR, "ValueError: broken"))
    made = transaction(root, facts=RequestFacts(status_code=200))
    assert made["contexts"]["trace"]["status"] == "internal_error"


def test_a_span_that_says_ok_is_ok() -> None:
    made = transaction(server(status=StatusCode.OK), facts=RequestFacts(status_code=500))
    assert made["contexts"]["trace"]["status"] == "ok"


@pytest.mark.parametrize("kind", [INTERNAL, CLIENT, SpanKind.CONSUMER])
def test_another_root_in_a_request_has_its_request_but_not_its_route_kind_and_status(
    kind: SpanKind,
) -> None:
    facts = RequestFacts(
        request={"url": "ws://h/ws/5"}, route="/ws/{id}", websocket=True, status_code=404
    )
    made = transaction(span("job", kind=kind), facts=facts)
    assert made["transaction"] == "job"
    assert made["request"] == {"url": "ws://h/ws/5"}
    op = "queue.process" if kind is SpanKind.CONSUMER else "function"
    assert made["contexts"]["trace"]["op"] == op
    assert made["contexts"]["trace"]["status"] == "ok"
    assert "response" not in made["contexts"]


def test_a_websocket_has_no_response() -> None:
    root = server(attributes={"http.scheme": "ws", "http.status_code": 101})
    made = transaction(root, facts=RequestFacts(websocket=True, route="/ws/{id}"))
    assert made["transaction"] == "/ws/{id}"
    assert made["contexts"]["trace"]["op"] == "websocket.server"
    assert "response" not in made["contexts"]


@pytest.mark.parametrize("status", [-1, 0, 42, 1_000, 10**30])
@pytest.mark.parametrize("size", [-1, 1 << 63, 10**30])
def test_numbers_that_are_no_status_or_size_are_left_out(status: int, size: int) -> None:
    root = server(attributes={"http.status_code": status, "http.response_content_length": size})
    assert "response" not in transaction(root)["contexts"]


def test_only_server_spans_have_a_response() -> None:
    root = span(kind=CLIENT, attributes={"http.method": "GET", "http.status_code": 200})
    assert "response" not in transaction(root)["contexts"]


# -- follow-ups and losses ------------------------------------------------------------------------


def test_a_follow_up_is_marked_and_hangs_where_its_span_hung() -> None:
    made = transaction(span("task", span_id=2, parent=0xA), late=True)
    trace = made["contexts"]["trace"]
    assert trace["data"] == {PARENT_ALREADY_SENT: True}
    assert trace["parent_span_id"] == "000000000000000a"
    assert made["transaction_info"] == {"source": "custom"}


@pytest.mark.parametrize(
    ("attributes", "kind", "expected"),
    [
        ({}, INTERNAL, "own name"),
        ({"db.system": "sqlite", "db.statement": "SELECT 'secret'"}, CLIENT, "own name"),
        ({"db.system": "sqlite", "db.query.summary": "SELECT users"}, CLIENT, "SELECT users"),
        ({"http.method": "GET", "http.url": "http://h/a?secret"}, CLIENT, "GET http://h/a"),
        (HTTP, SERVER, "GET /items/5"),
    ],
)
def test_a_follow_up_is_named_like_a_root_and_never_by_a_statement(
    attributes: dict[str, Any], kind: SpanKind, expected: str
) -> None:
    late = span("own name", span_id=2, parent=1, kind=kind, attributes=attributes)
    assert transaction(late, late=True)["transaction"] == expected


def test_a_follow_up_does_not_repeat_what_the_request_came_to() -> None:
    facts = RequestFacts(route="/items/{id}", status_code=404, websocket=True)
    made = transaction(server(parent=9), facts=facts, late=True)
    assert made["transaction"] == "GET /items/5"
    assert made["contexts"]["trace"]["op"] == "http.server"
    assert made["contexts"]["trace"]["status"] == "ok"
    assert "response" not in made["contexts"]


def test_what_was_dropped_is_told() -> None:
    assert to_transaction(span(), [], event_id="e" * 32, dropped=3)["_dropped_spans"] == 3
    assert "_dropped_spans" not in transaction(span())


# -- the resource ---------------------------------------------------------------------------------


def test_the_resource_is_a_context_of_json_values() -> None:
    values: dict[str, Any] = {
        "list": ("a", "b"),
        "numbers": (1, 2),
        "text": "\ud800",
        "nan": float("nan"),
    }
    made = transaction(span(resource=Resource(values)))
    assert made["contexts"]["otel"]["resource"] == {
        "list": ["a", "b"],
        "numbers": "[1, 2]",
        "text": "?",
        "nan": "nan",
    }


def test_release_environment_and_server_name_come_from_the_resource() -> None:
    resource = Resource(
        {
            "service.name": "shop",
            "service.version": "1.0",
            "deployment.environment.name": "test",
            "host.name": "web-1",
        }
    )
    assert resource_defaults(resource) == {
        "release": "shop@1.0",
        "environment": "test",
        "server_name": "web-1",
    }


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {}),
        ({"service.name": "shop"}, {}),
        ({"service.version": "1.0"}, {"release": "1.0"}),
        ({"service.version": "1.0", "service.name": "unknown_service"}, {"release": "1.0"}),
        ({"service.version": "1.0", "service.name": "unknown_service:py"}, {"release": "1.0"}),
        ({"service.version": "1.0", "service.name": "team/shop"}, {"release": "1.0"}),
        ({"deployment.environment": "old"}, {"environment": "old"}),
        (
            {"deployment.environment": "old", "deployment.environment.name": "new"},
            {"environment": "new"},
        ),
        ({"service.version": 1, "host.name": ("a",)}, {}),
    ],
)
def test_what_the_resource_does_not_say_is_left_out(
    attributes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert resource_defaults(Resource(attributes)) == expected


def test_without_a_resource_nothing_is_known() -> None:
    assert resource_defaults(None) == {}


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            "a",
            "a b",
            " a ",
            "a/b",
            "a\\b",
            "a\nb",
            "a\tb",
            "a\rb",
            "\x00",
            "\x0b",
            "\x85",
        ),
        *("\u2028", "\u00a0", "\ud800", ".", "..", "latest", "LATEST", "none", "None", "@", "a@"),
        *("x" * 64, "x" * 65, "x" * 200, "x" * 201, "\N{SNOWMAN}"),
    ],
)
def test_a_default_is_one_that_relay_takes_as_it_is(value: str) -> None:
    """What is not, Relay would empty; then the event is better without it."""
    resource = Resource(
        {"service.version": value, "deployment.environment": value, "host.name": value}
    )
    event: Any = {**transaction(span()), **resource_defaults(resource)}
    assert problems(event) == []


def test_what_relay_takes_is_not_left_out_without_need() -> None:
    resource = Resource(
        {"service.version": "x" * 200, "deployment.environment": "y" * 64, "host.name": "a/b"}
    )
    assert resource_defaults(resource).keys() == {"release", "environment", "server_name"}


DEPLOYED = {
    "service.name": "shop",
    "cloud.provider": "aws",
    "cloud.region": "eu-1",
    "host.id": "i-5",
    "container.id": "c0ffee",
    "container.image.name": "shop",
    "k8s.pod.name": "web-1",
    "process.runtime.name": "cpython",
    "process.runtime.version": "3.13.1",
    "process.runtime.description": "3.13.1 (main)",
    "os.type": "linux",
    "os.version": "6.1",
}


def test_what_a_service_runs_in_has_contexts_of_its_own() -> None:
    """Each attribute of the resource is in one of them."""
    contexts = resource_contexts(Resource(DEPLOYED))
    assert contexts == {
        "cloud_resource": {"cloud.provider": "aws", "cloud.region": "eu-1", "host.id": "i-5"},
        "container": {"container.id": "c0ffee", "container.image.name": "shop"},
        "kubernetes": {"k8s.pod.name": "web-1"},
        "runtime": {"name": "cpython", "version": "3.13.1"},
        "os": {"version": "6.1"},
        "otel": {
            "resource": {
                "service.name": "shop",
                "process.runtime.description": "3.13.1 (main)",
                "os.type": "linux",
            }
        },
    }
    made = transaction(span(resource=Resource(DEPLOYED)))
    assert contexts.items() <= made["contexts"].items()


@pytest.mark.parametrize("value", [0, 3.13, True, ("3", "13")])
def test_a_version_that_is_no_text_stays_with_the_resource(value: Any) -> None:
    """Relay drops it from contexts it knows, and says so in the event."""
    made = transaction(span(resource=Resource({"process.runtime.version": value})))
    assert "process.runtime.version" in made["contexts"]["otel"]["resource"]
    assert problems(made) == []


def test_the_contexts_of_one_transaction_are_not_those_of_the_next() -> None:
    """Event processors change them in place."""
    resource = Resource(DEPLOYED)
    transaction(span(resource=resource))["contexts"]["runtime"]["name"] = "changed"
    assert transaction(span(resource=resource))["contexts"]["runtime"]["name"] == "cpython"


def test_another_resource_has_other_contexts() -> None:
    for region in ("eu-1", "eu-2", "eu-1"):
        made = transaction(span(resource=Resource({"cloud.region": region})))
        assert made["contexts"]["cloud_resource"] == {"cloud.region": region}


# -- span events ----------------------------------------------------------------------------------


def event(name: str, at: float, **attributes: Any) -> Event:
    return Event(name, attributes, EPOCH * 1_000_000_000 + round(at * 1_000_000_000))


def test_span_events_are_breadcrumbs_in_the_order_of_time() -> None:
    failed = event("exception", 0.1, **{"exception.type": "ValueError"})
    root = server(events=[event("last", 0.75), failed, event("first", 0.25, level=2)])
    child = span(span_id=2, parent=1, events=[event("middle", 0.5)])
    crumbs = transaction(root, child)["breadcrumbs"]["values"]
    assert crumbs[0] == {
        "type": "default",
        "category": "event",
        "level": "info",
        "message": "first",
        "timestamp": EPOCH + 0.25,
        "data": {"span_id": "0000000000000001", "level": 2},
    }
    assert [crumb["message"] for crumb in crumbs] == ["first", "middle", "last"]
    assert crumbs[1]["data"] == {"span_id": "0000000000000002"}
    assert "breadcrumbs" not in transaction(server(events=[failed]))


def test_of_many_span_events_the_latest_stay() -> None:
    many = [event(str(number), number / 1_000) for number in range(MAX_CRUMBS + 1)]
    crumbs = transaction(span(events=many))["breadcrumbs"]["values"]
    assert [crumb["message"] for crumb in crumbs] == [
        str(number) for number in range(1, MAX_CRUMBS + 1)
    ]


def test_breadcrumbs_are_cleaned() -> None:
    told = event("get https://bob:secret@h/?token=secret", 0.5, **{"user.id": "bob", "kept": 1})
    made: Any = PRIVATE.clean(transaction(span(events=[told]))).payload
    (crumb,) = made["breadcrumbs"]["values"]
    assert crumb["message"] == "get https://h/"
    assert crumb["data"] == {"span_id": "0000000000000001", "kept": 1}


# -- what only the whole segment or the ASGI layer knows ------------------------------------------


def test_a_server_span_with_a_path_of_its_own_is_another_request() -> None:
    """A service may call itself without leaving the process."""
    other = {"http.route": "/things/{id}", "http.target": "/things/7"}
    nested = server(span_id=2, parent=1, attributes=other)
    assert transaction_name(server(), [nested]) == ("GET /items/5", "url")
    below = {"http.route": "/items/{id}", "http.target": "/items/5"}
    root = server(attributes={"http.target": "/shop/items/5"})
    facts = RequestFacts(path="/shop/items/5", root_path="/shop")
    nested = server(span_id=2, parent=1, attributes=below)
    assert transaction_name(root, [nested], facts=facts)[0] == "GET /shop/items/{id}"


def test_the_asgi_layer_knows_an_event_stream_from_a_response() -> None:
    made = transaction(server(), facts=RequestFacts(stream=True))
    assert made["contexts"]["trace"]["op"] == "http.server.stream"
    by_hand = server(attributes={"sentry.op": "mine"})
    made = transaction(by_hand, facts=RequestFacts(stream=True))
    assert made["contexts"]["trace"]["op"] == "mine"


def test_a_client_that_left_cancelled_its_request_but_no_follow_up() -> None:
    facts = RequestFacts(cancelled=True, status_code=200)
    assert transaction(server(), facts=facts)["contexts"]["trace"]["status"] == "cancelled"
    late = transaction(server(parent=9), facts=facts, late=True)
    assert late["contexts"]["trace"]["status"] == "ok"


def test_what_left_the_application_made_its_request_fail_but_no_follow_up() -> None:
    facts = RequestFacts(crashed=True, status_code=200)
    assert transaction(server(), facts=facts)["contexts"]["trace"]["status"] == "internal_error"
    late = transaction(server(parent=9), facts=facts, late=True)
    assert late["contexts"]["trace"]["status"] == "ok"
