"""Envelopes of our own making, over connections of our own: the default exporter."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import Counter
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import sentry_sdk
from sentry_sdk.envelope import Envelope, Item, PayloadRef
from sentry_sdk.scope import Scope
from sentry_sdk.utils import format_timestamp

from otel_sentry_exporters._delivery import MAX_BYTES, Counts, Delivery
from otel_sentry_exporters._http import Connection
from otel_sentry_exporters._json import encode
from otel_sentry_exporters._prepare import prepare
from otel_sentry_exporters._target import to_target

if TYPE_CHECKING:
    from otel_sentry_asgi.export import Clean, Exporter, Origin, Transaction

REPORT_EVERY: Final = 30.0
"""Seconds between two client reports (sentry-sdk's own interval beside other envelopes)."""


class EnvelopeExporter:
    """Sends what the Sentry client would send for a transaction, for a fraction of the CPU.

    The client's options, scopes, event processors, `before_send_transaction` and scrubber apply as
    they do with `SdkExporter`. Delivery is apart from the client's own queue, so errors never wait
    behind transactions: a queue of at most *max_bytes*, several connections if Sentry is far,
    rate limits, and another try when there is no connection. A client whose transport is not
    sentry-sdk's plain HTTP one (one of the application's own, HTTP/2, SOCKS) gets the envelopes to
    deliver itself. What is lost is in the client's reports.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._client: Any = None
        self._delivery: Delivery | None = None
        self._reported_at = time.monotonic()
        self._lock = threading.Lock()
        self.lost: Counter[str] = Counter()
        """Spans that were lost after `export`, by discard reason."""

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Queue the transaction.

        Raises what the encoder does for a value that JSON has no form for, which only
        `before_send_transaction` can have put there.
        """
        client = sentry_sdk.get_client()
        if client is not self._client:
            self._turn_to(client)
        # In a context of its own: the scopes of the request are put into force in it.
        contextvars.copy_context().run(self._export, transaction.payload, origin, client)

    def force_flush(self, timeout: float) -> bool:
        """Wait until all is delivered or counted as lost, here and in the client's own transport.
        False if that took longer than *timeout* seconds, as far as sentry-sdk tells."""
        until = time.monotonic() + timeout
        done = self._delivery is None or self._delivery.flush(timeout)
        sentry_sdk.flush(timeout=max(0.0, until - time.monotonic()))
        return done

    def shutdown(self) -> None:
        """Close the connections. The client belongs to the application and stays as it is."""
        delivery, self._delivery, self._client = self._delivery, None, None
        if delivery is not None:
            delivery.close()

    def _turn_to(self, client: Any) -> None:
        """Deliver for *client* from now on; what waits goes where it was meant to go."""
        before, self._client = self._delivery, client
        target = to_target(client)
        self._delivery = None
        if target is not None:
            self._delivery = Delivery(
                partial(Connection, target),
                partial(self._lose, client.transport),
                delivered=partial(self._report, client.transport),
                max_bytes=self._max_bytes,
            )
        if before is not None:
            before.retire()

    def _export(self, event: Any, origin: Origin, client: Any) -> None:
        Scope.set_isolation_scope(_or_empty(origin.isolation_scope))
        Scope.set_current_scope(_or_empty(origin.current_scope))
        delivery, spans = self._delivery, len(event["spans"]) + 1
        if delivery is not None and delivery.limits.are_over("transaction"):
            self._lose(client.transport, "ratelimit_backoff", _counts(spans))
            return
        hint: dict[str, Any] = {}
        prepared = prepare(event, client, hint)
        if prepared is None:
            return
        headers = {"event_id": prepared["event_id"], "sent_at": _now()}
        trace = (prepared.get("contexts") or {}).get("trace") or {}
        if context := trace.pop("dynamic_sampling_context", None):
            headers["trace"] = context
        attachments = [one.to_envelope_item() for one in hint.get("attachments") or ()]
        spotlight = getattr(client, "spotlight", None)
        if delivery is None or spotlight:
            envelope = Envelope(headers, [Item(PayloadRef(json=prepared), type="transaction")])
            envelope.items.extend(attachments)
            if spotlight:
                spotlight.capture_envelope(envelope)
            if delivery is None and client.transport is not None:
                client.transport.capture_envelope(envelope)
        if delivery is not None:
            body = _envelope(headers, prepared, attachments)
            delivery.put(body, _counts(len(prepared.get("spans") or ()) + 1))

    def _lose(self, transport: Any, reason: str, counts: Counts) -> None:
        with self._lock:
            self.lost[reason] += dict(counts)["span"]
        for category, quantity in counts:
            transport.record_lost_event(reason, data_category=category, quantity=quantity)

    def _report(self, transport: Any) -> None:
        """Have the client send its report: by itself it does so only beside envelopes of its
        own."""
        now = time.monotonic()
        if now - self._reported_at > REPORT_EVERY:
            self._reported_at = now
            transport.flush(_MOMENT)


_MOMENT: Final = 0.01
_START: Final = b'\n{"type":"transaction","length":'


def _envelope(headers: dict[str, Any], event: Any, attachments: list[Item]) -> bytes:
    payload = encode(event)
    parts = [encode(headers), _START, str(len(payload)).encode("ascii"), b"}\n", payload, b"\n"]
    return b"".join([*parts, *(item.serialize() for item in attachments)])


def _counts(spans: int) -> Counts:
    """The transaction's own span counts as one of them."""
    return (("transaction", 1), ("span", spans))


def _or_empty(scope: Any) -> Any:
    return Scope() if scope is None else scope


def _now() -> str:
    return format_timestamp(datetime.now(timezone.utc))


if TYPE_CHECKING:
    _: type[Exporter] = EnvelopeExporter
