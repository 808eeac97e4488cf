"""Our own failures stop at the guard, and nothing else does."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from otel_sentry_asgi import _guard
from otel_sentry_asgi._guard import contained, log_once


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, BaseException]]:
    seen: list[tuple[str, BaseException]] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: seen.append((where, error)))
    return seen


@pytest.fixture
def fresh_log() -> Iterator[None]:
    before = set(_guard._reported)
    _guard._reported.clear()
    yield
    _guard._reported.clear()
    _guard._reported.update(before)


def test_an_exception_is_swallowed_and_told(failures: list[tuple[str, BaseException]]) -> None:
    error = ValueError()
    with contained("here"):
        raise error
    assert failures == [("here", error)]


def test_the_block_is_left_where_it_fails(failures: list[tuple[str, BaseException]]) -> None:
    reached = []
    with contained("here"):
        reached.append(1)
        raise ValueError
    reached.append(2)
    assert reached == [1, 2]
    assert len(failures) == 1


def test_without_a_failure_nothing_is_told(failures: list[tuple[str, BaseException]]) -> None:
    with contained("here"):
        pass
    assert failures == []


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, BaseException]
)
def test_what_is_no_exception_passes(
    kind: type[BaseException], failures: list[tuple[str, BaseException]]
) -> None:
    error = kind()
    with pytest.raises(kind) as caught, contained("here"):
        raise error
    assert caught.value is error
    assert failures == []


def test_a_value_can_be_returned_from_the_block(
    failures: list[tuple[str, BaseException]],
) -> None:
    def work(number: int) -> int:
        with contained("here"):
            return 10 // number
        return -1

    assert work(5) == 2
    assert failures == []
    assert work(0) == -1
    assert len(failures) == 1


def test_a_test_may_make_failures_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(where: str, error: BaseException) -> None:
        raise AssertionError(where) from error

    monkeypatch.setattr(_guard, "on_failure", loud)
    with pytest.raises(AssertionError, match="here"), contained("here"):
        raise ValueError


@pytest.mark.usefixtures("fresh_log")
def test_a_failure_is_logged_aloud_once_for_each_place(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "otel_sentry_asgi")
    error = ValueError("broken")
    for where in ("here", "here", "there"):
        log_once(where, error)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "here failed; the application is not affected"),
        ("DEBUG", "here failed again"),
        ("WARNING", "there failed; the application is not affected"),
    ]
    assert all(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_failures_are_logged_unless_told_otherwise() -> None:
    assert _guard.on_failure is log_once
