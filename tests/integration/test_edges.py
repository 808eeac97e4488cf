"""The edges of the ASGI layer: what it must not change, and what is no error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from functools import partial
from typing import Any

import httpx
import pytest
import sentry_sdk
from fastapi import FastAPI
from litestar import Litestar, websocket
from litestar import WebSocket as OfLitestar
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.tracing import TransactionSource
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

import otel_sentry_asgi
from otel_sentry_asgi import SentryMiddleware, SentrySpanProcessor
from otel_sentry_asgi.export import Clean, Origin, Transaction
from tests.integration.apps import AT_ONCE, Shop
from tests.integration.conftest import Run, ids, title
from tests.support.kent import Kent
from tests.support.scenario import scenario
from tests.support.server import Lifespan, serve

Init = Callable[..., None]
HTTP = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(shutdown_on_exit=False)


async def no_message() -> Any:
    return {"type": "http.disconnect"}


async def no_send(message: Any) -> None:
    pass


def call(app: Any, scope: dict[str, Any] | None = None) -> None:
    asyncio.run(app(scope or dict(HTTP), no_message, no_send))


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_an_asgi_2_application(
    by_hand: bool, outside: bool, init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init()

    class Old:
        def __init__(self, scope: Any) -> None:
            self.path = scope["path"]

        async def __call__(self, receive: Any, send: Any) -> None:
            sentry_sdk.set_tag("asgi", "2")
            if self.path == "/boom":
                raise ValueError("old")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    if by_hand:
        provider.add_span_processor(SentrySpanProcessor())
    else:
        otel_sentry_asgi.instrument(tracer_provider=provider)
    app: Any = Old
    if by_hand and not outside:
        app = SentryMiddleware(app)
    app = OpenTelemetryMiddleware(app, tracer_provider=provider)
    if by_hand and outside:
        app = SentryMiddleware(app)
    with serve(app, lifespan="off") as url:
        assert httpx.get(f"{url}/a").status_code == 200
        assert httpx.get(f"{url}/boom").status_code == 500
    provider.force_flush()

    transactions = [item.body for item in kent.transactions()]
    (error,) = [item.body for item in kent.errors()]
    assert [one["transaction"] for one in transactions] == ["GET /a", "GET /boom"]
    assert transactions[0]["tags"]["asgi"] == error["tags"]["asgi"] == "2"
    assert title(error) == "ValueError: old"


@pytest.mark.parametrize("framework", ["starlette", "plain", "message only"])
def test_a_lifespan_that_fails_is_one_error(
    framework: str, init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)

    async def starting(app: Any) -> Any:
        raise RuntimeError("no database")
        yield

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if framework == "plain":
            raise RuntimeError("no database")
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    app: Any = plain
    if framework == "starlette":
        app = Starlette(lifespan=asynccontextmanager(starting))
    app = OpenTelemetryMiddleware(app, tracer_provider=provider)
    with pytest.raises(RuntimeError, match="did not start"), serve(app):
        pass
    sentry_sdk.flush()

    (error,) = [item.body for item in kent.errors()]
    if framework == "message only":
        assert title(error) == "no database"
    else:
        assert title(error) == "RuntimeError: no database"
        assert error["exception"]["values"][-1]["mechanism"]["handled"] is False


def test_an_application_without_lifespan_support_is_no_error(
    init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "this is how such applications answer a probe"

    with serve(OpenTelemetryMiddleware(app, tracer_provider=provider), lifespan="auto"):
        pass
    sentry_sdk.flush()

    assert kent.errors() == []


def test_a_start_up_that_fails_before_the_first_event_still_ends_the_server(
    init: Init, provider: TracerProvider
) -> None:
    """Starlette makes its middlewares when the lifespan begins, and uvicorn is told to insist."""
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)
    app, wrong = Starlette(), dict[str, Any](no_such="argument")
    app.add_middleware(SentryMiddleware, **wrong)
    with (
        pytest.raises(RuntimeError, match="did not start"),
        serve(OpenTelemetryMiddleware(app, tracer_provider=provider), lifespan="on"),
    ):
        pass


@pytest.mark.parametrize("lifespan", ["on", "auto"])
@pytest.mark.parametrize("old", [False, True])
def test_an_application_that_refuses_the_lifespan_is_told_of_the_end(
    lifespan: Lifespan, old: bool, init: Init, provider: TracerProvider, kent: Kent
) -> None:
    """What ended a moment before is there when the server has stopped; ASGI 2 and 3."""
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider, settle=60, linger=60)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"HTTP only, not {scope['type']}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def older(scope: Any) -> Any:
        return partial(app, scope)

    served = OpenTelemetryMiddleware(older if old else app, tracer_provider=provider)
    with serve(served, lifespan=lifespan) as url:
        assert httpx.get(f"{url}/a").status_code == 200

    assert [item.body["transaction"] for item in kent.transactions()] == ["GET /a"]
    assert kent.errors() == []


def test_what_is_ended_before_the_shutdown_has_left_with_it(
    init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider, settle=60, linger=60)
    app = OpenTelemetryMiddleware(Shop(provider).starlette(), tracer_provider=provider)

    with serve(app) as url:
        for number in range(20):
            httpx.get(f"{url}/orders/{number}")

    assert len(kent.transactions()) == 20


@pytest.mark.parametrize("stack", ["contrib_starlette", "starlette_native", "by_hand_outside"])
def test_on_trio(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack, server="hypercorn-trio") as (url, service):
        assert httpx.get(f"{url}/orders/5").status_code == 200
        assert httpx.get(f"{url}/boom-in-span").status_code == 500

    names = sorted(one["transaction"] for one in service.transactions)
    assert names == ["GET /boom-in-span", "GET /orders/{id}"]
    assert title(service.error()) == "ShopError: cannot price"


class Leaves(BaseException):
    pass


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, Leaves])
def test_what_is_no_exception_is_no_error_and_passes(
    kind: type[BaseException], init: Init, provider: TracerProvider, kent: Kent
) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise kind

    async def main() -> None:
        with pytest.raises(kind):
            await OpenTelemetryMiddleware(app, tracer_provider=provider)(
                dict(HTTP), no_message, no_send
            )

    asyncio.run(main())
    provider.force_flush()
    sentry_sdk.flush()

    assert kent.errors() == []
    assert len(kent.transactions()) == 1


async def listening(socket: Any) -> None:
    await socket.accept()
    while True:
        await socket.receive_text()


async def listening_in_litestar(socket: OfLitestar[Any, Any, Any]) -> None:
    await listening(socket)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Starlette(routes=[WebSocketRoute("/listen", listening)]),
        lambda: Litestar([websocket("/listen")(listening_in_litestar)], logging_config=None),
    ],
    ids=["starlette", "litestar"],
)
def test_a_client_that_goes_away_is_no_error(
    build: Callable[[], Any], init: Init, provider: TracerProvider, kent: Kent
) -> None:
    """Also where sentry-sdk's integration takes it for one."""
    init(release="shop@1")
    otel_sentry_asgi.instrument(tracer_provider=provider)

    app = OpenTelemetryMiddleware(build(), tracer_provider=provider)
    with serve(app) as url, connect(url.replace("http", "ws") + "/listen") as socket:
        socket.send("hello")
    provider.force_flush()
    sentry_sdk.flush()

    assert kent.errors() == []
    assert len(kent.transactions()) == 1
    assert kent.session_counts() == {"exited": 1}


