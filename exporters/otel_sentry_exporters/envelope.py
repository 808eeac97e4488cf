"""Envelopes of our own making, over connections of our own: the default exporter."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final

import sentry_sdk
from sentry_sdk.envelope import Envelope, Item, PayloadRef
from sentry_sdk.scope import Scope

from otel_sentry_asgi.export import LIMIT, trim
from otel_sentry_exporters._backlog import Counts
from otel_sentry_exporters._delivery import MAX_BYTES, Delivery
from otel_sentry_exporters._http import Connection
from otel_sentry_exporters._json import encode
from otel_sentry_exporters._prepare import prepare
from otel_sentry_exporters._target import to_target
from otel_sentry_exporters.sdk import flush_client

if TYPE_CHECKING:
    from otel_sentry_asgi.export import Clean, Exporter, Origin, Transaction

logger = logging.getLogger("otel_sentry_asgi.envelope")

REPORT_EVERY: Final = 30.0
"""Seconds between two client reports (sentry-sdk's own interval beside other envelopes)."""

MAX_CLIENTS: Final = 8
"""Sentry clients that are delivered for. With more, what waits for the one that has not been used
for longest is lost, as `network_error`."""


class EnvelopeExporter:
    """Sends what the Sentry client would send for a transaction, for a fraction of the CPU.

    The client's options, scopes, event processors, `before_send_transaction` and scrubber apply as
    they do with `SdkExporter`. Delivery is apart from the client's own queue, so errors never wait
    behind transactions: a queue of at most *max_bytes* for each client, several connections if
    Sentry is far, rate limits, and another try when there is no connection. A client whose
    transport is not sentry-sdk's plain HTTP one (one of the application's own, HTTP/2) or whose
    proxy is none of plain HTTP gets the envelopes to deliver itself. What is lost is in the
    client's reports.
    """

    trims: Final = True
    """What is too large is seen when it is encoded, with all that has been added to it."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._routes: OrderedDict[Any, _Route] = OrderedDict()
        self._latest: _Route | None = None
        """The route that was used last, which is nearly always the next one."""
        self._lock = threading.RLock()
        self.lost: Counter[str] = Counter()
        """Spans that were lost after `export`, by discard reason."""
        _exporters.add(self)

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Queue the transaction.

        Raises what the encoder does for a value that JSON has no form for, which only
        `before_send_transaction` can have put there.
        """
        # In a context of its own: the scopes of the request are put into force in it.
        contextvars.copy_context().run(self._export, transaction.payload, origin)

    def rest(self) -> None:
        """Send what has been queued while there was more."""
        for route in self._known_routes():
            if route.delivery is not None:
                route.delivery.wake()

    def is_healthy(self) -> bool:
        """False while more is queued than is sent."""
        deliveries = (route.delivery for route in self._known_routes())
        return all(delivery is None or delivery.is_healthy() for delivery in deliveries)

    def lose(self, reason: str, counts: Counts) -> None:
        """Report what was lost before it got here."""
        client: Any = sentry_sdk.get_client()
        route = self._routes.get(client)
        if route is not None:
            route.lose(reason, counts)
        else:  # Nothing has been sent, so nobody knows whether it would arrive.
            _report(client, reason, counts)

    def force_flush(self, timeout: float) -> bool:
        """Wait until all is delivered or counted as lost, here and in the client's own transport
        (see `sdk.flush_client`). False if that took longer than *timeout* seconds."""
        until = time.monotonic() + timeout
        # Sets sessions and the like on their way while we wait for ours.
        flush_client(min(_MOMENT, timeout))
        done = True
        for route in self._known_routes():
            done = route.flush(max(0.0, until - time.monotonic())) and done
        return flush_client(max(0.0, until - time.monotonic())) and done

    def shutdown(self) -> None:
        """Close the connections. The client belongs to the application and stays as it is."""
        for route in self._known_routes(forget=True):
            route.close()

    def begin_in_child(self) -> None:
        """After a fork: what waits, and what was lost, is the parent's."""
        self._lock = threading.RLock()
        self.lost.clear()
        for route in self._routes.values():
            route.begin_in_child()

    def _export(self, event: Any, origin: Origin) -> None:
        scopes = origin.isolation_scope or Scope(), origin.current_scope or Scope()
        Scope.set_isolation_scope(scopes[0])
        Scope.set_current_scope(scopes[1])
        client: Any = sentry_sdk.get_client()
        route = self._route_of(client)
        delivery, spans = route.delivery, len(event["spans"]) + 1
        profiles = int(origin.profile is not None)
        if delivery is not None and delivery.limits.are_over("transaction"):
            self._count("ratelimit_backoff", spans)
            route.lose("ratelimit_backoff", (*_counts(spans), ("profile", profiles)))
            return
        spotlight = getattr(client, "spotlight", None)
        if delivery is None and client.transport is None and not spotlight:
            self._count("network_error", spans)  # The client has been closed: nobody to report to.
            return
        hint: dict[str, Any] = {}
        prepared = prepare(event, client, scopes, hint, route.lose, profiles=profiles)
        if prepared is None:
            return
        headers = {"event_id": prepared["event_id"], "sent_at": _now()}
        trace = (prepared.get("contexts") or {}).get("trace") or {}
        if context := trace.pop("dynamic_sampling_context", None):
            headers["trace"] = context
        # A transport of the application's own may take what JSON has no form for.
        payload = b"" if delivery is None else encode(prepared)
        if (delivery is None or len(payload) > LIMIT) and (lost := _trim(prepared)):
            self._count("buffer_overflow", lost)
            route.lose("buffer_overflow", (("span", lost),))
        if len(payload) > LIMIT:
            payload = encode(prepared)
        others = [one.to_envelope_item() for one in hint.get("attachments") or ()]
        if origin.profile is not None:
            item = PayloadRef(json=origin.profile.to_item(prepared))
            others.insert(0, Item(item, type="profile"))
        if delivery is None or spotlight:
            envelope = Envelope(headers, [Item(PayloadRef(json=prepared), type="transaction")])
            envelope.items.extend(others)
            if spotlight:
                spotlight.capture_envelope(envelope)
            if delivery is None and client.transport is not None:
                client.transport.capture_envelope(envelope)
        if delivery is not None:
            counts = _counts(len(prepared.get("spans") or ()) + 1)
            if others:
                others = _within_limits(others, route, delivery)
                counts = (*counts, *_quantities(others))
            delivery.put(_envelope(headers, payload, others), counts, wake=not origin.more)

    def _route_of(self, client: Any) -> _Route:
        latest = self._latest
        if latest is not None and latest.client is client:
            return latest
        with self._lock:
            route = self._routes.get(client)
            if route is None:
                route = self._routes[client] = _Route(client, self._max_bytes, self._count)
            self._routes.move_to_end(client)
            self._latest = route
            oldest = next(iter(self._routes.values()))
            if len(self._routes) <= MAX_CLIENTS:
                return route
            del self._routes[oldest.client]
        oldest.close()
        return route

    def _known_routes(self, *, forget: bool = False) -> list[_Route]:
        with self._lock:
            routes = list(self._routes.values())
            if forget:
                self._routes.clear()
                self._latest = None
            return routes

    def _count(self, reason: str, spans: int) -> None:
        with self._lock:
            self.lost[reason] += spans


class _Route:
    """The way of envelopes to where one client sends to; None as *delivery* is its transport.

    The client's report goes out beside whatever the client sends, and is lost with it. So what is
    lost while nothing gets through, also before it got here, is only reported when something has.
    """

    def __init__(self, client: Any, max_bytes: int, count: Callable[[str, int], None]) -> None:
        self.client = client
        self.delivery: Delivery | None = None
        self._count = count
        self._reported_at = time.monotonic()
        self._forget()
        target = to_target(client)
        if target is not None:
            connect = partial(Connection, target)
            self.delivery = Delivery(connect, self.settled, max_bytes=max_bytes)

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._unreported: Counter[tuple[str, str]] = Counter()

    def begin_in_child(self) -> None:
        """After a fork: what waits, and what was lost, is the parent's."""
        self._forget()
        if self.delivery is not None:
            self.delivery.begin_in_child()

    def flush(self, timeout: float) -> bool:
        """Wait until all is delivered or lost; then that can be reported, too."""
        done = self.delivery is None or self.delivery.flush(timeout)
        if done:
            self._report()
        return done

    def close(self) -> None:
        """Hang up; what waits is lost."""
        if self.delivery is not None:
            self.delivery.close()
        self._report()

    def settled(self, reason: str | None, counts: Counts) -> None:
        """Something has been delivered, or is lost for *reason*."""
        if reason is not None:
            self._count(reason, dict(counts)["span"])
            self._hold(reason, counts)
        if reason not in _WITHOUT_ANSWER:
            self._report()
        # By itself the client sends its report only beside envelopes of its own.
        now = time.monotonic()
        if reason is None and now - self._reported_at > REPORT_EVERY:
            self._reported_at = now
            transport = self.client.transport
            if transport is not None:  # Else the client has been closed.
                transport.flush(_MOMENT)

    def lose(self, reason: str, counts: Counts) -> None:
        """Something is lost that was never put: have it in the client's next report, or when it is
        known that this arrives."""
        self._hold(reason, counts)
        if self.delivery is None or self.delivery.is_clear():
            self._report()

    def _hold(self, reason: str, counts: Counts) -> None:
        with self._lock:
            for category, quantity in counts:
                self._unreported[reason, category] += quantity

    def _report(self) -> None:
        """Put what is lost into the client's next report."""
        if not self._unreported:
            return
        with self._lock:
            losses, self._unreported = self._unreported, Counter()
        for (reason, category), quantity in losses.items():
            _report(self.client, reason, ((category, quantity),))


def _report(client: Any, reason: str, counts: Counts) -> None:
    for category, quantity in counts:
        if quantity > 0 and client.transport is not None:
            try:
                client.transport.record_lost_event(
                    reason, data_category=category, quantity=quantity
                )
            except Exception:  # It may be the application's own; no transaction is lost for it.
                logger.log(next(_levels), "a loss could not be reported", exc_info=True)


_levels: Final = chain([logging.WARNING], repeat(logging.DEBUG))
_WITHOUT_ANSWER: Final = frozenset({"network_error", "queue_overflow"})
_MOMENT: Final = 0.01
_START: Final = b'\n{"type":"transaction","length":'

_exporters: weakref.WeakSet[EnvelopeExporter] = weakref.WeakSet()


def _begin_in_child() -> None:
    for exporter in _exporters:
        exporter.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)


