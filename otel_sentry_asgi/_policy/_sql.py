"""Statements without their literals.

Tokenizers of one regular expression each. No repetition in them can match the same text in two
ways, and a token without an end runs to the end of the text, so the time is linear. Where the
dialect leaves a doubt about where a string ends, the rest of the statement is dropped: a shorter
statement is better than somebody's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

from otel_sentry_asgi._patterns import later

# A comment in a comment: some dialects nest them, so the rest is dropped.
_COMMENT: Final = r"--[^\n]*|/\*[^*/]*(?:(?:\*(?!/)|/(?!\*))[^*/]*)*\*/|/\*.*"
_HASH_COMMENT: Final = rf"{_COMMENT}|\#[^\n]*"

_STRING: Final = r"'[^']*(?:''[^']*)*(?:'|\Z)"
_ESCAPED_STRING: Final = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)"
_DOUBLE: Final = r'"[^"]*(?:""[^"]*)*(?:"|\Z)'
_ESCAPED_DOUBLE: Final = r'"[^"\\]*(?:(?:\\.|"")[^"\\]*)*(?:"|\\?\Z)'
_DOLLAR: Final = (
    r"(?<![a-z_])(?:\$(?P<tag>[A-Za-z_]\w*)\$.*?(?:\$(?P=tag)\$|\Z)|\$\$.*?(?:\$\$|\Z))"
)
_Q_QUOTE: Final = (
    r"(?<!\w)n?q'(?:\[.*?(?:\]'|\Z)|\{.*?(?:\}'|\Z)|\(.*?(?:\)'|\Z)|<.*?(?:>'|\Z)"
    r"|(?P<quote>.).*?(?:(?P=quote)'|\Z))"
)
_NUMBER: Final = (
    r"(?<![\w$@:.%?\"`])[+-]?(?:0x[0-9a-f]+|\d[\d_]*(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"
    r"(?!\w)"
)

_QUOTED_NAME: Final = r'"[^"]*"'
_BACKTICK_NAME: Final = r"`[^`]*`"
_BRACKET_NAME: Final = r"\[[^\]]*\]"
# SQLite takes a double-quoted text for a string where no column is called so.
_LIKELY_NAME: Final = r'(?<![=<>])(?<![=<>]\s)"[A-Za-z_][\w$]*"|"[A-Za-z_][\w$]*"(?=\s*\.)'


# Comments, quoted names, and literals beside numbers.
_STANDARD: Final = (_COMMENT, _QUOTED_NAME, _DOLLAR, _Q_QUOTE, _STRING)
_BRACKETS: Final = (_COMMENT, rf"{_QUOTED_NAME}|{_BRACKET_NAME}", _STRING, r"\[.*")
_SQLITE: Final = (
    *(_COMMENT, rf"{_BACKTICK_NAME}|{_BRACKET_NAME}|{_LIKELY_NAME}"),
    *(_STRING, _DOUBLE, r"\[.*"),
)
_ESCAPES: Final = (_HASH_COMMENT, _BACKTICK_NAME, _ESCAPED_STRING, _ESCAPED_DOUBLE)
_UNKNOWN: Final = (_HASH_COMMENT, _BACKTICK_NAME, _DOLLAR, _Q_QUOTE, _STRING, _DOUBLE)


@cache
def _tokens(comment: str, names: str, *literals: str) -> re.Pattern[str]:
    """A pattern with a group for each kind of token; what is no token stays. Compiled when it is
    first needed: an import need not wait for it."""
    literal = "|".join((*literals, _NUMBER))
    pattern = rf"(?P<comment>{comment})|(?P<name>{names})|(?P<literal>{literal}|[\"`].*)"
    return re.compile(pattern, re.DOTALL | re.IGNORECASE)


_DIALECTS: Final = {
    _STANDARD: """
        postgresql redshift aws.redshift cockroachdb oracle oracle.db db2 ibm.db2 informix
        ibm.informix snowflake h2 h2database hsqldb derby teradata vertica firebird firebirdsql
        trino presto hanadb sap.hana maxdb sap.maxdb netezza ibm.netezza cassandra duckdb
        timescaledb
    """,
    _BRACKETS: "mssql microsoft.sql_server mssqlcompact sqlserver sybase",
    _SQLITE: "sqlite",
    _ESCAPES: "mysql mariadb clickhouse gcp.spanner spanner hive spark databricks neo4j",
}
_BY_SYSTEM: Final = {
    system: dialect for dialect, systems in _DIALECTS.items() for system in systems.split()
}
_STORES: Final = """
    redis valkey memcached mongodb elasticsearch opensearch couchdb couchbase dynamodb
    aws.dynamodb azure.cosmosdb cosmosdb
"""
_COMMANDS: Final = frozenset(_STORES.split())
_WORD: Final = later(r"\s*([A-Za-z][\w.]{0,63})(?!\w)")


def is_command(system: str) -> bool:
    """Whether the system is a key-value or document store, whose statements are commands."""
    return system.lower() in _COMMANDS


def system_of(attributes: Mapping[str, Any]) -> str:
    """The database's name, under the stable or the older attribute."""
    system = attributes.get("db.system.name") or attributes.get("db.system") or ""
    return system if isinstance(system, str) else str(system)


def without_literals(statement: str, system: str = "") -> str:
    """The statement with `?` for each literal and without comments; placeholders stay.

    Of the commands of key-value and document stores only the first word stays.
    """
    if len(statement) > _LONGEST_REMEMBERED:
        return _without_literals(statement, system)
    return _remembered(statement, system)


def _without_literals(statement: str, system: str) -> str:
    if is_command(system):
        return _command_word(statement)
    if not _MAY_HOLD_LITERALS.search(statement):
        return statement
    dialect = _BY_SYSTEM.get(system.lower(), _UNKNOWN)
    if dialect is _ESCAPES:
        return _tokens(*dialect).sub(_replace, statement)
    # Whether a backslash escapes the quote depends on dialect and settings of the server.
    sure = _DOUBTFUL.split(statement, maxsplit=1)
    return _tokens(*dialect).sub(_replace, sure[0]) + (" ?" if len(sure) > 1 else "")


_LONGEST_REMEMBERED: Final = 2_000
# Applications send the same few statements with placeholders; those with literals push each other
# out.
_remembered = lru_cache(maxsize=512)(_without_literals)

# Quotes of any kind, digits that begin a number, and comments.
_MAY_HOLD_LITERALS: Final = later(r"""['"`\[#]|(?<![\w$])[\d.]|\$\$|\$[A-Za-z_]|--|/\*""")
_DOUBTFUL: Final = later(r"\\['\"]")


def _replace(match: re.Match[str]) -> str:
    if match.group("comment") is not None:
        return " "
    return match.group() if match.group("name") is not None else "?"


def _command_word(statement: str) -> str:
    word = _WORD.match(statement)
    if word is None:
        return "?" if statement else ""
    return word.group(1) if not statement[word.end() :].strip() else f"{word.group(1)} ?"
