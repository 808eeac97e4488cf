"""Rules by key: which values of headers, cookies, query parameters and attributes stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_plus

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._memo import Answers

FILTERED: Final = "[Filtered]"

MAPPING: Final = (dict, Mapping)
"""To ask for the class first: of an abstract class each question is dear."""

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

# Names that no term above matches, of what signs a URL (OTel and the cloud vendors) or logs in:
# one-time codes, tickets of CAS, OAuth's proofs, codes of Firebase's mails.
_CREDENTIALS_BY_NAME: Final = frozenset(
    {
        *("sig", "signature", "x-goog-signature", "x-amz-signature", "x-oss-signature"),
        *("q-signature", "x-goog-credential", "x-amz-credential", "x-oss-credential", "hmac"),
        *("otp", "totp", "hotp", "otp-code", "otpcode", "totp-code", "mfa-code", "mfacode"),
        *("2fa-code", "one-time-code", "passcode", "passphrase"),
        *("code-verifier", "client-assertion", "oobcode", "pgtid", "pgtiou"),
    }
)

# What is a credential as a parameter of a URL, and any word elsewhere.
_CREDENTIAL_PARAMETERS: Final = frozenset({"pass", "pw", "device_code", "user_code", "assertion"})
# The same where the value looks like one: a ticket may be one of a help desk, a code a country.
_MAYBE_CREDENTIALS: Final = frozenset({"ticket", "code"})
_LIKE_A_CREDENTIAL: Final = later(r"\A(?:ST|PT|PGT)-\w+-|[A-Za-z0-9_.~-]{20}")
# OAuth's code, known by what comes with it. No code of OAuth is as short as that of a country.
_BESIDE_CODES: Final = frozenset(
    {"state", "session_state", "client_id", "redirect_uri", "grant_type", "code_verifier"}
)
_OAUTH: Final = later(rf"(?:^|[&;])(?:{'|'.join(sorted(_BESIDE_CODES))})=")
_OAUTH_CODE: Final = later(r"((?:^|[&;])code=)[^&;]{6,}")

# Headers whose value is never anything but a secret, or the cookies, which have rules of their own.
SECRET_HEADERS: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-pass",
        "x-pw",
        "sec-websocket-protocol",  # Browsers can send a token nowhere else.
    }
)

# Headers whose value is a URL.
URL_HEADERS: Final = frozenset(
    {
        "referer",
        "location",
        "content-location",
        "origin",
        "refresh",
        "x-original-url",
        "x-original-uri",
        "x-rewrite-url",
        "x-envoy-original-path",
    }
)

# In the names of headers only: cookies, certificates, signatures, one-time codes, identities from
# proxies.
SECRET_HEADER_TERMS: Final = (
    "cookie",
    "oidc",
    "certificate",
    "-s-dn",
    "ssl-client",
    "tls-client",
    "signature",
    "passphrase",
)
# The same as whole words: `cert`, not `concert`.
SECRET_HEADER_WORDS: Final = frozenset(
    {"cert", "certs", "certchain", "dn", "dpop", "otp", "totp", "hotp", "pin", "mfa", "2fa"}
)

# Who and where the client is, under names that sentry-sdk's terms do not match.
PERSONAL_HEADER_TERMS: Final = (
    "clientip",
    "client-addr",
    "socketip",
    "external-addr",
    "viewer-addr",
    "envoy-downstream",
    "source-addr",
    "peer-addr",
    "latitude",
    "longitude",
    "latlong",
    "-city",
    "postal-code",
    "edgescape",
    "client-geo",
    "client-principal",
    "pomerium-claim",
    "credential-id",
    "x-consumer-",
    "email",
)
PERSONAL_HEADERS: Final = frozenset({"from"})

# Which one of `PERSONAL_TERMS` denies, though it is the service that they are about.
IMPERSONAL_HEADERS: Final = frozenset(
    {
        *("x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix"),
        "sec-fetch-user",  # Whether somebody clicked.
    }
)

# Keys of baggage that tell of the user: `userId`, `enduser_email`.
PERSONAL_BAGGAGE_TERMS: Final = ("user", "email")

_LONGEST_FLAG: Final = 20
_PAIRS: Final = later(r"([&;])")
_ENTRIES: Final = later(r"([,;])")
_URL_IN_QUERY: Final = later(r"(?=.*[?@#])(?:[A-Za-z][A-Za-z0-9+.-]*:/)?/", re.DOTALL)
_AUTHORITY: Final = later(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?//|(?=/)|)([^/?#]*)")
_HOST_AND_PORT: Final = later(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
_IN_VALUE: Final = later(r"[%/?#@=]")
_IN_TEXT: Final = later(r"([?#&;])")
_PATH_PARAMETER: Final = later(r";([^=;/?#&\s'\"<>]{2,64})=([^;/?#&\s'\"<>]+)")

# `user:password@` of URLs anywhere in a text, the slashes also as JSON escapes them. No part runs
# beyond the next `//` but the last, which is bounded: so linear in the text.
_SLASHES: Final = r"\\{0,4}/\\{0,4}/"
_USER: Final = (
    r"(?:\[Filtered\]|[^\s/'\"\[:@]){0,128}:"
    rf"(?![0-9]{{1,5}}[/?#'\"\\]|{_SLASHES})"  # Neither a port nor another URL.
)
_CREDENTIALS: Final = later(
    rf"(:{_SLASHES})(?:\[Filtered\]|[^\s/'\"\[])+@"
    # With a slash, a quote or a bracket in it.
    rf"|(:?{_SLASHES}){_USER}(?:[^\s\"/]|/(?!\\{{0,4}}/))+@"
    rf"|(:{_SLASHES}){_USER}[^\s'\"]{{1,512}}@"
)
# The same percent-encoded, once or more often, up to what ends the host at the same level.
_ENCODED_CREDENTIALS: Final = later(
    r"(%(?P<level>(?:25){0,3})3A(?:%(?P=level)2F){2})"
    r"(?:(?!%(?P=level)(?:2F|3F|23|26))[^\s/?#&;'\"])+(%(?P=level)40)",
    re.IGNORECASE,
)
_ENCODED_MARK: Final = later(r"%(?:25){0,3}(?:3F|23)", re.IGNORECASE)
_ENCODED_QUESTION: Final = later(r"%(?:25){0,3}3F", re.IGNORECASE)


def fold(key: str) -> str:
    """OTel writes captured header names with underscores; rules are written with hyphens."""
    return key.lower().replace("_", "-")


class KeyValueRule(NamedTuple):
    """One category of `data_collection`: `off`, `denylist` or `allowlist`, with its own terms."""

    mode: str = "denylist"
    terms: tuple[str, ...] = ()

    def allows(self, key: str, extra: tuple[str, ...] = ()) -> bool:
        """Whether the value under *key* may stay. Built-in terms win over an allow-list."""
        return _allowed[key, extra, self]

    def clean(self, items: Mapping[str, Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
        """Every key with its value or `[Filtered]`; nothing at all when the mode is `off`."""
        if self.mode == "off":
            return {}
        return {key: value if self.allows(key, extra) else FILTERED for key, value in items.items()}


NOTHING: Final = KeyValueRule("off")
INSENSITIVE: Final = KeyValueRule("denylist")
IMPERSONAL: Final = KeyValueRule("denylist", PERSONAL_TERMS)


def _allows(asked: tuple[str, tuple[str, ...], KeyValueRule]) -> bool:
    key, extra, rule = asked
    if rule.mode == "off" or SENSITIVE[key, extra]:
        return False
    return bool(term_in(key, rule.terms)) is (rule.mode == "allowlist")


def is_sensitive(key: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a built-in or an *extra* term is in the key, or it is the name of a credential."""
    return fold(key).rpartition(".")[2] in _CREDENTIALS_BY_NAME or bool(
        term_in(key, SENSITIVE_TERMS) or term_in(key, extra)
    )


