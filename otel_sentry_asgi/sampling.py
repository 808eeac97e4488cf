"""Whether a trace is sent to Sentry: `traces_sample_rate` and `traces_sampler` on top of OTel's
sampler.

The decision is a function of the trace id, so every service that asks with the same rate keeps
the same traces. OTel's `TraceIdRatioBased` compares the low 64 bits of the id with its ratio;
the same bits give `sample_rand` here, so with a ratio r1 in OTel and a rate r2 in Sentry min(r1,
r2) arrive.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

TracesSampler = Callable[[dict[str, Any]], object]

MAX_DECISIONS = 10_000

_LOW_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Decision:
    """A sampling decision. With tracing off (no rate, no sampler) *sample_rate* is None."""

    sampled: bool
    sample_rate: float | None
    sample_rand: float


def sample_rand(trace_id: int) -> float:
    """A number in [0, 1), rounded down to the six decimals that Sentry's headers carry."""
    return ((trace_id & _LOW_64) * 1_000_000 >> 64) / 1_000_000


def decide(
    trace_id: int,
    *,
    rate: object,
    sampler: TracesSampler | None,
    sampling_context: Callable[[], Mapping[str, Any]],
) -> Decision:
    """Decide for a trace. *sampling_context* is only called for a *sampler*.

    A sampler's result that is no number in [0, 1] counts as 0, as in sentry-sdk. The sampler's
    own exceptions are the caller's to contain.
    """
    rand = sample_rand(trace_id)
    if sampler is not None:
        rate = sampler(dict(sampling_context()))
        valid = to_rate(rate)
        applied = 0.0 if valid is None else valid
    else:
        valid = to_rate(rate)
        if valid is None:
            return Decision(sampled=False, sample_rate=None, sample_rand=rand)
        applied = valid
    return Decision(sampled=rand < applied, sample_rate=applied, sample_rand=rand)


def to_rate(value: object) -> float | None:
    """The rate as a float in [0, 1], or None if it is not one. Takes what sentry-sdk takes."""
    if not isinstance(value, (Real, Decimal)):
        return None
    number = float(value)
    return number if 0.0 <= number <= 1.0 else None


class Decisions:
    """The decisions of this process by trace id: the last `MAX_DECISIONS`, for spans that end where
    nothing else tells of their request. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: OrderedDict[int, Decision] = OrderedDict()

    def get(self, trace_id: int) -> Decision | None:
        """The decision for a trace, if it is known."""
        return self._known.get(trace_id)

    def add(self, trace_id: int, decision: Decision) -> None:
        """Remember a decision."""
        with self._lock:
            self._known[trace_id] = decision
            if len(self._known) > MAX_DECISIONS:
                self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, also who holds the lock: after a fork that may be nobody."""
        self._lock = threading.RLock()
        self._known = OrderedDict()
