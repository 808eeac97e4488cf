"""Every envelope that was put ends exactly once, whatever the way to Sentry does."""

import gzip
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from otel_sentry_asgi.testing import HandClock
from otel_sentry_exporters import _delivery
from otel_sentry_exporters._backlog import Counts
from otel_sentry_exporters._delivery import (
    COMPRESS_FROM,
    FAR,
    LATE,
    LONGEST_PAUSE,
    MAX_CONNECTIONS,
    PATIENCE,
    Delivery,
)
from otel_sentry_exporters._http import NotConnected, Response
from tests.support._wait import until

LONG = 10.0
"""Seconds. Only what is broken takes so long."""

Outcome = Any
"""A status, a whole response, or an exception."""


class Way:
    """The way to Sentry: makes posters, which answer with what *outcome* gives for each body, and
    can be held. Keeps what arrived and what became of it."""

    def __init__(self, outcome: Callable[[bytes], Outcome] = lambda _: 200) -> None:
        self.outcome = outcome
        self.clock: HandClock | None = None
        self.takes = 0.0
        self.posted: list[bytes] = []
        self.timeouts: list[float | None] = []
        self.done: list[tuple[str | None, Counts]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.made = self.open = self.at_once = 0
        self.lock = threading.Lock()

    def __call__(self) -> "Poster":
        with self.lock:
            self.made += 1
            self.open += 1
        return Poster(self)

    def tell(self, reason: str | None, counts: Counts) -> None:
        with self.lock:
            self.done.append((reason, counts))

    def reasons(self) -> Counter[str | None]:
        with self.lock:
            return Counter(reason for reason, _ in self.done)


class Poster:
    def __init__(self, way: Way) -> None:
        self._way = way

    def post(
        self, body: bytes, *, encoding: str | None = None, timeout: float | None = None
    ) -> Response:
        way = self._way
        with way.lock:
            way.at_once += 1
            way.posted.append(gzip.decompress(body) if encoding == "gzip" else body)
            way.timeouts.append(timeout)
        try:
            assert way.go_on.wait(LONG)
            with way.lock:
                outcome = way.outcome(body)
                if way.clock is not None:
                    way.clock.advance(way.takes)
        finally:
            with way.lock:
                way.at_once -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, Response) else Response(outcome, {})

    def close(self) -> None:
        with self._way.lock:
            self._way.open -= 1


Make = Callable[..., Delivery]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[Way, Delivery]] = []

    def delivery(way: Way, **given: Any) -> Delivery:
        one = Delivery(way, way.tell, **given)
        made.append((way, one))
        return one

    yield delivery
    for way, one in made:
        one.close()
        way.go_on.set()
    for way, one in made:
        wait(partial(has_ended, way, one))


def has_ended(way: Way, delivery: Delivery) -> bool:
    return not delivery._threads and not way.open


def wait(probe: Callable[[], Any]) -> None:
    until(probe, timeout=LONG, describe=lambda: "still not")


def counts(number: int = 1) -> Counts:
    return (("transaction", 1), ("span", number))


# -- one by one -----------------------------------------------------------------------------------


def test_what_is_put_is_posted_in_order_and_told(make: Make) -> None:
    way = Way()
    delivery = make(way)
    for number in range(20):
        delivery.put(b"%d" % number, counts(number))
    assert delivery.flush(LONG)
    assert sorted(way.posted) == sorted(b"%d" % number for number in range(20))
    assert Counter(way.done) == Counter((None, counts(number)) for number in range(20))


def test_what_is_put_without_waking_lies_until_someone_is_woken(make: Make) -> None:
    clock, way = HandClock(), Way()
    delivery = make(way, clock=clock)
    for _ in range(3):
        delivery.put(b"x", counts(), wake=False)
    clock.advance(PATIENCE)
    assert not delivery._threads
    delivery.wake()
    assert delivery.flush(LONG)
    assert way.reasons() == {None: 3}
    delivery.wake()  # With nothing to do.
    assert way.made == 1


