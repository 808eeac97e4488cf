"""A transaction as the Sentry client would send it: its scopes, hooks, options and scrubber.

The steps and their order are those of the client's `_prepare_event` (sentry-sdk 2.75.0,
`client.py`), without its walk over every value. What the bridge builds is JSON already, so only
what scopes and sentry-sdk's event processors add is converted; everything is, where a hook of the
application's own may have put anything anywhere. `tests/property/test_equivalence.py` holds the
result to the client's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any, Final

from sentry_sdk import scope as sdk_scope
from sentry_sdk import serializer
from sentry_sdk._types import AnnotatedValue
from sentry_sdk.client import SDK_INFO
from sentry_sdk.scope import Scope
from sentry_sdk.scrubber import EventScrubber
from sentry_sdk.utils import capture_internal_exceptions, handle_in_app

from otel_sentry_asgi.export import REMARKS
from otel_sentry_exporters._backlog import Counts

Event = dict[str, Any]

Lose = Callable[[str, Counts], None]
"""Called with a discard reason, and categories with quantities, of which some may be 0."""

_FROM_OPTIONS: Final = ("release", "environment", "server_name", "dist")

_PARTS: Final = ("contexts", "request")
"""Of these, others add single members."""
_NOT_FOREIGN: Final = frozenset(
    {
        # What the bridge and this module write, as JSON; no scope adds to it.
        *(*_FROM_OPTIONS, "type", "event_id", "platform", "transaction", "transaction_info", "sdk"),
        *("start_timestamp", "timestamp", "spans", "_meta"),
        *_PARTS,
    }
)
_WITH_FRAMES: Final = frozenset({"exception", "threads", "stacktrace"})
_BAGS: Final = frozenset({"extra", "breadcrumbs"})
"""What sentry-sdk cuts in depth and breadth."""
_DEEPEST: Final = 20
"""Levels, below which sentry-sdk looks for cycles."""

_TRUSTED: Final = ("sentry_sdk.", "otel_sentry_asgi.", "otel_sentry_exporters.")
_SUBSTITUTED: Final = AnnotatedValue.substituted_because_contains_sensitive_data


def prepare(
    event: Event,
    client: Any,
    scopes: tuple[Any, Any],
    hint: dict[str, Any],
    lose: Lose,
    *,
    profiles: int = 0,
) -> Event | None:
    """*event* as JSON, or None if a hook has dropped it, which *lose* is told of, and its
    *profiles*, of which sentry-sdk says nothing.

    To be called with the *scopes* of its request (isolation, current) in force. May change *event*.
    """
    options, before = client.options, len(event["spans"])
    own = {"contexts": event["contexts"].copy(), "request": event.get("request", {}).copy()}
    own["request"].pop("data", None)  # A bag.
    global_scope = Scope.get_global_scope()
    is_trusted = _leaves_values(options) and _are_trusted(global_scope, *scopes)
    if is_trusted:
        hint[REMARKS] = True
    scope = _merged(global_scope, *scopes)
    applied = scope.apply_to_event(event, hint, options)
    if applied is None:
        _lose_all(lose, "event_processor", before, profiles)
        return None
    event = applied
    gone, dropped = before - len(event.get("spans") or ()), event.pop("_dropped_spans", 0)
    if gone > 0:
        lose("event_processor", (("span", gone),))
    if dropped > 0:
        lose("buffer_overflow", (("span", dropped),))
    _fill(event, client)
    # More than there were, as the client has it, if hooks took some.
    length = {"len": before + gone + dropped} if gone + dropped > 0 else None
    truncated = getattr(scope, "_n_breadcrumbs_truncated", 0)
    if is_trusted and _WITH_FRAMES.isdisjoint(event):
        _convert_foreign(event, own, options, length, truncated)
    else:
        remarks = event.pop("_meta", {}) if is_trusted else {}
        event = _convert_all(event, options, length, truncated)
        if remarks:
            _merge(remarks, event.get("_meta", {}))
            event["_meta"] = remarks
    callback = options.get("before_send_transaction")
    return event if callback is None else _asked(callback, event, hint, lose, profiles)


def _lose_all(lose: Lose, reason: str, children: int, profiles: int) -> None:
    lose(reason, (("transaction", 1), ("span", children + 1), ("profile", profiles)))


def _merged(global_scope: Any, isolation_scope: Any, current_scope: Any) -> Any:
    """One scope, as the client merges them."""
    merged = global_scope.fork()
    merged.update_from_scope(isolation_scope)
    merged.update_from_scope(current_scope)
    return merged


def _fill(event: Event, client: Any) -> None:
    """What the client knows of every event."""
    options = client.options
    for key in _FROM_OPTIONS:
        if event.get(key) is None and (value := options.get(key)) is not None:
            event[key] = str(value).strip()
    if event.get("sdk") is None:
        event["sdk"] = {**SDK_INFO, "integrations": sorted(client.integrations)}
    if event.get("platform") is None:
        event["platform"] = "python"


# -- whom to trust ------------------------------------------------------------------------------


def _leaves_values(options: Mapping[str, Any]) -> bool:
    """Whether the client does nothing to values that JSON has a form for, but for sentry-sdk's own
    scrubber."""
    scrubber = options.get("event_scrubber")
    return (
        options.get("max_value_length") is None
        and options.get("custom_repr") is None
        and (not scrubber or (type(scrubber) is EventScrubber and not scrubber.recursive))
    )


def _are_trusted(global_scope: Any, isolation_scope: Any, current_scope: Any) -> bool:
    """Whether all hooks are sentry-sdk's or ours, which leave spans and trace alone: others may
    have put anything anywhere."""
    global _known
    shared = [*sdk_scope.global_event_processors, *serializer.global_repr_processors]
    shared += global_scope._event_processors
    if shared != _known[0]:
        _known = shared, all(map(_is_trusted, shared))
    return (
        _known[1]
        and all(map(_is_trusted, isolation_scope._event_processors))
        and all(map(_is_trusted, current_scope._event_processors))
    )


_known: tuple[list[Any], bool] = ([], True)
"""The hooks of every transaction, and whether they are trusted."""


def _is_trusted(hook: Any) -> bool:
    while type(hook) is partial:
        hook = hook.func
    return str(getattr(hook, "__module__", None)).startswith(_TRUSTED)


# -- the scrubber -------------------------------------------------------------------------------


class _Scrubber:
    """The client's own scrubber, looking names up in a set instead of a list, and of headers and
    attributes only those that have not been looked up before."""

    def __init__(self, denylist: tuple[str, ...]) -> None:
        fast: Any = EventScrubber([], send_default_pii=True)
        self._denied = fast.denylist = frozenset(denylist)
        self._fast = fast
        self._innocent: set[object] = set()

    def scrub(self, event: Event, meta: Event) -> None:
        """Do to *event* what the client's does to a transaction; the remarks go to *meta*."""
        if len(self._innocent) > _MAX_NAMES:
            self._innocent.clear()
        fast, request = self._fast, event.get("request") or {}
        if "data" in request:
            fast.scrub_request({"request": {"data": request["data"]}})
        for part in ("headers", "cookies"):
            if part in request:
                self._scrub(request[part], meta, "request", part)
        if "extra" in event:
            self._scrub(event["extra"], meta, "extra")
        if "user" in event:
            fast.scrub_user(event)
        if "breadcrumbs" in event:
            fast.scrub_breadcrumbs(event)
        for index, span in enumerate(event.get("spans") or ()):
            if "data" in span and not self._innocent.issuperset(span["data"]):
                self._scrub(span["data"], meta, "spans", str(index), "data")

    def _scrub(self, values: Any, meta: Event, *path: str) -> None:
        if not isinstance(values, dict):
            return
        innocent = self._innocent
        for name in [name for name in values if name not in innocent]:
            if not isinstance(name, str) or name.lower() not in self._denied:
                innocent.add(name)
                continue
            node = meta
            for key in path:
                node = node.setdefault(key, {})
            if values[name] != _FILTERED or node.get(name) != _REMARK:  # Else the policy's.
                substituted = _SUBSTITUTED()
                values[name], node[name] = substituted.value, {"": substituted.metadata}


