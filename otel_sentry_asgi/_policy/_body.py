"""Bodies: kept by key. What has no keys to judge by is not kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_sentry_asgi._policy._rules import FILTERED, is_oauth_code

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


def clean_http_body(
    body: Any,
    denies: Denies,
    clean: Callable[[str], str] = str,
    closed_graphql: tuple[str, ...] = (),
) -> Any:
    """The same for the body of a request or an answer, which others wrote: what stands below no key
    is `[Filtered]`, too, and of GraphQL requests what is *closed_graphql*."""
    if not isinstance(body, (str, bytes)):
        body = _by_key(body, closed_graphql, MAX_DEPTH)
    return clean_body(body, denies, clean)


def _by_key(item: Any, closed_graphql: tuple[str, ...], depth: int) -> Any:
    if isinstance(item, (list, tuple)) and depth:
        return [_by_key(one, closed_graphql, depth - 1) for one in item]
    if isinstance(item, Mapping):
        closed = [name for name in closed_graphql if item.get(name)]
        closed = closed if closed and _is_graphql(item) else []
        if is_oauth_code(item):
            closed.append("code")
        return {**item, **dict.fromkeys(closed, FILTERED)} if closed else item
    return None if item is None else FILTERED


def _is_graphql(body: Mapping[str, Any]) -> bool:
    """Whether it holds a GraphQL document, or the hash of one that is known."""
    query, extensions = body.get("query"), body.get("extensions")
    return (isinstance(query, str) and "{" in query) or (
        isinstance(extensions, (str, Mapping)) and "persistedQuery" in extensions
    )


def clean_body_text(text: str, denies: Denies, closed_graphql: tuple[str, ...] = ()) -> str:
    """The same for the text of a body: JSON stays JSON, anything else is `[Filtered]`."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return FILTERED if text else text
    if not isinstance(parsed, (dict, list)):
        return FILTERED
    return json.dumps(clean_http_body(parsed, denies, closed_graphql=closed_graphql))
