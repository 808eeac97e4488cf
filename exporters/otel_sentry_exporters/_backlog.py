"""What waits for Sentry, held so that its memory is given back when it has gone.

An outage leaves thousands of envelopes of a kilobyte or two. As objects of their own they lie
between others, and the C library keeps their pages for good: of the 23 MB that a full queue of 16
MiB took, 23 were still resident afterwards. So what waits is moved into blocks, each a mapping of
its own, which the system has back as soon as it has been read. With Sentry near there is none.
"""

from __future__ import annotations

import marshal
from collections import deque
from contextlib import suppress
from mmap import mmap
from typing import NamedTuple

BLOCK = 256 * 1024
"""Bytes that wait behind the first ones before they are moved into a block."""

Counts = tuple[tuple[str, int], ...]
"""The categories of what is in an envelope, with quantities. The first has the rate limit."""


class Parcel(NamedTuple):
    """An encoded envelope."""

    body: bytes
    encoding: str | None
    counts: Counts
    since: float
    """When it was put, in the seconds of the delivery's clock."""


class Backlog:
    """A queue of parcels. Not for several threads at once."""

    def __init__(self) -> None:
        self.first: deque[Parcel] = deque()
        """Those at the head, to be looked at: some, unless there are none at all."""
        self._blocks: deque[mmap] = deque()
        self._last: deque[Parcel] = deque()
        self._size = 0
        """Bytes of bodies in `_last`."""

    def append(self, parcel: Parcel) -> None:
        """Add *parcel* at the end."""
        if not self.first:
            self.first.append(parcel)
            return
        self._last.append(parcel)
        self._size += len(parcel.body)
        if self._size >= BLOCK:
            self._pack()

    def appendleft(self, parcel: Parcel) -> None:
        """Put back what `popleft` gave."""
        self.first.appendleft(parcel)

    def popleft(self) -> Parcel:
        """Take the first one. Raises IndexError if there is none."""
        parcel = self.first.popleft()
        if not self.first:
            self._unpack()
        return parcel

    def _pack(self) -> None:
        self._size = 0
        packed = marshal.dumps([tuple(parcel) for parcel in self._last])
        with suppress(OSError):  # No mapping to be had: they stay where they are.
            block = mmap(-1, len(packed))
            block.write(packed)
            self._blocks.append(block)
            self._last.clear()

    def _unpack(self) -> None:
        if self._blocks:
            with self._blocks.popleft() as block:
                self.first.extend(Parcel(*fields) for fields in marshal.loads(block))
        else:
            self.first, self._last, self._size = self._last, self.first, 0
