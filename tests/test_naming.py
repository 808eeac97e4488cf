"""What a span is called: every protocol, under the old, the stable, and both names."""

from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._translate import naming, op, urls
from otel_sentry_asgi._translate.attributes import to_current
from otel_sentry_asgi._translate.reading import Reading
from otel_sentry_asgi._translate.routes import template_of
from otel_sentry_asgi.testing import span

INTERNAL, SERVER, CLIENT = SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT
PRODUCER, CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER

OLD = {"http.method": "GET", "http.target": "/items/5?q=1#top", "http.scheme": "http"}
STABLE = {
    "http.request.method": "GET",
    "url.path": "/items/5",
    "url.query": "q=1",
    "url.scheme": "http",
}
GENERATIONS = pytest.mark.parametrize(
    "attributes", [OLD, STABLE, {**OLD, **STABLE}], ids=["old", "stable", "both"]
)

Attributes = dict[str, Any]


def current(attributes: Attributes) -> Attributes:
    return to_current(attributes, [], on_server=True)


def path_of(attributes: Attributes) -> str | None:
    return urls.path_of(current(attributes))


def client_url(attributes: Attributes) -> str | None:
    return urls.client_url(to_current(attributes, [], on_server=False))


def to_op(attributes: Attributes, kind: SpanKind, *, websocket: bool = False) -> str | None:
    return op.to_op(Reading(span(kind=kind, attributes=attributes), websocket=websocket))


def to_server_name(made: Any, *, route: Any = None, websocket: bool = False) -> naming.Name:
    return naming.to_name(Reading(made, websocket=websocket), routes=[route])


def to_description(made: Any) -> str:
    return naming.to_description(Reading(made))


def to_origin(made: Any, operation: str | None) -> str:
    return op.to_origin(Reading(made), op.scope_name_of(made), operation)


def server(name: str = "GET /items/5", **attributes: Any) -> Any:
    return span(name, kind=SERVER, attributes=attributes)


# -- op -------------------------------------------------------------------------------------------

