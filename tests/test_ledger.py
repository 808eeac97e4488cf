"""One exception object is one issue in a piece of work, whoever sees it and however often."""

import builtins
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from otel_sentry_asgi._ledger import KEPT_FOR, MAX_EVENTS, MAX_KEPT, Ledger
from otel_sentry_asgi._scope import Exchange, Previous
from otel_sentry_asgi.testing import HandClock, span_context

OUTER, INNER = span_context(1), span_context(2)


class OwnError(Exception):
    """Unlike the built-in exceptions, it can be weakly referenced."""


class Group(Exception):
    """What an exception group looks like, in every version of Python."""

    def __init__(self, *exceptions: BaseException) -> None:
        super().__init__("group")
        self.exceptions = exceptions


class Freed(OwnError):
    """Calls back when it is freed."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback

    def __del__(self) -> None:
        self.callback()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def ledger(clock: HandClock) -> Ledger:
    return Ledger(clock)


@pytest.fixture(params=[ValueError, KeyError, OSError, OwnError], ids=lambda kind: kind.__name__)
def error(request: pytest.FixtureRequest) -> BaseException:
    kind: type[BaseException] = request.param
    return kind("broken")


def test_an_exception_is_claimed_once(ledger: Ledger, error: BaseException) -> None:
    assert not ledger.is_reported(error)
    assert ledger.claim(error)
    assert ledger.is_reported(error)
    assert not ledger.claim(error)


def test_it_is_the_object_that_counts_not_its_looks(ledger: Ledger) -> None:
    assert [ledger.claim(ValueError("same")) for _ in range(5)] == [True] * 5


def test_a_b_a_b_is_two_issues(ledger: Ledger) -> None:
    a, b = ValueError("a"), OwnError("b")
    assert [ledger.claim(error) for error in (a, b, a, b)] == [True, True, False, False]


def test_the_innermost_span_is_the_one_that_counts(ledger: Ledger, error: BaseException) -> None:
    assert ledger.span_of(error) is None
    ledger.note(error, INNER)
    ledger.note(error, OUTER)
    assert ledger.span_of(error) is INNER


def test_a_note_is_no_claim_and_a_claim_no_note(ledger: Ledger) -> None:
    noted, claimed = ValueError(), ValueError()
    ledger.note(noted, INNER)
    assert not ledger.is_reported(noted)
    assert ledger.claim(claimed)
    assert ledger.span_of(claimed) is None
    ledger.note(claimed, INNER)
    assert ledger.span_of(claimed) is INNER


def test_the_first_owner_is_the_one_that_counts(ledger: Ledger, error: BaseException) -> None:
    first, second = Exchange(None), Exchange(None)
    assert ledger.owner_of(error) is None
    ledger.note(error, INNER, first)
    ledger.note(error, OUTER, second)
    assert ledger.owner_of(error) is first


def test_an_owner_is_not_kept_alive(ledger: Ledger, error: BaseException) -> None:
    def seen() -> None:
        exchange = Exchange(None)
        ledger.note(error, INNER, exchange)
        ledger.claim(error, exchange)

    seen()
    gc.collect()
    assert ledger.owner_of(error) is None
    assert ledger.is_reported(error)


def test_without_an_owner_there_is_none(ledger: Ledger, error: BaseException) -> None:
    ledger.note(error, INNER)
    assert ledger.owner_of(error) is None


# -- pieces of work -------------------------------------------------------------------------------


def unit(outer: Exchange | None) -> Exchange:
    return Exchange(None, previous=Previous(None, None, outer))


def test_what_several_requests_raise_is_an_issue_of_each(
    ledger: Ledger, error: BaseException
) -> None:
    a, b = Exchange(None), Exchange(None)
    ledger.note(error, INNER, a)
    ledger.note(error, OUTER, b)
    assert [ledger.claim(error, one) for one in (a, b, a, b)] == [True, True, False, False]
    assert (ledger.span_of(error, a), ledger.span_of(error, b)) == (INNER, OUTER)
    assert ledger.span_of(error, Exchange(None)) is None
    assert not ledger.is_reported(error, Exchange(None))


def test_a_unit_is_part_of_the_request_that_it_began_in(
    ledger: Ledger, error: BaseException
) -> None:
    request = Exchange(None, finished=True)
    inner = unit(unit(request))
    ledger.note(error, INNER, inner)
    assert ledger.claim(error, inner)
    assert not ledger.claim(error, request)
    assert ledger.span_of(error, request) is INNER


def test_a_unit_is_part_of_another_until_that_has_ended(ledger: Ledger) -> None:
    error, outer = ValueError(), unit(None)
    first, second = unit(outer), unit(outer)
    assert [ledger.claim(error, one) for one in (first, second, outer)] == [True, False, False]
    outer.finished = True
    assert [ledger.claim(error, one) for one in (first, second)] == [True, True]


def test_what_is_logged_outside_of_any_work_is_what_one_has_reported(
    ledger: Ledger, error: BaseException
) -> None:
    assert ledger.claim(error, Exchange(None))
    assert not ledger.claim(error)
    assert ledger.claim(error, Exchange(None))


def test_what_was_logged_outside_of_any_work_is_of_the_next_that_sees_it(
    ledger: Ledger, error: BaseException
) -> None:
    """A thread that does not have the context of its request has logged it."""
    first, second = Exchange(None), Exchange(None)
    ledger.note(error, INNER)
    assert ledger.claim(error)
    assert not ledger.claim(error)
    assert ledger.is_reported(error, first)
    assert ledger.span_of(error, first) is INNER
    assert [ledger.claim(error, one) for one in (first, second, first)] == [False, True, False]


def test_of_a_group_each_work_reports_its_own(ledger: Ledger) -> None:
    a, b = ValueError("a"), OwnError("b")
    first, second = Exchange(None), Exchange(None)
    assert ledger.claim(a, first)
    assert ledger.claim(Group(a, b), first)
    assert not ledger.claim(Group(a, b), first)
    assert ledger.claim(Group(a, b), second)
    assert not ledger.claim(Group(a, b))


def test_what_another_piece_of_work_sees_is_kept_anew(
    ledger: Ledger, clock: HandClock, error: BaseException
) -> None:
    """Servers log it after each of them."""
    assert ledger.claim(error, Exchange(None))
    clock.advance(KEPT_FOR - 1)
    assert ledger.claim(error, Exchange(None))
    clock.advance(KEPT_FOR - 1)
    ledger.expire(clock())
    assert not ledger.claim(error)


# -- groups ---------------------------------------------------------------------------------------


def test_a_group_is_reported_with_its_members(ledger: Ledger) -> None:
    a, b = ValueError("a"), OwnError("b")
    group = Group(a, Group(b))
    assert ledger.claim(group)
    assert [ledger.claim(error) for error in (group, a, b)] == [False] * 3


def test_a_group_of_what_has_been_reported_is_nothing_new(ledger: Ledger) -> None:
    a, b = ValueError("a"), OwnError("b")
    assert ledger.claim(a)
    assert ledger.claim(b)
    assert not ledger.claim(Group(a, Group(b)))


def test_a_group_with_one_new_member_is_new(ledger: Ledger) -> None:
    a, b = ValueError("a"), OwnError("b")
    assert ledger.claim(a)
    assert ledger.claim(Group(a, b))
    assert not ledger.claim(b)


def test_the_span_of_a_group_is_that_of_a_member_if_it_has_none_itself(ledger: Ledger) -> None:
    a, b = ValueError("a"), OwnError("b")
    group = Group(a, b)
    ledger.note(b, INNER)
    assert ledger.span_of(group) is INNER
    ledger.note(group, OUTER)
    assert ledger.span_of(group) is OUTER


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups")
def test_pythons_own_groups_are_groups(ledger: Ledger) -> None:
    a = ValueError("a")
    assert ledger.claim(vars(builtins)["ExceptionGroup"]("group", [a]))
    assert not ledger.claim(a)


@pytest.mark.parametrize("exceptions", [(), ("text", 5), None, [ValueError()], "text"])
def test_what_only_looks_like_a_group_is_an_exception_of_its_own(
    ledger: Ledger, exceptions: Any
) -> None:
    error = OwnError()
    error.exceptions = exceptions  # type: ignore[attr-defined]
    assert ledger.claim(error)
    assert not ledger.claim(error)


def test_a_group_that_holds_itself_comes_to_an_end(ledger: Ledger) -> None:
    a = ValueError("a")
    group = Group(a)
    group.exceptions = (group, a, group)
    assert ledger.claim(group)
    assert not ledger.claim(a)


# -- memory ---------------------------------------------------------------------------------------


def test_what_can_be_weakly_referenced_is_not_kept_alive(ledger: Ledger) -> None:
    error = OwnError()
    reference = weakref.ref(error)
    ledger.note(error, INNER)
    del error
    gc.collect()
    assert reference() is None


def test_an_exception_with_the_id_of_a_freed_one_is_a_new_one(ledger: Ledger) -> None:
    """The id of a freed exception is soon given to another one."""
    claimed: list[bool] = []
    ids: set[int] = set()
    for _ in range(1_000):
        error = OwnError()
        ids.add(id(error))
        claimed.append(ledger.claim(error))
        ledger.note(error, INNER)
        del error
    assert len(ids) < 1_000
    assert all(claimed)


def test_a_freed_exception_leaves_no_span_to_the_next_with_its_id(ledger: Ledger) -> None:
    def noted() -> None:
        error = OwnError()
        ledger.note(error, INNER)

    for _ in range(100):
        noted()
        assert ledger.span_of(OwnError()) is None


def test_somebody_is_told_when_an_exception_is_kept_alive(ledger: Ledger) -> None:
    told: list[int] = []
    ledger.on_kept = lambda: told.append(1)
    own, built_in = OwnError(), ValueError()
    ledger.note(own, INNER)
    assert told == []
    ledger.note(built_in, INNER)
    ledger.note(built_in, OUTER)
    assert told == [1]


def test_after_a_while_an_exception_is_forgotten(ledger: Ledger, clock: HandClock) -> None:
    error = ValueError()
    assert ledger.claim(error)
    assert ledger.expire(clock()) == KEPT_FOR
    assert ledger.expire(clock.advance(KEPT_FOR - 1)) == KEPT_FOR
    assert ledger.is_reported(error)
    assert ledger.expire(clock.advance(1)) is None
    assert not ledger.is_reported(error)


def test_it_is_forgotten_though_nobody_says_so(
    ledger: Ledger, clock: HandClock, error: BaseException
) -> None:
    """For those that are not kept alive nobody is woken to do it."""
    assert ledger.claim(error)
    clock.advance(KEPT_FOR)
    assert not ledger.is_reported(error)
    assert ledger.claim(error)


def test_the_time_to_come_back_is_that_of_the_oldest(ledger: Ledger, clock: HandClock) -> None:
    first, second = ValueError(), ValueError()
    assert ledger.claim(first)
    clock.advance(3)
    assert ledger.claim(second)
    assert ledger.expire(clock()) == KEPT_FOR
    assert ledger.expire(clock.advance(KEPT_FOR - 3)) == KEPT_FOR + 3
    assert not ledger.is_reported(first)
    assert ledger.is_reported(second)


def test_what_is_seen_again_is_not_kept_for_longer(ledger: Ledger, clock: HandClock) -> None:
    error = ValueError()
    ledger.note(error, INNER)
    clock.advance(KEPT_FOR - 1)
    assert ledger.claim(error)
    assert ledger.expire(clock.advance(1)) is None


def test_of_too_many_the_oldest_are_forgotten(ledger: Ledger) -> None:
    errors = [ValueError(number) for number in range(MAX_KEPT + 10)]
    assert all(ledger.claim(error) for error in errors)
    known = [error for error in errors if ledger.is_reported(error)]
    assert known == errors[10:]


def test_events_that_were_seen_alive_are_known(ledger: Ledger) -> None:
    ledger.note_event(1, 2)
    assert ledger.knows_event(1, 2)
    assert not ledger.knows_event(2, 1)
    for number in range(MAX_EVENTS):
        ledger.note_event(2, number)
    assert not ledger.knows_event(1, 2)


def test_cleared_means_nothing_is_known(ledger: Ledger, clock: HandClock) -> None:
    error = ValueError()
    ledger.note(error, INNER)
    ledger.clear()
    assert ledger.span_of(error) is None
    assert ledger.expire(clock()) is None


# -- threads --------------------------------------------------------------------------------------


@pytest.fixture
def short_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("short_switches")
def test_claims_are_concurrent_safe() -> None:
    """Whatever threads claim, note and expire at once, each exception has one winner."""
    ledger, clock = Ledger(HandClock()), HandClock()
    errors: list[BaseException] = [ValueError(number) for number in range(300)]
    barrier = threading.Barrier(4)

    def run() -> list[int]:
        barrier.wait()
        won = []
        for number, error in enumerate(errors):
            ledger.note(error, INNER)
            ledger.expire(clock())
            if ledger.claim(error):
                won.append(number)
        return won

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(run) for _ in range(4)]
    won = [number for future in futures for number in future.result()]
    assert sorted(won) == list(range(300))


def test_what_runs_when_an_exception_is_freed_may_call_the_ledger(
    ledger: Ledger, clock: HandClock
) -> None:
    """Freeing frames runs code of the application, at any point."""
    noted: list[bool] = []

    def called_back() -> None:
        noted.append(ledger.claim(ValueError()))

    error = ValueError()
    error.args = (Freed(called_back),)
    ledger.note(error, INNER)
    del error
    ledger.expire(clock.advance(KEPT_FOR))
    assert noted == [True]
