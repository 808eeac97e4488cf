"""Bodies: kept by key. What has no keys to judge by is not kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_sentry_asgi._policy._rules import FILTERED

MAX_DEPTH: Final = 20
"""Levels of a body that are kept; Sentry shows five."""

Denies = Callable[[str], bool]


def clean_body(body: Any, denies: Denies, clean: Callable[[str], str] = str) -> Any:
    """A parsed body without the values of denied keys, its texts cleaned. One that is a text or
    bytes was not parsed."""
    if isinstance(body, (str, bytes)):
        return FILTERED if body else None
    return _clean(body, denies, clean, MAX_DEPTH)


def _clean(item: Any, denies: Denies, clean: Callable[[str], str], depth: int) -> Any:
    if isinstance(item, str):
        return clean(item)
    if not isinstance(item, (Mapping, list, tuple)):
        return item
    if not depth:
        return FILTERED
    if isinstance(item, Mapping):
        return {
            key: FILTERED if denies(str(key)) else _clean(value, denies, clean, depth - 1)
            for key, value in item.items()
        }
    return [_clean(one, denies, clean, depth - 1) for one in item]


def clean_http_body(body: Any, denies: Denies, clean: Callable[[str], str] = str) -> Any:
    """The same for the body of a request or an answer, which others wrote: what stands below no key
    is `[Filtered]`, too."""
    if not isinstance(body, (str, bytes)):
        body = _by_key(body, MAX_DEPTH)
    return clean_body(body, denies, clean)


def _by_key(item: Any, depth: int) -> Any:
    if isinstance(item, (list, tuple)) and depth:
        return [_by_key(one, depth - 1) for one in item]
    return item if item is None or isinstance(item, Mapping) else FILTERED


def clean_body_text(text: str, denies: Denies) -> str:
    """The same for the text of a body: JSON stays JSON, anything else is `[Filtered]`."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return FILTERED if text else text
    if not isinstance(parsed, (dict, list)):
        return FILTERED
    return json.dumps(clean_http_body(parsed, denies))