OPS: list[tuple[Attributes, SpanKind, str | None]] = [
    ({"http.method": "GET"}, SERVER, "http.server"),
    ({"http.request.method": "GET"}, SERVER, "http.server"),
    ({"http.method": "GET"}, CLIENT, "http.client"),
    ({"http.request.method": "GET"}, CLIENT, "http.client"),
    ({"http.method": "GET"}, INTERNAL, "http"),
    ({"http.scheme": "ws"}, SERVER, "websocket.server"),
    ({"url.scheme": "wss"}, SERVER, "websocket.server"),
    ({"network.protocol.name": "websocket"}, SERVER, "websocket.server"),
    ({"http.method": "GET", "url.scheme": "wss"}, SERVER, "websocket.server"),
    ({"url.scheme": "wss"}, CLIENT, "websocket.client"),
    ({"db.system": "postgresql"}, CLIENT, "db"),
    ({"db.system.name": "postgresql"}, CLIENT, "db"),
    ({"db.system": "redis"}, CLIENT, "db.redis"),
    ({"db.system.name": "valkey"}, CLIENT, "db.redis"),
    ({"db.system": "memcached"}, CLIENT, "db"),
    ({"db.system": "elasticsearch", "http.method": "POST"}, CLIENT, "db"),
    ({"db.system": "redis", "cache.key": ["a"]}, CLIENT, "cache.get"),
    ({"cache.hit": True, "cache.operation": "get"}, INTERNAL, "cache.get"),
    ({"cache.hit": False}, INTERNAL, "cache.get"),
    ({"cache.key": ["a"], "cache.operation": "put"}, INTERNAL, "cache.put"),
    ({"http.method": "GET", "db.system": "sqlite"}, SERVER, "http.server"),
    (
        {"http.method": "GET", "http.response.header.content_type": ["text/event-stream"]},
        SERVER,
        "http.server.stream",
    ),
    (
        {
            "http.request.method": "GET",
            "http.response.header.content-type": ("text/event-stream; charset=utf-8",),
        },
        SERVER,
        "http.server.stream",
    ),
    (
        {"http.method": "GET", "http.response.header.content_type": ["text/html"]},
        SERVER,
        "http.server",
    ),
    ({"gen_ai.provider.name": "openai", "gen_ai.operation.name": "chat"}, CLIENT, "gen_ai.chat"),
    ({"gen_ai.system": "openai"}, CLIENT, "gen_ai"),
    ({"gen_ai.operation.name": "execute_tool"}, INTERNAL, "gen_ai.execute_tool"),
    ({"gen_ai.system": "aws.bedrock", "rpc.system": "aws-api"}, CLIENT, "gen_ai"),
    ({"rpc.system": "grpc"}, CLIENT, "grpc.client"),
    ({"rpc.system": "grpc"}, INTERNAL, "grpc"),
    ({"rpc.system.name": "grpc"}, SERVER, "grpc.server"),
    ({"rpc.system": "aws-api", "http.status_code": 200}, CLIENT, "rpc"),
    ({"rpc.system": "aws-api", "db.system": "dynamodb"}, CLIENT, "db"),
    ({"rpc.system": "aws-api", "messaging.system": "aws_sqs"}, PRODUCER, "queue.publish"),
    ({"rpc.service": "Shop"}, SERVER, "rpc"),
    ({"messaging.system": "kafka", "messaging.operation.type": "send"}, PRODUCER, "queue.publish"),
    ({"messaging.system": "kafka", "messaging.operation": "publish"}, PRODUCER, "queue.publish"),
    ({"messaging.system": "kafka", "messaging.operation": "create"}, PRODUCER, "queue.create"),
    ({"messaging.system": "kafka", "messaging.operation": "receive"}, CLIENT, "queue.receive"),
    ({"messaging.system": "kafka", "messaging.operation": "process"}, CONSUMER, "queue.process"),
    ({"messaging.system": "kafka", "messaging.operation": "deliver"}, CONSUMER, "queue.process"),
    ({"messaging.system": "kafka", "messaging.operation": "settle"}, CLIENT, "queue.settle"),
    ({"messaging.system": "kafka"}, PRODUCER, "queue.publish"),
    ({"messaging.system": "kafka"}, CONSUMER, "queue.process"),
    ({"messaging.system": "kafka", "messaging.operation": "ack"}, CLIENT, "queue.settle"),
    ({"messaging.system": "kafka", "messaging.operation": "browse"}, CLIENT, "queue"),
    (
        {
            "messaging.system": "k",
            "messaging.operation.type": "process",
            "messaging.operation": "x",
        },
        CLIENT,
        "queue.process",
    ),
    ({"celery.task_name": "add"}, PRODUCER, "queue.publish"),
    ({"celery.task_name": "add"}, CONSUMER, "queue.process"),
    ({"graphql.processing.type": "parse"}, INTERNAL, "graphql.parse"),
    ({"graphql.operation.type": "mutation"}, INTERNAL, "graphql.mutation"),
    ({"faas.trigger": "timer"}, INTERNAL, "timer"),
    ({}, INTERNAL, None),
    ({}, CLIENT, None),
    ({"db.system": "", "cache.key": None}, CLIENT, None),
    ({}, PRODUCER, "queue.publish"),
    ({}, CONSUMER, "queue.process"),
    ({"http.method": ""}, SERVER, None),
    ({"faas.trigger": 5}, INTERNAL, "function"),
    ({"faas.execution": "1-2"}, SERVER, "function"),
]


@pytest.mark.parametrize(("attributes", "kind", "expected"), OPS)
def test_the_op_follows_from_what_the_span_is_about(
    attributes: Attributes, kind: SpanKind, expected: str | None
) -> None:
    assert to_op(attributes, kind) == expected


@pytest.mark.parametrize(("attributes", "kind", "_"), OPS)
def test_an_explicit_op_wins(attributes: Attributes, kind: SpanKind, _: Any) -> None:
    assert to_op({**attributes, "sentry.op": "mine"}, kind) == "mine"


