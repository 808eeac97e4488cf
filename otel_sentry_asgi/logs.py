"""The OTel edge for logs: exceptions, breadcrumbs, structured logs."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.trace import SpanContext

from otel_sentry_asgi import sentry
from otel_sentry_asgi._active import obtain
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._logs import LEAST_FOR_CRUMB, comes_from_logging, severity_of, to_log
from otel_sentry_asgi._scope import current_exchange, current_secrets

logger = logging.getLogger("otel_sentry_asgi")


class SentryLogRecordProcessor(LogRecordProcessor):
    """Takes exceptions from log records, where OTel is moving them from span events, and keeps the
    other records as breadcrumbs of their request. With `send_logs` they are Sentry logs as well.

    Add it to a logger provider: `provider.add_log_record_processor(SentryLogRecordProcessor())`.
    `instrument()` adds it to the global one. Records of Python's own `logging` are left to
    sentry-sdk's LoggingIntegration while that is on. Ids are those of the record's own context.
    """

    def __init__(self) -> None:
        self._bridge = obtain()
        self._detached = False
        self._warned = False

    def on_emit(self, log_record: Any) -> None:
        """Hear of the record."""
        if self._detached:
            return
        with contained("on_emit"):
            record = log_record.log_record
            name = getattr(getattr(log_record, "instrumentation_scope", None), "name", "") or ""
            error = getattr(record, "exception", None)
            if isinstance(error, BaseException):
                context = SpanContext(record.trace_id, record.span_id, is_remote=False)
                self._bridge.issues.logged(error, context, name)
            elif not (sentry.takes_logging() and comes_from_logging()):
                self._note(record, name)

    def _note(self, record: Any, name: str) -> None:
        exchange = current_exchange.get()
        if exchange is not None and severity_of(record) >= LEAST_FOR_CRUMB:
            exchange.logged((record, name))
        settings = self._bridge.settings
        if not settings.send_logs:
            return
        if sentry.takes_logs():
            policy = sentry.policy(settings)
            sentry.send_log(to_log(record, name, policy, current_secrets(policy)))
            self._bridge.stats.add("logs")
        elif not self._warned:
            self._warned = True
            logger.warning(
                "send_logs is True, but the Sentry client sends no logs: "
                "sentry_sdk.init(enable_logs=True), with a sentry-sdk that knows it"
            )

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
