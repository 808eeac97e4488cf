"""Private values in places that no key describes: frame locals, messages, breadcrumbs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    SECRET_HEADERS,
    KeyValueRule,
)

_SHORTEST_SECRET: Final = 4
"""Shorter values are found everywhere: `1`, `no`, `GET`."""

# What a local variable looks like when it prints a request's headers, cookies, URL or scope.
_CARRIERS: Final = re.compile(
    r"\b(?:Headers|MutableHeaders|RequestHeaders|CIMultiDict|CIMultiDictProxy|EnvironHeaders"
    r"|QueryParams|ImmutableMultiDict|Cookies|URL|Scope)\("
)
# `user:password@` behind a scheme. Of one class each, so linear in the text.
_CREDENTIALS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/@'\"\[]{1,512}@")

_RAW_NAME: Final = re.compile(r"^b?['\"]?([A-Za-z0-9_-]+)['\"]?$")


def secrets_in(raw: Data, cleaned: Data) -> frozenset[str]:
    """The texts of a raw request that are not in its cleaned form."""
    found: set[str] = set()
    kept_headers = cleaned.get("headers") or {}
    for name, value in (raw.get("headers") or {}).items():
        if kept_headers.get(name) != value and isinstance(value, str):
            found.update({value, value.rpartition(" ")[2]})
    kept_cookies = cleaned.get("cookies") or {}
    for name, value in (raw.get("cookies") or {}).items():
        if kept_cookies.get(name) != value and isinstance(value, str):
            found.add(value)
    kept_query = set(parse_qsl(cleaned.get("query_string") or "", keep_blank_values=True))
    for name, value in parse_qsl(raw.get("query_string") or "", keep_blank_values=True):
        if (name, value) not in kept_query:
            found.add(value)
    if raw.get("query_string") and raw.get("query_string") != cleaned.get("query_string"):
        found.add(str(raw["query_string"]))
    address = (raw.get("env") or {}).get("REMOTE_ADDR")
    if address and not (cleaned.get("env") or {}).get("REMOTE_ADDR"):
        found.add(str(address))
    return frozenset(value for value in found if len(value) >= _SHORTEST_SECRET)


def clean_strings(value: Any, secrets: frozenset[str]) -> Any:
    """*value* with every occurrence of a secret replaced, in all its texts, and without the
    credentials of URLs."""
    if isinstance(value, str):
        if "://" in value and "@" in value:
            value = _CREDENTIALS.sub(rf"\1{FILTERED}@", value)
        for secret in secrets:
            if secret in value:
                value = value.replace(secret, FILTERED)
        return value
    if isinstance(value, Mapping):
        return {key: clean_strings(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_strings(item, secrets) for item in value]
    return value


def clean_vars(
    variables: Mapping[str, Any],
    allows: Callable[[str], bool],
    headers: KeyValueRule,
    terms: tuple[str, ...],
) -> Data:
    """Frame locals, as sentry-sdk serialises them, without sensitive names and raw request data."""

    def cleaned(key: str, value: Any) -> Any:
        if key and not allows(key.strip("'\"")):
            return FILTERED
        if isinstance(value, Mapping):
            if _is_asgi_scope(value):
                return FILTERED
            return {name: cleaned(str(name), item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return _cleaned_items(value)
        return FILTERED if isinstance(value, str) and _CARRIERS.search(value) else value

    def _cleaned_items(items: list[Any] | tuple[Any, ...]) -> list[Any]:
        if len(items) == 2 and isinstance(items[0], str) and _is_secret_header(items[0]):
            return [items[0], FILTERED]
        return [cleaned("", item) for item in items]

    def _is_secret_header(text: str) -> bool:
        name = _RAW_NAME.match(text)
        if name is None:
            return False
        header = name.group(1).lower()
        return header in SECRET_HEADERS or not headers.allows(header, terms)

    return {name: cleaned(name, value) for name, value in variables.items()}


def _is_asgi_scope(value: Mapping[str, Any]) -> bool:
    """Whether it is an ASGI scope, or a request or websocket that prints as one. The serialiser
    keeps ten of its keys, so not all are there."""
    keys = {str(key).strip("'\"") for key in value}
    return "asgi" in keys or {"type", "headers"} <= keys
