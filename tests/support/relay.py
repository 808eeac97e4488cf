"""What Sentry would say: Relay's own validation of an event or transaction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from sentry_relay.exceptions import RelayError
from sentry_relay.processing import StoreNormalizer

_MAX_PAST_SECONDS = 30 * 24 * 3600
_MAX_FUTURE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that Relay did not take as it was.

    *fatal*: the whole payload is rejected. *error*: a value was dropped or replaced. *remark*: a
    value was altered by a rule. *trimmed*: a value was cut to size. *reported*: an entry of the
    list that Sentry shows to the user; most errors come with one.
    """

    path: str
    kind: Literal["fatal", "error", "remark", "trimmed", "reported"]
    code: str
    details: Mapping[str, Any] = field(default_factory=dict)


def relay_check(event: Mapping[str, Any], **overrides: Any) -> list[Problem]:
    """Return what Relay has against *event*, which is left alone; nothing means accepted as is.

    *overrides* go to `StoreNormalizer`. Not looked at: sizes of the whole, number of spans,
    duplicate or dangling span ids, the DSC, envelope headers, and private data.
    """
    return relay_normalize(event, **overrides)[1]


def relay_normalize(
    event: Mapping[str, Any], **overrides: Any
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Return *event* as Sentry would store it, or None if it is rejected, and the problems."""
    options: dict[str, Any] = {
        "project_id": 1,
        "protocol_version": "7",
        "received_at": datetime.now(timezone.utc).isoformat(),
        "max_secs_in_past": _MAX_PAST_SECONDS,
        "max_secs_in_future": _MAX_FUTURE_SECONDS,
        # Unknown keys and cut values are only told about with these.
        "remove_other": True,
        "enable_trimming": True,
        "normalize_user_agent": True,
    }
    normalizer = StoreNormalizer(**{**options, **overrides})
    try:
        stored = normalizer.normalize_event(dict(event))
    except RelayError as error:
        reason = str(error).partition("\n")[0]
        return None, [Problem("", "fatal", type(error).__name__, {"reason": reason})]
    meta = stored.pop("_meta", None) or {}
    reported = stored.pop("errors", None) or []
    return stored, [*_from_meta(meta, ()), *map(_from_report, reported)]


def _from_report(entry: Mapping[str, Any]) -> Problem:
    rest = {key: value for key, value in entry.items() if key not in ("name", "type")}
    return Problem(entry.get("name") or "", "reported", entry["type"], rest)


def _from_meta(node: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    """`_meta` mirrors the event; what it says of a value is under an empty key."""
    if not isinstance(node, Mapping):
        return
    for key, child in node.items():
        if key:
            yield from _from_meta(child, (*path, key))
        else:
            yield from _from_notes(child, ".".join(path))


def _from_notes(notes: Mapping[str, Any], path: str) -> Iterator[Problem]:
    for error in notes.get("err") or ():
        code, details = (error, {}) if isinstance(error, str) else error
        yield Problem(path, "error", code, details)
    for rule, operation, *_ in notes.get("rem") or ():
        yield Problem(path, "remark", rule, {"operation": operation})
    if notes.get("len") is not None:
        yield Problem(path, "trimmed", "length", {"original": notes["len"]})
