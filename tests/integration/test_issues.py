"""Which exceptions are issues, wherever they arise, and what each of them carries."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from http.client import HTTPConnection
from typing import Any

import anyio
import httpx
import pytest
import sentry_sdk
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import otel_sentry_asgi
from tests.integration.conftest import ids, title
from tests.support.kent import Kent
from tests.support.relay import relay_check
from tests.support.server import ServerName, serve

Init = Callable[..., None]
Tracer = trace.Tracer


class ShopError(Exception):
    pass


class Answers:
    """What one request to a handler brought to Sentry."""

    def __init__(self, kent: Kent) -> None:
        self._kent = kent

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [item.body for item in self._kent.errors()]

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return [item.body for item in self._kent.transactions()]

    def error(self) -> dict[str, Any]:
        assert len(self.errors) == 1, [title(error) for error in self.errors]
        problems = relay_check(self.errors[0])
        # Trimmed is `sys.argv`, which sentry-sdk adds, when the tests are given many arguments.
        assert [p for p in problems if p.kind not in ("remark", "trimmed")] == []
        return self.errors[0]

    def handled(self) -> dict[str, bool]:
        """Each issue's title, and whether it was handled."""
        return {
            title(error): error["exception"]["values"][-1]["mechanism"]["handled"]
            for error in self.errors
        }


Ask = Callable[..., Answers]


@pytest.fixture
def ask(kent: Kent, init: Init) -> Ask:
    """Serve a handler under OTel's middleware, ask it once, and stop."""

    def ask(
        handler: Callable[[Request, Tracer], Any],
        *,
        sampler: Sampler = ALWAYS_ON,
        options: dict[str, Any] | None = None,
        app_options: dict[str, Any] | None = None,
        server: ServerName = "uvicorn",
        **settings: Any,
    ) -> Answers:
        init(**(options or {}))
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        otel_sentry_asgi.instrument(tracer_provider=provider, **settings)
        tracer = provider.get_tracer("shop")

        async def endpoint(request: Request) -> Response:
            answer = await handler(request, tracer)
            return answer if isinstance(answer, Response) else PlainTextResponse("ok")

        app = Starlette(routes=[Route("/ask/{id}", endpoint)], **(app_options or {}))
        served = serve(OpenTelemetryMiddleware(app, tracer_provider=provider), server=server)
        with served as url, suppress(httpx.RemoteProtocolError):
            httpx.get(f"{url}/ask/7")
        assert provider.force_flush()
        sentry_sdk.flush()
        return Answers(kent)

    return ask


# -- where ------------------------------------------------------------------------------------


async def in_a_thread_pool(request: Request, tracer: Tracer) -> None:
    def work() -> None:
        with tracer.start_as_current_span("failing"):
            raise ShopError("where")

    await run_in_threadpool(work)


async def in_an_own_thread_pool(request: Request, tracer: Tracer) -> None:
    def work() -> None:
        with tracer.start_as_current_span("failing"):
            raise ShopError("where")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(copy_context().run, work).result()


async def in_a_task_that_is_awaited(request: Request, tracer: Tracer) -> None:
    async def work() -> None:
        with tracer.start_as_current_span("failing"):
            raise ShopError("where")

    await asyncio.create_task(work())


async def in_a_stream(request: Request, tracer: Tracer) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        with tracer.start_as_current_span("failing"):
            raise ShopError("where")

    return StreamingResponse(chunks())


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
@pytest.mark.parametrize(
    "handler",
    [in_a_thread_pool, in_an_own_thread_pool, in_a_task_that_is_awaited, in_a_stream],
)
def test_wherever_it_arises_it_is_one_unhandled_issue(
    handler: Any, sampler: Sampler, ask: Ask
) -> None:
    answers = ask(handler, sampler=sampler)

    error = answers.error()
    assert answers.handled() == {"ShopError: where": False}
    assert error["request"]["url"].endswith("/ask/7")
    assert error["transaction"] == "GET /ask/{id}"
    if sampler is ALWAYS_ON:
        (failing,) = [
            span
            for one in answers.transactions
            for span in one["spans"]
            if span["description"] == "failing"
        ]
        assert ids(error) == (failing["trace_id"], failing["span_id"])


