"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_INTERVAL = 0.01


def until(probe: Callable[[], T], *, timeout: float, describe: Callable[[], str]) -> T:
    """Return the first true value of *probe*; fail with what *describe* says after *timeout*."""
    deadline = time.monotonic() + timeout
    while not (value := probe()):
        if time.monotonic() >= deadline:
            msg = f"not within {timeout} s: {describe()}"
            raise AssertionError(msg)
        time.sleep(_INTERVAL)
    return value
