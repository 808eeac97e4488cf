"""What Sentry's answers say about when to send again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime

RETRY_AFTER = 60.0
"""Seconds to wait after a 429 that does not say (sentry-sdk's default)."""

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
            self._set(_ALL, self._seconds(headers.get("retry-after", "")))

    def _add(self, limit: str) -> None:
        """One quota: `seconds:category;category:scope:reason:namespaces`; no category is all."""
        seconds, _, rest = limit.partition(":")
        with suppress(ValueError):
            for category in rest.partition(":")[0].split(";"):
                self._set(category.strip(), float(seconds))

    def _set(self, category: str, seconds: float) -> None:
        until = self._clock() + seconds
        self._until[category] = max(until, self._until.get(category, until))

    def _seconds(self, retry_after: str) -> float:
        """Seconds, or a date."""
        with suppress(ValueError):
            return max(0.0, float(retry_after))
        with suppress(ValueError, TypeError):
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - self._wall_clock())
        return RETRY_AFTER
