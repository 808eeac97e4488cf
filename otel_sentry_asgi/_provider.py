"""Flushing the application's tracer provider without waiting for it any longer than we may."""

from __future__ import annotations

import threading
import time
from typing import Any

from opentelemetry import trace

from otel_sentry_asgi._guard import contained


class Flush:
    """A `force_flush` of *provider*, or of the global one, that has begun on a thread of its own:
    exporters of others may take far longer than they are told."""

    def __init__(self, provider: Any, until: float) -> None:
        self._provider = provider if provider is not None else trace.get_tracer_provider()
        self._until = until
        self._thread = threading.Thread(
            target=self._run, name="otel-sentry-asgi flush", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:
            self._run()  # The interpreter is shutting down and starts no threads.

    def wait(self) -> None:
        """Wait until it is done, or until its time is up (monotonic seconds)."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, self._until - time.monotonic()))

    def _run(self) -> None:
        with contained("flush of the tracer provider"):
            flush = getattr(self._provider, "force_flush", None)
            if callable(flush):
                flush(max(1, int((self._until - time.monotonic()) * 1_000)))
