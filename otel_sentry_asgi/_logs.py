"""OTel's log records as breadcrumbs and as Sentry's structured logs; both cleaned."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.trace import INVALID_TRACE_ID

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy import FILTERED, Policy
from otel_sentry_asgi._translate.attributes import to_json_value, to_json_values
from otel_sentry_asgi._translate.span import seconds

LEAST_FOR_CRUMB: Final = 9
"""Severity number of `INFO`, the least for which sentry-sdk makes breadcrumbs of logs."""

_LEVELS: Final = ("trace", "debug", "info", "warn", "error", "fatal")
_CRUMB_LEVELS: Final = {"trace": "debug", "warn": "warning"}
_MOST_FRAMES: Final = 12


def severity_of(record: Any) -> int:
    """The record's severity number, 1 to 24; `INFO` where it says none."""
    severity = record.severity_number
    number = getattr(severity, "value", severity)
    return number if isinstance(number, int) and 1 <= number <= 24 else LEAST_FOR_CRUMB


def comes_from_logging() -> bool:
    """Whether the record being emitted is one of Python's own `logging`, which a handler hands to
    OTel: those are sentry-sdk's to take."""
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        back = frame.f_back
        if back is None:
            return False
        if back.f_globals.get("__name__") == "logging":
            return True
        frame = back
    return False


def log_breadcrumbs(records: Iterable[tuple[Any, str]], policy: Policy) -> list[Data]:
    """One crumb for each record and the name of its instrumentation scope."""
    return [_crumb(record, name, policy) for record, name in list(records)]


def to_log(record: Any, name: str, policy: Policy, secrets: frozenset[str]) -> Data:
    """The record as sentry-sdk takes a structured log, linked to its own trace and span, without
    the *secrets* of its request."""
    severity = severity_of(record)
    attributes = policy.attributes(to_json_values(record.attributes or {}))
    attributes = policy.without(attributes, secrets)
    attributes["sentry.origin"] = "auto.log.otel"
    if name:
        attributes["logger.name"] = name
    is_linked = record.trace_id not in (None, INVALID_TRACE_ID)
    return {
        "severity_text": _LEVELS[(severity - 1) // 4],
        "severity_number": severity,
        "body": policy.without(_body(record, policy), secrets),
        "attributes": attributes,
        "time_unix_nano": record.timestamp or record.observed_timestamp or time.time_ns(),
        "trace_id": trace_hex(record.trace_id) if is_linked else None,
        "span_id": span_hex(record.span_id) if is_linked and record.span_id else None,
    }


def _crumb(record: Any, name: str, policy: Policy) -> Data:
    level = _LEVELS[(severity_of(record) - 1) // 4]
    return {
        "type": "log",
        "category": name or "log",
        "level": _CRUMB_LEVELS.get(level, level),
        "message": _body(record, policy),
        "timestamp": seconds(record.timestamp or record.observed_timestamp),
        "data": policy.attributes(to_json_values(record.attributes or {})),
    }


def hides_body(record: Any, policy: Policy) -> bool:
    """Whether its body is what was asked of a model, or its answer (`gen_ai.user.message`), and may
    not leave."""
    if policy.gen_ai_inputs and policy.gen_ai_outputs:
        return False
    attributes = record.attributes or {}
    name = getattr(record, "event_name", None) or attributes.get("event.name")
    return isinstance(name, str) and name.startswith("gen_ai.")


def _body(record: Any, policy: Policy) -> str:
    """Text, cleaned like other messages; of a structured body the cleaned attributes."""
    body = record.body
    if hides_body(record, policy):
        return FILTERED
    if isinstance(body, dict):
        body = policy.attributes(to_json_values(body))
    elif isinstance(body, (list, tuple)):
        body = policy.body(body)
    return policy.free_text(str(body if isinstance(body, (str, dict)) else to_json_value(body)))
