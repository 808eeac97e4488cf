"""Values by key that are written in a text (JSON, what Python prints, connection strings), and
tokens that say what they are.

JSON may be cut, stand in a sentence or in other JSON, so it is not parsed. Each pattern takes no
more than a name or its value, and what has been taken is not looked at again: the time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._rules import FILTERED, is_plain

_NAMES: Final = later(
    r"(?<=[(\[])b?(?P<mark>[\"'])(?P<first>[^\"'\\\n]{1,64})(?P=mark),\s?(?=b?[\"'])"
    r"|(?P<quote>\\{0,3}[\"'])(?P<key>[^\"'\\\n]{1,64})(?P=quote)\s{0,8}:\s{0,8}"
    r"|(?<![\w.])(?P<name>[A-Za-z_][\w.-]{0,63})\s?=(?!=)\s?"
)
"""The beginning of a pair in a list, of one with a colon (also escaped), of one with an equals sign
(also of an argument)."""

_STRING: Final = later(
    r"b?(?:\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"|\\?\Z)|'[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z))"
    r"|(?P<level>\\{1,3})(?:"
    r"\"(?:[^\"\\]+|\\+(?![\"\\])|(?P=level)\\+\")*(?:\\*\"|\\*\Z)"
    r"|'(?:[^'\\]+|\\+(?!['\\])|(?P=level)\\+')*(?:\\*'|\\*\Z))",
    re.DOTALL,
)
"""What is quoted; where the quotes are escaped, up to one that is no more so."""
_BARE: Final = later(r"(?![A-Za-z]+ [A-Za-z[])(?:<(?:[^<>]|<[^<>]*>)*>?|[^\s,;}\])\"'(]+)")
"""A number, a word or an object, but no sentence (`'password': Field required`)."""
_OBJECT: Final = later(r"[A-Z]\w*(?=\(b?['\"])|<[A-Z]\w*: [^<>]*>?")
"""As an argument in what Python prints: `UUID('...')`, `<Token: ...>`."""
_BRACKETS: Final = later(
    r"\"[^\"\\]*(?:\\.[^\"\\]*)*\"?|'[^'\\]*(?:\\.[^'\\]*)*'?|(?P<open>[\[{(])|[\]})]", re.DOTALL
)
_HARMLESS: Final = frozenset({"null", "None", "true", "True", "false", "False", FILTERED})

# What has no quotes is a value of a connection string, or any word behind a name. So only what is
# called a password, or as plainly.
_PASSWORD: Final = later(
    r"(?:passw(?:or)?d|pwd|passphrase|secret|(?:access|account|api|private|secret)[_-]?key"
    r"|(?:access|api|auth|bearer|id|refresh|security|session)[_-]?token|accesssignature)\Z",
    re.IGNORECASE,
)
_QUOTE_INSIDE: Final = r"['\"](?![\s,:;}\])]|\Z)"
_BRACED: Final = r"\{[^}]*(?:\}\}[^}]*)*(?:\}|\Z)"


def _up_to(ends: str) -> re.Pattern[str]:
    bare = rf"(?:[^'\"{ends}]|{_QUOTE_INSIDE})"
    return later(rf"{_BRACED}{bare}*|{bare}+")


# By what stands before the name.
_UNQUOTED: Final = {
    ";": _up_to(r";\n"),
    ",": _up_to(r",;\s"),
    "&": _up_to(r"&;\s"),
    "?": _up_to(r"&;\s"),
}
_WORD: Final = _up_to(r";\s")
_BEHIND: Final = ",)]}>."
_CLOSED: Final = (")", "]", "")
_OPENING: Final = ("(", "[", "{")
_PLACEHOLDER: Final = later(r"\?|%s|%\(\w+\)s|\$\d{1,3}|:\w+|\*+")
"""In place of a value, in statements and where somebody has hidden it."""

# A pair whose name has two letters and whose value is quoted or an object, or that ends as those of
# `_PASSWORD` do.
_ASSIGNED: Final = later(
    r"=(?:(?<=[dDeEtTyYnN]=)|(?<=\w =)|(?<=\w\w=)(?:b?['\"]|[A-Z]\w*\(|<[A-Z]))"
)


def may_hold_pairs(text: str) -> bool:
    """Whether there is a sign of a pair."""
    return (
        '":' in text
        or "':" in text
        or ("=" in text and _ASSIGNED.search(text) is not None)
        or "('" in text
        or "(b'" in text
    )


# Headers as they are sent, tokens behind their scheme (which are no words: they have digits), JWTs.
_TOKENS: Final = later(
    r"((?i:\bbearer) +)(?=[\w.~+/-]*\d)[\w.~+/-]{8,}=*"
    r"|((?i:\bauthorization: ?(?:basic|bearer|token|digest|negotiate|apikey|aws4-hmac-sha256)) +)"
    r"[^\r\n'\"]+"
    r"|((?i:\b(?:set-)?cookie: ?))[^\s=;,'\"]{1,64}=[^\r\n'\"]*"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w.-]+"
)


def may_hold_tokens(text: str) -> bool:
    """Whether there is a sign of what `hide_tokens` looks for."""
    return "eyJ" in text or "earer " in text or "ization:" in text or "ookie:" in text


def hide_tokens(text: str) -> str:
    """The text with `[Filtered]` for tokens."""
    return _TOKENS.sub(rf"\1\2\3{FILTERED}", text) if may_hold_tokens(text) else text


def is_plain_text(text: str) -> bool:
    """Whether there is no sign of anything that a text may have to lose."""
    return is_plain(text) and not may_hold_pairs(text) and not may_hold_tokens(text)


def hide_pairs(text: str, denies: Callable[[str], bool]) -> str:
    """The text with `[Filtered]` for the values of keys that *denies* says so of."""
    if not may_hold_pairs(text):
        return text
    pieces: list[str] = []
    done = 0
    pair = _NAMES.search(text)
    while pair is not None:
        at = pair.end()
        denied = _denied(text, pair, denies)
        if denied is not None:
            pieces += (text[done:at], denied[0])
            done = at = denied[1]
        pair = _NAMES.search(text, at)
    return "".join((*pieces, text[done:])) if pieces else text


def _denied(
    text: str, pair: re.Match[str], denies: Callable[[str], bool]
) -> tuple[str, int] | None:
    """What to write for the value that follows, and where it ends; None where it may stay."""
    key, at = pair[pair.lastgroup or 0], pair.end()
    string = _STRING.match(text, at)
    if string is not None:
        if pair.lastgroup == "first" and text[string.end() : string.end() + 1] not in _CLOSED:
            return None  # A list of names.
        quote = string[0].lstrip("b")
        quote = quote[: len(quote) - len(quote.lstrip("\\")) + 1]
        return (f"{quote}{FILTERED}{quote}", string.end()) if denies(key) else None
    if pair.lastgroup == "name":
        made = _OBJECT.match(text, at)
        if made is not None:
            return (FILTERED, _end_of(text, made.end())) if denies(key) else None
        return _unquoted(text, pair) if _PASSWORD.search(key) else None
    if not denies(key):
        return None
    end = at
    if not text.startswith(_OPENING, at):
        bare = _BARE.match(text, at)
        if bare is None or bare[0] in _HARMLESS:
            return None
        if bare[0].isdecimal() and key.endswith("tokens"):
            return None  # It says how many.
        end = bare.end()
    quote = pair["quote"]
    return f"{quote}{FILTERED}{quote}", _end_of(text, end)


def _unquoted(text: str, pair: re.Match[str]) -> tuple[str, int] | None:
    start = pair.start()
    before = text[max(0, start - 2) : start].rstrip()[-1:]
    value = _UNQUOTED.get(before, _WORD).match(text, pair.end())
    if value is None or value[0] in _HARMLESS:
        return None
    if value[0].startswith("{"):
        return FILTERED, value.end()
    # What closes the sentence or the call around it stays.
    bare = value[0].removeprefix(FILTERED)
    plain = bare.rstrip(_BEHIND)
    if plain in _HARMLESS or _PLACEHOLDER.fullmatch(plain):
        return None
    return FILTERED, value.end() - len(bare) + len(plain)


def _end_of(text: str, at: int) -> int:
    """Where what a bracket opens there is closed."""
    if not text.startswith(_OPENING, at):
        return at
    depth = 0
    for token in _BRACKETS.finditer(text, at):
        if token["open"]:
            depth += 1
        elif token[0] in ("]", "}", ")"):
            depth -= 1
            if not depth:
                return token.end()
    return len(text)
