"""Which exceptions are issues."""

import asyncio
import logging
from typing import Any

import pytest

from otel_sentry_asgi._errors import (
    application_error,
    current_task,
    error_of,
    handled_before,
    is_disconnect,
    is_error,
    is_framework_log,
    is_group,
    is_own_noise,
    is_server_text,
    members,
    response_status,
)


class ClientDisconnect(Exception):
    """Named as Starlette's."""


class ConnectionClosed(Exception):
    """Named as that of websockets."""


class ConnectionClosedError(ConnectionClosed):
    pass


class Group(Exception):
    def __init__(self, *exceptions: Any) -> None:
        super().__init__("group")
        self.exceptions = exceptions


class HTTPException(Exception):
    def __init__(self, status_code: Any) -> None:
        super().__init__(status_code)
        self.status_code = status_code


class OwnHTTPException(HTTPException):
    pass


@pytest.mark.parametrize(
    "error", [ValueError(), Exception(), Group(ValueError()), HTTPException(500), StopIteration()]
)
def test_an_exception_is_an_error(error: BaseException) -> None:
    assert is_error(error)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()]
)
def test_an_exit_or_cancellation_is_none(error: BaseException) -> None:
    assert not is_error(error)


@pytest.mark.parametrize("error", [ClientDisconnect(), ConnectionClosedError()])
def test_a_client_that_went_away_is_none(error: BaseException) -> None:
    assert is_disconnect(error)
    assert not is_error(error)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Group(asyncio.CancelledError(), ValueError()), True),
        (Group(Group(ValueError())), True),
        (Group(asyncio.CancelledError(), ClientDisconnect()), False),
        (Group(Group(ClientDisconnect())), False),
        (Group(), True),
        (Group("text", 5), True),
    ],
)
def test_a_group_is_an_error_if_a_member_is_one(group: BaseException, expected: bool) -> None:
    assert is_error(group) is expected


def test_a_group_comes_before_its_members_and_each_comes_once() -> None:
    a, b = ValueError("a"), ValueError("b")
    inner = Group(b, a)
    outer = Group(a, inner)
    inner.exceptions = (b, a, outer)
    assert list(members(outer)) == [outer, a, inner, b]
    assert list(members(a)) == [a]
    assert [is_group(error) for error in (outer, inner, a)] == [True, True, False]


def test_a_group_may_be_as_deep_as_it_likes() -> None:
    error: Exception = ValueError()
    for _ in range(10_000):
        error = Group(error)
    assert is_error(error)


def of_module(name: str, module: str, **attributes: Any) -> BaseException:
    """An exception of a class that looks as if it came from *module*."""
    error = type(name, (Exception,), {"__module__": module})("broken")
    for key, value in attributes.items():
        setattr(error, key, value)
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HTTPException(404), 404),
        (OwnHTTPException(500), 500),
        (HTTPException("404"), 404),
        (HTTPException("404 Not Found"), 404),
        (HTTPException("\u00b2"), None),
        (HTTPException("none"), None),
        (HTTPException(None), None),
        (of_module("HTTPException", "werkzeug.exceptions", code=405), 405),
        (of_module("HTTPError", "falcon.http_error", status="410 Gone"), 410),
        (of_module("HTTPError", "requests.exceptions", status_code=500), None),
        (of_module("Http404", "django.http.response"), 404),
        (of_module("PermissionDenied", "django.core.exceptions"), 403),
        (of_module("PermissionDenied", "shop.errors"), None),
        (ValueError(), None),
    ],
)
def test_the_status_of_what_a_framework_answers(error: BaseException, status: int | None) -> None:
    assert response_status(error) == status


def test_litestar_wraps_what_comes_after_the_start_of_a_response() -> None:
    own = ValueError("own")
    wrapper = type("LitestarException", (Exception,), {})("Exception caught after response started")
    other = type("LitestarException", (Exception,), {})("something else")
    for error in (wrapper, other):
        error.__cause__ = own
    assert application_error(wrapper) is own
    assert application_error(other) is other
    assert application_error(own) is own
    wrapper.__cause__ = None
    assert application_error(wrapper) is wrapper


def record(name: str, function: str = "work", message: Any = "text") -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "file.py", 1, message, (), None, function)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record("django.request"), True),
        (record("litestar"), True),
        (record("falcon"), True),
        (record("blacksheep.server"), True),
        (record("connexion.middleware.exceptions"), True),
        (record("shop", "log_exception", "Exception on request GET /"), True),
        (record("shop", "log_exception", "other"), False),
        (record("shop", "log_exception", ValueError("Exception on ")), False),
        (record("shop", "work", "Exception on request GET /"), False),
        (record("django"), False),
    ],
)
def test_frameworks_tell_of_what_they_answer_with_500(
    given: logging.LogRecord, expected: bool
) -> None:
    assert is_framework_log(given) is expected


@pytest.mark.parametrize(
    ("logger", "text", "expected"),
    [
        ("_granian", "Traceback (most recent call last):", True),
        ("_granian.asgi", "x\nTraceback (most recent call last):\n", True),
        ("_granian", "started", False),
        ("granian", "Traceback (most recent call last):", False),
        (None, "Traceback (most recent call last):", False),
        ("_granian", None, False),
    ],
)
def test_granian_logs_tracebacks_as_text(logger: object, text: object, expected: bool) -> None:
    assert is_server_text(logger, text) is expected


@pytest.mark.parametrize(
    ("logger", "expected"),
    [
        ("opentelemetry.sdk.trace", True),
        ("otel_sentry_asgi", True),
        ("opentelemetry_shop", False),
        ("shop", False),
        (None, False),
    ],
)
def test_what_telemetry_logs_is_none_of_the_application(logger: object, expected: bool) -> None:
    assert is_own_noise(logger) is expected


def test_outside_of_asyncio_there_is_no_task() -> None:
    assert current_task() is None


def test_an_exception_has_left_a_task_when_it_ended_it() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def main() -> None:
        assert current_task() is not None
        error = ValueError()
        task = asyncio.ensure_future(fail(error))
        assert error_of(task) is None
        await asyncio.wait([task])
        assert error_of(task) is error
        assert task.exception() is error

    asyncio.run(main())


def test_what_was_being_handled_comes_after_what_was_raised_meanwhile() -> None:
    a, b, c = ValueError("a"), ValueError("b"), ValueError("c")
    c.__context__, b.__context__ = b, a
    assert list(handled_before(c)) == [c, b, a]
    a.__context__ = c
    assert list(handled_before(c)) == [c, b, a]
