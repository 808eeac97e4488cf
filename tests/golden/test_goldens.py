"""Whole transactions, as they leave with `send_default_pii` off.

The files are written anew by `pytest tests/golden --rewrite-goldens`; review them as a diff.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otel_sentry_asgi._dsc import ClientFacts, sampling_context
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._translate.resource import resource_defaults
from otel_sentry_asgi._translate.segment import (
    NO_REQUEST,
    RequestFacts,
    to_transaction,
)
from otel_sentry_asgi.sampling import decide
from otel_sentry_asgi.testing import span, span_context
from tests.payload import encoded, problems
from tests.policies import PRIVATE

HERE = Path(__file__).parent
TRACE_ID = 0x0123456789ABCDEF_1000000000000000
ROOT, CHILD, GRANDCHILD, CALLER = 0xA, 0xB, 0xC, 0xD

SERVER, CLIENT, INTERNAL = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL

RESOURCE = Resource(
    {
        "service.name": "shop",
        "service.version": "1.2.0",
        "deployment.environment.name": "test",
        "host.name": "web-1",
        "process.command_args": ("python", "serve.py", "--password=secret"),
        "telemetry.sdk.name": "opentelemetry",
    }
)

HTTP_SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "scheme": "https",
    "path": "/orders/77",
    "query_string": b"page=2&token=secret",
    "headers": [
        (b"host", b"shop.example"),
        (b"user-agent", b"curl/8.5"),
        (b"authorization", b"Bearer secret"),
        (b"cookie", b"session=secret; theme=dark"),
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"referer", b"https://bob:secret@shop.example/?token=secret#top"),
    ],
    "client": ("192.0.2.7", 50_000),
    "server": ("10.0.0.1", 8_000),
    "path_template": "/orders/{order_id}",
}
WEBSOCKET_SCOPE: dict[str, Any] = {
    **HTTP_SCOPE,
    "type": "websocket",
    "scheme": "wss",
    "path": "/rooms/5",
    "path_template": "/rooms/{room}",
}

OLD_SERVER = {
    "http.scheme": "https",
    "http.host": "shop.example",
    "net.host.port": 8_000,
    "http.flavor": "1.1",
    "http.target": "/orders/77?page=2&token=secret",
    "http.url": "https://shop.example/orders/77?page=2&token=secret",
    "http.method": "GET",
    "http.server_name": "shop.example",
    "http.user_agent": "curl/8.5",
    "net.peer.ip": "192.0.2.7",
    "net.peer.port": 50_000,
    "http.route": "/orders/{order_id}",
    "http.status_code": 200,
    "http.response_content_length": 512,
}
STABLE_SERVER = {
    "url.scheme": "https",
    "server.address": "shop.example",
    "server.port": 8_000,
    "network.protocol.version": "1.1",
    "url.path": "/orders/77",
    "url.query": "page=2&token=secret",
    "http.request.method": "GET",
    "user_agent.original": "curl/8.5",
    "client.address": "192.0.2.7",
    "client.port": 50_000,
    "http.request.header.authorization": ("Bearer secret",),
    "http.request.header.x_forwarded_for": ("192.0.2.7",),
    "http.request.header.accept": ("*/*",),
    "http.route": "/orders/{order_id}",
    "http.response.status_code": 200,
    "http.response.body.size": 512,
}
OLD_CLIENT = {
    "http.method": "GET",
    "http.url": "https://bob:secret@rates.example/eur?token=secret#top",
    "http.status_code": 503,
}
STABLE_CLIENT = {
    "http.request.method": "GET",
    "url.full": "https://bob:secret@rates.example/eur?token=secret#top",
    "server.address": "rates.example",
    "server.port": 443,
    "http.response.status_code": 503,
    "error.type": "503",
}
OLD_DATABASE = {
    "db.system": "sqlite",
    "db.name": "shop.db",
    "db.statement": "SELECT * FROM orders WHERE id = 77 AND owner = 'secret'",
}
STABLE_DATABASE = {
    "db.system.name": "postgresql",
    "db.namespace": "shop",
    "db.query.text": "SELECT \"id\" FROM orders WHERE owner = 'secret' AND id > $1",
    "db.query.summary": "SELECT orders",
    "db.query.parameter.0": "secret",
}


def instrumentation(name: str) -> InstrumentationScope:
    return InstrumentationScope(f"opentelemetry.instrumentation.{name}", "0.66b1")


def transaction(
    root: ReadableSpan,
    *children: ReadableSpan,
    facts: RequestFacts = NO_REQUEST,
    **given: Any,
) -> Any:
    client = ClientFacts("public", release="shop@1.2.0", environment="test", org_id="12")
    decision = decide(TRACE_ID, rate=0.25, sampler=None, sampling_context=dict)
    made = to_transaction(
        root,
        children,
        event_id="e" * 32,
        facts=facts,
        sampling_context=sampling_context(TRACE_ID, client, decision),
        **given,
    )
    return {**PRIVATE.clean(made).payload, **resource_defaults(root.resource)}


def http_server(server: dict[str, Any], client: dict[str, Any], database: dict[str, Any]) -> Any:
    """A request that asks a database and another service, in one generation of names."""
    root = span(
        "GET /orders/{order_id}",
        span_id=ROOT,
        trace_id=TRACE_ID,
        parent=span_context(CALLER, TRACE_ID, is_remote=True),
        kind=SERVER,
        attributes=server,
        resource=RESOURCE,
        scope=instrumentation("asgi"),
    )
    asked = span(
        "SELECT",
        span_id=CHILD,
        parent=root,
        trace_id=TRACE_ID,
        start=0.125,
        end=0.25,
        kind=CLIENT,
        attributes=database,
        scope=instrumentation("sqlite3"),
    )
    called = span(
        "GET",
        span_id=GRANDCHILD,
        trace_id=TRACE_ID,
        parent=root,
        start=0.5,
        end=0.75,
        kind=CLIENT,
        attributes=client,
        status=Status(StatusCode.ERROR, "503 for bob"),
        scope=instrumentation("httpx"),
    )
    exchange = Exchange(None, asgi_scope=HTTP_SCOPE, status_code=200)
    return transaction(root, called, asked, facts=exchange.facts())


def http_server_old() -> Any:
    return http_server(OLD_SERVER, OLD_CLIENT, OLD_DATABASE)


def http_server_stable() -> Any:
    return http_server(STABLE_SERVER, STABLE_CLIENT, STABLE_DATABASE)


def http_server_both() -> Any:
    return http_server(
        {**OLD_SERVER, **STABLE_SERVER},
        {**OLD_CLIENT, **STABLE_CLIENT},
        {**OLD_DATABASE, **STABLE_DATABASE},
    )


def http_server_without_route() -> Any:
    """What OTel's ASGI middleware alone knows: the name is a path, which Sentry clusters."""
    root = span(
        "GET /orders/77",
        span_id=ROOT,
        trace_id=TRACE_ID,
        kind=SERVER,
        attributes={key: OLD_SERVER[key] for key in OLD_SERVER if key != "http.route"},
        scope=instrumentation("asgi"),
    )
    return transaction(root)