@pytest.mark.parametrize("instrumented", [False, True])
def test_the_applications_exception_is_not_touched(
    instrumented: bool, init: Init, provider: TracerProvider
) -> None:
    """Not its chain, not its attributes, and no frame of ours that raises it anew."""
    init()
    if instrumented:
        otel_sentry_asgi.instrument(tracer_provider=provider)
    cause, error = KeyError("cause"), ValueError("boom")
    before = dict(vars(error))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error from cause

    with pytest.raises(ValueError, match="boom") as caught:
        call(OpenTelemetryMiddleware(app, tracer_provider=provider))

    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__suppress_context__ is True
    assert vars(error) == before
    assert not hasattr(error, "__notes__")
    raised_in = [entry.name for entry in caught.traceback]
    assert raised_in[-1] == "app"
    assert raised_in.count("__call__") == 1, "no layer raises a second time"


def test_the_scope_is_given_back_as_it_was(init: Init, provider: TracerProvider) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)
    scope = dict(HTTP)
    tags = dict(sentry_sdk.get_isolation_scope()._tags)

    async def app(inner: Any, receive: Any, send: Any) -> None:
        assert inner is scope
        sentry_sdk.set_tag("a", 1)

    call(OpenTelemetryMiddleware(app, tracer_provider=provider), scope)

    assert scope == HTTP
    assert sentry_sdk.get_isolation_scope()._tags == tags


