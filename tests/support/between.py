"""What other threads do at the moments when it hurts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_WEAK = ("weakref", "_weakrefset")


@contextmanager
def in_between(work: Callable[[], object]) -> Iterator[None]:
    """Do *work* wherever the interpreter runs code of a weak collection, as at each step of going
    over one: another thread may be given its turn there."""

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__") in _WEAK:
            work()

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
