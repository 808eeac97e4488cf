"""Counters."""

import sys
from concurrent.futures import ThreadPoolExecutor

from otel_sentry_asgi._stats import Stats


def test_nothing_is_counted_at_first() -> None:
    assert Stats().snapshot() == {}


def test_counts_are_added_up_and_sorted_by_name() -> None:
    stats = Stats()
    stats.add("spans", 2)
    stats.add("errors")
    stats.add("spans")
    assert list(stats.snapshot().items()) == [("errors", 1), ("spans", 3)]


def test_a_snapshot_does_not_change() -> None:
    stats = Stats()
    stats.add("spans")
    before = stats.snapshot()
    stats.add("spans")
    assert before == {"spans": 1}


def test_cleared_means_zero() -> None:
    stats = Stats()
    stats.add("spans")
    stats.clear()
    assert stats.snapshot() == {}


def test_what_others_count_is_added_in_the_snapshot_only() -> None:
    stats = Stats()
    stats.add("lost.network_error", 2)
    lost = {"network_error": 3, "queue_overflow": 1}
    assert stats.snapshot(lost) == {"lost.network_error": 5, "lost.queue_overflow": 1}
    assert stats.snapshot() == {"lost.network_error": 2}


def test_counting_is_concurrent_safe() -> None:
    stats = Stats()

    def count(_: int) -> None:
        for _ in range(5_000):
            stats.add("spans")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert stats.snapshot() == {"spans": 20_000}