_allowed: Final = Answers(_allows)
SENSITIVE: Final = Answers(lambda asked: is_sensitive(*asked))
"""What `is_sensitive` says, remembered: by key and extra terms."""


def term_in(key: str, terms: tuple[str, ...]) -> str:
    """The first of *terms* that the key contains, in any case, with hyphens or underscores; else
    an empty text."""
    folded = fold(key)
    return next((term for term in terms if term and fold(term) in folded), "")


def is_secret_header(key: str, headers: KeyValueRule, extra: tuple[str, ...] = ()) -> bool:
    """Whether a key of other data (a dictionary of headers, an environment) is the name of a header
    with credentials or cookies, or one that *headers* denies. By the name alone, so where headers
    are off or on a list, those with a sensitive or personal term."""
    name = fold(key)
    if key.startswith(("HTTP_", "REMOTE_")):  # Of WSGI and CGI.
        name = name.removeprefix("http-")
    elif "-" not in key:
        return name in SECRET_HEADERS
    if name in SECRET_HEADERS or secret_header_term(name):
        return True
    rule = headers if headers.mode == "denylist" else IMPERSONAL
    if rule is IMPERSONAL and name in IMPERSONAL_HEADERS:
        rule = INSENSITIVE
    return not rule.allows(name, extra)


