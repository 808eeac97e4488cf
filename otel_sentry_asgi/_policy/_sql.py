"""Statements without their literals.

Tokenizers of one regular expression each. No repetition in them can match the same text in two
ways, and a token without an end runs to the end of the text, so the time is linear. Where the
dialect leaves a doubt about where a string ends, the rest of the statement is dropped: a shorter
statement is better than somebody's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._rules import FILTERED

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
_UUID: Final = r"(?<!\w)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?!\w)(?:(?<=\d)|(?!\$))"
_DIGITS: Final = r"\d[\d_]*(?:\.\d*)?(?:e[+-]?\d+)?"
# What begins a placeholder makes one of at most four digits, if it is no colon behind a key. Behind
# a letter a dollar begins no string, so it must not come to stand behind a `?`.
_NUMBER: Final = (
    rf"(?:(?<![\w$@:.%?\"`])[+-]?(?:0[box][0-9a-f_]+|{_DIGITS}|\.\d+(?:e[+-]?\d+)?)"
    rf"|(?<=[\w'\"`]:){_DIGITS}|(?<=[$@:.%?\"`])(?=\d{{5}}){_DIGITS}|(?<=\$)\d+\.\d+)"
    r"(?:bd|[dflsy])?(?!\w)(?:(?<=[\d.])|(?!\$))"
)

_QUOTED_NAME: Final = r'"[^"]*"'
_BACKTICK_NAME: Final = r"`[^`]*`"
_BRACKET_NAME: Final = r"\[[^\]]*\]"

# Comments, quoted names, and literals beside numbers.
_STANDARD: Final = (_COMMENT, _QUOTED_NAME, _DOLLAR, _Q_QUOTE, _STRING)
_BRACKETS: Final = (_COMMENT, rf"{_QUOTED_NAME}|{_BRACKET_NAME}", _STRING, r"\[.*")
_SQLITE: Final = (_COMMENT, rf"{_BACKTICK_NAME}|{_BRACKET_NAME}", _STRING, _DOUBLE, r"\[.*")
_ESCAPES: Final = (_HASH_COMMENT, _BACKTICK_NAME, _ESCAPED_STRING, _ESCAPED_DOUBLE)
_UNKNOWN: Final = (_HASH_COMMENT, _BACKTICK_NAME, _DOLLAR, _Q_QUOTE, _STRING, _DOUBLE)


@cache
def _tokens(dialect: tuple[str, ...], marks: str = "") -> re.Pattern[str]:
    """A pattern with a group for each kind of token; what is no token stays. Compiled when it is
    first needed: an import need not wait for it."""
    comment, names, *literals = dialect
    literal = "|".join((*literals, _UUID, _NUMBER))
    pattern = rf"(?P<comment>{comment})|{marks}(?P<name>{names})|(?P<literal>{literal}|[\"`].*)"
    return re.compile(pattern + (_MARK if marks else ""), re.DOTALL | re.IGNORECASE)


_QUOTED: Final = r'(?P<quoted>"[^"]*(?:""[^"]*)*"(?!"))|'
_MARK: Final = r"|(?P<mark>[(),.;?]|[=<>!|+*/%&^~-]|[^\W\d]\w*)"


_DIALECTS: Final = {
    _STANDARD: """
        postgresql redshift aws.redshift cockroachdb oracle oracle.db db2 ibm.db2 informix
        ibm.informix snowflake h2 h2database hsqldb derby teradata vertica firebird firebirdsql
        interbase trino presto hanadb sap.hana maxdb sap.maxdb netezza ibm.netezza cassandra
        duckdb timescaledb
    """,
    _BRACKETS: "mssql microsoft.sql_server mssqlcompact sqlserver sybase",
    _SQLITE: "sqlite",
    _ESCAPES: "mysql mariadb clickhouse gcp.spanner spanner hive spark databricks neo4j",
}
_BY_SYSTEM: Final = {
    system: dialect for dialect, systems in _DIALECTS.items() for system in systems.split()
}
# Those that take a double-quoted text for a string where no name can be, or by a setting.
_LOOSE: Final = frozenset(
    {
        *("sqlite", "informix", "ibm.informix", "sybase", "mssql", "microsoft.sql_server"),
        *("mssqlcompact", "sqlserver", "firebird", "firebirdsql", "interbase"),
    }
)
_STORES: Final = """
    redis valkey keydb dragonfly memcached memcache etcd aerospike riak hbase geode bigtable
    gcp.bigtable mongodb elasticsearch opensearch couchdb couchbase dynamodb aws.dynamodb
    azure.cosmosdb cosmosdb firestore gcp.firestore datastore gcp.datastore pinecone chroma milvus
    qdrant weaviate
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
    system = system.lower()
    dialect = _BY_SYSTEM.get(system, _UNKNOWN)
    if dialect is _ESCAPES:
        return _tokens(dialect).sub(_replace, statement)
    # Whether a backslash escapes the quote depends on dialect and settings of the server.
    sure = _DOUBTFUL.split(statement, maxsplit=1)
    if '"' in sure[0] and (system in _LOOSE or dialect is _UNKNOWN):
        kept = _by_position(sure[0], dialect)
    else:
        kept = _tokens(dialect).sub(_replace, sure[0])
    return kept + (" ?" if len(sure) > 1 else "")


