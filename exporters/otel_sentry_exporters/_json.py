"""Payloads to JSON bytes, by the fastest encoder that is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def _standard(payload: Any) -> bytes:
    """As sentry-sdk's `json_dumps`; also what the fast ones refuse: halves of surrogate pairs."""
    return json.dumps(payload, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _fastest() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:
        pass
    else:
        return orjson.dumps
    try:
        import msgspec
    except ImportError:
        return _standard
    return msgspec.json.encode


_encode = _fastest()


def encode(payload: Any) -> bytes:
    """Compact JSON in UTF-8.

    Raises `TypeError` or `ValueError` for what JSON has no form for.
    """
    try:
        return _encode(payload)
    except (TypeError, ValueError, OverflowError):
        return _standard(payload)
