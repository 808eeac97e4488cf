"""The protocol of exporters: where cleaned payloads go.

An exporter is any object with these methods. It may be registered under the entry-point group
`otel_sentry_exporters`, or passed to `instrument(exporter=...)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from otel_sentry_asgi._model import Data, ErrorEvent, SpanPayload, TraceContext, Transaction
from otel_sentry_asgi._policy import Clean

__all__ = [
    "REMARKS",
    "Clean",
    "Data",
    "ErrorEvent",
    "Exporter",
    "Origin",
    "SpanPayload",
    "TraceContext",
    "Transaction",
]


REMARKS = "otel_sentry_asgi.remarks"
"""A key for the hint that an exporter gives to event processors: it writes the transaction's
`_meta` itself. Without it the remarks are in the event in sentry-sdk's own form, for its client."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a payload comes from: the Sentry scopes of its request, None where there was none."""

    isolation_scope: Any = None
    current_scope: Any = None


@runtime_checkable
class Exporter(Protocol):
    """Takes what may leave. Called from one thread at a time; never from the event loop.

    An exporter that can lose something after `export` has returned may have an attribute `lost`, a
    mapping of discard reasons to spans; `otel_sentry_asgi.stats()` adds it to what it counts.
    """

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Send a transaction. May raise; the caller contains and counts it."""

    def force_flush(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until everything is sent; False if it was not."""

    def shutdown(self) -> None:
        """Release what the exporter holds. Never closes what the application set up."""
