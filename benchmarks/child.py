"""One stack in a process of its own: `python -m benchmarks.child STACK SPANS PORT`.

For each number on standard input it handles so many requests, waits until all they gave is sent,
and prints the CPU time of the whole process for one of them, in microseconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from benchmarks.stacks import SCOPE, STACKS, Stack

TOGETHER = 80
"""Requests between two flushes: fewer than fill the queue of sentry-sdk's transport, which would
drop the rest and look fast."""


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: dict[str, Any]) -> None:
    pass


async def serve(stack: Stack, requests: int) -> None:
    """Handle so many requests, one after the other, each in a task of its own as under a server."""
    for _ in range(requests):
        await asyncio.create_task(_one(stack))


async def _one(stack: Stack) -> None:
    await stack.app({**SCOPE}, _receive, _send)


def main() -> None:
    """Obey standard input."""
    name, spans, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stack = STACKS[name](spans, port)
    for line in sys.stdin:
        left = requests = int(line)
        began = time.process_time()
        while left > 0:
            asyncio.run(serve(stack, min(left, TOGETHER)))
            stack.flush()
            left -= TOGETHER
        print((time.process_time() - began) / requests * 1e6, flush=True)


if __name__ == "__main__":
    main()