def secret_header_term(name: str) -> str:
    """What in the folded *name* of a header says that it proves who somebody is, else an empty
    text."""
    words = SECRET_HEADER_WORDS.intersection(name.split("-"))
    return min(words) if words else term_in(name, SECRET_HEADER_TERMS)


def is_plain(text: str) -> bool:
    """Whether the text holds no credentials, query, fragment or path parameter of a URL: these have
    signs, which may be encoded."""
    return (
        "?" not in text
        and "#" not in text
        and "@" not in text
        and "%" not in text
        and (";" not in text or _PATH_PARAMETER.search(text) is None)
    )


def clean_query(query: str, rule: KeyValueRule, extra: tuple[str, ...] = ()) -> str:
    """The query string with the values of forbidden parameters filtered, order and encoding
    kept."""
    return _clean_query(query, rule, extra, 0)


@lru_cache(maxsize=1)  # A request tells its query two or three times.
def _clean_query(query: str, rule: KeyValueRule, extra: tuple[str, ...], depth: int) -> str:
    """*depth* says in how many values of queries, or encodings of them, the query stands."""
    if rule.mode == "off":
        return ""
    if "code=" in query and _OAUTH.search(query):
        query = _OAUTH_CODE.sub(rf"\1{FILTERED}", query)
    if ";" not in query:  # Nearly always, and a pattern is dear.
        return "&".join([_clean_pair(pair, rule, extra, depth) for pair in query.split("&")])
    parts = _PAIRS.split(query)
    return "".join(
        part if part in "&;" else _clean_pair(part, rule, extra, depth) for part in parts
    )


def clean_baggage(
    text: str,
    rule: KeyValueRule,
    extra: tuple[str, ...] = (),
    denies: Callable[[str], bool] = lambda _key: False,
) -> str:
    """The value of a `baggage` header, entries and their properties by key like parameters; without
    the values of keys that *denies*, too."""
    if rule.mode == "off":
        return FILTERED

    def cleaned(part: str) -> str:
        name, _, value = part.partition("=")
        if value and denies(unquote_plus(name).strip()):
            return f"{name}={FILTERED}"
        return _clean_pair(part, rule, extra, depth=0)

    return "".join(part if part in ",;" else cleaned(part) for part in _ENTRIES.split(text))


def _clean_pair(pair: str, rule: KeyValueRule, extra: tuple[str, ...], depth: int) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        # A bare word may be a flag, or a token that no key describes: `?eyJhbGciOi...`.
        return pair if len(name) < _LONGEST_FLAG else FILTERED
    plain = name if "%" not in name and "+" not in name else unquote_plus(name)
    if value and (not rule.allows(plain, extra) or _is_credential(plain, value)):
        return f"{name}={FILTERED}"
    if not _IN_VALUE.search(value):
        return pair
    cleaned = _clean_value(value, rule, extra, depth) if depth < _DEEPEST else FILTERED
    if cleaned == value:
        return pair
    is_clean = not depth and _clean_value(cleaned, rule, extra, depth) == cleaned
    return f"{name}={cleaned if is_clean else FILTERED}"


def _is_credential(name: str, value: str) -> bool:
    """Whether the parameter is one, though its name is no sensitive one elsewhere."""
    if name in _MAYBE_CREDENTIALS:
        return _LIKE_A_CREDENTIAL.search(value) is not None
    return name in _CREDENTIAL_PARAMETERS


def is_oauth_code(body: Mapping[str, Any]) -> bool:
    """Whether the code in a body is one of OAuth: as JSON has things with a code and a state, by
    its length, too."""
    code = body.get("code")
    return (
        isinstance(code, str)
        and _LIKE_A_CREDENTIAL.search(code) is not None
        and not _BESIDE_CODES.isdisjoint(body)
    )