@pytest.mark.parametrize(
    ("path", "status"), [("/orders/1", "exited"), ("/recorded", "errored"), ("/boom", "crashed")]
)
def test_sessions(path: str, status: str, init: Init, run: Run, kent: Kent) -> None:
    init(release="shop@1.0")

    with run("contrib_starlette") as (url, _):
        httpx.get(f"{url}{path}")

    (sessions,) = kent.sessions()
    assert kent.session_counts() == {status: 1}
    assert sessions.body["attrs"]["release"] == "shop@1.0"


def test_no_sessions_when_they_are_off(init: Init, run: Run, kent: Kent) -> None:
    init(release="shop@1.0", auto_session_tracking=False)

    with run("contrib_starlette") as (url, _):
        httpx.get(f"{url}/orders/1")

    assert kent.sessions() == []


class Failing:
    """An exporter that cannot."""

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        raise OSError("disk full")

    def force_flush(self, timeout: float) -> bool:
        raise OSError("disk full")

    def shutdown(self) -> None:
        raise OSError("disk full")


def test_a_failing_exporter_is_counted_and_does_not_reach_the_application(
    init: Init,
    provider: TracerProvider,
    kent: Kent,
    failures: list[tuple[str, BaseException]],
) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider, exporter=Failing())

    with serve(
        OpenTelemetryMiddleware(Shop(provider).starlette(), tracer_provider=provider)
    ) as url:
        assert httpx.get(f"{url}/orders/1").status_code == 200
    provider.force_flush()
    sentry_sdk.flush()

    assert {str(error) for _, error in failures} == {"disk full"}
    failures.clear()
    assert otel_sentry_asgi.stats()["lost.internal_sdk_error"] == 2
    otel_sentry_asgi.uninstrument()
    failures.clear()


def test_a_failing_traces_sampler_means_not_sampled(
    init: Init, run: Run, failures: list[tuple[str, BaseException]]
) -> None:
    def sampler(context: dict[str, Any]) -> float:
        raise ZeroDivisionError

    init(traces_sampler=sampler)

    with run("contrib_starlette") as (url, service):
        assert httpx.get(f"{url}/orders/1").status_code == 200

    assert service.transactions == []
    assert [where for where, _ in failures] == ["traces_sampler"]
    failures.clear()


def test_traces_sampler_sees_what_the_sdk_gives_it(init: Init, run: Run) -> None:
    seen: list[dict[str, Any]] = []

    def sampler(context: dict[str, Any]) -> float:
        seen.append(context)
        return 0.0 if context["asgi_scope"]["path"] == "/log" else 1.0

    init(traces_sampler=sampler)

    with run("contrib_starlette") as (url, service):
        httpx.get(f"{url}/orders/1")
        httpx.get(f"{url}/log")

    assert service.transaction()["transaction"] == "GET /orders/{id}"
    assert seen[0]["transaction_context"]["op"] == "http.server"
    assert seen[0]["transaction_context"]["name"] == "GET /orders/1"
    assert seen[0]["parent_sampled"] is None


