"""Private values in places that no key describes: frame locals, messages, breadcrumbs."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    INSENSITIVE,
    MAPPING,
    SECRET_HEADERS,
    SENSITIVE,
    URL_HEADERS,
    KeyValueRule,
    clean_path_parameters,
    clean_query,
    clean_url,
    fold,
    hide_credentials,
    is_secret_header,
)

_SHORTEST_SECRET: Final = 4
"""Shorter values are found everywhere: `1`, `no`, `GET`."""
_LONG_SECRET: Final = 8
"""A part of a value may be a word of the language."""
_MANY: Final = 32
"""Secrets from which on it is quicker to look at a text piece by piece."""
MOST_SECRETS: Final = 256
"""Secrets that are taken out of the texts of one event one by one."""

# What a local variable looks like when it prints a request's headers, cookies, URL or scope.
_CARRIERS: Final = later(
    r"\b(?:Headers|MutableHeaders|RequestHeaders|CIMultiDict|CIMultiDictProxy|EnvironHeaders"
    r"|QueryParams|ImmutableMultiDict|Cookies|URL|Scope)\("
)
_QUERY: Final = later(r"(?<=[^\s'\"<>])([?#])([^\s'\"<>]+)")
_PARTS: Final = later(r"[\s,;]+")
_FORWARDED_FOR: Final = later(r"(?i)\bfor=\"?([^\s,;\"]+)")
_WORDS: Final = later(r"[^\s,;&?#=/@:\"]{8,}(?![^\s,;&?#/@:\"])")
"""What stands alone or behind a `=`, not the keys before it."""

# A long value that prints as bytes: a raw body has no keys to judge by.
_BYTES: Final = later(r"(?:b|bytearray\(b)['\"].{20}", re.DOTALL)
_RAW_NAME: Final = later(r"^b?['\"]?([A-Za-z0-9_-]+)['\"]?$")
_PRINTED: Final = later(r"b?(['\"])(.*)\1", re.DOTALL)


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
    for name, value in _filtered_cookies(raw, cleaned):
        # Of a cookie that says nothing of a secret, a short value is a preference.
        if len(value) >= _LONG_SECRET or SENSITIVE[name, ()]:
            found += (value, unquote(value), value.strip('"'))
    found += _secrets_in_query(raw.get("query_string"), cleaned.get("query_string"))
    found += _secrets_in_body(raw.get("data"), cleaned.get("data"))
    address = (raw.get("env") or {}).get("REMOTE_ADDR")
    if address and not (cleaned.get("env") or {}).get("REMOTE_ADDR"):
        found.append(str(address))
    return frozenset(
        [
            form
            for one in set(found)
            if len(one) >= _SHORTEST_SECRET and one not in FILTERED
            for form in _forms_of(one)
        ]
    )


def _forms_of(secret: str) -> set[str]:
    """As it is, and as Python and JSON print it inside of something else."""
    if secret.isascii() and secret.isprintable() and _QUOTED.isdisjoint(secret):
        return {secret}
    printed = repr(f'"{secret}')[2:-1]  # Next to a double quote a single one is escaped.
    return {secret, repr(secret)[1:-1], printed, json.dumps(secret)[1:-1]}


_QUOTED: Final = frozenset("\\'\"")


def long_ones(secrets: frozenset[str]) -> frozenset[str]:
    """Those that are no word of the language."""
    return frozenset(one for one in secrets if len(one) >= _LONG_SECRET)


def _filtered(given: Any, kept: Mapping[str, Any]) -> list[tuple[str, str]]:
    items = given.items() if isinstance(given, MAPPING) else ()
    return [
        (name, value) for name, value in items if kept.get(name) != value and isinstance(value, str)
    ]


def _filtered_cookies(raw: Data, cleaned: Data) -> set[tuple[str, str]]:
    """Also those that came more than once: by name there is only the last."""
    kept = cleaned.get("cookies") or {}
    cookies = set(_filtered(raw.get("cookies"), kept))
    for pair in str((raw.get("headers") or {}).get("cookie", "")).split(";"):
        name, _, value = pair.strip().partition("=")
        if kept.get(name) != value:
            cookies.add((name, value))
    return cookies


def _parts_of(header: str, value: str) -> list[str]:
    """The value, and what of it may stand alone: its last word; addresses of a list of proxies;
    name and password that `Basic` only encodes."""
    parts = [value, value.rpartition(" ")[2]]
    if value[:6].lower() == "basic ":
        with suppress(ValueError):
            decoded = b64decode(value[6:]).decode("utf-8", "replace")
            parts += [decoded, decoded.partition(":")[2]]
    elif header in SECRET_HEADERS:
        parts += _WORDS.findall(value)
    elif "forwarded" in header or "-ip" in header:
        parts += [*_PARTS.split(value), *_FORWARDED_FOR.findall(value)]
        parts += [_PORT.sub("", one).strip("[]") for one in parts]
    return [one for one in parts if one not in _SCHEMES]


_SCHEMES: Final = frozenset({"http", "https"})
_PORT: Final = later(r":[0-9]{1,5}$")


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
    """The texts and numbers of a parsed body that are not in its cleaned form."""
    pending = [(raw, cleaned)]  # No recursion: it may be as deep as its parser takes it.
    while pending:
        raw, cleaned = pending.pop()
        if isinstance(raw, Mapping):
            kept = cleaned if isinstance(cleaned, Mapping) else {}
            pending += [(value, kept.get(key)) for key, value in raw.items()]
        elif isinstance(raw, (list, tuple)):
            pending += zip_longest(raw, cleaned if isinstance(cleaned, list) else ())
        elif raw is not None and raw != cleaned:
            yield str(raw)


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


def found_in(text: str, secrets: frozenset[str]) -> list[str]:
    """Those of *secrets* that are in *text*. A caller may send thousands, and to look for each in
    each text of an event would take seconds."""
    if len(secrets) > _MANY:
        ends = {text[at : at + _SHORTEST_SECRET] for at in range(len(text))}
        return [
            one
            for one in secrets
            if one[:_SHORTEST_SECRET] in ends and one[-_SHORTEST_SECRET:] in ends and one in text
        ]
    return [one for one in secrets if one in text]


def text_cleaner(
    secrets: Iterable[str],
    query: KeyValueRule,
    terms: tuple[str, ...],
    hide: Callable[[str], str] = str,
) -> Callable[[str], str]:
    """What takes *secrets*, credentials of URLs and forbidden query parameters out of a text, and
    what *hide* does.

    URLs first: without a secret that is part of one, `https` say, it would be none any more. But a
    whole query that is a secret would be cut in pieces.
    """
    ordered = sorted(secrets, key=len, reverse=True)  # One may be the beginning of another.
    queries = [one for one in ordered if not _SYNTAX.isdisjoint(one)]
    pattern: re.Pattern[str] | None = None

    def replace(text: str) -> str:
        nonlocal pattern
        if not any(one in text for one in ordered):
            return text
        if pattern is None:  # Made slowly, and most texts hold none.
            pattern = re.compile("|".join(map(re.escape, ordered)))
        return pattern.sub(FILTERED, text)

    def clean(text: str) -> str:
        text = clean_path_parameters(hide_credentials(hide(text)), query, terms)
        if ("?" in text or "#" in text) and ("=" in text or "://" in text):
            plain = _QUERY.sub(clean_match, text)
            if any(one in text and one not in plain for one in queries):
                plain = _QUERY.sub(clean_match, replace(text))
            text = plain
        return replace(text)

    def clean_match(match: re.Match[str]) -> str:
        sign, rest = match.groups()
        # What follows a `#` may be anything, also in prose; tokens come as parameters.
        if sign == "#" and "=" not in rest:
            return match[0]
        # JSON may have the ampersand escaped.
        parts = rest.split("\\u0026")
        return sign + "\\u0026".join([clean_query(part, query, terms) for part in parts])

    return clean


_SYNTAX: Final = frozenset("?#=&;")


def all_filtered(text: str) -> str:
    """For texts that hold more secrets than can be taken out one by one."""
    return FILTERED if text else text


def clean_strings(value: Any, clean: Callable[[str], str]) -> Any:
    """*value* with *clean* applied to all its texts."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: clean_strings(item, clean) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_strings(item, clean) for item in value]
    return value


