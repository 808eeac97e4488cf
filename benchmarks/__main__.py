"""`python -m benchmarks` measures everything and writes `docs/benchmarks.md` and `.svg`;
`python -m benchmarks check` fails if a request has become dearer beside sentry-sdk's own."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import cpu, latency, memory, stages, startup
from benchmarks.plot import to_svg
from benchmarks.report import LABELS, cpu_table, environment, latency_table, stages_table

DOCS = Path(__file__).parents[1] / "docs"

LIMITS = {0: 0.65, 6: 0.65}
"""What a request with so many child spans may take at most, as a multiple of what sentry-sdk's own
ASGI middleware takes in the same run."""

_PAGE = """# Benchmarks

Written by `make bench`. {environment}.

## CPU time of a request

Microseconds of CPU time (all threads of the process, upload to a receiver on the loopback
included) that a request takes over OpenTelemetry's ASGI middleware and spans without any
processor. In brackets: as a multiple of otel-sentry-asgi, the median and range of {rounds} rounds.
A fresh process for each stack; the stacks take turns.

{cpu}

![CPU time of a request](benchmarks.svg)

## What a client sees

uvicorn, one process, six child spans; an open-loop load, each latency counted from when the request
was due.

{latency}

## Where it goes

Thousands of instructions for a request, counted by valgrind: `python -m benchmarks.stages`. On the
request path it is what comes on top of OpenTelemetry.

{stages}

## Scale

CPU of a span from its start to the exporter, in one process that does nothing else
(`python -m benchmarks.scale`). The rest of a trace beyond 1,000 spans is dropped and counted.

{scale}

## Profiles

CPU of a request that computes, on the event loop and in a thread pool, without and with a profile
(`profiles_sample_rate=1.0`; `python -m benchmarks.profiles`).

{profiles}

## Memory

Resident, six child spans: {after}. While Sentry cannot be reached, and without a pause between
requests, so that the queues are full: {unreachable}.

An outage at a load that the worker keeps up with, until so much waits that the first is lost, and
after all that waited has been delivered: {outage}.

## Start-up

`import otel_sentry_asgi` and `instrument()` take {startup:.0f} ms in a process that has
OpenTelemetry and sentry-sdk loaded.
"""


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and write the page."""
    rounds = arguments.rounds
    figures = cpu.measure(LABELS, (0, 6, 200), rounds)
    seen = latency.measure(["discard", "ours"], 6, rounds=3, seconds=arguments.seconds)
    counts = [int(count) for count in arguments.requests.split(",")]
    reachable = memory.measure(counts, reachable=True)
    unreachable = memory.measure(counts[:2], reachable=False)
    page = _PAGE.format(
        environment=environment(),
        rounds=rounds,
        cpu=cpu_table(figures),
        latency=latency_table(seen),
        stages=stages_table({spans: stages.measure(spans) for spans in stages.PANELS}),
        scale=_printed("benchmarks.scale"),
        profiles=_printed("benchmarks.profiles"),
        after=_after(counts, reachable),
        unreachable=_after(counts[:2], unreachable),
        outage=_outage(*memory.after_outage()),
        startup=startup.measure(15),
    )
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmarks.md").write_text(page, "utf-8")
    (DOCS / "benchmarks.svg").write_text(to_svg(figures, LABELS), "utf-8")
    print(page)


def _printed(module: str) -> str:
    printed = subprocess.check_output([sys.executable, "-m", module], text=True)
    return "\n".join(f"* {line}" for line in printed.splitlines())


def _after(counts: list[int], megabytes: list[float]) -> str:
    pairs = zip(counts, megabytes, strict=True)
    return ", ".join(f"{size:.0f} MB after {count:,} requests" for count, size in pairs)


def _outage(before: memory.State, full: memory.State, after: memory.State) -> str:
    return f"{before['rss']:.0f} MB, {full['rss']:.0f} MB, and then {after['rss']:.0f} MB"


def check(arguments: argparse.Namespace) -> None:
    """A ratio of two stacks in one run, never a time: machines differ."""
    failed = False
    for panel in cpu.measure(["sentry_asgi", "ours"], tuple(LIMITS), arguments.rounds):
        ratio = statistics.median(panel.ratios("ours", to="sentry_asgi"))
        limit = LIMITS[panel.spans]
        failed = failed or ratio > limit
        print(f"{panel.spans} spans: {ratio:.2f} of sentry-sdk's own, at most {limit}")
    sys.exit(failed)


def main() -> None:
    """Obey the command line."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--requests", default="50000,200000,500000")
    commands = parser.add_subparsers()
    checking = commands.add_parser("check")
    checking.set_defaults(run=check)
    checking.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