def test_a_rate_of_zero_sends_errors_and_counts_the_rest(init: Init, run: Run, kent: Kent) -> None:
    init(traces_sample_rate=0.0)

    with run("contrib_starlette") as (url, service):
        httpx.get(f"{url}/boom-in-span")
        counted = otel_sentry_asgi.stats

    assert service.transactions == []
    error = service.error()
    assert ids(error) in service.otlp_ids
    assert counted()["lost.sample_rate"] == 2, "the server span and `price`"


def test_the_handlers_own_name_wins(init: Init, provider: TracerProvider, kent: Kent) -> None:
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sentry_sdk.get_current_scope().set_transaction_name("checkout")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        call(OpenTelemetryMiddleware(app, tracer_provider=provider))
    provider.force_flush()
    sentry_sdk.flush()

    assert [item.body["transaction"] for item in kent.errors()] == ["checkout"]
    (transaction,) = kent.transactions()
    assert transaction.body["transaction"] == "checkout"
    assert transaction.envelope["trace"]["transaction"] == "checkout"


@pytest.mark.parametrize("source", [None, "custom", TransactionSource.CUSTOM])
@pytest.mark.parametrize("style", ["url", "endpoint"])
def test_the_handlers_own_name_wins_over_that_of_an_integration(
    style: str, source: str | None, init: Init, provider: TracerProvider, kent: Kent
) -> None:
    """Which sentry-sdk's integrations set before they call it, with a source."""
    init(
        integrations=[
            StarletteIntegration(transaction_style=style),
            FastApiIntegration(transaction_style=style),
        ],
    )
    otel_sentry_asgi.instrument(tracer_provider=provider)
    app = FastAPI()

    @app.get("/pay/{number}")
    def pay(number: str) -> None:
        if number == "named":
            sentry_sdk.get_current_scope().set_transaction_name("checkout", source=source)
        sentry_sdk.capture_message(number)

    wrapped = OpenTelemetryMiddleware(app, tracer_provider=provider)
    for number in ("named", "plain"):
        call(wrapped, {**HTTP, "path": f"/pay/{number}", "root_path": ""})
    provider.force_flush()
    sentry_sdk.flush()

    names = {title(item.body): item.body["transaction"] for item in kent.errors()}
    assert names == {"named": "checkout", "plain": "GET /pay/{number}"}
    assert sorted(item.body["transaction"] for item in kent.transactions()) == [
        "GET /pay/{number}",
        "checkout",
    ]


def test_work_outside_of_requests(init: Init, provider: TracerProvider, kent: Kent) -> None:
    """Each local root has its own scope; what leaves it is an error, what is dealt with is none."""
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)
    tracer = provider.get_tracer("jobs")

    def job(number: int) -> None:
        with tracer.start_as_current_span("job"):
            sentry_sdk.set_tag(f"job-{number}", "yes")
            with suppress(KeyError), tracer.start_as_current_span("step"):
                raise KeyError("dealt with")
            with tracer.start_as_current_span("last step"):
                raise ValueError("job")

    for number in range(2):
        with pytest.raises(ValueError, match="job"):
            job(number)
    provider.force_flush()
    sentry_sdk.flush()

    errors, transactions = kent.errors(), kent.transactions()
    assert [title(item.body) for item in errors] == ["ValueError: job"] * 2
    for items in (errors, transactions):
        assert [sorted(item.body["tags"]) for item in items] == [["job-0"], ["job-1"]]
    for error, transaction in zip(errors, transactions, strict=True):
        (last,) = [s for s in transaction.body["spans"] if s["description"] == "last step"]
        assert ids(error.body) == (last["trace_id"], last["span_id"])
        assert error.body["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert "job-0" not in sentry_sdk.get_isolation_scope()._tags


def test_without_any_layer_of_ours_requests_are_still_isolated(init: Init, run: Run) -> None:
    """Neither an OTel middleware to wrap nor an integration: the processor is what is left."""
    init(disabled_integrations=[StarletteIntegration(), FastApiIntegration()])

    with run("fastapi_native") as (url, service):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(httpx.get, [f"{url}/together/{n}" for n in range(AT_ONCE)]))
        assert httpx.get(f"{url}/ids").text == ""
        assert httpx.get(f"{url}/log").status_code == 200

    together = [one for one in service.transactions if "/together/" in one["transaction"]]
    assert len(together) == AT_ONCE
    assert sorted(one["tags"]["number"] for one in together) == list("01234567")
    assert all(one["user"] == {"id": f"user-{one['tags']['number']}"} for one in together)
    assert service.error()["tags"] == {"from": "log"}


