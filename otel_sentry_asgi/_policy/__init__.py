"""What may leave the process."""

from otel_sentry_asgi._policy._policy import Clean, Policy
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    KeyValueRule,
)

__all__ = ["FILTERED", "IMPERSONAL", "INSENSITIVE", "NOTHING", "Clean", "KeyValueRule", "Policy"]