@pytest.mark.parametrize("op", ["", None, 5])
def test_an_explicit_op_that_is_no_text_counts_for_nothing(op: object) -> None:
    assert to_op({"sentry.op": op, "db.system": "sqlite"}, CLIENT) == "db"


def test_what_the_asgi_layer_knows_to_be_a_websocket_is_one() -> None:
    assert to_op({}, SERVER, websocket=True) == "websocket.server"


# -- names of server spans ------------------------------------------------------------------------


@GENERATIONS
def test_a_server_span_with_a_route_is_named_by_it(attributes: Attributes) -> None:
    root = server(**attributes, **{"http.route": "/items/{id}"})
    assert to_server_name(root) == ("GET /items/{id}", "route")


@GENERATIONS
def test_the_route_may_come_from_elsewhere_but_the_own_one_wins(attributes: Attributes) -> None:
    assert to_server_name(server(**attributes), route="/items/{id}") == (
        "GET /items/{id}",
        "route",
    )
    root = server(**attributes, **{"http.route": "/mine"})
    assert to_server_name(root, route="/other") == ("GET /mine", "route")


def test_a_url_template_counts_as_route() -> None:
    root = server(**STABLE, **{"url.template": "/items/{id}"})
    assert to_server_name(root) == ("GET /items/{id}", "route")


@GENERATIONS
def test_without_a_route_the_path_is_the_name_and_no_query_or_fragment(
    attributes: Attributes,
) -> None:
    assert to_server_name(server(**attributes)) == ("GET /items/5", "url")


def test_the_path_may_come_from_the_whole_url() -> None:
    url = "https://bob:secret@example.org/items/5?q=1#top"
    root = server("GET", **{"http.method": "GET", "http.url": url})
    assert to_server_name(root) == ("GET /items/5", "url")


@pytest.mark.parametrize(
    "name",
    ["GET /items/5", "GET /items/5?q=1", "GET /items/5#top", "GET https://bob:pw@h/items/5?q=1"],
)
def test_the_path_may_come_from_the_span_name(name: str) -> None:
    assert to_server_name(server(name, **{"http.method": "GET"})) == ("GET /items/5", "url")


def test_the_root_path_is_a_route() -> None:
    assert to_server_name(server(**{"http.method": "GET", "http.target": "/"})) == (
        "GET /",
        "route",
    )


@pytest.mark.parametrize("method", ["_OTHER", "GE T", "G?T", "/x", "PROPFIND", "get"])
def test_a_method_outside_the_known_set_is_called_http(method: str) -> None:
    root = server(**{"http.request.method": method, "url.path": "/x"})
    assert to_server_name(root) == ("HTTP /x", "url")


def test_with_no_path_at_all_the_span_name_stays() -> None:
    assert to_server_name(server("GET", **{"http.method": "GET"})) == ("GET", "custom")
    assert to_server_name(server("", **{"http.method": "GET"})) == ("GET", "custom")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b", "/a"),
        ("/a#b?c", "/a"),
        ("http://bob:secret@h/a?b#c", "/a"),
        ("http://[broken/a", None),
        ("http://bob:sec?ret@h/a", None),
        ("http://bob:sec/ret@h/a", None),
        ("?q", None),
        ("", None),
    ],
)
def test_a_path_has_no_query_fragment_or_credentials(target: str, path: str | None) -> None:
    assert path_of({"http.target": target}) == path


def test_a_broken_url_has_no_path() -> None:
    assert path_of({"url.full": "http://[::1/x"}) is None


