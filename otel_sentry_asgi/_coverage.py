"""Which spans our span processor sees: those our span exporter must leave alone.

A span tells of its provider only by its resource, an object that each provider has for itself.
Providers that were made with one and the same `Resource` object count as one.
"""

from __future__ import annotations

import time

from opentelemetry.sdk.trace import ReadableSpan

MAX_ENTRIES = 100


class _Entry:
    __slots__ = ("processor", "resource", "until")

    def __init__(self, processor: object, resource: object) -> None:
        self.processor = processor
        self.resource = resource
        self.until: int | None = None
        """Nanoseconds since the epoch; None while the processor is at work."""


class Coverage:
    """The resources whose spans processors of ours have seen. Any thread may call it: a list is
    replaced, never changed."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, processor: object, resource: object) -> None:
        """*processor* sees the spans of *resource* from now on."""
        self._entries = [*self._entries[-MAX_ENTRIES:], _Entry(processor, resource)]

    def remove(self, processor: object) -> None:
        """*processor* sees nothing that ends from now on."""
        for entry in self._entries:
            if entry.processor is processor and entry.until is None:
                entry.processor, entry.until = None, time.time_ns()

    def covers(self, span: ReadableSpan) -> bool:
        """Whether a processor of ours has seen the end of *span*."""
        return any(
            entry.resource is span.resource
            and (entry.until is None or (span.end_time or 0) < entry.until)
            for entry in self._entries
        )

    def is_in_force(self) -> bool:
        """Whether any processor of ours is at work."""
        return any(entry.until is None for entry in self._entries)


coverage = Coverage()
"""That of the process."""
