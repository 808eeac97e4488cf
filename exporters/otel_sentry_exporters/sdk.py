"""Through the sentry-sdk client: its queue, transport, rate limits, callbacks and client
reports."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.scope import use_isolation_scope, use_scope

if TYPE_CHECKING:
    from otel_sentry_asgi.export import Clean, Exporter, Origin, Transaction


class SdkExporter:
    """Gives transactions to `sentry_sdk.capture_event` with the scopes of their request in force.

    So the scope's data and event processors, `before_send_transaction`, the event scrubber and
    the transport of the client apply, whichever client is active at that moment. Its reports are
    the client's: they do not have the profile of a transaction that a hook has dropped.
    """

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        """Spans that a client which has been closed does not take, by discard reason."""

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Queue the transaction in the client's transport."""
        event: Any = transaction.payload
        if origin.profile is not None:
            # An instance of the SDK's own class: the client has it make the item of the envelope.
            event = {**event, "profile": origin.profile}
        with ExitStack() as stack:
            if origin.isolation_scope is not None:
                stack.enter_context(use_isolation_scope(origin.isolation_scope))
            if origin.current_scope is not None:
                stack.enter_context(use_scope(origin.current_scope))
            client: Any = sentry_sdk.get_client()
            if client.transport is None and not getattr(client, "spotlight", None):
                self.lost["network_error"] += len(event["spans"]) + 1
            else:
                sentry_sdk.capture_event(event)

    def force_flush(self, timeout: float) -> bool:
        """Wait for the client's transport, see `flush_client`."""
        return flush_client(timeout)

    def shutdown(self) -> None:
        """Nothing: the client belongs to the application."""


def flush_client(timeout: float) -> bool:
    """Wait until the client's own transport has delivered what it has, for at most *timeout*
    seconds; whether it got done.

    sentry-sdk does not tell, but it takes the whole time only if it did not. Its asynchronous
    transport cannot be waited for from here: the loop that it needs may be the one that waits.
    """
    asynchronous = getattr(sentry_sdk.transport, "AsyncHttpTransport", ())
    if isinstance(getattr(sentry_sdk.get_client(), "transport", None), asynchronous):
        return False
    until = time.monotonic() + timeout
    sentry_sdk.flush(timeout=timeout)
    return time.monotonic() < until


if TYPE_CHECKING:
    _: type[Exporter] = SdkExporter
