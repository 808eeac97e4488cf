"""Which exceptions are issues, and what is known of where they come from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, Final

# By name, so that no framework has to be imported: Starlette, uvicorn, Litestar, websockets.
_DISCONNECTS: Final = frozenset(
    {"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect", "ConnectionClosed"}
)
# asyncio's and trio's, and of the above those that are no end of a websocket.
_CANCELLATIONS: Final = frozenset(
    {"CancelledError", "Cancelled", "ClientDisconnect", "ClientDisconnected"}
)
_ANSWERS: Final = frozenset({("falcon", "HTTPError"), ("falcon", "HTTPStatus")})
_DENIALS: Final = {("django", "Http404"): 404, ("django", "PermissionDenied"): 403}
_FRAMEWORK_LOGGERS: Final = frozenset(
    {
        *("django.request", "falcon", "litestar", "blacksheep.server"),
        "connexion.middleware.exceptions",
    }
)
_TELEMETRY: Final = frozenset({"opentelemetry", "otel_sentry_asgi"})


def is_disconnect(error: BaseException) -> bool:
    """Whether it says that the client went away."""
    return any(kind.__name__ in _DISCONNECTS for kind in type(error).__mro__)


def is_cancelled(error: BaseException) -> bool:
    """Whether it says that the response was given up: the server cancelled the application, or the
    client went away. A websocket that the client closes has come to its end."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(_CANCELLATIONS)


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


def handled_before(error: BaseException) -> Iterator[BaseException]:
    """*error*, and what was being handled when it was raised: that may be raised again."""
    one, seen = error.__context__, {id(error)}
    yield error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__context__


def response_status(error: BaseException) -> int | None:
    """The HTTP status of an exception that is a framework's way to answer, None for others.

    By class, as no framework is imported for it: a status alone does not tell, clients of HTTP
    APIs raise errors with one.
    """
    kinds = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__]
    for kind in kinds:
        if kind in _DENIALS:
            return _DENIALS[kind]
    if not any(name == "HTTPException" or (module, name) in _ANSWERS for module, name in kinds):
        return None
    for attribute in ("status_code", "code", "status"):
        status = getattr(error, attribute, None)
        if isinstance(status, str):
            status = status.partition(" ")[0]
            status = int(status) if status.isascii() and status.isdigit() else None
        if isinstance(status, int):
            return status
    return None


def application_error(error: BaseException) -> BaseException:
    """The application's own exception: Litestar wraps what comes after the start of a response."""
    cause = error.__cause__
    wraps = type(error).__name__ == "LitestarException" and "after response started" in str(error)
    return application_error(cause) if wraps and cause is not None else error


def is_framework_log(record: logging.LogRecord) -> bool:
    """Whether a framework tells by it of a view's exception that it answers with 500 and lets go
    no further: Django, Falcon, Litestar, Quart, BlackSheep, Connexion."""
    return record.name in _FRAMEWORK_LOGGERS or (
        record.funcName == "log_exception"
        and record.msg.__class__ is str
        and record.msg.startswith("Exception on ")
    )


def is_server_text(logger: object, text: object) -> bool:
    """Whether granian logs by it, as text, the traceback of what left the application: that has
    been seen alive at the ASGI edge."""
    known = isinstance(logger, str) and logger.partition(".")[0] == "_granian"
    return known and isinstance(text, str) and "Traceback (most recent call last)" in text


def is_own_noise(logger: object) -> bool:
    """Whether a logger is OpenTelemetry's, or ours: its errors are none of the application."""
    return isinstance(logger, str) and logger.partition(".")[0] in _TELEMETRY


def current_task() -> asyncio.Task[Any] | None:
    """The running asyncio task, if there is one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """What ended *task*, if an exception did. Reads the attribute: asking the task would count as
    retrieving the exception, and asyncio would no longer log it."""
    return getattr(task, "_exception", None) if task.done() else None
