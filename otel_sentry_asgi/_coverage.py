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

    def is_of(self, processor: object, resource: object) -> bool:
        return self.processor is processor and self.resource is resource


class Coverage:
    """The resources whose spans processors of ours have seen. Any thread may call it, without a
    lock: an entry is appended in one step."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, processor: object, resource: object) -> None:
        """*processor* sees the spans of *resource* from now on."""
        if any(one.is_of(processor, resource) for one in self._entries):
            return
        self._entries.append(_Entry(processor, resource))
        if len(self._entries) > MAX_ENTRIES:
            self._entries = self._entries[-MAX_ENTRIES:]

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

    def is_shared(self) -> bool:
        """Whether several processors of ours see the spans of one resource. Of those that are added
        at once the last one at least is told so."""
        at_work = {
            (id(one.processor), id(one.resource)) for one in self._entries if one.until is None
        }
        return len(at_work) > len({resource for _, resource in at_work})

    def is_in_force(self) -> bool:
        """Whether any processor of ours is at work."""
        return any(entry.until is None for entry in self._entries)


coverage = Coverage()
"""That of the process."""