def test_an_event_that_cannot_be_cleaned_is_not_sent(
    init: Init, run: Run, failures: list[tuple[str, BaseException]]
) -> None:
    def breaking(event: Any, hint: Any) -> Any:
        if not event.get("type"):
            event["request"] = 5
        return event

    init()
    with sentry_sdk.isolation_scope() as scope:
        scope.add_event_processor(breaking)
        with run("contrib_plain") as (url, service):
            assert httpx.get(f"{url}/boom").status_code == 500

    assert service.errors == []
    assert [where for where, _ in failures] == ["event processor"]
    failures.clear()
    assert otel_sentry_asgi.stats()["lost.internal_sdk_error"] == 1


def test_what_a_processor_takes_out_of_the_request_stays_out(init: Init, run: Run) -> None:
    """Also of one header, and what it writes over; what it sees is the whole request, cleaned."""
    seen: list[Any] = []

    def private(event: Any, hint: Any) -> Any:
        if not event.get("type"):
            seen.append(deepcopy(event["request"]))
            del event["request"]["query_string"], event["request"]["headers"]["x-tenant"]
            event["request"]["url"] = "http://acme/boom"
            event["request"]["headers"]["x-customer"] = "***"
        return event

    init()
    headers = {"x-tenant": "acme", "x-customer": "bob", "x-api-key": "x"}
    with sentry_sdk.isolation_scope() as scope:
        scope.add_event_processor(private)
        with run("contrib_plain") as (url, service):
            assert httpx.get(f"{url}/boom?page=2", headers=headers).status_code == 500

    assert seen[0]["query_string"] == "page=2"
    assert seen[0]["headers"]["x-tenant"] == "acme"
    assert seen[0]["headers"]["x-api-key"] == "[Filtered]"
    request = service.error()["request"]
    assert "query_string" not in request
    assert "x-tenant" not in request["headers"]
    assert request["url"] == "http://acme/boom"
    assert request["headers"]["x-customer"] == "***"
    assert request["headers"]["host"] == url.removeprefix("http://")
    assert request["headers"]["x-api-key"] == "[Filtered]"


PRIVATE = {
    "cookie": "c00kie-5ecret",
    "authorization": "b3arer-5ecret",
    "x-api-key": "ap1-5ecret",
    "x-forwarded-for": "203.0.113.77",
    "forwarded": "for=203.0.113.78",
    "cf-connecting-ip": "203.0.113.79",
    "x-amzn-oidc-data": "0idc-5ecret",
    "dpop": "dp0p-5ecret",
    "ssl-client-cert": "c3rt-5ecret",
    "x-hub-signature-256": "s1gnature-5ecret",
    "x-envoy-external-address": "203.0.113.81",
    "x-azure-clientip": "203.0.113.82",
    "query": "qu3ry-5ecret",
}


