"""Backpressure: fewer traces are sampled while there are more than can be sent.

sentry-sdk's own monitor looks at the client's transport, and the `envelope` exporter has its own.
A trace that is left out here is left out at its start, where it costs little, as a whole, and the
rate is in those that are sent, so that Sentry's numbers stay right: none of it is true for what is
lost from a full queue.
"""

from __future__ import annotations

import logging
import math

logger = logging.getLogger("otel_sentry_asgi")

MAX_FACTOR = 10
"""Of 1,024 traces one is sampled: sentry-sdk's `MAX_DOWNSAMPLE_FACTOR`."""

RISE = 1.0
"""Seconds that it takes without a break before less is sampled, and from each step to the next."""

FALL = 5.0
"""Seconds without any of it before more is sampled again, and from each step to the next."""

COMPLAIN_EVERY = 60.0
"""Seconds between two warnings."""


class Pressure:
    """How many times the rate of new traces is halved. The worker looks, any thread reads."""

    __slots__ = ("_complain_at", "_fall_at", "_rise_at", "factor")

    def __init__(self) -> None:
        self.factor = 0
        self._rise_at: float | None = None
        self._fall_at = self._complain_at = -math.inf

    def look(self, now: float, *, is_strained: bool) -> None:
        """At the time *now*, in seconds, there is more than can be sent, or there is not."""
        if not is_strained:
            self._rise_at = None
            if self.factor and now >= self._fall_at:
                self.factor -= 1
                self._fall_at = now + FALL
            return
        self._fall_at = now + FALL
        if self._rise_at is None:
            self._rise_at = now + RISE
        elif now >= self._rise_at and self.factor < MAX_FACTOR:
            self.factor += 1
            self._rise_at = now + RISE
            self._complain(now)

    def next_due(self, now: float) -> float | None:
        """When to look again at the latest, so that it falls also where nothing comes any more."""
        return max(self._fall_at, now + RISE) if self.factor else None

    def _complain(self, now: float) -> None:
        is_due = now >= self._complain_at
        if is_due:
            self._complain_at = now + COMPLAIN_EVERY
        logger.log(
            logging.WARNING if is_due else logging.DEBUG,
            "there are more traces than can be sent to Sentry: of %d that the rate would keep one "
            "is sampled for now (enable_backpressure_handling)",
            2**self.factor,
        )