# -- templates that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "path", "expected"),
    [
        ("/items/{id}", "/items/5", "/items/{id}"),
        ("items/<int:pk>/", "/items/5/", "/items/<int:pk>/"),
        ("^items/(?P<pk>[0-9]+)/$", "/items/5/", "/items/{pk}/"),
        ("api/^v(?P<version>(1|2))/?$", "/api/v1", "/api/v{version}/"),
        ("/health", "/health", "/health"),
        ("/", "/", "/"),
        ("GET /items/5", "/items/5", None),
        ("/items/5", "/items/5", None),
        (
            "/users/0189dcd5-5311-7d40-8db0-9496a2eef37b",
            "/users/0189dcd5-5311-7d40-8db0-9496a2eef37b",
            None,
        ),
        ("", "/", None),
        (None, "/", None),
        (5, "/", None),
    ],
)
def test_only_a_template_is_a_route(route: object, path: str, expected: str | None) -> None:
    """Litestar's OTel plugin puts method and raw path into `http.route`; Django's routes have no
    leading slash and may be regular expressions."""
    assert template_of(route, path) == expected


def test_a_litestar_route_gives_way_to_the_template_in_the_scope() -> None:
    root = server(**OLD, **{"http.route": "GET /items/5"})
    assert to_server_name(root) == ("GET /items/5", "url")
    assert to_server_name(root, route="/items/{id:int}") == ("GET /items/{id:int}", "route")


# -- names of websockets --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http.scheme", "url.scheme"])
@pytest.mark.parametrize("target", ["http.target", "url.path"])
def test_a_websocket_is_named_by_route_or_path_without_a_method(scheme: str, target: str) -> None:
    root = server("GET /ws/5", **{scheme: "ws", target: "/ws/5?token=x"})
    assert to_server_name(root) == ("/ws/5", "url")
    assert to_server_name(root, route="/ws/{room}") == ("/ws/{room}", "route")


def test_a_websocket_without_attributes_is_named_by_the_path_in_its_name() -> None:
    assert to_server_name(server("HTTP /ws/5"), websocket=True) == ("/ws/5", "url")
    assert to_server_name(server(""), websocket=True) == ("websocket", "custom")


# -- names of other roots -------------------------------------------------------------------------

OTHERS: list[tuple[str, SpanKind, Attributes, tuple[str, str]]] = [
    ("job", INTERNAL, {}, ("job", "custom")),
    ("job", INTERNAL, OLD, ("job", "custom")),
    ("send", PRODUCER, {"messaging.system": "kafka"}, ("send", "task")),
    (
        "process",
        CONSUMER,
        {"messaging.system": "kafka", "messaging.destination.name": "orders"},
        ("orders", "task"),
    ),
    (
        "process",
        CONSUMER,
        {"messaging.system": "kafka", "messaging.destination": "orders"},
        ("orders", "task"),
    ),
    ("SELECT", CLIENT, {"db.system": "sqlite"}, ("SELECT", "task")),
    (
        "SELECT",
        CLIENT,
        {"db.system": "sqlite", "db.query.summary": "SELECT users", "db.query.text": "SELECT 1"},
        ("SELECT users", "task"),
    ),
    ("shop.Shop/Buy", SERVER, {"rpc.system": "grpc"}, ("shop.Shop/Buy", "route")),
    ("nightly", SERVER, {"faas.trigger": "timer"}, ("nightly", "route")),
    (
        "GET",
        CLIENT,
        {"http.method": "GET", "http.url": "https://bob:secret@h:81/a?b#c"},
        ("GET https://h:81/a", "url"),
    ),
    ("GET", CLIENT, {"http.method": "GET"}, ("GET", "custom")),
]


@pytest.mark.parametrize(("name", "kind", "attributes", "expected"), OTHERS)
def test_other_roots_are_named_by_what_they_do(
    name: str, kind: SpanKind, attributes: Attributes, expected: tuple[str, str]
) -> None:
    root = span(name, kind=kind, attributes=attributes)
    assert to_server_name(root) == expected


@pytest.mark.parametrize("kind", [INTERNAL, CLIENT, CONSUMER])
def test_the_route_of_the_request_is_not_that_of_another_root_in_it(kind: SpanKind) -> None:
    root = span("job", kind=kind, attributes={"http.scheme": "ws"})
    assert to_server_name(root, route="/items/{id}", websocket=True) == ("job", "custom")


