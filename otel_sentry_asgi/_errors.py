"""Which exceptions are issues, and what is known of where they come from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

# By name, so that no framework has to be imported: Starlette, uvicorn, Litestar, websockets.
_DISCONNECTS: Final = frozenset(
    {"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect", "ConnectionClosed"}
)


def is_disconnect(error: BaseException) -> bool:
    """Whether it says that the client went away."""
    return any(kind.__name__ in _DISCONNECTS for kind in type(error).__mro__)


def is_error(error: BaseException) -> bool:
    """Whether an exception that leaves the application is an error: no cancellation, exit, or
    client that went away. A group is one if any of its members is."""
    return any(
        isinstance(member, Exception) and not is_disconnect(member)
        for member in members(error)
        if not is_group(member)
    )


def is_group(error: BaseException) -> bool:
    """Whether it holds other exceptions."""
    return bool(_nested(error))


def members(error: BaseException) -> Iterator[BaseException]:
    """*error*, and what a group holds at any depth, each once."""
    pending, seen = [error], set()
    while pending:
        member = pending.pop()
        if id(member) not in seen:
            seen.add(id(member))
            yield member
            pending.extend(reversed(_nested(member)))


def _nested(error: BaseException) -> list[BaseException]:
    """What a group holds: one of Python's own, or of a library for older versions."""
    nested = getattr(error, "exceptions", None)
    if not isinstance(nested, tuple):
        return []
    return [member for member in nested if isinstance(member, BaseException)]


def is_response(error: BaseException) -> bool:
    """Whether it is a framework's way to answer with a status below 500."""
    if not any(kind.__name__ == "HTTPException" for kind in type(error).__mro__):
        return False
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and status < 500


def current_task() -> asyncio.Task[Any] | None:
    """The running asyncio task, if there is one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def left_task(task: asyncio.Task[Any], error: BaseException) -> bool:
    """Whether *error* ended *task*. Reads the attribute: asking the task would count as
    retrieving the exception, and asyncio would no longer log it."""
    return task.done() and getattr(task, "_exception", None) is error
