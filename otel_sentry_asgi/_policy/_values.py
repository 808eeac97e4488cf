"""Private values in places that no key describes: frame locals, messages, breadcrumbs."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    INSENSITIVE,
    MAPPING,
    SECRET_HEADERS,
    URL_HEADERS,
    KeyValueRule,
    clean_query,
    clean_url,
)

_SHORTEST_SECRET: Final = 4
"""Shorter values are found everywhere: `1`, `no`, `GET`."""
_LONG_SECRET: Final = 8
"""A part of a value may be a word of the language."""

# What a local variable looks like when it prints a request's headers, cookies, URL or scope.
_CARRIERS: Final = later(
    r"\b(?:Headers|MutableHeaders|RequestHeaders|CIMultiDict|CIMultiDictProxy|EnvironHeaders"
    r"|QueryParams|ImmutableMultiDict|Cookies|URL|Scope)\("
)
# `user:password@` behind a scheme; with a slash in it, if what follows the colon is no port. Of one
# class each and bounded, so linear in the text.
_CREDENTIALS: Final = later(
    r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)"
    r"(?:(?:\[Filtered\]|[^\s/'\"\[]){1,512}"
    r"|(?:\[Filtered\]|[^\s/'\"\[:@]){0,128}:(?![0-9]{1,5}[/?#])[^\s'\"\[]{1,512})@"
)
_QUERY: Final = later(r"(?<=[^\s'\"<>])([?#])([^\s'\"<>]+)")
_PARTS: Final = later(r"[\s,;]+")
_FORWARDED_FOR: Final = later(r"(?i)\bfor=\"?([^\s,;\"]+)")
_WORDS: Final = later(r"[^\s,;&?#=/@:\"]{8,}(?![^\s,;&?#/@:\"])")
"""What stands alone or behind a `=`, not the keys before it."""

# A long value that prints as bytes: a raw body has no keys to judge by.
_BYTES: Final = later(r"(?:b|bytearray\(b)['\"].{20}", re.DOTALL)
_RAW_NAME: Final = later(r"^b?['\"]?([A-Za-z0-9_-]+)['\"]?$")


def secrets_in(raw: Data, cleaned: Data) -> frozenset[str]:
    """The texts of a raw request that are not in its cleaned form."""
    found: list[str] = []
    kept = cleaned.get("headers") or {}
    for name, value in _filtered(raw.get("headers"), kept):
        left = kept.get(name)
        if isinstance(left, str) and left != FILTERED:
            found += _taken_out(value, left)
        elif name == "baggage":
            found += _taken_out(value, "")
        elif name in URL_HEADERS:
            found += _taken_out(value, clean_url(value, INSENSITIVE))
        else:
            found += _parts_of(name, value)
            # A header that came more than once has been joined.
            for one in value.split(", ") if ", " in value else ():
                if len(one) >= _LONG_SECRET:
                    found += _parts_of(name, one)
    for value in _filtered_cookies(raw, cleaned):
        found += (value, unquote(value), value.strip('"'))
    found += _secrets_in_query(raw.get("query_string"), cleaned.get("query_string"))
    found += _secrets_in_body(raw.get("data"), cleaned.get("data"))
    address = (raw.get("env") or {}).get("REMOTE_ADDR")
    if address and not (cleaned.get("env") or {}).get("REMOTE_ADDR"):
        found.append(str(address))
    return frozenset(
        [one for one in set(found) if len(one) >= _SHORTEST_SECRET and one not in FILTERED]
    )


def _filtered(given: Any, kept: Mapping[str, Any]) -> list[tuple[str, str]]:
    items = given.items() if isinstance(given, MAPPING) else ()
    return [
        (name, value) for name, value in items if kept.get(name) != value and isinstance(value, str)
    ]


def _filtered_cookies(raw: Data, cleaned: Data) -> set[str]:
    """Also of those that came more than once: by name there is only the last."""
    kept = cleaned.get("cookies") or {}
    values = {value for _, value in _filtered(raw.get("cookies"), kept)}
    for pair in str((raw.get("headers") or {}).get("cookie", "")).split(";"):
        name, _, value = pair.strip().partition("=")
        if kept.get(name) != value:
            values.add(value)
    return values


def _parts_of(header: str, value: str) -> list[str]:
    """The value, and what of it may stand alone: its last word; addresses of a list of proxies;
    name and password that `Basic` only encodes."""
    parts = [value, value.rpartition(" ")[2]]
    if value[:6].lower() == "basic ":
        with suppress(ValueError):
            decoded = b64decode(value[6:]).decode("utf-8", "replace")
            parts += [decoded, decoded.partition(":")[2]]
    elif "forwarded" in header or "-ip" in header:
        parts += [*_PARTS.split(value), *_FORWARDED_FOR.findall(value)]
    return parts


def _taken_out(raw: str, cleaned: str) -> Iterator[str]:
    """The words of a text by keys (a URL, baggage, a query) that are not in its cleaned form."""
    kept = set(_words(cleaned))
    return (word for word in _words(raw) if word not in kept)


def _words(text: str) -> Iterator[str]:
    """Those of `_LONG_SECRET` characters, also those that a URL in a URL holds."""
    for _ in range(3):
        yield from _WORDS.findall(text)
        decoded = unquote_plus(text)
        if decoded == text:
            return
        text = decoded


def _secrets_in_body(raw: Any, cleaned: Any) -> Iterator[str]:
    """The texts of a parsed body that are not in its cleaned form."""
    if isinstance(raw, str):
        if raw != cleaned:
            yield raw
    elif isinstance(raw, Mapping):
        kept = cleaned if isinstance(cleaned, Mapping) else {}
        for key, value in raw.items():
            yield from _secrets_in_body(value, kept.get(key))
    elif isinstance(raw, (list, tuple)):
        items = cleaned if isinstance(cleaned, list) else []
        for value, item in zip_longest(raw, items):
            yield from _secrets_in_body(value, item)


def _secrets_in_query(raw: str | None, cleaned: str | None) -> Iterator[str]:
    if not raw or raw == cleaned:
        return
    yield raw
    kept = set(_pairs(cleaned or ""))
    for pair in _pairs(raw):
        if pair not in kept:
            yield from (pair[1], unquote_plus(pair[1]))
    yield from _taken_out(raw, cleaned or "")


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    for pair in query.replace(";", "&").split("&"):
        name, equals, value = pair.partition("=")
        yield (name, value) if equals else ("", name)


def text_cleaner(
    secrets: frozenset[str], query: KeyValueRule, terms: tuple[str, ...]
) -> Callable[[str], str]:
    """What takes *secrets*, credentials of URLs and forbidden query parameters out of a text."""
    # The longest first: one may be the beginning of another.
    ordered = sorted(secrets, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in ordered:
            if secret in text:  # Most texts hold none, and a pattern is made slowly.
                text = re.sub("|".join(map(re.escape, ordered)), FILTERED, text)
                break
        if "://" in text and "@" in text:
            text = _CREDENTIALS.sub(rf"\1{FILTERED}@", text)
        if ("?" in text or "#" in text) and ("=" in text or "://" in text):
            text = _QUERY.sub(clean_match, text)
        return text

    def clean_match(match: re.Match[str]) -> str:
        sign, rest = match.groups()
        # What follows a `#` may be anything, also in prose; tokens come as parameters.
        return (
            match[0] if sign == "#" and "=" not in rest else sign + clean_query(rest, query, terms)
        )

    return clean


def clean_strings(value: Any, clean: Callable[[str], str]) -> Any:
    """*value* with *clean* applied to all its texts."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: clean_strings(item, clean) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_strings(item, clean) for item in value]
    return value


def texts_in(value: Any) -> str:
    """All that `clean_strings` would clean, as one text."""
    if isinstance(value, str):
        return value
    if isinstance(value, MAPPING):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return ""
    return "\n".join(map(texts_in, value))


def clean_vars(
    variables: Mapping[str, Any],
    allows: Callable[[str], bool],
    headers: KeyValueRule,
    terms: tuple[str, ...],
    *,
    raw: bool = True,
) -> Data:
    """Frame locals, as sentry-sdk serialises them, without sensitive names and raw request data;
    unless *raw*, without long bytes."""

    def cleaned(key: str, value: Any) -> Any:
        if key and not allows(key.strip("'\"")):
            return FILTERED
        if isinstance(value, Mapping):
            if _is_asgi_scope(value):
                return FILTERED
            return {name: cleaned(str(name), item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return _cleaned_items(value)
        if not isinstance(value, str):
            return value
        is_private = _CARRIERS.search(value) or (not raw and _BYTES.match(value))
        return FILTERED if is_private else value

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