_DEEPEST: Final = 4
"""Values in values that are looked at."""


def _clean_value(value: str, rule: KeyValueRule, extra: tuple[str, ...], depth: int) -> str:
    """The value of a parameter, which may be a URL, or a text with credentials or parameters."""
    decoded = unquote_plus(value)
    if _URL_IN_QUERY.match(decoded):
        cleaned = clean_url(decoded, rule, extra, depth=depth + 1)
    else:
        cleaned = "".join(
            # The padding of base64 is no value.
            _clean_pair(part, rule, extra, depth + 1) if part.rstrip("=").count("=") else part
            for part in _IN_TEXT.split(hide_credentials(decoded))
        )
    if depth < _DEEPEST and "%" in cleaned and cleaned != value:
        cleaned = _clean_value(cleaned, rule, extra, depth + 1)
    return value if cleaned == decoded else quote(cleaned, safe="", errors="replace")


def clean_url(url: str, rule: KeyValueRule, extra: tuple[str, ...] = (), *, depth: int = 0) -> str:
    """The URL without credentials, with its query cleaned, and without its fragment."""
    if is_plain(url):
        return url
    base, _, _ = without_credentials(url).partition("#")
    base, question, query = base.partition("?")
    base = clean_path_parameters(base, rule, extra)
    if (hidden := hide_credentials(base)) != base:  # There may be others in its path.
        base = without_credentials(hidden)
    if "%" in base:
        base = without_encoded_query(base, rule, extra, depth)
    kept = _clean_query(query, rule, extra, depth) if question else ""
    return f"{base}?{kept}" if kept else base


def without_encoded_query(
    path: str, rule: KeyValueRule, extra: tuple[str, ...], depth: int = 0
) -> str:
    """The path without a forbidden query or fragment that it holds with its mark encoded."""
    mark = (_ENCODED_QUESTION if rule.mode == "off" else _ENCODED_MARK).search(path)
    if mark is None:
        return path
    if rule.mode == "off" or depth == _DEEPEST:
        return path[: mark.start()]
    query = path[mark.end() :]
    is_clean = _clean_value(query, rule, extra, depth) == query
    return path if is_clean else path[: mark.end()] + FILTERED


def clean_path_parameters(text: str, rule: KeyValueRule, extra: tuple[str, ...] = ()) -> str:
    """The text without the values of forbidden parameters in paths: `/app;jsessionid=...`."""
    if ";" not in text:
        return text
    rule = rule if rule.mode == "denylist" else INSENSITIVE  # The path itself stays.

    def cleaned(match: re.Match[str]) -> str:
        name = match.group(1)
        return match.group() if rule.allows(unquote_plus(name), extra) else f";{name}={FILTERED}"

    return _PATH_PARAMETER.sub(cleaned, text)


def hide_credentials(text: str) -> str:
    """The text with `[Filtered]@` for `user:password@` of the URLs in it."""
    if "@" in text and "/" in text:
        text = _CREDENTIALS.sub(rf"\1\2\3{FILTERED}@", text)
    return hide_encoded_credentials(text)


def hide_encoded_credentials(text: str) -> str:
    """The same, for those that are percent-encoded."""
    if "%" in text and "40" in text:
        text = _ENCODED_CREDENTIALS.sub(r"\1%\g<level>5BFiltered%\g<level>5D\3", text)
    return text


def without_credentials(url: str) -> str:
    """The URL without `user:password@`."""
    for _ in range(MOST_PASSES):
        kept = _without_first(url)
        if kept == url:
            return url
        url = kept  # Once more: what is left may have others now.
    return url.rpartition("@")[2]


MOST_PASSES: Final = 4
"""After which a text is taken for hostile."""


def _without_first(url: str) -> str:
    if "@" not in url:
        return url
    match = _AUTHORITY.match(url)
    assert match is not None  # All in it may be empty.
    start, authority, rest = match.group(1), match.group(2), url[match.end() :]
    host = authority.rpartition("@")[2]
    if "@" in rest and not _HOST_AND_PORT.fullmatch(host):
        # No host ends like this, but a password may: `user:pa?ss@host`.
        return start + rest.rpartition("@")[2]
    return start + host + rest