def test_what_is_put_without_waking_does_not_wait_for_long(make: Make) -> None:
    clock, way = HandClock(), Way()
    delivery = make(way, clock=clock)
    delivery.put(b"x", counts(), wake=False)
    clock.advance(PATIENCE * 1.1)
    delivery.put(b"x", counts(), wake=False)
    wait(lambda: way.reasons() == {None: 2})


def test_more_than_half_a_queue_is_not_healthy(make: Make) -> None:
    way = Way()
    way.go_on.clear()
    delivery = make(way, max_bytes=100)
    for healthy in (True, False):
        assert delivery.is_healthy()
        delivery.put(b"x" * 50, counts())
        assert delivery.is_healthy() is healthy
    way.go_on.set()
    assert delivery.flush(LONG)
    assert delivery.is_healthy()


def test_what_is_large_is_compressed(make: Make) -> None:
    sizes: list[int] = []

    def outcome(body: bytes) -> int:
        sizes.append(len(body))
        return 200

    way = Way(outcome)
    delivery = make(way)
    for body in (b"x" * (COMPRESS_FROM - 1), b"x" * COMPRESS_FROM):
        delivery.put(body, counts())
        assert delivery.flush(LONG)
    assert sizes[0] == COMPRESS_FROM - 1
    assert sizes[1] < 100
    assert way.posted == [b"x" * (COMPRESS_FROM - 1), b"x" * COMPRESS_FROM]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (200, None),
        (299, None),
        (429, None),
        (413, "send_error"),
        (300, "network_error"),
        (400, "network_error"),
        (503, "network_error"),
        (OSError("reset"), "network_error"),
        (TimeoutError("hanging"), "network_error"),
        (ValueError("garbage"), "network_error"),
        (RuntimeError("not foreseen"), "internal_sdk_error"),
    ],
)
def test_each_outcome_has_one_reason(make: Make, outcome: Outcome, reason: str | None) -> None:
    way = Way(lambda _: outcome)
    delivery = make(way)
    delivery.put(b"1", counts())
    assert delivery.flush(LONG)
    assert way.reasons() == {reason: 1}
    assert delivery._bytes == 0
    assert delivery._threads == 1


def test_a_listener_that_fails_does_not_stop_the_delivery(make: Make) -> None:
    told: list[Any] = []

    class Failing(Way):
        def tell(self, reason: str | None, counts: Counts) -> None:
            told.append((reason, counts))
            raise RuntimeError("not foreseen")

    delivery = make(Failing())
    delivery.put(b"1", counts())
    delivery.put(b"2", counts())
    assert delivery.flush(LONG)
    assert told == [(None, counts())] * 2


# -- rate limits ----------------------------------------------------------------------------------


def test_over_the_limit_nothing_is_posted_and_then_it_is_again(make: Make) -> None:
    clock, way = HandClock(), Way()
    way.outcome = lambda _: Response(429, {"retry-after": "60"})
    delivery = make(way, clock=clock)
    for _ in range(3):
        delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    assert way.reasons() == {None: 1, "ratelimit_backoff": 2}
    way.outcome = lambda _: 200
    clock.advance(61)
    delivery.put(b"x", counts())
    assert delivery.flush(LONG)
    assert way.reasons() == {None: 2, "ratelimit_backoff": 2}
    assert len(way.posted) == 2


@pytest.mark.parametrize(("category", "lost"), [("transaction", 1), ("error", 0), ("span", 0)])
def test_the_limit_is_that_of_the_first_category(make: Make, category: str, lost: int) -> None:
    """As sentry-sdk has it, which looks at the item only."""
    way = Way(lambda _: Response(200, {"x-sentry-rate-limits": f"60:{category}:key"}))
    delivery = make(way)
    for _ in range(2):
        delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    assert way.reasons()["ratelimit_backoff"] == lost


# -- bounds ---------------------------------------------------------------------------------------


def test_what_waits_and_is_under_way_is_bounded_in_bytes(make: Make) -> None:
    way = Way()
    way.go_on.clear()
    delivery = make(way, max_bytes=100)
    for _ in range(20):
        delivery.put(b"x" * 10, counts())
    delivery.put(b"x" * 101, counts())
    assert delivery._bytes == 100
    assert way.reasons() == {"queue_overflow": 11}
    way.go_on.set()
    assert delivery.flush(LONG)
    assert way.reasons() == {"queue_overflow": 11, None: 10}
    assert delivery._bytes == 0
    delivery.put(b"x" * 100, counts())
    assert delivery.flush(LONG)
    assert way.reasons()[None] == 11


