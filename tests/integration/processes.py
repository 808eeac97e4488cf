"""A program that multiprocessing gives children, all with traffic: `python -m
tests.integration.processes METHOD`."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi

CHILDREN, EACH = 2, 5

sentry_sdk.init(
    traces_sample_rate=1.0,
    _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
)
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()


def work(who: str) -> None:
    """Transactions and errors that are all of *who*'s doing; nothing is flushed."""
    for number in range(EACH):
        with trace.get_tracer("x").start_as_current_span(f"{who} {number}"):
            sentry_sdk.capture_message(f"{who} {number}")


def main(method: str) -> int:
    """The sum of the children's exit codes."""
    context: Any = multiprocessing.get_context(method)
    work("before")
    during = threading.Thread(target=work, args=("during",))
    during.start()
    children = [context.Process(target=work, args=(f"child{one}",)) for one in range(CHILDREN)]
    for child in children:
        child.start()
    work("after")
    during.join()
    for child in children:
        child.join()
    return sum(abs(child.exitcode or 0) for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