@pytest.mark.parametrize(("name", "kind", "attributes", "_"), OTHERS)
def test_an_explicit_name_wins(name: str, kind: SpanKind, attributes: Attributes, _: Any) -> None:
    mine = {**attributes, "sentry.name": "mine"}
    assert to_server_name(span(name, kind=kind, attributes=mine)) == ("mine", "custom")
    mine["sentry.source"] = "component"
    assert to_server_name(span(name, kind=kind, attributes=mine)) == ("mine", "component")


# -- descriptions ---------------------------------------------------------------------------------

DESCRIPTIONS: list[tuple[SpanKind, Attributes, str]] = [
    (CLIENT, {"http.method": "GET", "http.url": "http://h/a?b#c"}, "GET http://h/a"),
    (CLIENT, {"http.request.method": "GET", "url.full": "http://u:p@h/a"}, "GET http://h/a"),
    (
        CLIENT,
        {"http.method": "GET", "http.url": "http://old/", "url.full": "http://new/"},
        "GET http://new/",
    ),
    (
        CLIENT,
        {"http.request.method": "GET", "server.address": "h", "server.port": 81, "url.path": "/a"},
        "GET http://h:81/a",
    ),
    (
        CLIENT,
        {"http.method": "GET", "net.peer.name": "h", "http.scheme": "https", "http.target": "/a?b"},
        "GET https://h/a",
    ),
    (CLIENT, {"http.method": "GET"}, "own name"),
    (SERVER, {**OLD, "http.route": "/items/{id}"}, "GET /items/{id}"),
    (SERVER, STABLE, "GET /items/5"),
    (INTERNAL, OLD, "own name"),
    (CLIENT, {"db.system": "sqlite", "db.statement": "SELECT 1"}, "SELECT 1"),
    (CLIENT, {"db.system.name": "sqlite", "db.query.text": "SELECT 1"}, "SELECT 1"),
    (
        CLIENT,
        {"db.system": "sqlite", "db.statement": "SELECT 1", "db.query.text": "SELECT 2"},
        "SELECT 2",
    ),
    (CLIENT, {"db.system": "sqlite", "db.query.summary": "SELECT users"}, "SELECT users"),
    (CLIENT, {"db.system": "sqlite"}, "own name"),
    (PRODUCER, {"messaging.system": "k", "messaging.destination.name": "orders"}, "orders"),
    (PRODUCER, {"messaging.system": "kafka"}, "own name"),
    (CLIENT, {"rpc.system": "grpc"}, "own name"),
    (CLIENT, {"gen_ai.system": "openai"}, "own name"),
    (INTERNAL, {"graphql.operation.type": "query"}, "own name"),
    (INTERNAL, {"sentry.description": "mine", "sentry.name": "other"}, "mine"),
    (CLIENT, {"sentry.name": "mine", "db.system": "sqlite", "db.statement": "SELECT 1"}, "mine"),
    (INTERNAL, {}, "own name"),
]


@pytest.mark.parametrize(("kind", "attributes", "expected"), DESCRIPTIONS)
def test_a_child_shows_what_it_does(kind: SpanKind, attributes: Attributes, expected: str) -> None:
    assert to_description(span("own name", kind=kind, attributes=attributes)) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"url.full": "http://h/a?b#c"}, "http://h/a"),
        ({"url.full": "http://bob:secret@h:81/a"}, "http://h:81/a"),
        ({"url.full": "http://bob:sec@ret@h/"}, "http://h/"),
        ({"url.full": "/relative?b"}, "/relative"),
        ({"url.full": "bob:secret@h/a"}, None),
        ({"url.full": "http://[::1/a"}, None),
        ({"url.full": "http://bob:sec?ret@h/a"}, None),
        ({"url.full": "http://bob:sec#ret@h/a"}, None),
        ({"url.full": "http://[::1]:81/a"}, "http://[::1]:81/a"),
        ({"server.address": "::1", "server.port": "81"}, "http://[::1]:81"),
        ({"server.address": "[::1]", "server.port": 81}, "http://[::1]:81"),
        ({"http.host": "h:81", "http.target": "/a"}, "http://h:81/a"),
        ({"server.address": "bob:secret@h"}, None),
        ({"server.address": "h?q"}, None),
        ({}, None),
    ],
)
def test_the_url_of_an_outgoing_request_has_no_query_fragment_or_credentials(
    attributes: Attributes, expected: str | None
) -> None:
    assert client_url(attributes) == expected


