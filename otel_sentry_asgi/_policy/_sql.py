"""Statements without their literals.

A tokenizer of one regular expression without nested repetition, so its time is linear in the
text. Where the dialect leaves a doubt about where a string ends, the rest of the statement is
dropped: a shorter statement is better than somebody's name.
"""

from __future__ import annotations

import re
from typing import Final

_COMMENT: Final = r"--[^\n]*|/\*.*?(?:\*/|\Z)"
_DOLLAR: Final = r"\$(?P<tag>[A-Za-z_]\w*)?\$.*?(?:\$(?P=tag)\$|\Z)|\$\$.*?(?:\$\$|\Z)"
_STRING: Final = r"'[^']*(?:''[^']*)*(?:'|\Z)"
_ESCAPED_STRING: Final = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\Z)"
_DOUBLE: Final = r'"[^"\\]*(?:(?:\\.|"")[^"\\]*)*(?:"|\Z)'
_IDENTIFIER: Final = r'"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)'
_NUMBER: Final = (
    r"(?<![\w$@:.%?\"`])[+-]?(?:0[xX][0-9a-fA-F]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b"
)

_FLAGS: Final = re.DOTALL | re.IGNORECASE
_STANDARD: Final = re.compile(
    rf"(?P<comment>{_COMMENT})|(?P<keep>{_IDENTIFIER})|(?P<literal>{_DOLLAR}|{_STRING}|{_NUMBER})",
    _FLAGS,
)
_BACKSLASHES: Final = re.compile(
    rf"(?P<comment>{_COMMENT})|(?P<keep>`[^`]*(?:`|\Z))"
    rf"|(?P<literal>{_ESCAPED_STRING}|{_DOUBLE}|{_NUMBER})",
    _FLAGS,
)

_MYSQL: Final = frozenset({"mysql", "mariadb", "clickhouse"})
_COMMANDS: Final = frozenset(
    {
        "redis",
        "memcached",
        "mongodb",
        "elasticsearch",
        "opensearch",
        "couchdb",
        "couchbase",
        "dynamodb",
        "aws.dynamodb",
        "azure.cosmosdb",
        "cosmosdb",
    }
)
_WORD: Final = re.compile(r"\s*([A-Za-z][\w.]{0,63})")


def without_literals(statement: str, system: str | None) -> str:
    """The statement with `?` for each literal and without comments; placeholders stay.

    Of the commands of key-value and document stores only the first word stays.
    """
    name = (system or "").lower()
    if name in _COMMANDS:
        return _command_word(statement)
    if name in _MYSQL:
        return _BACKSLASHES.sub(_replace, statement)
    sure, escape, _ = statement.partition("\\'")
    # Whether a backslash escapes the quote depends on settings of the server.
    return _STANDARD.sub(_replace, sure) + (" ?" if escape else "")


def _replace(match: re.Match[str]) -> str:
    if match.lastgroup == "comment":
        return " "
    return match.group() if match.group("keep") is not None else "?"


def _command_word(statement: str) -> str:
    word = _WORD.match(statement)
    if word is None:
        return "?"
    return word.group(1) if not statement[word.end() :].strip() else f"{word.group(1)} ?"
