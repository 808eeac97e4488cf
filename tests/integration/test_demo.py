"""The demo runs to its end and finds all as it should be; and it would find what is not."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.demo.private import COOKIE, PRIVATE, Planted, in_sentry
from examples.demo.traffic import Reply, Scenario, one
from examples.demo.verdict import FOLLOW_UP, Arrived, problems
from tests.support.kent import Item
from tests.support.otlp import OtlpSpan

ROOT = Path(__file__).parents[2]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.slow
def test_the_demo() -> None:
    unset = ("DSN", "KEEP", "SPOTLIGHT", "FORCE_COLOR", "TTY_COMPATIBLE")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    run = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env={**inherited, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith(
        "All there, with the same trace ids on both sides; nothing private in Sentry.\n"
    )
    told = {line.partition("  ")[0]: line for line in run.stdout.splitlines()}
    assert told["raised in a task left behind"].split()[6:11] == ["202", "1", "+", "1", "late"]
    assert "unsampled" in told["traceparent, not sampled"]
    samples, share = told["distance"].split()[1:]
    assert int(samples) >= 2
    assert int(share.rstrip("%")) > 50
    for line in (
        "PaymentFailedError: the bank is away",
        '      raise PaymentFailedError("the bank is away") from error',
        "  caused by  ConnectError: All connection attempts failed",
        "  follow-up: ended after the transaction of its request was sent",
    ):
        assert line in run.stdout.splitlines()
    for planted in PRIVATE:
        assert told[planted.way].split(planted.value)[1].split()[0] == "nowhere"


def event(**fields: Any) -> dict[str, Any]:
    return {"contexts": {"trace": {"trace_id": TRACE_ID, "span_id": "a"}}, **fields}


def transaction(**fields: Any) -> Item:
    body = event(transaction="GET /", start_timestamp=0.0, spans=[{"span_id": "b"}], **fields)
    return Item("transaction", {}, {}, body)


def error(*, handled: bool = False, **fields: Any) -> Item:
    value = {"type": "ValueError", "value": "no", "mechanism": {"handled": handled}}
    return Item("event", {}, {}, event(exception={"values": [value]}, **fields))


def profile(event_id: str = "p", hot: str = "slow") -> Item:
    """Two samples in *hot*, one in its caller, and three on a thread that is not the handler's."""
    stacks = [(0, "1"), (0, "1"), (1, "1"), (2, "1"), *[(1, "2")] * 3]
    inner = {
        "frames": [{"function": hot}, {"function": "caller"}],
        "stacks": [[0, 1], [1], []],
        "samples": [{"stack_id": stack, "thread_id": thread} for stack, thread in stacks],
    }
    about = {"trace_id": TRACE_ID, "active_thread_id": "1"}
    return Item(
        "profile", {}, {}, {"event_id": event_id, "profile": inner, "transactions": [about]}
    )


def otlp_span(span_id: str, trace_id: str = TRACE_ID) -> OtlpSpan:
    return OtlpSpan(trace_id, span_id, None, "", "GET", "SERVER", 0, 1, "OK", "", {}, (), ())


SPANS = [otlp_span("a"), otlp_span("b")]
FAILS = Scenario("it", one("GET", "/"), "500", issue="ValueError", handled=False)
RIGHT = [transaction(), error()]
"""What there should be after the scenario."""


def found(
    items: list[Item],
    spans: list[OtlpSpan] = SPANS,
    *,
    scenario: Scenario = FAILS,
    readable: bool = True,
    **reply: Any,
) -> list[str]:
    replies = [Reply(**{"answer": "500", "trace_id": TRACE_ID, **reply})]
    return problems([(scenario, replies)], Arrived(items, readable, spans))


class TestVerdict:
    def test_what_is_right(self) -> None:
        assert found(RIGHT) == []

    @pytest.mark.parametrize(
        ("items", "problem"),
        [
            ([error()], "0 transactions instead of 1"),
            ([*RIGHT, transaction()], "2 transactions instead of 1"),
            ([transaction()], "the issues [] instead of ['ValueError']"),
            ([*RIGHT, error()], "the issues ['ValueError: no', 'ValueError: no'] instead of"),
            ([transaction(), error(handled=True)], "ValueError: no has handled=True"),
            ([transaction(), error(tags={"basket": "ada"})], "has the tag ada"),
            ([*RIGHT, Item("event", {}, {}, {"message": "?"})], "event None belongs to no request"),
            (RIGHT * 50, "100 items: there may have been more"),
        ],
    )
    def test_what_is_wrong_in_sentry(self, items: list[Item], problem: str) -> None:
        assert any(problem in one for one in found(items))
        assert found(items, readable=False) == []

    def test_a_follow_up_that_should_not_be(self) -> None:
        late = transaction()
        late.body["contexts"]["trace"]["data"] = {FOLLOW_UP: True}
        assert found([*RIGHT, late]) == ["it: 1 follow-up transactions instead of 0"]

    def test_profiles(self) -> None:
        profiled = transaction()
        profiled.body["contexts"]["profile"] = {"profile_id": "p"}
        assert found([*RIGHT, profile()]) == [
            "it: refers to 0 profiles of 1",
            "it: hottest in its profile is ['slow'] instead of None",
        ]
        slow = replace(FAILS, hot="slow")
        assert found([profiled, error(), profile()], scenario=slow) == []
        assert found([profiled, error(), profile("p", "other")], scenario=slow) == [
            "it: hottest in its profile is ['other'] instead of slow"
        ]
        assert found(RIGHT, scenario=slow) == ["it: hottest in its profile is [] instead of slow"]

    def test_spans_that_the_otlp_side_does_not_have(self) -> None:
        assert found(RIGHT, SPANS[:1]) == ["it: GET / has spans that OTLP does not"]
        assert f"it: 0 OTLP spans in trace {TRACE_ID}" in found(RIGHT, [])

    def test_answers(self) -> None:
        assert found(RIGHT, answer="200") == ["it: answered 200 instead of 500"]
        (problem,) = found(RIGHT, caller="b" * 32)
        assert problem.startswith(f"it: in the trace {TRACE_ID} instead of its caller's")


@pytest.mark.parametrize(
    "item",
    [
        Item("event", {"trace": {"user": COOKIE.value}}, {}, {}),
        Item("event", {}, {"name": COOKIE.value}, {}),
        Item("event", {}, {}, {"spans": [{"data": {"x": f"session={COOKIE.value};"}}]}),
        Item("event", {}, {}, {"vars": {COOKIE.value: 1}}),
    ],
)
def test_a_private_value_is_found_wherever_it_is(item: Item) -> None:
    assert in_sentry(COOKIE, [item, Item("event", {}, {}, {})]) == {"event": 1}


def test_a_private_value_is_found_in_the_quoting_of_urls() -> None:
    quoted = Item("transaction", {}, {}, {"url": "http://shop/?email=ada%40home.test"})
    assert in_sentry(Planted("ada@home.test", "e-mail"), [quoted]) == {"transaction": 1}
