"""What may leave the process."""

from otel_sentry_asgi._policy._collection import ACTIONS, BODIES, Collection
from otel_sentry_asgi._policy._policy import Clean, Policy
from otel_sentry_asgi._policy._resolve import to_policy
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    KeyValueRule,
)

__all__ = [
    "ACTIONS",
    "BODIES",
    "FILTERED",
    "IMPERSONAL",
    "INSENSITIVE",
    "NOTHING",
    "Clean",
    "Collection",
    "KeyValueRule",
    "Policy",
    "to_policy",
]
