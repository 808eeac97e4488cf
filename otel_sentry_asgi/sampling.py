"""Whether a trace is sent to Sentry: `traces_sample_rate` and `traces_sampler` on top of OTel's
sampler.

The decision is a function of the trace id, so every service that asks with the same rate keeps
the same traces. OTel's `TraceIdRatioBased` compares the low 64 bits of the id with its ratio;
the same bits give `sample_rand` here, so with a ratio r1 in OTel and a rate r2 in Sentry min(r1,
r2) arrive. OTel's samplers with consistent probabilities keep the *high* values of the low 56
bits (or of `rv`) and say so with `th` in the tracestate; there the number is turned round.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, Generic, NamedTuple, TypeVar

from opentelemetry.sdk.trace.sampling import Decision as OtelDecision
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._pressure import Pressure

TracesSampler = Callable[[dict[str, Any]], object]

T = TypeVar("T")

MAX_DECISIONS = 10_000

_LOW_64 = (1 << 64) - 1
_TOP_56 = 1 << 56
_LOW_56 = _TOP_56 - 1
_HEX_DIGITS = 14
"""Of a threshold or random value in the tracestate; trailing zeros of a threshold are left out."""


class Decision(NamedTuple):
    """A sampling decision. With tracing off (no rate, no sampler) *sample_rate* is None."""

    sampled: bool
    sample_rate: float | None
    sample_rand: float
    reason: str | None = None
    """Why not, as Sentry's client reports say it; None when sampled or with tracing off."""


Known = tuple[bool, float | None, float, str | None]
"""The fields of a `Decision`, as a plain tuple."""


def sample_rand(trace_id: int) -> float:
    """A number in [0, 1), rounded down to the six decimals that Sentry's headers carry."""
    return ((trace_id & _LOW_64) * 1_000_000 >> 64) / 1_000_000


def rand_between(trace_id: int, lower: float, upper: float) -> float:
    """`sample_rand` moved into [lower, upper): for a decision that came without its number."""
    first, last = int(lower * 1_000_000), int(upper * 1_000_000)
    if first / 1_000_000 < lower:
        first += 1
    if not 0 <= first < last <= 1_000_000:
        return sample_rand(trace_id)
    return (first + ((trace_id & _LOW_64) * (last - first) >> 64)) / 1_000_000


def consistent(trace_id: int, trace_state: Mapping[str, str] | None) -> tuple[float, float] | None:
    """`sample_rand` and rate of a trace that an OTel sampler with a consistent probability has
    kept, None for others.

    Source: OTel's specification of probability sampling in the tracestate (`ot=th:...;rv:...`).
    """
    text = trace_state.get("ot") if trace_state else None
    if not text:
        return None
    members = dict(member.partition(":")[::2] for member in text.split(";"))
    kept_from = members.get("th")
    threshold = _hex(kept_from.ljust(_HEX_DIGITS, "0")) if kept_from else None
    if threshold is None:
        return None
    random = _hex(members.get("rv", ""))
    random = trace_id & _LOW_56 if random is None else random
    return ((_LOW_56 - random) * 1_000_000 >> 56) / 1_000_000, (_TOP_56 - threshold) / _TOP_56


def _hex(digits: str) -> int | None:
    return int(digits, 16) if re.fullmatch(r"[0-9a-f]{14}", digits) else None


def decide(
    trace_id: int,
    *,
    rate: object,
    sampler: TracesSampler | None,
    sampling_context: Callable[[], Mapping[str, Any]],
    parent_sampled: bool | None = None,
    parent_rate: float | None = None,
    rand: float | None = None,
    downsample: int = 0,
) -> Decision:
    """Decide for a trace, in sentry-sdk's order: *sampler*, *parent_sampled* (Sentry's), *rate*.

    *sampling_context* is only called for a *sampler*. A sampler's result that is no number in [0,
    1] counts as 0, as in sentry-sdk. *downsample* halves the rate so many times (backpressure):
    that of a trace that came sampled is *parent_rate*, where it came, too.
    The sampler's own exceptions are the caller's to contain.
    """
    if rand is None:
        rand = sample_rand(trace_id)
    if sampler is not None:
        asked = to_rate(sampler(dict(sampling_context()))) or 0.0
    else:
        valid = to_rate(rate)
        if valid is None:
            return Decision(False, None, rand)
        asked = valid if parent_sampled is None else float(parent_sampled)
    applied = asked
    if downsample:
        whole = parent_rate if sampler is None and parent_sampled and parent_rate else asked
        applied = whole / (1 << downsample)
    if rand < applied:
        return Decision(True, applied, rand)
    return Decision(False, applied, rand, "backpressure" if rand < asked else "sample_rate")