_LONGEST_REMEMBERED: Final = 2_000
# Applications send the same few statements with placeholders; those with literals push each other
# out.
_remembered = lru_cache(maxsize=512)(_without_literals)

# Quotes of any kind, digits that begin a number, UUIDs, and comments.
_MAY_HOLD_LITERALS: Final = later(
    r"""['"`\[#]|(?<![\w$])[\d.]|\$\$|\$[A-Za-z_]|\$\d{5}|\$\d+\.|[0-9a-fA-F]{8}-|--|/\*"""
)
_DOUBTFUL: Final = later(r"\\['\"]")


def _replace(match: re.Match[str]) -> str:
    if match.group("comment") is not None:
        return " "
    return match.group() if match.group("name") is not None else "?"


# What a value follows; an operator of signs is "=".
_BEFORE_VALUES: Final = frozenset(
    {
        *("=", "like", "glob", "match", "matches", "regexp", "between", "escape", "containing"),
        *("starting", "similar", "is", "then", "else", "default"),
    }
)
_SECOND_WORDS: Final = frozenset({("starting", "with"), ("similar", "to"), ("is", "not")})
_LISTS: Final = frozenset({"values", "value", "in"})
# Functions whose arguments are texts more often than bare names of columns.
_OF_TEXTS: Final = frozenset(
    {
        *("lower", "upper", "trim", "ltrim", "rtrim", "instr", "replace", "substr", "substring"),
        *("length", "concat", "concat_ws", "printf", "format", "hex", "quote", "unicode", "like"),
        *("glob", "coalesce", "ifnull", "nullif", "date", "time", "datetime", "strftime"),
        *("json", "json_extract", "json_set", "json_insert", "json_replace"),
    }
)
# What a name follows in any dialect; of FROM that of a query, not that of `trim(both a from b)`.
_BEFORE_NAMES: Final = frozenset({"join", "into", "update", "table", "as", "set"})
_PLAIN_NAME: Final = later(r'"[A-Za-z_][\w$]*"')
_DOT: Final = later(r"\s*\.")


def _by_position(statement: str, dialect: tuple[str, ...]) -> str:
    """The statement, cleaned from its beginning by where the texts in double quotes stand. What is
    a name somewhere in it is one everywhere: to drop it elsewhere would hide nothing."""
    tokens, names, strings = _tokens(dialect, _QUOTED), set[str](), set[str]()
    kept = tokens.sub(_replacer(dialect, names, strings), statement)
    if names.isdisjoint(strings):
        return kept
    return tokens.sub(_replacer(dialect, names, strings, frozenset(names)), statement)