def texts_in(value: Any, without: Container[Any] = ()) -> str:
    """All that `clean_strings` would clean, as one text, but for what is below keys *without*."""
    if isinstance(value, str):
        return value
    if isinstance(value, MAPPING):
        value = [item for key, item in value.items() if key not in without]
    elif not isinstance(value, (list, tuple)):
        return ""
    return "\n".join([texts_in(item, without) for item in value])


COOKIES: Final = "cookies"
HEADERS: Final = "headers"


def clean_vars(
    variables: Mapping[str, Any],
    allows: Callable[[str], bool],
    headers: KeyValueRule,
    terms: tuple[str, ...],
    *,
    raw: bool = True,
    denied_in: Mapping[str, Callable[[str], bool]] = MappingProxyType({}),
) -> Data:
    """Frame locals, as sentry-sdk serialises them, without sensitive names and raw request data;
    unless *raw*, without long bytes. *denied_in* says of `cookies` and `headers` which keys are
    denied in what is called so."""

    def cleaned(key: str, value: Any, denies: Callable[[str], bool] | None = None) -> Any:
        name = _unprinted(key)
        if key:
            if not allows(name) or is_secret_header(name, headers, terms):
                return FILTERED
            if denies is not None and denies(name):
                return FILTERED
            bag = fold(name).rpartition("-")[2]
            denies = denied_in.get(bag)
            if denies is not None and bag == COOKIES and not isinstance(value, Mapping):
                return FILTERED if isinstance(value, (str, list, tuple)) and value else value
        if isinstance(value, Mapping):
            if _is_asgi_scope(value):
                return FILTERED
            return {name: cleaned(str(name), item, denies) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return _cleaned_items(value, denies)
        if not isinstance(value, str):
            return value
        is_private = _CARRIERS.search(value) or (not raw and _BYTES.match(value))
        return FILTERED if is_private else value

    def _cleaned_items(
        items: list[Any] | tuple[Any, ...], denies: Callable[[str], bool] | None
    ) -> list[Any]:
        if len(items) == 2 and isinstance(items[0], str) and _is_secret_header(items[0], denies):
            return [items[0], FILTERED]
        return [cleaned("", item, denies) for item in items]

    def _is_secret_header(text: str, denies: Callable[[str], bool] | None) -> bool:
        name = _RAW_NAME.match(text)
        if name is None:
            return False
        header = name.group(1).lower()
        if denies is not None and denies(header):
            return True
        return SENSITIVE[header, terms] or is_secret_header(header, headers, terms)

    return {name: cleaned(name, value) for name, value in variables.items()}


def _unprinted(key: str) -> str:
    """A key of which there may be only its repr."""
    printed = _PRINTED.fullmatch(key)
    return printed[2] if printed is not None else key


def _is_asgi_scope(value: Mapping[str, Any]) -> bool:
    """Whether it is an ASGI scope, or a request or websocket that prints as one. The serialiser
    keeps ten of its keys, so not all are there."""
    keys = {str(key).strip("'\"") for key in value}
    return "asgi" in keys or {"type", "headers"} <= keys