def to_rate(value: object) -> float | None:
    """The rate as a float in [0, 1], or None if it is not one. Takes what sentry-sdk takes."""
    if type(value) is not float:  # The common case needs no look at the abstract classes.
        if not isinstance(value, (Real, Decimal)):
            return None
        value = float(value)
    return value if 0.0 <= value <= 1.0 else None


_ROOT = later(
    r"(?:SentrySampler\{)?(?:ParentBased\{root:)?"
    r"(?:(AlwaysOnSampler)|(AlwaysOffSampler)|TraceIdRatioBased\{([0-9.e+-]+)\})"
)
_last_rate: tuple[Sampler | None, float | None] = (None, None)


def rate_of(sampler: Sampler | None) -> float | None:
    """The ratio of root spans that an OTel sampler keeps, as its description tells; None where it
    does not."""
    global _last_rate
    known, rate = _last_rate
    if known is not sampler:
        rate = _described_rate(sampler)
        _last_rate = (sampler, rate)
    return rate


def _described_rate(sampler: Sampler | None) -> float | None:
    match = _ROOT.match(sampler.get_description()) if sampler is not None else None
    if match is None:
        return None
    always, never, ratio = match.groups()
    return 1.0 if always else 0.0 if never else to_rate(float(ratio))


def is_kept(result: SamplingResult) -> bool:
    """Whether OTel samples what its sampler gave this result."""
    return result.decision is OtelDecision.RECORD_AND_SAMPLE


class _Latest(Generic[T]):
    """By trace id, the last `MAX_DECISIONS` values that were added, and up to as many before them.

    Two dictionaries, of which the older goes as a whole: the collector goes over each entry of an
    `OrderedDict`, but not over a dictionary of what it need not look at. Any thread may call it.
    """

    __slots__ = ("_lock", "_new", "_old")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._new: dict[int, T] = {}
        self._old: dict[int, T] = {}

    def get(self, trace_id: int) -> T | None:
        """What was added last for the trace, if it is known."""
        found = self._new.get(trace_id)
        return self._old.get(trace_id) if found is None else found

    def add(self, trace_id: int, value: T) -> None:
        """Remember *value*."""
        self._new[trace_id] = value
        if len(self._new) >= MAX_DECISIONS:
            with self._lock:
                if len(self._new) >= MAX_DECISIONS:
                    self._old = self._new  # First, so that nobody misses what is there.
                    self._new = {}


class Decisions:
    """What this process has decided, and frozen, by trace id: the last `MAX_DECISIONS` of each, and
    up to as many before them, for spans that end where nothing else tells of their request. Any
    thread may call it."""

    def __init__(self) -> None:
        self.clear()

    def get(self, trace_id: int) -> Decision | None:
        """The decision for a trace, if it is known."""
        known = self.known(trace_id)
        return None if known is None else Decision._make(known)

    def add(self, trace_id: int, decision: Decision) -> None:
        """Remember a decision: as a plain tuple, which the collector, unlike one with names, looks
        at once and never again."""
        self._made.add(trace_id, decision[:])

    def frozen(self, trace_id: int) -> dict[str, str] | None:
        """The dynamic sampling context of a trace that others have seen; not to be changed."""
        return self._frozen.get(trace_id)

    def freeze(self, trace_id: int, context: dict[str, str]) -> None:
        """From now on *context* is the trace's dynamic sampling context."""
        self._frozen.add(trace_id, context)

    def clear(self) -> None:
        """Forget everything, also who holds a lock: after a fork that may be nobody."""
        self.pressure = Pressure()
        """By which those that follow are made."""
        self._made: _Latest[Known] = _Latest()
        self._frozen: _Latest[dict[str, str]] = _Latest()
        self.known = self._made.get
        """As `get`, as a plain tuple: for the end of each span."""
