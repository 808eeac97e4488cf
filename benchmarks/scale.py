"""Whether a span costs the same in a large trace, and with many requests in flight:
`python -m benchmarks.scale`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

import otel_sentry_asgi
from benchmarks.stacks import ATTRIBUTES
from otel_sentry_asgi.testing import RecordingExporter

SPANS = (1, 10, 100, 1_000, 10_000, 100_000)
"""Children of one root. Of more than 1,000 the rest is dropped and counted."""
IN_FLIGHT = (1, 10, 100, 1_000, 5_000)
"""Requests that are open at the same time, with six children each."""
_AT_LEAST = 20_000
"""Spans for one figure."""


def measure(rounds: int = 3) -> tuple[dict[int, float], dict[int, float]]:
    """Microseconds of CPU that a span takes, start, end and all that the worker does up to the
    exporter: by the size of the trace, and by requests in flight. The least of the rounds."""
    service = _Service()
    for _ in range(2):
        service.trace(100)  # Warm.
    sizes = {n: min(service.taken(n + 1, service.trace, n) for _ in range(rounds)) for n in SPANS}
    flights = {
        n: min(service.taken(n * 7, service.flight, n) for _ in range(rounds)) for n in IN_FLIGHT
    }
    return sizes, flights


class _Service:
    def __init__(self) -> None:
        sentry_sdk.init("http://public@127.0.0.1:9/1", traces_sample_rate=1.0)
        provider = TracerProvider(shutdown_on_exit=False)
        self._exporter = RecordingExporter()
        otel_sentry_asgi.instrument(
            tracer_provider=provider, exporter=self._exporter, max_queue=1_000_000
        )
        self._provider = provider
        self._tracer = provider.get_tracer("opentelemetry.instrumentation.asyncpg")

    def taken(self, spans: int, work: Callable[[int], None], number: int) -> float:
        repeat = max(1, _AT_LEAST // spans)
        began = time.process_time()
        for _ in range(repeat):
            work(number)
        return (time.process_time() - began) / (repeat * spans) * 1e6

    def trace(self, children: int) -> None:
        root, context = self._root()
        for _ in range(children):
            self._child(context)
        root.end()
        self._flush()

    def flight(self, requests: int) -> None:
        roots = [self._root() for _ in range(requests)]
        for _ in range(6):
            for _, context in roots:
                self._child(context)
        for root, _ in roots:
            root.end()
        self._flush()

    def _root(self) -> tuple[Any, Any]:
        root = self._tracer.start_span("GET /orders", kind=SpanKind.SERVER)
        return root, trace.set_span_in_context(root)

    def _child(self, context: Any) -> None:
        self._tracer.start_span(
            "SELECT", context, kind=SpanKind.CLIENT, attributes=ATTRIBUTES
        ).end()

    def _flush(self) -> None:
        self._provider.force_flush()
        self._exporter.exported.clear()


def main() -> None:
    """Print the figures."""
    sizes, flights = measure()
    for number, taken in sizes.items():
        print(f"{number:,} spans in a trace: {taken:.1f} us a span")
    for number, taken in flights.items():
        print(f"{number:,} requests in flight: {taken:.1f} us a span")


if __name__ == "__main__":
    main()
