"""Sentry's request interface, cleaned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._body import clean_body
from otel_sentry_asgi._policy._collection import Collection
from otel_sentry_asgi._policy._decide import DROP, Cleaner
from otel_sentry_asgi._policy._rules import clean_query, clean_url


def clean_request(
    request: Data,
    of: Collection,
    headers: Mapping[str, Cleaner | None],
    denies: Callable[[str], bool],
    clean: Callable[[str], str],
) -> Data:
    """A cleaned copy. *headers* gives the cleaner of each header, *denies* is asked of the keys of
    a body, *clean* is for texts that no key describes. What has not the form that our own has is
    left out: Sentry takes requests in forms that hide the keys."""
    cleaned = {key: request[key] for key in ("method", "url") if request.get(key)}
    query = request.get("query_string")
    if isinstance(url := cleaned.get("url"), str):
        cleaned["url"], _, own = clean_url(url, of.query, of.terms).partition("?")
        query = query or own
    if query and isinstance(query, str):
        cleaned["query_string"] = clean_query(query, of.query, of.terms)
    if isinstance(given := request.get("headers"), Mapping):
        cleaned["headers"] = _headers(given, headers)
    if of.cookies.mode != "off" and isinstance(cookies := request.get("cookies"), Mapping):
        cleaned["cookies"] = of.cookies.clean(cookies, of.terms)
    if isinstance(env := request.get("env"), Mapping):
        cleaned["env"] = kept = dict(env)
        if not of.user_info:
            kept.pop("REMOTE_ADDR", None)
    if "incoming_request" in of.bodies and (body := request.get("data")) is not None:
        cleaned["data"] = clean_body(body, denies, clean)
    for key in _MAY_BE_EMPTY:
        if key in cleaned and cleaned[key] in _EMPTY:
            del cleaned[key]
    return cleaned


_MAY_BE_EMPTY: Final = ("url", "query_string", "headers", "cookies", "env", "data")
_EMPTY: Final[tuple[Any, ...]] = (None, "", {})


def _headers(given: Mapping[str, Any], cleaners: Mapping[str, Cleaner | None]) -> Data:
    cleaned = {}
    for name, value in given.items():
        clean = cleaners[name]
        kept = value if clean is None else clean(value, given)
        if kept is not DROP:
            cleaned[name] = kept
    return cleaned