# -- no connection --------------------------------------------------------------------------------


def test_without_a_connection_it_is_kept_and_sent_when_there_is_one(make: Make) -> None:
    way = Way(lambda _: NotConnected("refused"))
    delivery = make(way)
    for number in range(5):
        delivery.put(b"%d" % number, counts())
    assert not delivery.flush(0.05)
    assert way.done == []
    way.outcome = lambda _: 200
    assert delivery.flush(LONG)
    assert way.reasons() == {None: 5}


def test_it_tries_again_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_delivery, "_FIRST_PAUSE", 0.001)
    failures = iter([NotConnected("refused")] * 3)
    way = Way(lambda _: next(failures, 200))
    delivery = make(way)
    delivery.put(b"x", counts())
    wait(lambda: way.done)
    assert way.posted == [b"x"] * 4
    assert way.reasons() == {None: 1}


def test_pauses_grow_up_to_a_limit_and_one_thread_tries(make: Make) -> None:
    clock, way = HandClock(), Way(lambda _: NotConnected("refused"))
    delivery = make(way, clock=clock)
    delivery.put(b"x", counts())
    pauses = []

    def has_tried(times: int) -> bool:
        return len(way.posted) == times and delivery._idle == delivery._threads

    for tries in range(1, 12):
        wait(partial(has_tried, tries))
        pauses.append(delivery._resume_at - clock.now)
        clock.now = delivery._resume_at
        delivery.put(b"y", counts())  # Has it look at the clock.
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(pauses)
    assert way.made == 1


