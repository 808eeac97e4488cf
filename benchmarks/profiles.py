"""What profiles cost a request that computes, in CPU: `python -m benchmarks.profiles`.

The service is a process of its own, the receiver is in this one. All profiles are sent, and counted
where they arrive.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

PAIRS = 120
WARM = 5
HANDLERS = ("loop", "thread")


def compute(depth: int = 10) -> int:
    """Some 80 ms, below a stack of some depth."""
    return compute(depth - 1) if depth else sum(n % 7 for n in range(1_000_000))


async def _serve(path: str) -> tuple[float, float]:
    """Milliseconds of CPU for a request without and with a profile, of all threads together: the
    medians of requests that take turns."""
    import sentry_sdk
    from fastapi import FastAPI
    from httpx import ASGITransport, AsyncClient
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider

    import otel_sentry_asgi

    rate = 1.0
    warnings.simplefilter("ignore", DeprecationWarning)
    sentry_sdk.init(dsn=os.environ["DSN"], traces_sample_rate=1.0, profiles_sampler=lambda _: rate)
    provider = TracerProvider()
    otel_sentry_asgi.instrument(tracer_provider=provider)
    app = FastAPI()

    @app.get("/loop")
    async def on_the_loop() -> int:
        return compute()

    @app.get("/thread")
    def in_a_thread() -> int:
        return compute()

    served: Any = OpenTelemetryMiddleware(app, tracer_provider=provider)
    costs: dict[float, list[float]] = {0.0: [], 1.0: []}
    async with AsyncClient(transport=ASGITransport(served), base_url="http://shop") as client:
        for rate in (1.0,) * WARM + (0.0, 1.0) * PAIRS:
            begin = time.process_time()
            await client.get(path)
            provider.force_flush()
            costs[rate].append((time.process_time() - begin) * 1_000)
    sentry_sdk.flush()
    return statistics.median(costs[0.0]), statistics.median(costs[1.0])


def main() -> None:
    from tests.support.sentry import serve_sentry

    with serve_sentry() as sentry:
        for path in HANDLERS:
            sentry.take()
            command = [sys.executable, "-m", "benchmarks.profiles", f"/{path}"]
            environment = {**os.environ, "DSN": sentry.dsn}
            run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            off, on = map(float, run.stdout.split())
            sent = len(sentry.of_type("profile"))
            print(
                f"{path}: {off:.2f} ms of CPU, with a profile {on:.2f} ms ({on / off - 1:+.1%}); "
                f"{sent} profiles for {PAIRS + WARM} profiled requests"
            )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(*asyncio.run(_serve(sys.argv[1])))
    else:
        main()
