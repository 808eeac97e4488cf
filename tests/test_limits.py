"""Rate limits: what Sentry says about when to send again."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sentry_asgi.testing import EPOCH, HandClock
from otel_sentry_exporters._limits import RETRY_AFTER, RateLimits


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1_000.0)


@pytest.fixture
def limits(clock: HandClock) -> RateLimits:
    return RateLimits(clock, wall_clock=lambda: float(EPOCH))


def seconds_over(limits: RateLimits, clock: HandClock, category: str = "transaction") -> float:
    """How long *category* is over, to the half second; the clock goes on by that."""
    begin = clock.now
    while limits.are_over(category):
        clock.advance(0.5)
        assert clock.now < begin + 1e6
    return clock.now - begin


def test_at_first_everything_may_be_sent(limits: RateLimits) -> None:
    assert not limits.are_over("transaction")
    limits.update(200, {"retry-after": "60"})
    assert not limits.are_over("transaction")


@pytest.mark.parametrize(
    ("header", "transaction", "error"),
    [
        ("60:transaction:key", 60, 0),
        ("60:transaction;error:organization", 60, 60),
        ("60:error:organization", 0, 60),
        ("60::organization", 60, 60),
        ("60:", 60, 60),
        ("5:transaction:key, 60:error;span:key:why:x", 5, 60),
        ("5:transaction:key,60:transaction:key,7:transaction:key", 60, 0),
        (" 5 : transaction : key ", 5, 0),
        ("2.5:transaction", 2.5, 0),
        ("0:transaction", 0, 0),
        ("-5:transaction", 0, 0),
        ("60", 0, 0),
        ("soon:transaction, 5:transaction", 5, 0),
        ("inf:transaction,nan:transaction,1e999:transaction", 0, 0),
        (",:,::,;", 0, 0),
    ],
)
def test_limits_are_for_categories(
    limits: RateLimits, clock: HandClock, header: str, transaction: float, error: float
) -> None:
    for status in (200, 429):
        limits.update(status, {"x-sentry-rate-limits": header})
        begin = clock.now
        assert seconds_over(limits, clock) == transaction
        clock.now = begin
        assert seconds_over(limits, clock, "error") == error
        clock.advance(1_000)


def test_a_later_limit_does_not_shorten_an_earlier_one(
    limits: RateLimits, clock: HandClock
) -> None:
    limits.update(200, {"x-sentry-rate-limits": "60:transaction"})
    clock.advance(10)
    limits.update(200, {"x-sentry-rate-limits": "5:transaction"})
    assert seconds_over(limits, clock) == 50
    limits.update(200, {"x-sentry-rate-limits": "5:transaction"})
    assert seconds_over(limits, clock) == 5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("7.5", 7.5),
        (formatdate(EPOCH + 30, usegmt=True), 30),
        ("Thu, 01 Jan 2026 01:00:30 +0100", 30),
        ("Thu, 01 Jan 2026 00:00:30 -0000", 30),
        ("Thu Jan  1 00:00:30 2026", 30),
        # sentry-sdk, too, waits a minute where this says nothing or none.
        ("0", RETRY_AFTER),
        ("-7", RETRY_AFTER),
        (formatdate(EPOCH - 30, usegmt=True), RETRY_AFTER),
        ("inf", RETRY_AFTER),
        ("nan", RETRY_AFTER),
        ("", RETRY_AFTER),
        ("soon", RETRY_AFTER),
        ("Thu, 99 Jan 2026 00:00:30 GMT", RETRY_AFTER),
    ],
)
def test_retry_after_counts_with_429_for_everything(
    limits: RateLimits, clock: HandClock, header: str, seconds: float
) -> None:
    limits.update(429, {"retry-after": header})
    assert seconds_over(limits, clock, "anything") == seconds


def test_429_without_any_header_is_a_minute(limits: RateLimits, clock: HandClock) -> None:
    limits.update(429, {})
    assert seconds_over(limits, clock) == RETRY_AFTER


def test_limits_by_category_make_retry_after_irrelevant(limits: RateLimits) -> None:
    limits.update(429, {"x-sentry-rate-limits": "60:error:key", "retry-after": "60"})
    assert limits.are_over("error")
    assert not limits.are_over("transaction")


@given(limits=st.text(), retry_after=st.text(), status=st.sampled_from([200, 429, 503]))
def test_whatever_the_headers_hold_the_limits_have_an_end(
    limits: str, retry_after: str, status: int
) -> None:
    clock = HandClock()
    made = RateLimits(clock)
    made.update(status, {"x-sentry-rate-limits": limits, "retry-after": retry_after})
    clock.now = 1e300
    assert not made.are_over("transaction")
