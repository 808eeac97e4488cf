"""The protocol of exporters: where cleaned payloads go.

An exporter is any object with these methods. It may be registered under the entry-point group
`otel_sentry_exporters`, or passed to `instrument(exporter=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from otel_sentry_asgi._model import Data, ErrorEvent, SpanPayload, TraceContext, Transaction
from otel_sentry_asgi._policy import Clean
from otel_sentry_asgi._trim import LIMIT, trim

__all__ = [
    "LIMIT",
    "REMARKS",
    "Clean",
    "Data",
    "ErrorEvent",
    "Exporter",
    "Origin",
    "Profile",
    "SpanPayload",
    "TraceContext",
    "Transaction",
    "trim",
]


REMARKS = "otel_sentry_asgi.remarks"
"""A key for the hint that an exporter gives to event processors: it writes the transaction's
`_meta` itself. Without it the remarks are in the event in sentry-sdk's own form, for its client."""


class Profile(Protocol):
    """The code profile of one transaction, whose `contexts.profile.profile_id` refers to it."""

    def to_item(self, event: Mapping[str, Any]) -> Data:
        """The payload of an envelope item of type `profile`, to be sent in the envelope of the
        transaction. *event* is the transaction as it is sent, after scopes and callbacks.

        It is large: call it where the envelope is made, once. It holds file names, functions and
        lines, no values; what the policy says of the transaction's name has been done to the event.
        """


class Origin(NamedTuple):
    """Where a payload comes from: the Sentry scopes of its request, None where there was none; and
    the profile of its code, where there is one."""

    isolation_scope: Any = None
    current_scope: Any = None
    profile: Profile | None = None
    more: bool = False
    """More may follow at once: the exporter's `rest` is called when that is over."""


@runtime_checkable
class Exporter(Protocol):
    """Takes what may leave. Called from one thread at a time; never from the event loop.

    An exporter that can lose something after `export` has returned may have an attribute `lost`, a
    mapping of discard reasons to spans; `otel_sentry_asgi.stats()` adds it to what it counts. One
    that would rather send several at once may have a method `rest()`: it is called, on the same
    thread, when nothing follows for now.

    Payloads are no larger than `LIMIT`, but for an exporter that has a true attribute `trims`: it
    calls `trim` itself for what is larger when it is encoded.

    One that can tell may have a method `is_healthy()`, called often and on the same thread: False
    while more is given to it than it can send. Fewer traces are sampled then.

    One that knows better than the client when a report arrives may have a method
    `lose(reason, counts)`, with pairs of one of Sentry's categories and a quantity, for what is
    lost before it is exported. It is called from any thread, also those of requests; for a whole
    transaction under the Sentry client that this would have gone to.
    """

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Send a transaction. May raise; the caller contains and counts it."""

    def force_flush(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until everything is sent; False if it was not."""

    def shutdown(self) -> None:
        """Release what the exporter holds. Never closes what the application set up."""
