"""The application's providers: what they take and give back, and flushing them in bounded time."""

from __future__ import annotations

import threading
import time
from typing import Any

from opentelemetry import trace

from otel_sentry_asgi._guard import contained


def can_take(provider: Any) -> bool:
    """Whether span processors can be added to it."""
    return callable(getattr(provider, "add_span_processor", None))


def remove(provider: Any, multi_name: str, tuple_name: str, processor: object) -> None:
    """Take a processor out of its provider. OTel has no public way; without one, it stays
    detached."""
    multi = getattr(provider, multi_name, None)
    lock = getattr(multi, "_lock", None)
    if isinstance(getattr(multi, tuple_name, None), tuple) and lock is not None:
        with lock:
            kept = tuple(one for one in getattr(multi, tuple_name) if one is not processor)
            setattr(multi, tuple_name, kept)


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