_FILTERED: Final = _SUBSTITUTED().value
_REMARK: Final = {"": _SUBSTITUTED().metadata}
_MAX_NAMES: Final = 10_000
_scrubber = lru_cache(maxsize=8)(_Scrubber)


# -- to JSON ------------------------------------------------------------------------------------


def _convert_all(
    event: Event, options: Mapping[str, Any], spans: Event | None, truncated: int
) -> Event:
    """As the client does it: everything that JSON has no form for as text, bags cut. *spans* is
    the remark on their list."""
    handle_in_app(event, *(options.get(name) for name in _IN_APP))  # type: ignore[arg-type]
    scrubber = options.get("event_scrubber")
    if scrubber:
        scrubber.scrub_event(event)
    if spans:
        event["spans"] = AnnotatedValue(event.get("spans", []), spans)
    _mark_crumbs(event, truncated)
    return _serialize(event, options)


_IN_APP: Final = ("in_app_exclude", "in_app_include", "project_root")


def _convert_foreign(
    event: Event,
    own: Mapping[str, Event],
    options: Mapping[str, Any],
    spans: Event | None,
    truncated: int,
) -> None:
    """Convert what the bridge has not built, in place; *own* are its contexts and parts of the
    request, but for the body, which is a bag."""
    meta = event.setdefault("_meta", {})
    if scrubber := options.get("event_scrubber"):
        _scrubber(tuple(scrubber.denylist)).scrub(event, meta)
    if spans:
        meta.setdefault("spans", {})[""] = spans
    _mark_crumbs(event, truncated)
    foreign = _foreign(event, own)
    if foreign:
        serialized = _serialize(foreign, options)
        _merge(meta, serialized.pop("_meta", {}))
        for key, value in serialized.items():
            if key in _PARTS and isinstance(event[key], dict):
                kept = {name: event[key][name] for name in event[key].keys() - foreign[key].keys()}
                value = {**kept, **value}
            event[key] = value
    if not meta:
        del event["_meta"]


