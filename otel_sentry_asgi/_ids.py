"""Trace and span ids as they stand on the wire."""

from __future__ import annotations


def trace_hex(trace_id: int) -> str:
    """32 lower-case hexadecimal digits."""
    return f"{trace_id:032x}"


def span_hex(span_id: int) -> str:
    """16 lower-case hexadecimal digits."""
    return f"{span_id:016x}"