def test_in_a_pause_nobody_is_woken_and_then_somebody_is(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the pause to pass would only wait on."""
    clock, way = HandClock(), Way(lambda _: NotConnected("refused"))
    delivery = make(way, clock=clock)
    delivery.put(b"x", counts())
    wait(lambda: way.posted and delivery._idle == delivery._threads)
    woken: list[int] = []
    monkeypatch.setattr(delivery._work, "notify", lambda: woken.append(delivery._threads))
    for _ in range(10):
        clock.advance(0.02)
        delivery.put(b"x", counts())
        delivery.wake()
    assert woken == []
    clock.now = delivery._resume_at
    delivery.put(b"x", counts())
    assert woken == [1]


def test_connections_that_fail_together_are_one_failure(make: Make) -> None:
    clock, way = HandClock(), Way(lambda _: NotConnected("refused"))
    delivery = make(way, clock=clock)
    way.go_on.clear()
    for _ in range(8):
        delivery.put(b"x", counts())
        clock.advance(PATIENCE * 2)
    wait(lambda: way.at_once >= 4)
    way.go_on.set()
    wait(lambda: not way.at_once and delivery._idle == delivery._threads)
    assert delivery._failures == 1


def test_an_outage_is_one_warning_in_the_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    clock, way = HandClock(), Way(lambda _: 503)
    delivery = make(way, clock=clock)
    with caplog.at_level(logging.DEBUG, "otel_sentry_asgi.envelope"):
        for _ in range(10):
            delivery.put(b"x", counts())
        assert delivery.flush(LONG)
        clock.advance(_delivery.COMPLAIN_EVERY)
        delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    levels = Counter(record.levelname for record in caplog.records)
    assert levels == {"WARNING": 2, "DEBUG": 9}


# -- threads --------------------------------------------------------------------------------------


def test_there_is_one_thread_as_long_as_that_sends_in_time(make: Make) -> None:
    clock, way = HandClock(), Way()
    way.clock, way.takes = clock, LATE / 40
    delivery = make(way, clock=clock)
    for _ in range(20):
        for _ in range(30):
            delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    assert way.made == 1


def test_there_are_more_if_sentry_is_far_up_to_the_limit(make: Make) -> None:
    clock, way = HandClock(), Way()
    delivery = make(way, clock=clock)
    way.go_on.clear()

    def are_sending(threads: int) -> bool:
        return way.at_once >= threads

    for number in range(MAX_CONNECTIONS * 2):
        delivery.put(b"x", counts())
        clock.advance(LATE * 1.1)
        wait(partial(are_sending, min(number // 2, MAX_CONNECTIONS - 1)))
    wait(lambda: way.at_once == MAX_CONNECTIONS)
    assert delivery._threads == MAX_CONNECTIONS
    way.go_on.set()
    assert delivery.flush(LONG)


def test_a_burst_with_nothing_after_it_gets_more_threads_too(make: Make) -> None:
    clock, way = HandClock(), Way()
    way.clock, way.takes = clock, LATE / 10
    delivery = make(way, clock=clock)
    for _ in range(300):
        delivery.put(b"x", counts())
    assert delivery.flush(LONG)
    assert way.made > 1


def test_a_burst_gets_many_threads_at_once_if_sentry_is_far(make: Make) -> None:
    """Else a short job that ends has sent little of it."""
    clock, way = HandClock(), Way()
    way.clock, way.takes = clock, FAR * 8
    way.go_on.clear()
    delivery = make(way, clock=clock)

    def one_answer(_: bytes) -> int:
        way.go_on.clear()
        return 200

    way.outcome = one_answer
    for _ in range(200):
        delivery.put(b"x", counts())
    wait(lambda: way.at_once == 1)
    way.go_on.set()
    wait(lambda: way.at_once == MAX_CONNECTIONS)
    way.outcome = lambda _: 200
    way.go_on.set()
    assert delivery.flush(LONG)


def test_moments_in_which_answers_are_late_do_not_make_new_threads_each_time(
    make: Make,
) -> None:
    """As in a process that is never idle, where one has to wait for the interpreter's lock: a
    thread that ended as soon as answers came in time was made anew 60 times a second."""
    clock, way = HandClock(), Way()
    way.clock = clock
    delivery = make(way, clock=clock)
    for takes in (LATE * 1.1, LATE / 40) * 20:
        way.takes = takes
        for _ in range(3):
            delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    assert 2 <= way.made <= 5


def put_behind_one_that_hangs(way: Way, delivery: Delivery) -> None:
    way.go_on.clear()
    delivery.put(b"x", counts())
    wait(lambda: way.at_once == 1)
    delivery.put(b"x", counts())


def test_there_are_more_if_those_there_are_hang(make: Make) -> None:
    clock, way = HandClock(), Way()
    delivery = make(way, clock=clock)
    put_behind_one_that_hangs(way, delivery)
    clock.advance(LATE * 0.9)
    delivery.put(b"x", counts())
    assert delivery._threads == 1
    clock.advance(LATE * 0.2)
    delivery.put(b"x", counts())
    wait(lambda: way.at_once == 2)
    for _ in range(5):
        delivery.put(b"x", counts())
    assert delivery._threads == 2  # Until the next is due.
    way.go_on.set()
    assert delivery.flush(LONG)


def test_one_that_has_nothing_to_do_is_there_for_what_comes_while_another_hangs(make: Make) -> None:
    clock, way = HandClock(), Way()
    delivery = make(way, clock=clock)
    put_behind_one_that_hangs(way, delivery)
    clock.advance(LATE * 1.1)
    delivery.put(b"x", counts())
    wait(lambda: way.at_once == 2)
    way.go_on.set()
    assert delivery.flush(LONG)
    wait(lambda: delivery._idle == 2)
    way.go_on.clear()
    for number in (1, 2):
        delivery.put(b"x", counts())
        wait(lambda number=number: way.at_once == number)  # type: ignore[misc]
    way.go_on.set()
    assert delivery.flush(LONG)
    wait(lambda: delivery._idle == 2)
    way.go_on.clear()
    for _ in range(2):
        delivery.put(b"x", counts(), wake=False)
    delivery.wake()
    wait(lambda: way.at_once == 2)
    way.go_on.set()


def test_those_that_are_too_many_end_when_nothing_has_been_late_for_a_while(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each of them is woken now and then."""
    monkeypatch.setattr(_delivery, "IDLE", 1_000.0)
    clock, way = HandClock(), Way()
    way.clock, way.takes = clock, LATE * 2
    delivery = make(way, clock=clock)
    for _ in range(50):
        delivery.put(b"x", counts())
    assert delivery.flush(LONG)
    most, way.takes = delivery._threads, 0.0
    assert most > 5
    for _ in range(most):
        delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    assert delivery._threads == most
    clock.advance(1_100.0)
    for _ in range(2 * most):
        delivery.put(b"x", counts())
        assert delivery.flush(LONG)
    wait(lambda: delivery._threads == 1)


def test_threads_that_have_nothing_to_do_end_and_are_there_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_delivery, "IDLE", 0.01)
    monkeypatch.setattr(_delivery, "LAST_IDLE", 0.02)
    way = Way()
    delivery = make(way)
    for _ in range(3):
        delivery.put(b"x", counts())
        assert delivery.flush(LONG)
        wait(lambda: not delivery._threads and not way.open)
    assert way.made == 3
    assert way.reasons() == {None: 3}