def test_a_scope_in_a_local_variable_does_not_leave(
    init: Init, provider: TracerProvider, kent: Kent
) -> None:
    """Nor a request or websocket of Starlette, which prints as one."""
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        copy = dict(scope)
        socket = WebSocket(copy, receive, send)
        headers = scope["headers"]
        raise ValueError(len(headers), type(socket))

    scope = {
        **HTTP,
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "scheme": "ws",
        "client": ("203.0.113.80", 7),
        "headers": [(b"cookie", b"sid=c00kie-5ecret"), (b"accept", b"text/any")],
    }
    with pytest.raises(ValueError, match="WebSocket"):
        call(OpenTelemetryMiddleware(app, tracer_provider=provider), scope)
    provider.force_flush()
    sentry_sdk.flush()

    (error,) = [item.body for item in kent.errors()]
    variables = error["exception"]["values"][-1]["stacktrace"]["frames"][-1]["vars"]
    assert variables["scope"] == variables["copy"] == variables["socket"] == "[Filtered]"
    assert "text/any" in str(variables["headers"])
    assert "c00kie-5ecret" not in kent.raw()
    assert "203.0.113.80" not in kent.raw()


@pytest.mark.parametrize("path", ["/orders/1", "/boom", "/boom-in-span", "/log", "/recorded"])
@pytest.mark.parametrize(
    "stack", ["contrib_plain", "contrib_fastapi", "fastapi_native", "by_hand_plain"]
)
def test_nothing_private_leaves_while_personal_data_is_off(
    stack: str, path: str, init: Init, run: Run, kent: Kent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", ".*")
    init()

    with run(stack) as (url, service):
        headers = {
            **{name: PRIVATE[name] for name in PRIVATE if name not in ("query", "cookie")},
            "authorization": f"Bearer {PRIVATE['authorization']}",
            "cookie": f"sid={PRIVATE['cookie']}; theme={PRIVATE['cookie']}2",
            "x-upstream": f"https://svc:{PRIVATE['cookie']}@up.example/?token={PRIVATE['query']}",
            "referer": f"http://u:{PRIVATE['cookie']}@shop.example/?token={PRIVATE['query']}",
        }
        httpx.get(f"{url}{path}?token={PRIVATE['query']}&page=2", headers=headers)

    raw = kent.raw()
    assert service.transactions
    assert {name for name, value in PRIVATE.items() if value in raw} == set()
    assert "ann@example.org" not in raw, "the literal in the statement"
    assert "REMOTE_ADDR" not in raw
    assert "page=2" in raw, "what is not private stays"


@pytest.mark.filterwarnings("ignore:The send_default_pii:DeprecationWarning")
def test_personal_data_is_there_when_it_is_on(init: Init, run: Run) -> None:
    init(send_default_pii=True)

    with run("contrib_starlette") as (url, service):
        httpx.get(f"{url}/orders/1?name=ann", headers={"cookie": "theme=dark; sid=s3cret"})

    request = service.transaction()["request"]
    assert request["cookies"] == {"theme": "dark", "sid": "[Filtered]"}
    assert request["env"]["REMOTE_ADDR"] == "127.0.0.1"
    assert request["query_string"] == "name=ann"


def test_what_is_over_the_limit_is_counted(
    init: Init, provider: TracerProvider, kent: Kent
) -> None:
    """The earliest spans stay; the rest is in the client report, in `_meta` and in the counters."""
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider, max_spans=2)
    tracer = provider.get_tracer("jobs")

    with tracer.start_as_current_span("job"):
        for number in range(5):
            with tracer.start_as_current_span(f"step {number}"):
                pass
    provider.force_flush()
    sentry_sdk.get_client().close()

    (transaction,) = [item.body for item in kent.transactions()]
    lost = [entry for item in kent.client_reports() for entry in item.body["discarded_events"]]
    assert [span["description"] for span in transaction["spans"]] == ["step 0", "step 1"]
    assert transaction["_meta"]["spans"][""]["len"] == 5
    assert {"reason": "buffer_overflow", "category": "span", "quantity": 3} in lost
    assert otel_sentry_asgi.stats()["lost.buffer_overflow"] == 3


