"""Which exceptions are issues."""

import asyncio
from typing import Any

import pytest

from otel_sentry_asgi._errors import (
    current_task,
    is_disconnect,
    is_error,
    is_group,
    is_response,
    left_task,
    members,
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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HTTPException(404), True),
        (OwnHTTPException(499), True),
        (HTTPException(500), False),
        (HTTPException("404 Not Found"), True),
        (HTTPException("none"), False),
        (HTTPException(None), False),
        (ValueError(), False),
    ],
)
def test_an_answer_below_500_is_a_response(error: BaseException, expected: bool) -> None:
    assert is_response(error) is expected


def test_outside_of_asyncio_there_is_no_task() -> None:
    assert current_task() is None


def test_an_exception_has_left_a_task_when_it_ended_it() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def main() -> None:
        assert current_task() is not None
        error = ValueError()
        task = asyncio.ensure_future(fail(error))
        assert not left_task(task, error)
        await asyncio.wait([task])
        assert left_task(task, error)
        assert not left_task(task, ValueError())
        assert task.exception() is error

    asyncio.run(main())
