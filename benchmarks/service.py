"""One stack behind uvicorn: `python -m benchmarks.service STACK SPANS PORT` prints its port."""

from __future__ import annotations

import asyncio
import sys
import threading

import uvicorn

from benchmarks.stacks import STACKS


def main() -> None:
    """Serve until standard input ends."""
    name, spans, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stack = STACKS[name](spans, port)
    config = uvicorn.Config(
        stack.app,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        access_log=False,
        log_level="critical",
        timeout_keep_alive=600,  # The steady load leaves most connections idle.
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        while not server.started:
            threading.Event().wait(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