def test_the_threads_are_daemons_in_contexts_of_their_own(make: Make) -> None:
    threads: list[threading.Thread] = []

    def outcome(_: bytes) -> int:
        threads.append(threading.current_thread())
        return 200

    way = Way(outcome)
    make(way).put(b"x", counts())
    wait(lambda: threads)
    assert threads[0].daemon


def test_where_no_thread_can_be_started_flush_sends_by_itself(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    way = Way()
    delivery = make(way)
    for _ in range(3):
        delivery.put(b"x", counts())
    assert way.posted == []
    assert delivery.flush(LONG)
    assert way.reasons() == {None: 3}
    assert all(timeout is not None and timeout <= LONG for timeout in way.timeouts)
    way.outcome = lambda _: NotConnected("refused")
    delivery.put(b"x", counts())
    begin = time.monotonic()
    assert not delivery.flush(LONG)
    assert time.monotonic() - begin < LONG / 2


def test_a_flush_of_its_own_keeps_to_its_deadline(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    clock, way = HandClock(), Way()
    way.clock, way.takes = clock, 0.4
    delivery = make(way, clock=clock)
    for _ in range(10):
        delivery.put(b"x", counts())
    assert not delivery.flush(1.0)
    assert len(way.posted) == 3
    assert way.timeouts == pytest.approx([1.0, 0.6, 0.2])


# -- flush and close ------------------------------------------------------------------------------


def test_flush_waits_for_what_is_under_way_and_no_longer_than_it_may(make: Make) -> None:
    way = Way()
    way.go_on.clear()
    delivery = make(way)
    delivery.put(b"x", counts())
    assert not delivery.flush(0.01)
    assert not delivery.flush(0)
    way.go_on.set()
    assert delivery.flush(LONG)
    assert way.reasons() == {None: 1}


def test_flush_with_nothing_is_true_at_once_and_starts_nothing(make: Make) -> None:
    way = Way()
    assert make(way).flush(0)
    assert way.made == 0


def test_what_waits_at_close_is_lost_and_what_is_under_way_is_not(make: Make) -> None:
    way = Way()
    way.go_on.clear()
    delivery = make(way)
    delivery.put(b"1", counts())
    wait(lambda: way.at_once == 1)
    delivery.put(b"2", counts())
    delivery.close()
    assert way.reasons() == {"network_error": 1}
    delivery.put(b"3", counts())
    assert way.reasons() == {"network_error": 1, "queue_overflow": 1}
    way.go_on.set()
    assert delivery.flush(LONG)
    assert way.reasons() == {"network_error": 1, "queue_overflow": 1, None: 1}
    wait(lambda: not delivery._threads and not way.open)


def test_what_comes_back_after_close_is_lost(make: Make) -> None:
    way = Way(lambda _: NotConnected("refused"))
    way.go_on.clear()
    delivery = make(way)
    delivery.put(b"1", counts())
    wait(lambda: way.at_once == 1)
    delivery.close()
    way.go_on.set()
    assert delivery.flush(LONG)
    assert way.reasons() == {"network_error": 1}


# -- all at once ----------------------------------------------------------------------------------

OUTCOMES = st.sampled_from(
    [
        *(200, 200, 200, 429, 413, 500, 302),
        Response(200, {"x-sentry-rate-limits": "1:transaction:key"}),
        Response(429, {"retry-after": "1"}),
        "refused",
        OSError("reset"),
        TimeoutError("hanging"),
        RuntimeError("not foreseen"),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.integers(1, 40).map(lambda size: ("put", size)),
        st.integers(1, 40).map(lambda size: ("put", size)),
        st.sampled_from([0.0, 0.03, 1.1, 40.0]).map(lambda seconds: ("pass", seconds)),
        st.booleans().map(lambda held: ("hold", held)),
        st.just(("flush", 0)),
        st.just(("close", 0)),
    ),
    max_size=40,
)


@given(steps=STEPS, outcomes=st.lists(OUTCOMES, min_size=1, max_size=15))
@limits(max_examples=200)
def test_every_envelope_ends_exactly_once_within_the_bound(
    steps: list[tuple[str, Any]], outcomes: list[Any]
) -> None:
    clock, turn = HandClock(), iter(range(1_000_000))

    def outcome(_: bytes) -> Any:
        chosen = outcomes[next(turn) % len(outcomes)]
        return NotConnected("refused") if chosen == "refused" else chosen

    way = Way(outcome)
    delivery = Delivery(way, way.tell, max_bytes=100, clock=clock)
    put = 0
    for step, value in steps:
        if step == "put":
            put += 1
            delivery.put(b"x" * value, counts(put))
        elif step == "pass":
            clock.advance(value)
        elif step == "hold":
            (way.go_on.clear if value else way.go_on.set)()
        elif step == "flush":
            delivery.flush(0)
        else:
            delivery.close()
        assert 0 <= delivery._bytes <= 100
        assert delivery._threads <= MAX_CONNECTIONS
    way.go_on.set()
    outcomes[:] = [200]
    wait(lambda: delivery.flush(0.01))
    delivery.close()
    assert sorted(told for _, told in way.done) == [counts(n) for n in range(1, put + 1)]
    assert delivery._bytes == delivery._under_way == 0
    wait(lambda: not delivery._threads and not way.open)


def test_every_envelope_ends_exactly_once_concurrent_safe(make: Make) -> None:
    choose = random.Random(1)
    kinds: list[Any] = [200, 200, 200, 500, 429, 413, "refused", "reset"]

    def outcome(_: bytes) -> Any:
        chosen = choose.choice(kinds)
        errors = {"refused": NotConnected("refused"), "reset": OSError("reset")}
        return errors.get(chosen, chosen)

    way = Way(outcome)
    delivery = make(way, max_bytes=2_000)

    def produce(first: int) -> None:
        for number in range(first, first + 500):
            delivery.put(b"x" * (number % 50 + 1), counts(number))
            if number % 50 == 0:
                delivery.flush(0)

    threads = [threading.Thread(target=produce, args=(n * 500,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    kinds[:] = [200]
    wait(lambda: delivery.flush(0.01))
    assert Counter(told for _, told in way.done) == Counter(counts(n) for n in range(2_000))
    assert delivery._bytes == 0


# -- fork -----------------------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> bool:
    """Whether *work* is true in a forked child."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_begins_with_nothing_even_if_the_lock_was_held(make: Make) -> None:
    way = Way()
    way.go_on.clear()
    delivery = make(way)
    for _ in range(3):
        delivery.put(b"parent", counts())
    wait(lambda: way.at_once >= 1)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with delivery._work:
            held.set()
            let_go.wait(LONG)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(LONG)

    def work() -> bool:
        way.__init__()  # type: ignore[misc]
        delivery.begin_in_child()
        delivery.put(b"child", counts())
        return delivery.flush(LONG) and way.posted == [b"child"] and way.open <= 1

    try:
        assert in_child(work)
    finally:
        let_go.set()
        holder.join(LONG)
    way.go_on.set()
    assert delivery.flush(LONG)
    assert way.reasons() == {None: 3}
