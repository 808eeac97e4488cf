"""What importing the package and `instrument()` add to a process that has OTel and sentry-sdk."""

from __future__ import annotations

import statistics
import subprocess
import sys

_BEFORE = """
import time
import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
sentry_sdk.init(dsn="http://public@127.0.0.1:9/1", traces_sample_rate=1.0)
trace.set_tracer_provider(TracerProvider())
began = time.perf_counter()
import otel_sentry_asgi
otel_sentry_asgi.instrument()
print((time.perf_counter() - began) * 1e3)
"""


def measure(rounds: int) -> float:
    """Milliseconds, the median."""
    taken = [
        float(subprocess.check_output([sys.executable, "-c", _BEFORE], text=True))
        for _ in range(rounds)
    ]
    return statistics.median(taken)