def test_where_only_sentrys_scopes_go_the_trace_is_that_of_the_request() -> None:
    """In threads, in spans of sentry-sdk's own, and in headers that the application asks for."""
    facts = scenario("""
        from concurrent.futures import ThreadPoolExecutor
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        init()
        otel_sentry_asgi.instrument()
        seen = []
        pool = ThreadPoolExecutor(1)

        async def app(scope, receive, send):
            context = trace.get_current_span().get_span_context()
            told = {"request": [f"{context.trace_id:032x}", f"{context.span_id:016x}"]}
            pool.submit(sentry_sdk.capture_message, "in a thread").result()
            told["thread"] = sentry_sdk.get_isolation_scope().get_traceparent()
            with sentry_sdk.start_span(name="own"):
                told["own"] = sentry_sdk.get_current_scope().get_traceparent()
                sentry_sdk.capture_message("in a span")
            told["parent"] = sentry_sdk.get_traceparent()
            told["baggage"] = sentry_sdk.get_baggage()
            seen.append(told)
            await hello(scope, receive, send)

        for _ in range(2):
            get(OpenTelemetryMiddleware(app), "/a")
        events = [[one["message"], one["contexts"]["trace"]["trace_id"],
                   (one["contexts"]["trace"].get("dynamic_sampling_context") or {}).get("trace_id")]
                  for one in payloads("event")]
        outside = sentry_sdk.get_traceparent()
        trace.get_tracer_provider().force_flush()
        report(seen=seen, events=events, outside=outside)
    """)
    first, second = facts["seen"]
    assert first["request"][0] != second["request"][0]
    for told in (first, second):
        trace_id, span_id = told["request"]
        assert told["parent"] == told["thread"] == f"{trace_id}-{span_id}-1"
        assert told["own"].startswith(trace_id)
        assert f"sentry-trace_id={trace_id}" in told["baggage"]
        assert "sentry-sample_rate=1.0" in told["baggage"]
    ids = [told["request"][0] for told in (first, first, second, second)]
    assert [trace_id for _, trace_id, _ in facts["events"]] == ids
    assert first["request"][0] not in facts["outside"]


def test_a_unit_of_work_outside_of_requests_tells_sentrys_scopes_of_its_trace() -> None:
    facts = scenario("""
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        init()
        otel_sentry_asgi.instrument()
        with trace.get_tracer("x").start_as_current_span("job") as span:
            context = span.get_span_context()
            header = sentry_sdk.get_traceparent()
        report(header=header, ids=f"{context.trace_id:032x}-{context.span_id:016x}-1")
    """)
    assert facts["header"] == facts["ids"]


def test_a_transaction_of_sentry_sdks_own_does_not_rename_the_request() -> None:
    facts = scenario("""
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        init()
        otel_sentry_asgi.instrument()

        async def app(scope, receive, send):
            with sentry_sdk.start_transaction(op="task", name="mail job"):
                sentry_sdk.capture_message("within")
            sentry_sdk.capture_message("after")
            await hello(scope, receive, send)

        async def named(scope, receive, send):
            sentry_sdk.get_current_scope().set_transaction_name("mine", source="custom")
            await hello(scope, receive, send)

        get(OpenTelemetryMiddleware(app), "/a")
        get(OpenTelemetryMiddleware(named), "/b")
        trace.get_tracer_provider().force_flush()
        report(names=names(), events=[one["transaction"] for one in payloads("event")])
    """)
    assert sorted(facts["names"]) == ["GET /a", "mail job", "mine"]
    assert facts["events"] == ["GET /a", "GET /a"]


def test_what_sentry_sdk_alone_has_in_a_request_and_this_has_not(
    init: Init, provider: TracerProvider, kent: Kent
) -> None:
    """As docs/limits.md says."""
    init()
    otel_sentry_asgi.instrument(tracer_provider=provider)
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(sentry_sdk.get_current_span())
        seen.append(sentry_sdk.get_current_scope().transaction)

    call(OpenTelemetryMiddleware(app, tracer_provider=provider), {**HTTP, "path": "/x"})
    provider.force_flush()
    sentry_sdk.get_client().close()

    (transaction,) = [item.body for item in kent.transactions()]
    assert seen == [None, None]
    assert transaction["transaction"] == "GET /x"
    assert "tags" not in transaction
