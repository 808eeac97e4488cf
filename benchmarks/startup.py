"""What importing the package and `instrument()` add to a process that has OTel and sentry-sdk."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

_PROGRAM = """
import time
import sentry_sdk
from opentelemetry import trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
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
    """Milliseconds, the median; with bytecode at hand, as an installed package has it."""
    environ = {key: value for key, value in os.environ.items() if "BYTECODE" not in key}
    command = [sys.executable, "-c", _PROGRAM]
    taken = [
        float(subprocess.check_output(command, text=True, env=environ)) for _ in range(rounds + 1)
    ]
    return statistics.median(taken[1:])
