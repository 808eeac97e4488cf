"""Resident memory, in MB: after many requests, and while Sentry cannot be reached.

`python -m benchmarks.memory REQUESTS PORT` is the process that is measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from benchmarks.child import TOGETHER, serve
from benchmarks.processes import Process
from benchmarks.stacks import STACKS

NOWHERE = "9"  # The discard port: nothing listens there.


def rss() -> float:
    """Megabytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def measure(counts: list[int], *, reachable: bool) -> list[float]:
    """Resident memory of our stack, with six child spans, after each number of requests."""
    with Process("benchmarks.sink") as sink:
        port = sink.read() if reachable else NOWHERE
        with Process("benchmarks.memory", port) as child:
            return [float(child.ask(str(count))) for count in counts]


def main() -> None:
    """For each number on standard input handle requests until there were so many."""
    reachable = sys.argv[1] != NOWHERE
    stack = STACKS["ours"](6, int(sys.argv[1]))
    done = 0
    for line in sys.stdin:
        while done < int(line):
            asyncio.run(serve(stack, TOGETHER))
            done += TOGETHER
            if reachable:
                stack.flush()
        print(rss(), flush=True)


if __name__ == "__main__":
    main()
