"""Sentry's request interface, cleaned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._body import clean_body
from otel_sentry_asgi._policy._collection import Collection
from otel_sentry_asgi._policy._decide import DROP, Cleaner
from otel_sentry_asgi._policy._rules import MAPPING, clean_query, clean_url


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
    get = request.get
    parts = {"method": get("method")}
    url, query = get("url"), get("query_string")
    if isinstance(url, str):
        url, _, own = clean_url(url, of.query, of.terms).partition("?")
        query = query or own
    parts["url"] = url
    if query and isinstance(query, str):
        parts["query_string"] = clean_query(query, of.query, of.terms)
    if isinstance(given := get("headers"), MAPPING):
        parts["headers"] = _headers(given, headers)
    if of.cookies.mode != "off" and isinstance(cookies := get("cookies"), MAPPING):
        parts["cookies"] = of.cookies.clean(cookies, of.terms)
    if isinstance(env := get("env"), MAPPING):
        kept = {key: env[key] for key in env if key != "REMOTE_ADDR" or of.user_info}
        parts["env"] = kept
    if "incoming_request" in of.bodies and (body := get("data")) is not None:
        parts["data"] = clean_body(body, denies, clean)
    return {key: part for key, part in parts.items() if part not in _EMPTY}


_EMPTY: Final[tuple[Any, ...]] = (None, "", {})


def _headers(given: Mapping[str, Any], cleaners: Mapping[str, Cleaner | None]) -> Data:
    cleaned = {}
    for name, value in given.items():
        clean = cleaners[name]
        kept = value if clean is None else clean(value, given)
        if kept is not DROP:
            cleaned[name] = kept
    return cleaned
