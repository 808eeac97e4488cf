"""Three services that call each other, in processes of their own: the same traces in all."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support._process import spawn
from tests.support.kent import Item, Kent

_ROOT = Path(__file__).parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def services(kent: Kent, *kinds: str, ratio: float, rate: float) -> Iterator[str]:
    """The URL of the first of a chain of services; they have sent everything after the block."""
    url = ""
    with ExitStack() as stack:
        for number, kind in reversed(list(enumerate(kinds))):
            env = {
                "SENTRY_DSN": kent.dsn,
                "SENTRY_RELEASE": f"service-{number}",
                "KIND": kind,
                "RATIO": str(ratio),
                "RATE": str(rate),
                **({"NEXT": url} if url else {}),
            }
            child, port = spawn(
                lambda port: (
                    *(sys.executable, "-m", "uvicorn", "tests.integration.service:app"),
                    *("--port", str(port), "--log-level", "warning"),
                ),
                env=lambda _, env=env: env,  # type: ignore[misc]
                cwd=_ROOT,
            )
            stack.callback(child.stop)
            url = f"http://127.0.0.1:{port}"
        yield url


def by_trace(items: list[Item]) -> dict[str, Counter[str]]:
    """The services that sent a transaction of each trace."""
    found: dict[str, Counter[str]] = {}
    for item in items:
        trace_id = item.body["contexts"]["trace"]["trace_id"]
        found.setdefault(trace_id, Counter())[item.body["release"]] += 1
    return found


def rand_of(trace_id: str) -> float:
    return int(trace_id[16:], 16) / (1 << 64)


@pytest.mark.slow
def test_the_smaller_rate_keeps_the_same_traces_in_every_service(kent: Kent) -> None:
    ids = [f"{number:016x}{number * (1 << 64) // 61:016x}" for number in range(1, 60)]
    with services(kent, *["bridged"] * 3, ratio=0.6, rate=0.3) as url, httpx.Client() as client:
        for number, trace_id in enumerate(ids):
            headers = {"traceparent": f"00-{trace_id}-{SPAN}-01"}
            assert client.get(f"{url}/step/{number}", headers=headers).status_code == 200

    smaller = {trace_id for trace_id in ids if rand_of(trace_id) < 0.3}
    everywhere = Counter({f"service-{number}": 1 for number in range(3)})
    assert by_trace(kent.transactions()) == dict.fromkeys(smaller, everywhere)
    assert {item.envelope["trace"]["sample_rate"] for item in kent.transactions()} == {"0.3"}


@pytest.mark.slow
def test_a_browsers_pageload_and_services_of_both_kinds_are_one_trace(kent: Kent) -> None:
    """The middle one has sentry-sdk alone: it continues ours, and ours continues it."""
    baggage = (
        f"sentry-environment=production,sentry-public_key=web,sentry-trace_id={TRACE},"
        "sentry-org_id=1,sentry-transaction=%2Fproducts%2F%3Aid,sentry-sampled=true,"
        "sentry-sample_rand=0.42,sentry-sample_rate=0.5"
    )
    browser = {"sentry-trace": f"{TRACE}-{SPAN}-1", "baggage": baggage}
    # The rate of the services is 0: that they send follows from the browser's decision.
    kinds = ("bridged", "plain", "bridged")
    with services(kent, *kinds, ratio=1.0, rate=0.0) as url, httpx.Client() as client:
        client.get(f"{url}/step/1", headers=browser)
        client.get(f"{url}/step/2")

    items = kent.transactions()
    assert by_trace(items) == {TRACE: Counter({f"service-{number}": 1 for number in range(3)})}
    by_release: dict[str, dict[str, Any]] = {item.body["release"]: item.body for item in items}
    chain = [by_release[f"service-{number}"] for number in range(3)]
    assert chain[0]["contexts"]["trace"]["parent_span_id"] == SPAN
    for before, after in itertools.pairwise(chain):
        ids = {span["span_id"] for span in before["spans"]}
        assert after["contexts"]["trace"]["parent_span_id"] in ids
    bridged = [i for i in items if i.body["release"] != "service-1"]
    for item in bridged:
        assert item.envelope["trace"]["transaction"] == "/products/:id", "frozen as received"
        assert float(item.envelope["trace"]["sample_rand"]) == 0.42
