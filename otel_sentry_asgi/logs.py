"""The OTel edge for logs: exceptions that instrumentations emit as log records."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.trace import SpanContext

from otel_sentry_asgi._active import obtain
from otel_sentry_asgi._guard import contained


class SentryLogRecordProcessor(LogRecordProcessor):
    """Takes exceptions from log records: OTel is moving them there from span events.

    Add it to a logger provider: `provider.add_log_record_processor(SentryLogRecordProcessor())`.
    `instrument()` adds it to the global one. A record without an exception is left alone. Ids are
    those of the record's own context.
    """

    def __init__(self) -> None:
        self._bridge = obtain()
        self._detached = False

    def on_emit(self, log_record: Any) -> None:
        """Hear of the record's exception, if it has one."""
        if self._detached:
            return
        with contained("on_emit"):
            record = log_record.log_record
            error = getattr(record, "exception", None)
            if isinstance(error, BaseException):
                scope = getattr(log_record, "instrumentation_scope", None)
                context = SpanContext(record.trace_id, record.span_id, is_remote=False)
                self._bridge.issues.logged(error, context, getattr(scope, "name", ""))

    def emit(self, log_data: Any) -> None:
        """What older OTel SDKs (1.30) call instead of `on_emit`."""
        self.on_emit(log_data)

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held."""
        return True

    def detach(self) -> None:
        """From now on do nothing, for providers that do not let a processor go."""
        self._detached = True
