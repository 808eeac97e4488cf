"""Sentry's request interface, cleaned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._body import clean_http_body
from otel_sentry_asgi._policy._collection import Collection
from otel_sentry_asgi._policy._memo import Shapes
from otel_sentry_asgi._policy._plan import Plan
from otel_sentry_asgi._policy._remarks import mark, mark_all
from otel_sentry_asgi._policy._rules import MAPPING, clean_query, clean_url


def clean_request(
    request: Data,
    of: Collection,
    headers: Shapes[Plan],
    denies: Callable[[str], bool],
    clean: Callable[[str], str],
    meta: Data,
) -> Data:
    """A cleaned copy; what was filtered is marked in *meta*. *headers* has the plans for headers,
    *denies* is asked of the keys of a body, *clean* is for texts that no key describes. What has
    not the form that our own has is left out: Sentry takes requests in forms that hide the
    keys."""
    get = request.get
    cleaned: Data = {}
    if (method := get("method")) and isinstance(method, str):
        cleaned["method"] = method
    url, query = get("url"), get("query_string")
    if url and isinstance(url, str):
        url, _, own = clean_url(url, of.query, of.terms_of(url)).partition("?")
        query = query or own
        if url:
            cleaned["url"] = url
    if query and isinstance(query, str):
        text = clean_query(query, of.query, of.terms_of(query))
        if text:
            cleaned["query_string"] = text
    if (given := get("headers")) and isinstance(given, MAPPING):
        kept, filtered, _ = headers[tuple(given)].clean(given, given)
        if kept:
            cleaned["headers"] = kept
            mark(meta, filtered, "request", "headers")
    if of.cookies.mode != "off" and (cookies := get("cookies")) and isinstance(cookies, MAPPING):
        cleaned["cookies"] = of.cookies.clean(cookies, of.terms)
        mark_all(meta, cleaned["cookies"], "request", "cookies")
    if (env := get("env")) and isinstance(env, MAPPING):
        kept = {key: env[key] for key in env if key != "REMOTE_ADDR" or of.user_info}
        if kept:
            cleaned["env"] = kept
    if "incoming_request" in of.bodies and (body := get("data")) is not None:
        body = clean_http_body(body, denies, clean, of.closed_graphql)
        if body not in _EMPTY:
            cleaned["data"] = body
            mark_all(meta, body, "request", "data")
    return cleaned


_EMPTY: Final[tuple[Any, ...]] = (None, "", {})