@pytest.mark.parametrize("handler", [in_a_thread_pool, in_a_stream])
def test_wherever_it_arises_on_trio(handler: Any, ask: Ask) -> None:
    answers = ask(handler, server="hypercorn-trio")

    assert answers.handled() == {"ShopError: where": False}
    assert answers.error()["transaction"] == "GET /ask/{id}"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sentry-sdk knows only Python's own groups")
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn-trio"])
def test_a_task_group_is_one_issue_with_its_members(server: ServerName, ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        async def work(name: str) -> None:
            with tracer.start_as_current_span(name):
                raise ShopError(name)

        async with anyio.create_task_group() as group:
            group.start_soon(work, "first")
            group.start_soon(work, "second")

    error = ask(handler, server=server).error()

    values = error["exception"]["values"]
    assert values[-1]["mechanism"]["is_exception_group"] is True
    assert values[-1]["mechanism"]["handled"] is False
    assert {value["value"] for value in values[:-1]} == {"first", "second"}


# -- once -------------------------------------------------------------------------------------


def test_two_exceptions_in_turns_are_two_issues(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        a, b = ShopError("a"), ValueError("b")
        with tracer.start_as_current_span("work") as span:
            for error in (a, b, a, b):
                span.record_exception(error)
                sentry_sdk.capture_exception(error)
                logging.getLogger("shop").error("again", exc_info=error)

    assert sorted(map(title, ask(handler).errors)) == ["ShopError: a", "ValueError: b"]


def test_what_was_recorded_and_then_leaves_is_unhandled(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("work") as span:
            try:
                raise ShopError("both")
            except ShopError as error:
                span.record_exception(error)
                raise

    assert ask(handler).handled() == {"ShopError: both": False}


SHARED = ShopError("closed")


async def raises_it(tracer: Tracer, _: asyncio.Future[None]) -> None:
    with tracer.start_as_current_span("work"):
        raise SHARED


async def captures_it(tracer: Tracer, _: asyncio.Future[None]) -> None:
    for _again in range(2):
        sentry_sdk.capture_exception(SHARED)
    logging.getLogger("shop").error("closed", exc_info=SHARED)


async def awaits_it(tracer: Tracer, failed: asyncio.Future[None]) -> None:
    with tracer.start_as_current_span("work"):
        await failed


@pytest.mark.parametrize("handler", [raises_it, captures_it, awaits_it])
def test_what_several_requests_raise_is_one_issue_of_each(
    handler: Any, init: Init, kent: Kent
) -> None:
    """Also under a server that logs it after each of them."""
    init()
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sentry_asgi.instrument(tracer_provider=provider)
    futures: list[asyncio.Future[None]] = []

    async def endpoint(request: Request) -> Response:
        if not futures:
            futures.append(asyncio.get_running_loop().create_future())
            futures[0].set_exception(SHARED)
        await handler(provider.get_tracer("shop"), futures[0])
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/ask/{id}", endpoint)])
    with serve(OpenTelemetryMiddleware(app, tracer_provider=provider)) as url:
        for number in range(3):
            httpx.get(f"{url}/ask/{number}")
        futures[0].exception()
    assert provider.force_flush()
    sentry_sdk.flush()

    errors = [item.body for item in kent.errors()]
    transactions = [item.body for item in kent.transactions()]
    assert [title(error) for error in errors] == ["ShopError: closed"] * 3
    assert [error["request"]["url"] for error in errors] == [f"{url}/ask/{n}" for n in range(3)]
    assert [ids(error)[0] for error in errors] == [ids(one)[0] for one in transactions]


def test_a_loop_that_reuses_ids_loses_nothing(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        for number in range(5):
            with suppress(ShopError), tracer.start_as_current_span("work") as span:
                try:
                    raise ShopError(number)
                except ShopError as error:
                    span.record_exception(error)

    assert len(ask(handler).errors) == 5


# -- which ------------------------------------------------------------------------------------


async def all_kinds(request: Request, tracer: Tracer) -> None:
    with suppress(ShopError), tracer.start_as_current_span("passes"):
        raise ShopError("dealt with further up")
    with tracer.start_as_current_span("records") as span:
        span.record_exception(ValueError("on purpose"))
    raise KeyError("leaves")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("unhandled", {"KeyError: 'leaves'": False}),
        ("recorded", {"KeyError: 'leaves'": False, "ValueError: on purpose": True}),
        (
            "all",
            {
                "KeyError: 'leaves'": False,
                "ValueError: on purpose": True,
                "ShopError: dealt with further up": True,
            },
        ),
    ],
)
def test_a_setting_chooses(mode: str, expected: dict[str, bool], ask: Ask) -> None:
    assert ask(all_kinds, errors=mode).handled() == expected


def test_what_was_dealt_with_is_a_breadcrumb(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("cache") as span:
            span.add_event("miss", {"cache.item": "a", "api_token": "s3cret-value"})
        sentry_sdk.add_breadcrumb(message="by hand")
        with suppress(ShopError), tracer.start_as_current_span("mail"):
            raise ShopError("no server")
        with tracer.start_as_current_span(
            "q", attributes={"db.system": "postgresql", "db.statement": "SELECT 'ann'"}
        ):
            pass
        raise KeyError("leaves")

    error = ask(handler).error()

    values = error["breadcrumbs"]["values"]
    crumbs = [(crumb.get("category"), crumb["message"]) for crumb in values]
    assert crumbs == [
        ("event", "miss"),
        ("span", "cache"),
        (None, "by hand"),
        ("exception", "tests.integration.test_issues.ShopError: no server"),
        ("span", "mail"),
        ("db", "SELECT ?"),
    ]
    assert values[0]["data"] == {"cache.item": "a", "api_token": "[Filtered]"}


def test_a_request_to_others_is_one_breadcrumb(ask: Ask) -> None:
    """Of those that sentry-sdk tells of, too, that is the one: it has the status."""

    async def upstream(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("ok", 404)(scope, receive, send)

    async def handler(request: Request, tracer: Tracer) -> None:
        def get(path: str, asks: bool) -> None:
            given = {"http.request.method": "GET", "url.full": f"{base}{path}?page=2"}
            with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=given):
                if asks:
                    connection = HTTPConnection(base.removeprefix("http://"))
                    connection.request("GET", f"{path}?page=2")
                    connection.getresponse().read()
                    connection.close()

        for path, asks in (("/a", True), ("/b", True), ("/a", True), ("/a", False)):
            await asyncio.to_thread(get, path, asks)
        raise KeyError("after it")

    with serve(upstream, lifespan="off") as url:
        base = url.replace("127.0.0.1", "localhost")  # The client's address is filtered.
        crumbs = ask(handler).error()["breadcrumbs"]["values"]

    status = "http.response.status_code"
    told = [
        (one["category"], one.get("message") or one["data"]["url"], one["data"].get(status))
        for one in crumbs
    ]
    assert told == [
        ("httplib", f"{base}/a", 404),
        ("httplib", f"{base}/b", 404),
        ("httplib", f"{base}/a", 404),
        ("http.client", f"GET {base}/a", None),
    ]


def test_credentials_of_urls_leave_in_no_text(ask: Ask, kent: Kent) -> None:
    password = "hunter" + "2"  # Not in one piece: source lines are sent, too.

    async def handler(request: Request, tracer: Tracer) -> None:
        url = f"postgresql://shop:{password}@db/shop"
        logging.getLogger("shop").warning("connecting to %s", url)
        raise ConnectionError(f"cannot connect to {url}")

    assert title(ask(handler).error()) == (
        "ConnectionError: cannot connect to postgresql://[Filtered]@db/shop"
    )
    assert f":{password}@" not in kent.raw()


def test_a_command_line_does_not_leave_in_a_breadcrumb(ask: Ask, kent: Kent) -> None:
    password = "hunter" + "2"

    async def handler(request: Request, tracer: Tracer) -> None:
        await asyncio.to_thread(subprocess.run, ["true", f"--password={password}"], check=True)
        raise ValueError("after it")

    crumbs = ask(handler).error()["breadcrumbs"]["values"]

    assert [c["message"] for c in crumbs if c.get("category") == "subprocess"] == ["true"]
    assert password not in kent.raw()


@pytest.mark.parametrize(("status", "issues"), [(404, 0), (503, 1)])
def test_an_http_exception_is_an_issue_by_its_status(status: int, issues: int, ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("work") as span:
            error = HTTPException(status, "answer")
            span.record_exception(error)
            raise error

    answers = ask(handler, options={"auto_enabling_integrations": False})

    assert len(answers.errors) == issues
    if issues:
        assert list(answers.handled().values()) == [True]


def test_statuses_that_are_no_failure_can_be_chosen(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        raise HTTPException(503, "busy")

    options = {"auto_enabling_integrations": False}
    assert ask(handler, options=options, failed_request_status_codes={500}).errors == []


def test_an_exception_that_the_application_answers_is_no_issue(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("work"):
            raise ShopError("known")

    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse("come back later", 503)

    answers = ask(handler, app_options={"exception_handlers": {ShopError: answer}})

    assert answers.errors == []
    assert answers.transactions[0]["contexts"]["trace"]["status"] == "unavailable"


@pytest.mark.parametrize("ignored", [ShopError, lambda error: "boring" in str(error)])
def test_ignored_errors(ignored: Any, ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        logging.getLogger("shop").error("logged", exc_info=ShopError("boring"))
        raise ShopError("boring")

    assert ask(handler, ignored_errors=(ignored,)).errors == []


def test_the_clients_ignore_errors_and_before_send_apply(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        sentry_sdk.capture_exception(ValueError("changed"))
        raise ShopError("ignored")

    def before_send(event: Any, hint: Any) -> Any:
        event["tags"]["seen"] = "yes"
        return event

    async def tagged(request: Request, tracer: Tracer) -> None:
        sentry_sdk.set_tag("a", 1)
        await handler(request, tracer)

    options = {"ignore_errors": [ShopError], "before_send": before_send}
    error = ask(tagged, options=options).error()

    assert title(error) == "ValueError: changed"
    assert error["tags"]["seen"] == "yes"


def test_opentelemetrys_own_errors_are_none_of_the_application(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        logging.getLogger("opentelemetry.sdk.trace.export").error("export failed")
        logging.getLogger("otel_sentry_asgi").error("ours")

    assert ask(handler).errors == []


# -- text only --------------------------------------------------------------------------------


TEXT = """Traceback (most recent call last):
  File "{file}", line 3, in price
    return rows[sku]
KeyError: 'sku'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/shop/gone.py", line 9, in order
    price()
shop.errors.OrderError: cannot price
"""


def test_an_exception_of_which_there_is_only_text(ask: Ask, tmp_path: Any) -> None:
    source = tmp_path / "cart.py"
    source.write_text("rows = {}\ndef price(sku):\n    return rows[sku]\n")

    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("remote") as span:
            span.add_event(
                "exception",
                {
                    "exception.type": "shop.errors.OrderError",
                    "exception.message": "cannot price",
                    "exception.stacktrace": TEXT.format(file=source),
                },
            )

    answers = ask(handler)
    error = answers.error()

    first, last = error["exception"]["values"]
    (remote,) = [s for s in answers.transactions[0]["spans"] if s["description"] == "remote"]
    assert (first["type"], last["type"], last["module"]) == (
        "KeyError",
        "OrderError",
        "shop.errors",
    )
    assert "synthetic" not in last["mechanism"]
    assert last["mechanism"]["handled"] is True
    assert first["stacktrace"]["frames"][0]["context_line"] == "    return rows[sku]"
    assert first["stacktrace"]["frames"][0]["function"] == "price"
    assert "context_line" not in last["stacktrace"]["frames"][0]
    assert ids(error) == (remote["trace_id"], remote["span_id"])
    assert error["request"]["url"].endswith("/ask/7")


def test_a_trace_of_another_language_is_kept_as_text(ask: Ask) -> None:
    trace_text = "java.lang.IllegalStateException: x\n\tat com.example.Main.main(Main.java:5)"

    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("remote") as span:
            attributes = {"exception.type": "java.lang.IllegalStateException"}
            span.add_event("exception", {**attributes, "exception.stacktrace": trace_text})

    error = ask(handler).error()

    assert error["exception"]["values"][0]["type"] == "IllegalStateException"
    assert "stacktrace" not in error["exception"]["values"][0]
    assert error["extra"]["exception.stacktrace"] == trace_text


@pytest.mark.parametrize("rate", [0.0, None])
def test_text_is_reported_also_where_no_transaction_is_sent(rate: float | None, ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("remote") as span:
            span.add_event("exception", {"exception.type": "E", "exception.message": "told"})

    answers = ask(handler, options={"traces_sample_rate": rate})

    assert answers.transactions == []
    assert title(answers.error()) == "E: told"


def test_text_of_an_exception_that_is_known_alive_is_not_reported_again(ask: Ask) -> None:
    async def handler(request: Request, tracer: Tracer) -> None:
        with tracer.start_as_current_span("outer") as outer:
            with tracer.start_as_current_span("inner") as inner:
                for span in (inner, outer):
                    span.add_event(
                        "exception", {"exception.type": "ValueError", "exception.message": "x"}
                    )
            raise ValueError("x")

    assert ask(handler).handled() == {"ValueError: x": False}


# -- log records ------------------------------------------------------------------------------


@contextmanager
def logger_provider() -> Iterator[LoggerProvider]:
    provider = LoggerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def test_an_exception_in_a_log_record(ask: Ask) -> None:
    with logger_provider() as provider:
        logger = provider.get_logger("shop")

        async def handler(request: Request, tracer: Tracer) -> None:
            with tracer.start_as_current_span("work") as span:
                error = ShopError("logged")
                context = trace.set_span_in_context(span)
            logger.emit(
                context=context,
                exception=error,
                severity_number=SeverityNumber.ERROR,
                event_name="shop.failed",
            )
            logger.emit(body="without an exception", severity_number=SeverityNumber.ERROR)
            sentry_sdk.capture_exception(error)

        answers = ask(handler, logger_provider=provider)

    error = answers.error()
    (work,) = [s for s in answers.transactions[0]["spans"] if s["description"] == "work"]
    assert title(error) == "ShopError: logged"
    assert ids(error) == (work["trace_id"], work["span_id"])


def test_fastapis_exceptions_as_log_records(init: Init, kent: Kent) -> None:
    """Emitted with the live exception; still one unhandled issue."""
    from fastapi import FastAPI

    init()
    provider = TracerProvider(shutdown_on_exit=False)
    with logger_provider() as logs:
        otel_sentry_asgi.instrument(tracer_provider=provider, logger_provider=logs)
        app = FastAPI(telemetry={"tracer_provider": provider, "logger_provider": logs})

        @app.get("/boom")
        async def boom() -> None:
            raise ShopError("native")

        with serve(app) as url:
            assert httpx.get(f"{url}/boom").status_code == 500
        provider.force_flush()
        sentry_sdk.flush()

    (error,) = [item.body for item in kent.errors()]
    (transaction,) = [item.body for item in kent.transactions()]
    assert title(error) == "ShopError: native"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert ids(error)[0] == ids(transaction)[0]