def _mark_crumbs(event: Event, truncated: int) -> None:
    if truncated:
        crumbs = event.get("breadcrumbs", {"values": []})
        event["breadcrumbs"] = AnnotatedValue(crumbs, {"len": len(crumbs["values"]) + truncated})


def _serialize(event: Event, options: Mapping[str, Any]) -> Event:
    serialized: Event = serializer.serialize(
        event,
        max_request_body_size=options.get("max_request_body_size"),
        max_value_length=options.get("max_value_length"),
        custom_repr=options.get("custom_repr"),
    )
    return serialized


def _foreign(event: Event, own: Mapping[str, Event]) -> Event:
    """What has to be looked at by sentry-sdk's serializer."""
    foreign: Event = {}
    for key in event.keys() - _NOT_FOREIGN:
        value = event[key]
        if not (_is_small(value) if key in _BAGS else _is_plain(value)):
            foreign[key] = value
    for key in _PARTS:
        part, known = event.get(key), own[key]
        if isinstance(part, dict):
            for name, value in part.items():
                if known.get(name, own) is not value and _is_foreign(name, value):
                    foreign.setdefault(key, {})[name] = value
        elif part is not None:
            foreign[key] = part
    return foreign


def _is_foreign(name: Any, value: Any) -> bool:
    """Whether a member of a part that is not the bridge's has to be looked at."""
    return name == "data" or type(name) is not str or not _is_plain(value)


def _is_plain(value: Any, depth: int = _DEEPEST) -> bool:
    """Whether it is JSON, of Python's own types and without sentry-sdk having to cut it."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is dict and depth:
        for key, item in value.items():
            if type(key) is not str or not (type(item) is str or _is_plain(item, depth - 1)):
                return False
        return True
    return kind is list and depth > 0 and all(_is_plain(item, depth - 1) for item in value)


def _is_small(bag: Any) -> bool:
    """Whether sentry-sdk leaves a bag as it is: plain, and neither deep nor broad."""
    if type(bag) is not dict or len(bag) > serializer.MAX_DATABAG_BREADTH:
        return False
    for key, item in bag.items():
        if type(key) is not str or not (type(item) is str or _is_short(item)):
            return False
    return True


def _is_short(item: Any) -> bool:
    if type(item) is not list or len(item) > serializer.MAX_DATABAG_BREADTH:
        return False
    return all(type(one) is str for one in item)


def _merge(meta: Event, more: Event) -> None:
    """Add *more* remarks; of two on one value the later counts."""
    for key, value in more.items():
        if key and isinstance(value, dict) and isinstance(meta.get(key), dict):
            _merge(meta[key], value)
        else:
            meta[key] = value


# -- hooks --------------------------------------------------------------------------------------


def _asked(
    callback: Any, event: Event, hint: dict[str, Any], lose: Lose, profiles: int
) -> Event | None:
    """What the application's `before_send_transaction` makes of it."""
    before = len(event.get("spans") or ())
    event["sdk"] = deepcopy(event["sdk"])  # Its packages are sentry-sdk's own.
    reason = "callback_error"
    answer: Event | None = None
    with capture_internal_exceptions():
        answer = callback(event, hint)
        reason = "before_send"
    if answer is None:
        _lose_all(lose, reason, before, profiles)
    elif (gone := before - len(answer.get("spans") or ())) > 0:
        lose(reason, (("span", gone),))
    return answer
