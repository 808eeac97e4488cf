"""Resident memory, in MB: after many requests, while Sentry cannot be reached, and afterwards.

`python -m benchmarks.memory PORT [MAX_BYTES]` is the process that is measured: our stack with six
child spans. It obeys standard input and answers each line with one of JSON, see `State`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypedDict

import otel_sentry_asgi
from benchmarks.child import TOGETHER, serve
from benchmarks.processes import Process
from benchmarks.stacks import Stack, ours
from otel_sentry_asgi.sampling import MAX_DECISIONS, Decision

NOWHERE = "9"  # The discard port: nothing listens there.

SPANS = 6
MODULE = "benchmarks.memory"
PATIENCE = 60.0
"""Seconds. Only what is broken takes so long."""


class State(TypedDict):
    """What the measured process tells of itself."""

    rss: float
    """Megabytes in memory."""
    objects: int
    """Objects that the garbage collector knows, but for decisions: the last 10,000 are kept."""
    threads: int
    requests: int
    stats: dict[str, int]
    """What `otel_sentry_asgi.stats()` says."""


def rss() -> float:
    """Megabytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def measure(counts: list[int], *, reachable: bool) -> list[float]:
    """Resident memory of our stack, with six child spans, after each number of requests."""
    with Process("benchmarks.sink") as sink:
        port = sink.read() if reachable else NOWHERE
        with Process(MODULE, port) as child:
            command = "deliver" if reachable else "handle"
            return [ask(child, f"{command} {count}")["rss"] for count in counts]


def ask(child: Process, command: str) -> State:
    """Have the measured process do something: `handle COUNT`, until there were so many requests,
    without a pause; `deliver COUNT`, and send all that they gave; `take COUNT`, and wait until the
    worker has taken it."""
    state: State = json.loads(child.ask(command))
    return state


def outage(
    child: Process,
    sentry: Callable[[], AbstractContextManager[object]],
    gone: Callable[[], AbstractContextManager[object]],
    *,
    warm: int = MAX_DECISIONS + 2_000,
) -> tuple[State, State, State]:
    """The process before Sentry is *gone*, when so much waits for it that the first is lost, and
    when *sentry* is there again and has all that waited."""
    with sentry():
        ask(child, f"take {warm}")
        before = ask(child, f"deliver {warm}")
    with gone():
        full = before
        while _overflowed(full) == _overflowed(before):
            full = ask(child, f"take {full['requests'] + TOGETHER}")
    with sentry():
        return before, full, ask(child, f"deliver {full['requests']}")


def _overflowed(state: State) -> int:
    return state["stats"].get("lost.queue_overflow", 0)


def after_outage() -> tuple[State, State, State]:
    """As `outage`, with the default size of the queue, refused connections and a sink."""
    with Process("benchmarks.sink") as sink:
        port = sink.read()

    @contextmanager
    def sentry() -> Iterator[None]:
        with Process("benchmarks.sink", port) as sink:
            sink.read()
            yield

    with Process(MODULE, port) as child:
        return outage(child, sentry, nullcontext)


class Measured:
    """The process that is measured."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._requests = 0

    def obey(self, command: str, count: int) -> State:
        """Do what `ask` says."""
        while self._requests < count:
            asyncio.run(serve(self._stack, TOGETHER))
            self._requests += TOGETHER
            if command == "deliver":
                self._stack.flush()
            elif command == "take":
                _wait(self._is_taken)
        if command == "deliver":
            _wait(self._stack.flush)
            gc.collect()
        return self._state()

    def _is_taken(self) -> bool:
        """All but the last may still wait for their settling."""
        taken = otel_sentry_asgi.stats().get("transactions", 0)
        return taken >= self._requests - TOGETHER

    def _state(self) -> State:
        return State(
            rss=rss(),
            objects=sum(type(one) is not Decision for one in gc.get_objects()),
            threads=threading.active_count(),
            requests=self._requests,
            stats=otel_sentry_asgi.stats(),
        )


def _wait(probe: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not probe():
        if time.monotonic() > until:
            sys.exit(f"not within {PATIENCE} s: {otel_sentry_asgi.stats()}")
        time.sleep(0.001)


def main() -> None:
    """Obey standard input."""
    # What waits is to be as much as can be: nothing is left out.
    stack = ours(SPANS, *map(int, sys.argv[1:]), enable_backpressure_handling=False)
    measured = Measured(stack)
    for line in sys.stdin:
        command, count = line.split()
        print(json.dumps(measured.obey(command, int(count))), flush=True)


if __name__ == "__main__":
    main()
