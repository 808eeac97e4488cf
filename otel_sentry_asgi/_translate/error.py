"""Exceptions of which there is only OTel's text, as Sentry's exception interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._translate.traceback import Frame, ParsedException, parse_traceback

TYPE = "exception.type"
MESSAGE = "exception.message"
STACKTRACE = "exception.stacktrace"


def to_exception_values(
    attributes: Mapping[str, Any], *, mechanism: str, handled: bool
) -> list[Data]:
    """`exception.values` from the attributes of an `exception` event, the raised one last.

    A stack trace that is not Python's, or none, gives the exception without frames.
    """
    chain = parse_traceback(_text(attributes, STACKTRACE))
    if not chain:
        chain = [ParsedException(_text(attributes, TYPE) or "Error", _text(attributes, MESSAGE))]
    last = chain[-1]
    # The text may have been cut before its last line; these attributes have a limit of their own.
    last.type = last.type or _text(attributes, TYPE) or "Error"
    last.value = last.value or _text(attributes, MESSAGE)
    values: list[Data] = []
    _add_chain(values, chain, parent=None, source=None, kind=mechanism)
    for value in values:
        # Not `synthetic`: Sentry would hide the type, which is real.
        value["mechanism"]["handled"] = handled
    values.reverse()
    return values


def _text(attributes: Mapping[str, Any], key: str) -> str:
    value = attributes.get(key)
    return value if isinstance(value, str) else ""


def _add_chain(
    values: list[Data],
    chain: list[ParsedException],
    *,
    parent: int | None,
    source: str | None,
    kind: str,
) -> None:
    """Add the raised exception first and what it hangs on after it, numbered as Sentry does."""
    for exception in reversed(chain):
        number = len(values)
        mechanism: Data = {"type": kind if parent is None else "chained", "exception_id": number}
        if parent is not None:
            mechanism.update(parent_id=parent, source=source)
        if exception.members:
            mechanism["is_exception_group"] = True
        values.append(_to_value(exception, mechanism))
        for index, member in enumerate(exception.members):
            _add_chain(values, member, parent=number, source=f"exceptions[{index}]", kind=kind)
        parent, source = number, exception.linked_by


def _to_value(exception: ParsedException, mechanism: Data) -> Data:
    module, _, name = exception.type.rpartition(".")
    value: Data = {"type": name, "value": exception.value, "mechanism": mechanism}
    if module:
        value["module"] = module
    if exception.frames:
        value["stacktrace"] = {"frames": [_to_frame(frame) for frame in exception.frames]}
    return value


def _to_frame(frame: Frame) -> Data:
    return {
        "abs_path": frame.file,
        "filename": frame.file,
        "function": frame.function or "<unknown>",
        "lineno": frame.line,
    }