def http_client() -> Any:
    """A call out of nowhere, as from a start-up task."""
    root = span(
        "GET",
        span_id=ROOT,
        trace_id=TRACE_ID,
        kind=CLIENT,
        attributes=STABLE_CLIENT,
        status=StatusCode.ERROR,
        scope=instrumentation("httpx"),
    )
    return transaction(root)


def database() -> Any:
    """A job that asks several stores."""
    root = span("nightly", span_id=ROOT, trace_id=TRACE_ID, attributes={"job.id": 5}, scope="shop")
    redis: dict[str, Any] = {
        "db.system": "redis",
        "db.statement": "SET owner secret",
        "db.redis.database_index": 0,
    }
    mongo = {"db.system": "mongodb", "db.operation": "find", "db.mongodb.collection": "orders"}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("SELECT shop", "asyncpg", STABLE_DATABASE),
        ("SELECT", "sqlite3", OLD_DATABASE),
        ("SET", "redis", redis),
        ("orders.find", "pymongo", mongo),
    ]
    children = [
        span(
            name,
            span_id=0x10 + number,
            trace_id=TRACE_ID,
            parent=root,
            start=number / 8,
            end=number / 8 + 0.0625,
            kind=CLIENT,
            attributes=attributes,
            scope=instrumentation(scope),
        )
        for number, (name, scope, attributes) in enumerate(asked)
    ]
    return transaction(root, *children)


def websocket() -> Any:
    """A session with one traced message."""
    root = span(
        "/rooms/{room}",
        span_id=ROOT,
        trace_id=TRACE_ID,
        end=60.0,
        kind=SERVER,
        attributes={
            "http.scheme": "wss",
            "http.host": "shop.example",
            "http.target": "/rooms/5?token=secret",
            "http.url": "wss://shop.example/rooms/5?token=secret",
            "net.peer.ip": "192.0.2.7",
            "http.status_code": 101,
        },
        scope=instrumentation("asgi"),
    )
    message = span(
        "message",
        span_id=CHILD,
        trace_id=TRACE_ID,
        parent=root,
        start=1.0,
        end=1.5,
        attributes={"message": {"kind": "offer", "token": "secret"}},
        links=[Link(span_context(CALLER, 0x77), {"sentry.link.type": "previous_trace"})],
    )
    exchange = Exchange(None, asgi_scope=WEBSOCKET_SCOPE)
    return transaction(root, message, facts=exchange.facts(), dropped=2)


def follow_up() -> Any:
    """What a background task did after its request had been sent."""
    root = span(
        "SELECT",
        span_id=CHILD,
        trace_id=TRACE_ID,
        parent=ROOT,
        start=5.0,
        end=5.5,
        kind=CLIENT,
        attributes=OLD_DATABASE,
        scope=instrumentation("sqlite3"),
    )
    exchange = Exchange(None, asgi_scope=HTTP_SCOPE, status_code=200)
    return transaction(root, facts=exchange.facts(), late=True)


MAKERS: list[Callable[[], Any]] = [
    http_server_old,
    http_server_stable,
    http_server_both,
    http_server_without_route,
    http_client,
    database,
    websocket,
    follow_up,
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_transaction_leaves_as_it_is_on_file(
    make: Callable[[], Any], request: pytest.FixtureRequest
) -> None:
    golden = HERE / f"{make.__name__}.json"
    text = json.dumps(json.loads(encoded(make())), indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--rewrite-goldens"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_relay_takes_it_without_remark(make: Callable[[], Any]) -> None:
    payload = make()
    payload.pop("_dropped_spans", None)  # sentry-sdk takes this away.
    assert problems(payload) == []


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_nothing_private_is_on_file(make: Callable[[], Any]) -> None:
    text = encoded(make())
    assert not [word for word in ("secret", "bob", "192.0.2.7", "dark") if word in text]


def test_every_file_is_made_by_something() -> None:
    assert {path.stem for path in HERE.glob("*.json")} == {make.__name__ for make in MAKERS}
