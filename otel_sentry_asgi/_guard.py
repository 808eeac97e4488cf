"""The one place where our own failures stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

logger = logging.getLogger("otel_sentry_asgi")

_reported: set[str] = set()


def log_once(where: str, error: BaseException) -> None:
    """Log the failure with its traceback the first time *where* fails, at debug level after
    that."""
    if where in _reported:
        logger.debug("%s failed again", where, exc_info=error)
        return
    _reported.add(where)
    logger.warning("%s failed; the application is not affected", where, exc_info=error)


on_failure: Callable[[str, BaseException], None] = log_once
"""Called with the place and the error. Tests replace it with one that raises."""


def is_contained(where: str, error: BaseException) -> bool:
    """Whether *error* stops here; if so, `on_failure` has been told. What is no `Exception` (exits,
    cancellation) has to be raised again.

    For the path of every span, where a `with` block costs more than what is in it.
    """
    if not isinstance(error, Exception):
        return False
    on_failure(where, error)
    return True


class contained:
    """Keep what fails inside the block away from the application, but for what is no
    `Exception`."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        """Swallow an `Exception` after telling `on_failure` of it."""
        return error is not None and is_contained(self._where, error)
