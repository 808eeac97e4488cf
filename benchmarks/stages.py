"""What each stage takes for one request, in instructions: `python -m benchmarks.stages`.

Time is too noisy for a comparison of two commits; the number of instructions is the same in each
run, within a percent. It is counted by valgrind's cachegrind in processes of their own: one that
repeats a stage `TIMES`, and one that does not do it at all. Stages of the worker are counted from
the first on, so each is the difference to the one before it.

`python -m benchmarks.stages NAME SPANS TIMES` is such a process.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sentry_sdk

from benchmarks.child import serve
from benchmarks.stacks import STACKS

TIMES = 200
PANELS = (0, 6)
"""Numbers of child spans."""
NOWHERE = 9
"""The discard port: nothing listens there, and nothing is sent."""

REQUEST = {"otel": "otel", "request": "ours", "unsampled": "ours_unsampled"}
"""The request path without us, sampled and not, and their stacks."""
WORKER = ("take", "assemble", "read", "translate", "clean", "prepare", "encode", "turn")
"""Stages of the worker, each with those before it; the turn is all of it, and what is between."""

_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def stage(name: str, spans: int) -> Callable[[], object]:
    """What is repeated."""
    stack = STACKS[REQUEST.get(name, "ours")](spans, NOWHERE)
    if name == "otel":
        return lambda: asyncio.run(serve(stack, 1))
    from otel_sentry_asgi import _active

    bridge: Any = _active.active()
    pipeline = bridge.pipeline
    worker = pipeline._worker
    worker.wake = lambda: None  # Nothing is taken but here.

    def request() -> None:
        asyncio.run(serve(stack, 1))
        worker._queue.clear()

    if name in REQUEST:
        return request
    request()  # Warm.
    asyncio.run(serve(stack, 1))
    items = list(worker._queue)
    return _worker_stage(name, bridge, items)


def _worker_stage(name: str, bridge: Any, items: list[Any]) -> Callable[[], object]:
    from otel_sentry_asgi import sentry
    from otel_sentry_asgi._translate.segment import read
    from otel_sentry_exporters._json import encode
    from otel_sentry_exporters._prepare import prepare
    from otel_sentry_exporters.envelope import _envelope

    pipeline = bridge.pipeline
    client: Any = sentry_sdk.get_client()
    route = pipeline._exporter._route_of(client)
    route.delivery.put = lambda *_args, **_kwargs: None
    last = WORKER.index(name)

    def run() -> None:
        for item in items:
            pipeline._take(item, 0.0)
        if last < 1:
            pipeline._assembler.__init__(pipeline._settings, pipeline._lost_spans)
            return
        [segment] = pipeline._assembler.flush(everything=False)
        pipeline._tell_of(segment)
        if last < 2:
            return
        facts, decision = segment.exchange.facts(), pipeline._decision_of(segment)
        reading, asked = read(segment.root, facts), pipeline._ask()
        asked.noise.has_segment(segment.root, facts, reading.data)
        if last < 3:
            return
        transaction = pipeline._to_transaction(
            segment, segment.root, reading, facts, decision, asked
        )
        if last < 4:
            return
        segment.exchange.policy = asked.policy
        payload = asked.policy.clean(transaction).payload
        segment.exchange.sent_request = payload["request"]
        if last < 5:
            return
        contextvars.copy_context().run(sent, payload, segment.exchange)

    def sent(payload: Any, exchange: Any) -> None:
        scopes = exchange.sentry_scope, exchange.current_scope
        sentry_sdk.Scope.set_isolation_scope(scopes[0])
        sentry_sdk.Scope.set_current_scope(scopes[1])
        prepared = prepare(payload, client, scopes, {}, route.lose)
        if last > 5:
            _envelope({}, encode(prepared), [])

    if name == "turn":
        return lambda: pipeline._turn(items, True)
    sentry.have_scopes()
    return run


def measure(spans: int) -> dict[str, float]:
    """Thousands of instructions for one request, by stage: what the request path takes over OTel's
    own, and the worker's stages each by itself."""
    own = {}
    before = otel = count("otel", spans)
    for name in (*list(REQUEST)[1:], *WORKER):
        counted = count(name, spans)
        own[name] = (counted - (otel if name in REQUEST else before)) / 1e3
        before = 0.0 if name in REQUEST else counted
    own["turn"] = before / 1e3
    return own


def count(name: str, spans: int, times: int = TIMES) -> float:
    """Instructions for one repetition."""
    with ThreadPoolExecutor() as pool:
        whole, rest = pool.map(lambda n: _count(name, spans, n), (times, 0))
    return (whole - rest) / times


def _count(name: str, spans: int, times: int) -> int:
    tool = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
    program = (sys.executable, "-m", "benchmarks.stages", name, str(spans), str(times))
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*tool, *program], check=True, capture_output=True, text=True, env=environ
    )
    found = _COUNTED.search(done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def main() -> None:
    """Repeat one stage, or print the figures of all for each number of child spans."""
    if len(sys.argv) > 1:
        name, spans, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        repeated = stage(name, spans)
        for _ in range(3):
            repeated()
        for _ in range(times):
            repeated()
        os._exit(0)
    for spans in PANELS:
        for name, thousands in measure(spans).items():
            print(f"{spans} spans, {name}: {thousands:,.0f} thousand instructions", flush=True)


if __name__ == "__main__":
    main()
