"""Trace and span ids as they stand on the wire."""

from __future__ import annotations


def trace_hex(trace_id: int) -> str:
    """32 lower-case hexadecimal digits."""
    return f"{trace_id:032x}"


def span_hex(span_id: int) -> str:
    """16 lower-case hexadecimal digits."""
    return f"{span_id:016x}"


_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Odd, so that no two span ids of a trace give one event id: 2 ** 128 divided by the golden ratio.
"""
_LOW_128 = (1 << 128) - 1


def event_hex(trace_id: int, span_id: int) -> str:
    """The id of the event that tells of this span: the same whenever it is asked for, so Sentry
    takes one that is sent twice only once. `uuid4` would be a system call for each."""
    return f"{trace_id ^ (span_id * _SPREAD & _LOW_128):032x}"
