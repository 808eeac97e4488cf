"""A transaction as the Sentry client would send it: its scopes, hooks, options and scrubber.

The steps and their order are those of the client's `_prepare_event` (sentry-sdk 2.75.0,
`client.py`), without its walk over every value. What the bridge builds is JSON already, so only
what scopes and sentry-sdk's event processors add is converted; everything is, where a hook of the
application's own may have put anything anywhere. `tests/property/test_equivalence.py` holds the
result to the client's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Final

import sentry_sdk
from sentry_sdk import scope as sdk_scope
from sentry_sdk import serializer
from sentry_sdk._types import AnnotatedValue
from sentry_sdk.client import SDK_INFO
from sentry_sdk.scrubber import EventScrubber
from sentry_sdk.utils import capture_internal_exceptions, handle_in_app

from otel_sentry_asgi.export import REMARKS

Event = dict[str, Any]

_FROM_OPTIONS: Final = ("release", "environment", "server_name", "dist")

# What the bridge and this module write, as JSON; no scope adds to it.
_OWN: Final = {
    *(*_FROM_OPTIONS, "type", "event_id", "platform", "transaction", "transaction_info", "sdk"),
    *("start_timestamp", "timestamp", "spans", "_meta"),
}
_PARTS: Final = ("contexts", "request")
"""Of these, others add single members."""
_WITH_FRAMES: Final = frozenset({"exception", "threads", "stacktrace"})
_BAGS: Final = frozenset({"extra", "breadcrumbs"})
"""What sentry-sdk cuts in depth and breadth."""
_DEEPEST: Final = 20
"""Levels, below which sentry-sdk looks for cycles."""

_TRUSTED: Final = ("sentry_sdk.", "otel_sentry_asgi.", "otel_sentry_exporters.")


def prepare(event: Event, client: Any, hint: dict[str, Any], *, profiles: int = 0) -> Event | None:
    """*event* as JSON, or None if a hook has dropped it (the client's report then has it, and its
    *profiles*, of which sentry-sdk says nothing).

    To be called with the scopes of its request in force. May change *event*.
    """
    options, before = client.options, len(event["spans"])
    own = {**event["contexts"], **event.get("request", {}), "data": None}
    scrubber = options.get("event_scrubber")
    scopes: tuple[Any, ...] = (
        sentry_sdk.get_global_scope(),
        sentry_sdk.get_isolation_scope(),
        sentry_sdk.get_current_scope(),
    )
    is_whole = _is_whole(options, scrubber, scopes)
    if not is_whole:
        hint[REMARKS] = True
    scope = _merged(*scopes)
    applied = scope.apply_to_event(event, hint, options)
    if applied is None:
        _lose(client, "event_processor", before + 1, transactions=1, profiles=profiles)
        return None
    event = applied
    gone, dropped = before - len(event.get("spans") or ()), event.pop("_dropped_spans", 0)
    _lose(client, "event_processor", gone)
    _lose(client, "buffer_overflow", dropped)
    _fill(event, client)
    meta: Event = {}
    has_remarks = not is_whole
    is_whole = is_whole or not _WITH_FRAMES.isdisjoint(event)
    if scrubber and is_whole:
        scrubber.scrub_event(event)
    elif scrubber:
        _scrubber(tuple(scrubber.denylist)).scrub(event, meta)
    if gone + dropped > 0:
        # More than there were, as the client has it, if hooks took some.
        length = {"len": before + gone + dropped}
        if is_whole:
            event["spans"] = AnnotatedValue(event.get("spans", []), length)
        else:
            meta.setdefault("spans", {})[""] = length
    if truncated := getattr(scope, "_n_breadcrumbs_truncated", 0):
        crumbs = event.get("breadcrumbs", {"values": []})
        event["breadcrumbs"] = AnnotatedValue(crumbs, {"len": len(crumbs["values"]) + truncated})
    if is_whole:
        remarks = event.pop("_meta", {}) if has_remarks else {}
        event = _serialize(event, options)
        if remarks:
            _merge(remarks, event.get("_meta", {}))
            event["_meta"] = remarks
    else:
        _serialize_foreign(event, own, options, meta)
    callback = options.get("before_send_transaction")
    return event if callback is None else _asked(callback, event, hint, client, profiles)


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
        if event.get(key) is None and options.get(key) is not None:
            event[key] = str(options[key]).strip()
    if event.get("sdk") is None:
        event["sdk"] = {**SDK_INFO, "integrations": sorted(client.integrations)}
    if event.get("platform") is None:
        event["platform"] = "python"
    if not _WITH_FRAMES.isdisjoint(event):
        given = (options.get(name) for name in ("in_app_exclude", "in_app_include", "project_root"))
        handle_in_app(event, *given)  # type: ignore[arg-type]


def _is_whole(options: Mapping[str, Any], scrubber: Any, scopes: tuple[Any, ...]) -> bool:
    """Whether every value has to be looked at, because somebody may have put anything anywhere:
    a hook that is neither sentry-sdk's nor ours. Those leave spans and trace alone."""
    if options.get("max_value_length") is not None or options.get("custom_repr") is not None:
        return True
    if scrubber and (type(scrubber) is not EventScrubber or scrubber.recursive):
        return True
    hooks = [*sdk_scope.global_event_processors, *serializer.global_repr_processors]
    for scope in scopes:
        hooks += scope._event_processors
    for hook in hooks:
        while type(hook) is partial:
            hook = hook.func
        if not _is_trusted(getattr(hook, "__module__", None)):
            return True
    return False


