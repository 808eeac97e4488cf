"""A process under load while Sentry is gone, and what is left of that afterwards."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import pytest

from benchmarks.child import TOGETHER
from benchmarks.memory import MODULE, SPANS, outage, rss
from benchmarks.processes import Process
from otel_sentry_exporters._delivery import MAX_CONNECTIONS, Delivery
from otel_sentry_exporters._http import NotConnected, Response
from tests.support.sentry import FakeSentry, serve_sentry

MAX_BYTES = 2 * 1024 * 1024
LONG = 10.0
"""Seconds. Only what is broken takes so long."""


@contextmanager
def hanging(port: int) -> Iterator[None]:
    """Connections are taken by the system, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", port), backlog=128):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("gone", [nullcontext, hanging], ids=["refused", "hanging"])
def test_after_an_outage_all_is_delivered_or_reported_and_nothing_is_left(
    gone: Callable[[int], AbstractContextManager[object]],
) -> None:
    sentry = FakeSentry()
    with serve_sentry(sentry):
        port = sentry.port
    with Process(MODULE, str(port), str(MAX_BYTES)) as child:
        before, full, after = outage(
            child, partial(serve_sentry, sentry, port=port), partial(gone, port), warm=800
        )
    arrived = [item.json for _, item in sentry.of_type("transaction")]
    lost, lost_spans = sentry.reported("transaction"), sentry.reported("span")
    assert len({one["event_id"] for one in arrived}) == len(arrived)
    assert len(arrived) + sum(lost.values()) == after["requests"]
    arrived_spans = sum(len(one["spans"]) + 1 for one in arrived)
    assert arrived_spans + sum(lost_spans.values()) == (SPANS + 1) * after["requests"]
    assert {f"lost.{reason}": spans for reason, spans in lost_spans.items()}.items() <= (
        after["stats"].items()
    )
    # What the server had and did not answer is lost, too, and nothing else.
    assert lost["queue_overflow"] > 0
    assert lost["network_error"] <= (MAX_CONNECTIONS if gone is hanging else 0)
    # The worker takes all the while, so that the queue before it stays short.
    assert full["stats"]["transactions"] >= full["requests"] - 2 * TOGETHER
    # Uploads have threads more for a while, of some 75 objects each.
    threads = after["threads"] - before["threads"]
    assert after["objects"] - before["objects"] < 200 + 100 * threads
    assert full["rss"] - before["rss"] < 15
    assert after["rss"] - before["rss"] < 10


class Gone:
    """Sentry, which is not there until it is."""

    def __init__(self) -> None:
        self.there = False

    def post(
        self, body: bytes, *, encoding: str | None = None, timeout: float | None = None
    ) -> Response:
        if not self.there:
            raise NotConnected("refused")
        return Response(200, {})

    def close(self) -> None:
        pass


def main() -> None:
    """Fill a queue of 16 MiB with envelopes as they are, beside what a service keeps meanwhile, and
    have it sent. Prints the megabytes before, between and after."""
    way = Gone()
    kept: list[bytearray] = []
    delivery = Delivery(lambda: way, lambda *_: None)

    def fill(limit: int) -> None:
        while delivery._bytes < limit:
            delivery.put(os.urandom(1_200), (("transaction", 1), ("span", 7)))
            if len(kept) * 40_000 < delivery._bytes:
                kept.append(bytearray(1_000))

    sizes: list[float] = []
    for limit in (1, delivery._max_bytes - 2_000):
        worker = threading.Thread(target=fill, args=(limit,))
        worker.start()
        worker.join()
        sizes.append(rss())
    way.there = True
    assert delivery.flush(LONG)
    sizes.append(rss())
    sys.stdout.write(" ".join(map(str, sizes)) + "\n")


def test_a_full_queue_is_little_more_than_its_bytes_and_then_the_memory_is_given_back() -> None:
    with Process("tests.integration.test_outage") as child:
        before, full, after = map(float, child.read().split())
    size = 16 * 1024 * 1024 / 1e6
    assert size < full - before < size * 1.2
    assert after - before < 5  # A few threads have helped to send it.


if __name__ == "__main__":
    main()