def _trim(event: Any) -> int:
    """Make it fit, and mark how many children there were; return how many it lost."""
    children = len(event.get("spans") or ())
    lost = trim(event)
    if lost:
        del event["_dropped_spans"]
        event["_meta"].setdefault("spans", {}).setdefault("", {}).setdefault("len", children)
    return lost


def _envelope(headers: dict[str, Any], payload: bytes, others: list[Item]) -> bytes:
    parts = [encode(headers), _START, str(len(payload)).encode("ascii"), b"}\n", payload, b"\n"]
    return b"".join([*parts, *(item.serialize() for item in others)])


def _within_limits(items: list[Item], route: _Route, delivery: Delivery) -> list[Item]:
    over = [one for one in items if delivery.limits.are_over(one.data_category)]
    if over:
        route.lose("ratelimit_backoff", _quantities(over))
    return [one for one in items if one not in over]


def _counts(spans: int) -> Counts:
    """The transaction's own span counts as one of them."""
    return (("transaction", 1), ("span", spans))


def _quantities(items: list[Item]) -> Counts:
    """Attachments count in bytes, an empty one as 1 (as sentry-sdk does it)."""
    return tuple(
        (one.data_category, (len(one.get_bytes()) or 1) if one.type == "attachment" else 1)
        for one in items
    )


def _now() -> str:
    """As sentry-sdk writes it, without the 40 us that its `strftime` takes."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")[:26] + "Z"


if TYPE_CHECKING:
    _: type[Exporter] = EnvelopeExporter