@lru_cache(maxsize=256)
def _is_trusted(module: object) -> bool:
    return str(module).startswith(_TRUSTED)


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
            fast.scrub_extra(event)
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
        for name in [name for name in values if name not in self._innocent]:
            if isinstance(name, str) and name.lower() in self._denied:
                substituted = AnnotatedValue.substituted_because_contains_sensitive_data()
                values[name], node = substituted.value, meta
                for segment in (*path, name):
                    node = node.setdefault(segment, {})
                node[""] = substituted.metadata
            else:
                self._innocent.add(name)


_MAX_NAMES: Final = 10_000
_scrubber = lru_cache(maxsize=8)(_Scrubber)


# -- to JSON ------------------------------------------------------------------------------------


def _serialize(event: Event, options: Mapping[str, Any]) -> Event:
    """As the client does it: everything that JSON has no form for as text, bags cut."""
    serialized: Event = serializer.serialize(
        event,
        max_request_body_size=options.get("max_request_body_size"),
        max_value_length=options.get("max_value_length"),
        custom_repr=options.get("custom_repr"),
    )
    return serialized


def _serialize_foreign(
    event: Event, own: Mapping[str, Any], options: Mapping[str, Any], meta: Event
) -> None:
    """Convert what the bridge has not built; *own* are its contexts and parts of the request, but
    for the body, which is a bag."""
    foreign = {
        key: value
        for key, value in event.items()
        if key not in _OWN
        and key not in _PARTS
        and not (_is_small(value) if key in _BAGS else _is_plain(value))
    }
    for key in _PARTS:
        part = event.get(key)
        if isinstance(part, dict):
            rest = {
                name: value
                for name, value in part.items()
                if (value is None or own.get(name) is not value) and _is_foreign(name, value)
            }
            if rest:
                foreign[key] = rest
        elif part is not None:
            foreign[key] = part
    if foreign:
        serialized = _serialize(foreign, options)
        _merge(meta, serialized.pop("_meta", {}))
        for key, value in serialized.items():
            if key in _PARTS and isinstance(event[key], dict):
                kept = {name: event[key][name] for name in event[key].keys() - foreign[key].keys()}
                value = {**kept, **value}
            event[key] = value
    if meta:
        _merge(event.setdefault("_meta", {}), meta)


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
    for item in bag.values():
        if type(item) is list and len(item) <= serializer.MAX_DATABAG_BREADTH:
            if not all(type(one) is str for one in item):
                return False
        elif type(item) is not str:
            return False
    return all(type(key) is str for key in bag)


def _merge(meta: Event, more: Event) -> None:
    """Add *more* remarks; of two on one value the later counts."""
    for key, value in more.items():
        if key and isinstance(value, dict) and isinstance(meta.get(key), dict):
            _merge(meta[key], value)
        else:
            meta[key] = value


# -- hooks --------------------------------------------------------------------------------------


def _asked(
    callback: Any, event: Event, hint: dict[str, Any], client: Any, profiles: int
) -> Event | None:
    """What the application's `before_send_transaction` makes of it."""
    before = len(event.get("spans") or ())
    reason = "callback_error"
    answer: Event | None = None
    with capture_internal_exceptions():
        answer = callback(event, hint)
        reason = "before_send"
    if answer is None:
        _lose(client, reason, before + 1, transactions=1, profiles=profiles)
    else:
        _lose(client, reason, before - len(answer.get("spans") or ()))
    return answer


def _lose(
    client: Any, reason: str, spans: int, *, transactions: int = 0, profiles: int = 0
) -> None:
    counts = (("transaction", transactions), ("span", spans), ("profile", profiles))
    for category, quantity in counts:
        if quantity > 0 and client.transport is not None:
            client.transport.record_lost_event(reason, data_category=category, quantity=quantity)
