"""`HTTPException`s are issues by the status they answer: the setting says which, with sentry-sdk's
integrations and without."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection
from typing import Any

import httpx
import pytest
import sentry_sdk
from fastapi import FastAPI
from fastapi import HTTPException as OfFastAPI
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import get as route
from litestar.exceptions import HTTPException as OfLitestar
from litestar.logging import LoggingConfig
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.integrations.starlette import StarletteIntegration
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as OfStarlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import otel_sentry_asgi
from tests.integration.conftest import title
from tests.support.kent import Kent

Init = Callable[..., None]
Ask = Callable[..., dict[str, bool]]


def starlette(before: Callable[[Exception], None], **given: Any) -> Any:
    async def view(request: Request) -> Response:
        error = OfStarlette(request.path_params["status"], "busy")
        before(error)
        raise error

    return Starlette(routes=[Route("/{status:int}", view)], **given)


def fastapi(before: Callable[[Exception], None], **given: Any) -> Any:
    app = FastAPI(telemetry={"tracing": False}, **given)

    @app.get("/{status}")
    async def view(status: int) -> None:
        error = OfFastAPI(status, "busy")
        before(error)
        raise error

    return app


def litestar(before: Callable[[Exception], None], **given: Any) -> Any:
    async def view(request: LitestarRequest[Any, Any, Any]) -> None:
        error = OfLitestar("busy", status_code=request.path_params["status"])
        before(error)
        raise error

    return Litestar([route("/{status:int}")(view)], **{"logging_config": None, **given})


class Logging(LoggingConfig):
    """Leaves the loggers of this process as they are."""

    def configure(self) -> Any:
        return logging.getLogger


FRAMEWORKS = [starlette, fastapi, litestar]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[True, False], ids=["integrations", "bare"])
def integrations(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def ask(init: Init, kent: Kent) -> Ask:
    """The issues, and whether each was handled, of one request that is answered with *status*."""

    def ask(
        build: Callable[..., Any],
        status: int,
        *,
        options: dict[str, Any],
        before: Callable[[Exception], None] = lambda _: None,
        given: dict[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, bool]:
        init(release="shop@1", **options)
        provider = TracerProvider(shutdown_on_exit=False)
        otel_sentry_asgi.instrument(tracer_provider=provider, **settings)
        app = OpenTelemetryMiddleware(build(before, **(given or {})), tracer_provider=provider)

        async def once() -> int:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
                return (await client.get(f"/{status}")).status_code

        assert asyncio.run(once()) == status
        provider.force_flush()
        sentry_sdk.flush()
        errors = [item.body for item in kent.errors()]
        assert len({title(error) for error in errors}) == len(errors)
        return {
            title(error): error["exception"]["values"][-1]["mechanism"]["handled"]
            for error in errors
        }

    return ask


@pytest.mark.parametrize(
    ("codes", "status", "is_issue"),
    [
        (None, 404, False),
        (None, 503, True),
        ({404}, 404, True),
        ({404}, 503, False),
        ({403, 404}, 401, False),
        (range(500, 503), 503, False),
        ((), 500, False),
    ],
)
def test_the_setting_decides(
    codes: Collection[int] | None,
    status: int,
    is_issue: bool,
    framework: Any,
    integrations: bool,
    ask: Ask,
    kent: Kent,
) -> None:
    settings = {} if codes is None else {"failed_request_status_codes": codes}

    issues = ask(
        framework, status, options={"auto_enabling_integrations": integrations}, **settings
    )

    assert list(issues.values()) == [True] * is_issue
    otel_sentry_asgi.uninstrument()
    assert kent.session_counts() == {"errored" if is_issue else "exited": 1}


def test_what_the_application_captures_itself_is_sent(
    framework: Any, integrations: bool, ask: Ask
) -> None:
    def before(error: Exception) -> None:
        sentry_sdk.capture_exception(error)

    options = {"auto_enabling_integrations": integrations}
    issues = ask(framework, 503, options=options, before=before, failed_request_status_codes={404})

    assert list(issues.values()) == [True]


def test_also_after_an_integration_has_seen_it(ask: Ask) -> None:
    """sentry-sdk's Starlette integration captures before it calls the application's handler."""

    async def handler(request: Request, error: Exception) -> Response:
        sentry_sdk.capture_exception(error)
        return PlainTextResponse("busy", 503)

    given = {"exception_handlers": {OfStarlette: handler}}
    issues = ask(starlette, 503, options={}, given=given, failed_request_status_codes={404})

    assert list(issues.values()) == [True]


def test_what_was_recorded_on_purpose_is_an_issue_by_its_status_too(
    framework: Any, integrations: bool, ask: Ask
) -> None:
    def before(error: Exception) -> None:
        trace.get_current_span().record_exception(error)

    options = {"auto_enabling_integrations": integrations}
    settings = {"failed_request_status_codes": {404}}
    assert ask(framework, 503, options=options, before=before, **settings) == {}


def test_of_an_integration_that_has_a_setting_of_its_own(ask: Ask) -> None:
    """As long as ours is left alone."""
    own = [StarletteIntegration(failed_request_status_codes={404})]

    assert list(ask(starlette, 404, options={"integrations": own}).values()) == [True]


def test_but_ours_decides_if_it_is_given(ask: Ask) -> None:
    own = [StarletteIntegration(failed_request_status_codes={404})]
    settings = {"failed_request_status_codes": {503}}

    assert ask(starlette, 404, options={"integrations": own}, **settings) == {}


@pytest.mark.parametrize(("status", "issues"), [(404, []), (503, [True])])
def test_what_litestar_logs(status: int, issues: list[bool], ask: Ask) -> None:
    """In debug mode it logs every exception."""

    def handler(logger: Any, scope: Any, text: list[str]) -> None:
        logging.getLogger("litestar").error("uncaught", exc_info=sys.exc_info())

    config = Logging(log_exceptions="always", exception_logging_handler=handler)
    given = {"logging_config": config}
    options = {"auto_enabling_integrations": False}

    assert list(ask(litestar, status, options=options, given=given).values()) == issues