# -- origin ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "op", "expected"),
    [
        ("opentelemetry.instrumentation.asgi", "http.server", "auto.http.otel.asgi"),
        ("opentelemetry.instrumentation.sqlite3", "db", "auto.db.otel.sqlite3"),
        ("opentelemetry.instrumentation.openai-v2", "gen_ai.chat", "auto.gen_ai.otel.openai_v2"),
        ("opentelemetry.instrumentation.x", None, "auto.function.otel.x"),
        ("opentelemetry.instrumentation.x", "my op!", "auto.my_op_.otel.x"),
        ("opentelemetry.instrumentation.x", "ä.b", "auto._.otel.x"),
        ("fastapi", "http.server", "auto.http.otel.fastapi"),
        ("starlette", "http.server", "auto.http.otel.starlette"),
        ("shop.orders", "db", "manual"),
        ("", "db", "manual"),
        (None, None, "manual"),
    ],
)
def test_the_origin_says_which_instrumentation_made_the_span(
    scope: str | None, op: str | None, expected: str
) -> None:
    assert to_origin(span(scope=scope), op) == expected


def test_an_explicit_origin_wins_if_relay_takes_it() -> None:
    assert to_origin(span(attributes={"sentry.origin": "auto.db.mine"}), "db") == "auto.db.mine"
    for origin in ("auto.my-own", "a b", "x" * 129, "", 5):
        assert to_origin(span(attributes={"sentry.origin": origin}), "db") == "manual"


# -- nothing private in names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"http.method": "GET", "http.url": "https://bob:secret@h/a?token=secret#secret"},
        {"http.request.method": "GET", "url.full": "https://bob:secret@h/a?token=secret#secret"},
        {"http.method": "GET", "http.target": "/a?token=secret#secret"},
        {"http.request.method": "GET", "url.path": "/a?token=secret#secret"},
        {"http.scheme": "ws", "http.target": "/a?token=secret#secret"},
        {"http.scheme": "ws", "http.url": "ws://bob:secret@h/a?token=secret#secret"},
    ],
)
@pytest.mark.parametrize("kind", [SERVER, CLIENT])
def test_no_credentials_query_or_fragment_in_names_and_descriptions(
    attributes: Attributes, kind: SpanKind
) -> None:
    made = span("GET", kind=kind, attributes=attributes)
    for text in (to_server_name(made)[0], to_description(made)):
        assert not {"?", "#", "@"} & set(text)
        assert "secret" not in text


# -- mechanism ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "attributes", "expected"),
    [
        (
            "opentelemetry.instrumentation.celery",
            {"celery.task_name": "a"},
            "auto.queue.otel.celery",
        ),
        ("opentelemetry.instrumentation.x", {}, "auto.queue.otel.x"),
        ("shop", {"celery.task_name": "a"}, "auto.function.otel"),
        ("shop", {"sentry.origin": "auto.shop"}, "auto.shop"),
        ("shop", {"sentry.origin": "manual.shop"}, "auto.function.otel"),
    ],
)
def test_the_mechanism_of_an_exception_is_the_origin_of_the_span_that_it_left(
    scope: str, attributes: Attributes, expected: str
) -> None:
    assert op.to_mechanism(span(scope=scope, attributes=attributes, kind=CONSUMER)) == expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("openinference.instrumentation.openai", "auto.gen_ai.otel.openai"),
        ("elasticsearch-api", "auto.gen_ai.otel.elasticsearch_api"),
        ("opentelemetry.instrumentation.", "auto.gen_ai.otel._"),
        ("opentelemetry.instrumentation." + "x" * 200, "manual"),
    ],
)
def test_every_tracer_of_an_instrumentation_is_known_as_one(scope: str, expected: str) -> None:
    assert to_origin(span(scope=scope), "gen_ai.chat") == expected
