"""Whole transactions, as they leave with `send_default_pii` off.

The files are written anew by `pytest tests/golden --rewrite-goldens`; review them as a diff.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
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
from otel_sentry_asgi.testing import EPOCH, span, span_context
from tests.golden.kinds import FAMILIES
from tests.payload import encoded, names, problems, stored
from tests.policies import PRIVATE

HERE = Path(__file__).parent
TRACE_ID = 0x0123456789ABCDEF_1000000000000000
ROOT, CHILD, GRANDCHILD, CALLER = 0xA, 0xB, 0xC, 0xD

SERVER, CLIENT = SpanKind.SERVER, SpanKind.CLIENT

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


def family(name: str, generation: str) -> Any:
    """A transaction with spans of one family, in one generation of names."""
    root, *children = (
        span(
            kind.name,
            span_id=ROOT + number,
            trace_id=TRACE_ID,
            parent=None if number == 0 else ROOT,
            start=number / 16,
            end=1.0 if number == 0 else number / 16 + 0.03125,
            kind=kind.kind,
            attributes=kind.attributes(generation),
            status=kind.status,
            scope=kind.scope[:-1] if kind.scope.endswith(":") else instrumentation(kind.scope),
        )
        for number, kind in enumerate(FAMILIES[name])
    )
    return transaction(root, *children)


def own() -> Any:
    """What the application says itself, and what it runs in."""
    deployed = Resource(
        {
            **RESOURCE.attributes,
            "cloud.provider": "aws",
            "cloud.region": "eu-1",
            "container.id": "c0ffee",
            "k8s.pod.name": "web-1",
            "k8s.namespace.name": "shop",
            "process.runtime.name": "cpython",
            "process.runtime.version": "3.13.1",
            "host.ip": ("192.0.2.7",),
        }
    )
    missed = Event("cache.miss", {"cache.level": 2, "user.id": "secret"}, nanoseconds(0.25))
    painted = Event(
        "first.item",
        {"sentry.measurement_value": 0.5, "sentry.measurement_unit": "second"},
        nanoseconds(0.5),
    )
    root = span(
        "checkout",
        span_id=ROOT,
        trace_id=TRACE_ID,
        attributes={
            "sentry.op": "shop.checkout",
            "sentry.name": "checkout",
            "sentry.source": "component",
            "sentry.tag.shop": "north",
            "sentry.measurement.cart.total": 12.5,
            "sentry.measurement.cart.total.unit": "euro",
        },
        events=[painted, missed],
        links=[
            Link(span_context(CALLER, 0x77), {"sentry.link.type": "previous_trace"}),
            Link(span_context(CALLER, 0x78, sampled=False)),
        ],
        resource=deployed,
        scope=InstrumentationScope("shop.checkout", "3.1"),
    )
    child = span(
        "price",
        span_id=CHILD,
        trace_id=TRACE_ID,
        parent=root,
        attributes={
            "sentry.description": "price of the cart",
            "sentry.origin": "auto.function.shop",
            "sentry.tag.currency": "eur",
            "sentry.measurement.items": 3,
        },
        links=[Link(span_context(CALLER, 0x79))],
        status=Status(StatusCode.ERROR, "TimeoutError: bob"),
    )
    return transaction(root, child)


def nanoseconds(seconds: float) -> int:
    return EPOCH * 1_000_000_000 + round(seconds * 1_000_000_000)


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


def websocket_stable() -> Any:
    """The same as FastAPI's own telemetry writes it."""
    root = span(
        "WS /rooms/{room}",
        span_id=ROOT,
        trace_id=TRACE_ID,
        end=60.0,
        kind=SERVER,
        attributes={
            "network.protocol.name": "websocket",
            "url.scheme": "wss",
            "url.path": "/rooms/5",
            "url.query": "token=secret",
            "http.route": "/rooms/{room}",
            "client.address": "192.0.2.7",
        },
        scope="fastapi",
    )
    return transaction(root, facts=Exchange(None, asgi_scope=WEBSOCKET_SCOPE).facts())


def disconnected() -> Any:
    """The client left in the middle of the response."""
    root = span(
        "GET /orders/{order_id}",
        span_id=ROOT,
        trace_id=TRACE_ID,
        kind=SERVER,
        attributes=STABLE_SERVER,
        scope="fastapi",
    )
    exchange = Exchange(None, asgi_scope=HTTP_SCOPE, status_code=200, cancelled=True)
    return transaction(root, facts=exchange.facts())


Maker = Callable[[], Any]

SINGLE: list[Maker] = [
    http_server_old,
    http_server_stable,
    http_server_both,
    http_server_without_route,
    http_client,
    websocket,
    websocket_stable,
    disconnected,
    follow_up,
    own,
]
GENERATIONS = ("old", "stable", "both")
CASES: list[tuple[str, Maker]] = [
    *((make.__name__, make) for make in SINGLE),
    *((name, partial(family, name, each)) for name in FAMILIES for each in GENERATIONS),
]
IDS = [
    *(make.__name__ for make in SINGLE),
    *(f"{name}-{each}" for name in FAMILIES for each in GENERATIONS),
]


@pytest.mark.parametrize(("name", "make"), CASES, ids=IDS)
def test_a_transaction_leaves_as_it_is_on_file(
    name: str, make: Maker, request: pytest.FixtureRequest
) -> None:
    """Whichever generation of names the spans were written in."""
    golden = HERE / f"{name}.json"
    payload = in_order(json.loads(encoded(make())))
    text = json.dumps(payload, indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--rewrite-goldens"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def in_order(payload: Any) -> Any:
    """The payload with attributes by name: the generations write them in orders of their own."""
    for one in (payload["contexts"]["trace"], *payload["spans"]):
        one["data"] = dict(sorted(one["data"].items()))
    return payload


@pytest.mark.parametrize(("_name", "make"), CASES, ids=IDS)
def test_relay_takes_it_without_remark_and_leaves_every_name(_name: str, make: Maker) -> None:
    payload = make()
    payload.pop("_dropped_spans", None)  # sentry-sdk takes this away.
    assert problems(payload) == problems(payload, normalize_spans=True) == []
    if payload["transaction_info"]["source"] != "url":  # Sentry masks the ids in it.
        assert names(stored(payload)) == names(payload)


@pytest.mark.parametrize(("_name", "make"), CASES, ids=IDS)
def test_nothing_private_is_on_file(_name: str, make: Maker) -> None:
    text = encoded(make())
    assert not [word for word in ("secret", "bob", "192.0.2.7", "dark") if word in text]


def test_every_file_is_made_by_something() -> None:
    assert {path.stem for path in HERE.glob("*.json")} == {name for name, _ in CASES}
