"""Rules by key: which values of headers, cookies, query parameters and attributes stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

FILTERED: Final = "[Filtered]"

# sentry-sdk's built-in terms (`data_collection._SENSITIVE_DENYLIST`): substrings, in any case.
SENSITIVE_TERMS: Final = (
    "auth",
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "key",
    "jwt",
    "bearer",
    "sso",
    "saml",
    "csrf",
    "xsrf",
    "credentials",
    "session",
    "sid",
    "identity",
)

# What sentry-sdk adds to them while personal data is off.
PERSONAL_TERMS: Final = ("forwarded", "-ip", "remote-", "via", "-user")

# Query parameters that sign a URL (OTel and the cloud vendors), which no term above matches.
_SIGNATURES: Final = frozenset({"sig", "signature", "x-goog-signature", "x-amz-signature"})

# Headers whose value is never anything but a secret, or the cookies, which have rules of their own.
SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"}
)


_LONGEST_FLAG: Final = 20


def fold(key: str) -> str:
    """OTel writes captured header names with underscores; rules are written with hyphens."""
    return key.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class KeyValueRule:
    """One category of `data_collection`: `off`, `denylist` or `allowlist`, with its own terms."""

    mode: str = "denylist"
    terms: tuple[str, ...] = ()

    def allows(self, key: str, extra: tuple[str, ...] = ()) -> bool:
        """Whether the value under *key* may stay. Built-in terms win over an allow-list."""
        lowered, folded = key.lower(), fold(key)
        if self.mode == "off" or is_sensitive(lowered, folded, extra):
            return False
        matches = any(term in lowered or term in folded for term in self.terms)
        return matches if self.mode == "allowlist" else not matches

    def clean(self, items: Mapping[str, Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
        """Every key with its value or `[Filtered]`; nothing at all when the mode is `off`."""
        if self.mode == "off":
            return {}
        return {key: value if self.allows(key, extra) else FILTERED for key, value in items.items()}


NOTHING: Final = KeyValueRule("off")
INSENSITIVE: Final = KeyValueRule("denylist")
IMPERSONAL: Final = KeyValueRule("denylist", PERSONAL_TERMS)


def is_sensitive(lowered: str, folded: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a built-in or an *extra* term is in the key, or it signs a URL."""
    if lowered in _SIGNATURES:
        return True
    return any(term in lowered or term in folded for term in (*SENSITIVE_TERMS, *extra))


def clean_query(query: str, rule: KeyValueRule, extra: tuple[str, ...] = ()) -> str:
    """The query string with the values of forbidden parameters filtered, order and encoding
    kept."""
    if rule.mode == "off":
        return ""
    return "&".join(_clean_pair(pair, rule, extra) for pair in query.split("&"))


def _clean_pair(pair: str, rule: KeyValueRule, extra: tuple[str, ...]) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        # A bare word may be a flag, or a token that no key describes: `?eyJhbGciOi...`.
        return pair if len(name) < _LONGEST_FLAG else FILTERED
    if not value or rule.allows(unquote_plus(name), extra):
        return pair
    return f"{name}={FILTERED}"


def clean_url(
    url: str, rule: KeyValueRule, extra: tuple[str, ...] = (), *, fragment: bool = False
) -> str:
    """The URL without credentials, with its query cleaned, and without its fragment."""
    base, _, rest = url.partition("#")
    base, question, query = base.partition("?")
    cleaned = without_credentials(base)
    if question:
        kept = clean_query(query, rule, extra)
        cleaned = f"{cleaned}?{kept}" if kept else cleaned
    return f"{cleaned}#{rest}" if fragment and rest else cleaned


def without_credentials(url: str) -> str:
    """The URL without `user:password@`."""
    if "@" not in url:
        return url
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url.removeprefix("//")
        separator = "//" if url.startswith("//") else ""
    authority, slash, path = rest.partition("/")
    if not separator and not authority:
        return url
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
