"""The counters as OTel metrics, for the meter provider that is there or comes; never one of
ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from opentelemetry.metrics import (
    CallbackOptions,
    MeterProvider,
    Observation,
    get_meter,
    get_meter_provider,
)

from otel_sentry_asgi._active import active

_SENT = {"transactions": "transaction", "spans": "span", "errors": "error"}
_LOST = "lost."

_observed: WeakSet[Any] = WeakSet()
"""Providers that have the instruments. OTel has no way to take them back; without a bridge they
observe nothing."""


def observe(provider: MeterProvider | None = None) -> None:
    """Offer the counters to *provider*, by default to the global one, once."""
    key = provider if provider is not None else get_meter_provider()
    if key in _observed:
        return
    _observed.add(key)
    meter = get_meter("otel_sentry_asgi", meter_provider=provider)
    meter.create_observable_counter(
        "otel_sentry_asgi.sent",
        [_observer(_sent)],
        unit="{item}",
        description="What has been given to the exporter or the Sentry client, by kind",
    )
    meter.create_observable_counter(
        "otel_sentry_asgi.lost",
        [_observer(_lost)],
        unit="{span}",
        description="Spans that have not been sent, by Sentry's discard reason",
    )


def _observer(
    read: Callable[[dict[str, int]], Iterable[Observation]],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        bridge = active()
        return list(read(bridge.stats.snapshot())) if bridge is not None else []

    return callback


def _sent(counts: dict[str, int]) -> Iterable[Observation]:
    return (
        Observation(counts[name], {"kind": kind}) for name, kind in _SENT.items() if name in counts
    )


def _lost(counts: dict[str, int]) -> Iterable[Observation]:
    return (
        Observation(count, {"reason": name.removeprefix(_LOST)})
        for name, count in counts.items()
        if name.startswith(_LOST)
    )
