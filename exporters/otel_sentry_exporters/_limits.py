"""What Sentry's answers say about when to send again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timezone
from email.utils import parsedate_to_datetime

RETRY_AFTER = 60.0
"""Seconds to wait after a 429 that does not say, or says none (sentry-sdk's default)."""

_ALL = ""


class RateLimits:
    """The categories that are over quota, each until a point in time."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._until: dict[str, float] = {}

    def are_over(self, category: str) -> bool:
        """Whether *category* must not be sent now."""
        if not self._until:
            return False
        now = self._clock()
        return any(self._until.get(name, now) > now for name in (category, _ALL))

    def update(self, status: int, headers: Mapping[str, str]) -> None:
        """Take note of an answer, its headers under lower-case names.

        `X-Sentry-Rate-Limits` counts with every status, `Retry-After` with 429 only.
        """
        limits = headers.get("x-sentry-rate-limits")
        if limits:
            for limit in limits.split(","):
                self._add(limit.strip())
        elif status == 429:
            self._set(_ALL, self._seconds(headers.get("retry-after", "")) or RETRY_AFTER)

    def _add(self, limit: str) -> None:
        """One quota: `seconds:category;category:scope:reason:namespaces`; no category is all."""
        seconds, separator, rest = limit.partition(":")
        with suppress(ValueError):
            wait = _finite(seconds)
            for category in rest.partition(":")[0].split(";") if separator else ():
                self._set(category.strip(), wait)

    def _set(self, category: str, seconds: float) -> None:
        until = self._clock() + seconds
        self._until[category] = max(until, self._until.get(category, until))

    def _seconds(self, retry_after: str) -> float:
        """Seconds, or a date."""
        with suppress(ValueError):
            return _finite(retry_after)
        with suppress(ValueError, TypeError, OverflowError):
            date = parsedate_to_datetime(retry_after)
            if date.tzinfo is None:
                date = date.replace(tzinfo=timezone.utc)
            return max(0.0, date.timestamp() - self._wall_clock())
        return 0.0


def _finite(seconds: str) -> float:
    number = float(seconds)
    if not math.isfinite(number):
        raise ValueError(seconds)
    return max(0.0, number)