def _replacer(
    dialect: tuple[str, ...],
    names: set[str],
    strings: set[str],
    known: frozenset[str] = frozenset(),
) -> Callable[[re.Match[str]], str]:
    """Like `_replace`, for one statement from its beginning: what stands in double quotes is a
    string behind an operator and in the parentheses of VALUES and IN, else a name; in SQLite only
    if it looks like one; in an unknown dialect only where no string can be. Adds to *names* and
    *strings* what it takes for such; *known* are names."""
    before, between = "", False
    values, opens = [False], [False]  # By depth: whether values are in it; whether `(` opens them.
    queries = [False]  # By depth: whether it has a query's verb.
    lists = _LISTS | _OF_TEXTS if dialect is _SQLITE else _LISTS

    def is_string(match: re.Match[str]) -> bool:
        is_name = dialect is _BRACKETS or dialect is _STANDARD or _PLAIN_NAME.fullmatch(match[0])
        if not is_name:
            return True
        if match[0] in known or before == "." or _DOT.match(match.string, match.end()):
            return False
        if dialect is _UNKNOWN:
            return before not in _BEFORE_NAMES and not (before == "from" and queries[-1])
        return values[-1] or before in _BEFORE_VALUES

    def replace(match: re.Match[str]) -> str:
        nonlocal before, between
        kind, text = match.lastgroup, match.group()
        if kind == "comment":
            return " "
        if kind == "literal":
            before = "?"
            return "?"
        if kind == "quoted":
            if is_string(match):
                strings.add(text)
                before = "?"
                return "?"
            names.add(text)
        if kind != "mark":
            before = '"'
        elif text == "(":
            values.append(values[-1] or opens[-1] or before in _BEFORE_VALUES)
            opens.append(False)
            queries.append(False)
            before = text
        elif text == ")":
            if len(values) > 1:
                values.pop()
                opens.pop()
                queries.pop()
            before = text
        elif text in ",.;?":
            before = text
        else:
            noted(text.lower() if text.isidentifier() else "=")
        return text

    def noted(word: str) -> None:
        nonlocal before, between
        opens[-1] = word in lists
        if word == "select":
            values[-1] = False
        if word in ("select", "delete"):
            queries[-1] = True
        if between and word == "and":
            word = "between"
            between = False
        elif word == "between":
            between = True
        if (before, word) not in _SECOND_WORDS:
            before = word

    return replace


# What databases and SQLAlchemy put into messages: statements, parameters, rows. Each runs to the
# end of what it is, or to that of the line or the text (PyMongo tells the value twice).
_SAID: Final = later(
    r"(?P<sql>\[SQL: )(?P<statement>.*?)(?=\]\n[\[(]|\]?\Z)"
    r"|(?P<parameters>\[parameters: ).*?(?=\]\n\(|\]?\Z)"
    r"|(?P<key>\bkey \([^)\n]{1,256}\)=\()[^\n]*?(?=\) (?:already|is not|is still|conflicts)|\n|\Z)"
    r"|(?P<row>failing row contains \()[^\n]*?(?=\)\.?(?:\n|\Z)|\n|\Z)"
    r"|(?P<entry>duplicate entry ')[^\n]*?(?=' for key|\n|\Z)"
    r"|(?P<value>duplicate key value is \()[^\n]*?(?=\)\.|\n|\Z)"
    r"|(?P<input>invalid input (?:syntax|value) for [^:\n]{1,128}: \")[^\n\"]*"
    r"|(?P<argument>invalid input for query argument \$[0-9]{1,5}: )(?:[^\n]*(?= \()|[^\n]*)"
    r"|(?P<wrong>incorrect (?:\w{1,32} ){1,2}value: ')[^\n]*?(?=' for |'\W{0,3}(?:\n|\Z)|\n|\Z)"
    r"|(?P<near>syntax to use near ').*?(?=' at line|\Z)"
    r"|(?P<dup>dup key: \{ ?)[^\n]*"
    r"|(?P<line>\nLINE [0-9]{1,9}: )(?P<shown>[^\n]*)",
    re.DOTALL | re.IGNORECASE,
)
_MAY_SAY: Final = (
    "[SQL: ",
    "[parameters: ",
    ")=(",
    "ailing row",
    "uplicate ",
    "nvalid input",
    "ncorrect ",
    "use near '",
    "dup key: ",
    "\nLINE ",
)


def without_values(text: str) -> str:
    """A message without the literals and values that a database or its driver put into it."""
    if not any(sign in text for sign in _MAY_SAY):
        return text
    return _SAID.sub(_without_values, text)


def _without_values(match: re.Match[str]) -> str:
    statement = match["statement"] if match["sql"] else match["shown"]
    if statement is not None:
        return (match["sql"] or match["line"]) + without_literals(statement)
    return f"{match[match.lastgroup or 0]}{FILTERED}"


def _command_word(statement: str) -> str:
    word = _WORD.match(statement)
    if word is None:
        return "?" if statement else ""
    return word.group(1) if not statement[word.end() :].strip() else f"{word.group(1)} ?"
