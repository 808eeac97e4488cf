"""What happens to one attribute or header, and which rule says so.

A `Rule` holds both, so that what `python -m otel_sentry_asgi policy` tells and what the policy
does cannot differ.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._attributes import Category, after_prefix, category_of
from otel_sentry_asgi._policy._body import clean_body, clean_body_text
from otel_sentry_asgi._policy._collection import Collection
from otel_sentry_asgi._policy._pairs import is_plain_text
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    IMPERSONAL,
    IMPERSONAL_HEADERS,
    INSENSITIVE,
    PERSONAL_BAGGAGE_TERMS,
    PERSONAL_HEADER_TERMS,
    PERSONAL_HEADERS,
    SECRET_HEADERS,
    SENSITIVE,
    URL_HEADERS,
    KeyValueRule,
    clean_baggage,
    clean_query,
    clean_url,
    fold,
    is_secret_header,
    is_sensitive,
    secret_header_term,
    term_in,
)
from otel_sentry_asgi._policy._sql import system_of, without_literals
from otel_sentry_asgi._policy._values import text_cleaner
from otel_sentry_asgi._semconv import KIND

DROP: Final = object()
"""What a cleaner gives for a value that is left out, with its key."""

Cleaner = Callable[[Any, Mapping[str, Any]], Any]
"""Gives what stays of a value; the second argument is the attributes around it, uncleaned."""

_LONGEST_METHOD: Final = 64
_LONGEST_NAME: Final = 256
"""Of an attribute in baggage: callers choose it, and each of its dots is looked at."""
_HASHED: Final = later(r"hmac:[0-9a-f]{32}")


class Rule(NamedTuple):
    """What happens to a value, why, and the function that does it; without one it stays."""

    does: str
    because: str
    clean: Cleaner | None = None
    leaves_plain: bool = False
    """A text stays as it is if it `is_plain_text`."""


def rule_of(key: str, of: Collection) -> Rule:
    """The rule for an attribute."""
    action = of.action(key)
    if action is not None:
        return _ACTIONS[action](of)
    category = category_of(key)
    rule = _BY_CATEGORY[category](key, of)
    if rule.clean is dropped:
        return rule
    if term := term_in(key, of.terms):
        return _filter(f"the key holds {term!r} of sensitive_terms")
    names = {key.lower(), after_prefix(key).lower()}
    if category is Category.TERMS:
        names.add(key.rpartition(".")[2].lower())
    if names & of.scrubbed:
        return _filter("the client's event_scrubber denies the key")
    return rule


def header_rule(name: str, of: Collection) -> Rule:
    """The rule for a header, under its own name or the one that OTel gives it."""
    if of.headers.mode == "off":
        return _drop("http_headers is off")
    folded = fold(name)
    # Also the single cookies of `http.request.header.cookie.<name>`.
    if folded.partition(".")[0] in SECRET_HEADERS:
        return _filter("credentials and cookies never leave in headers")
    # sentry-sdk's own terms; those of the client's `data_collection` count.
    is_excepted = of.headers is IMPERSONAL and folded in IMPERSONAL_HEADERS
    rule = INSENSITIVE if is_excepted else of.headers
    if not rule.allows(folded, of.terms):
        return _filter(_why_not(folded, rule, of.terms))
    if term := secret_header_term(folded):
        return _filter(f"a header with {term!r} proves who somebody is")
    if not of.user_info and (folded in PERSONAL_HEADERS or term_in(folded, PERSONAL_HEADER_TERMS)):
        return _filter("the header tells who or where the client is; user_info is off")
    if folded in URL_HEADERS:
        return Rule(_URL_DOES, "a header that is a URL", _each(_url_cleaner(of)), leaves_plain=True)
    if folded == "baggage":
        return Rule(
            "kept by key",
            "entries of baggage are like parameters, and like attributes of their names",
            _each(lambda text: clean_baggage(text, of.query, of.terms, _denies_in_baggage(of))),
        )
    return _by_text(of, "a header without a sensitive term")


def _denies_in_baggage(of: Collection) -> Callable[[str], bool]:
    """Of a key whether it tells of the user or would not be kept as an attribute."""

    def denies(key: str) -> bool:
        if len(key) > _LONGEST_NAME:
            return True
        if not of.user_info and of.action(key) is None and term_in(key, PERSONAL_BAGGAGE_TERMS):
            return True
        rule = rule_of(key, of)
        return rule.clean is not None and not rule.leaves_plain

    return denies


def _keep(because: str) -> Rule:
    return Rule("kept", because)


def _drop(because: str) -> Rule:
    return Rule("left out", because, dropped)


def _filter(because: str) -> Rule:
    return Rule(FILTERED, because, filtered)


def dropped(_value: Any, _around: Mapping[str, Any]) -> Any:
    """For what never leaves, whatever it is."""
    return DROP


def filtered(_value: Any, _around: Mapping[str, Any]) -> Any:
    """For what is `[Filtered]`, whatever it is."""
    return FILTERED


def _each(
    clean: Callable[[str], str], by_key: Callable[[Mapping[str, Any]], Any] | None = None
) -> Cleaner:
    """*clean* for a text and for each text of a list, *by_key* for values by key."""

    def each(value: Any, around: Mapping[str, Any]) -> Any:
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, (list, tuple)):
            return type(value)(each(item, around) for item in value)
        return value if by_key is None or not isinstance(value, Mapping) else by_key(value)

    return each


def _by_text(of: Collection, because: str) -> Rule:
    """For the value of a key that says nothing: the URLs in its text are cleaned, and values by
    key, in the text or as such (of breadcrumbs; OTel's attributes may become such), by their
    keys."""
    text = text_cleaner(frozenset(), of.query, of.terms, of.hide)

    def by_key(values: Mapping[str, Any]) -> Any:
        return clean_body(values, of.denies, text)

    others = _each(text, by_key)

    def clean(value: Any, around: Mapping[str, Any]) -> Any:
        return value if type(value) is str and is_plain_text(value) else others(value, around)

    does = "kept, URLs and values by key in it cleaned"
    return Rule(does, because, clean, leaves_plain=True)


def _description(_key: str, of: Collection) -> Rule:
    text = _each(text_cleaner(frozenset(), of.query, of.terms))
    if of.database_query_data:
        return Rule("kept, URLs in it cleaned", "database_query_data is on", text)

    def clean(value: Any, around: Mapping[str, Any]) -> Any:
        return text(_parameterised(value, around) if system_of(around) else value, around)

    does = "kept, URLs in it cleaned, `?` for literals"
    return Rule(does, "database_query_data is off", clean)


def _url_cleaner(of: Collection) -> Callable[[str], str]:
    return lambda text: clean_url(text, of.query, of.terms_of(text))


_URL_DOES: Final = "kept, without credentials and fragment, query by key"


def _why_not(name: str, rule: KeyValueRule, terms: tuple[str, ...]) -> str:
    if is_sensitive(name, terms):
        return "the key holds a sensitive term"
    if rule.mode == "allowlist":
        return "the allow-list has no term for it"
    return f"the deny-list has {term_in(name, rule.terms)!r}"


# -- by category ----------------------------------------------------------------------------------


def _always(rule: Rule) -> Callable[[str, Collection], Rule]:
    return lambda _key, _of: rule


def _switch(option: str, field: str) -> Callable[[str, Collection], Rule]:
    """Kept where the option is on, but for what is named by a sensitive term."""

    def rule(key: str, of: Collection) -> Rule:
        if not getattr(of, field):
            return _drop(f"{option} is off")
        name = after_prefix(key)
        if name != key and is_sensitive(name):
            return _filter("the key holds a sensitive term")
        return _keep(f"{option} is on")

    return rule


def _peer(_key: str, of: Collection) -> Rule:
    if of.user_info:
        return _keep("user_info is on")
    return Rule("left out on server spans", "user_info is off", _unless_server)


def _unless_server(value: Any, around: Mapping[str, Any]) -> Any:
    return DROP if around.get(KIND) == "server" else value


def _terms(key: str, of: Collection) -> Rule:
    if not of.allows(key):
        return _drop("it is not among allowed_attributes")
    if is_sensitive(key):
        return _filter("the key holds a sensitive term")
    if is_secret_header(key.rpartition(".")[2], of.headers, of.terms):
        return _filter("the key is the name of a header that does not leave")
    return _by_text(of, "no row names it, no sensitive term is in the key")


def _text(_key: str, of: Collection) -> Rule:
    return _by_text(of, "user_info is on") if of.user_info else _drop("user_info is off")


def _url(_key: str, of: Collection) -> Rule:
    off = of.query.mode == "off"
    does = "kept, without credentials, query and fragment" if off else _URL_DOES
    return Rule(does, f"url_query_params is {of.query.mode}", _each(_url_cleaner(of)))


def _query(_key: str, of: Collection) -> Rule:
    if of.query.mode == "off":
        return _drop("url_query_params is off")
    return Rule(
        "kept by key",
        f"url_query_params is {of.query.mode}",
        _each(lambda text: clean_query(text, of.query, of.terms_of(text))),
    )


def _path_parameter(key: str, of: Collection) -> Rule:
    if of.query.mode == "off":
        return _drop("url_query_params is off")
    name = after_prefix(key)
    if of.query.allows(name, of.terms):
        return _keep("a parameter without a sensitive term")
    return _filter(_why_not(name, of.query, of.terms))


def _fragment(_key: str, of: Collection) -> Rule:
    if of.query.mode == "off":
        return _drop("url_query_params is off")
    return _keep("user_info is on") if of.user_info else _drop("user_info is off")


def _statement(_key: str, of: Collection) -> Rule:
    if of.database_query_data:
        return _keep("database_query_data is on")
    return Rule("kept, `?` for literals", "database_query_data is off", _parameterised)


def _parameterised(value: Any, around: Mapping[str, Any]) -> Any:
    system = system_of(around)
    if isinstance(value, str):
        return without_literals(value, system)
    return _each(lambda text: without_literals(text, system))(value, around)


def _body(*kinds: str) -> Callable[[str, Collection], Rule]:
    """*kinds*: the direction on a server span, and on others."""
    server, other = kinds

    def rule(_key: str, of: Collection) -> Rule:
        if not of.bodies & set(kinds):
            return _drop(f"http_bodies has no {server}")
        closed, denies = of.closed_graphql, lambda key: SENSITIVE[key, of.terms]
        text = _each(lambda text: clean_body_text(text, denies, closed))

        def clean(value: Any, around: Mapping[str, Any]) -> Any:
            kind = server if around.get(KIND, "server") == "server" else other
            return text(value, around) if kind in of.bodies else DROP

        return Rule("kept by key", f"http_bodies has {' and '.join(kinds)}", clean)

    return rule


_gen_ai_input: Final = _switch("gen_ai.inputs", "gen_ai_inputs")
_gen_ai_output: Final = _switch("gen_ai.outputs", "gen_ai_outputs")


def _gen_ai(key: str, of: Collection) -> Rule:
    return (_gen_ai_output if of.gen_ai_inputs else _gen_ai_input)(key, of)


_BY_CATEGORY: Final[dict[Category, Callable[[str, Collection], Rule]]] = {
    Category.KEEP: _always(_keep("nothing private is in it")),
    Category.SHORT: _always(
        Rule(
            f"kept, at most {_LONGEST_METHOD} characters",
            "the caller may write anything there",
            _each(lambda text: text[:_LONGEST_METHOD]),
        )
    ),
    Category.DROP: _always(_drop("it never leaves")),
    Category.SECRET: _always(_filter("no option opens it")),
    Category.TERMS: _terms,
    Category.USER: _switch("user_info", "user_info"),
    Category.PEER: _peer,
    Category.URL: _url,
    Category.QUERY: _query,
    Category.PATH_PARAMETER: _path_parameter,
    Category.FRAGMENT: _fragment,
    Category.HEADER: lambda key, of: header_rule(after_prefix(key), of),
    Category.AGENT: lambda _key, of: header_rule("user-agent", of),
    Category.STATEMENT: _statement,
    Category.DESCRIPTION: _description,
    Category.DATABASE: _switch("database_query_data", "database_query_data"),
    Category.QUEUE: _switch("queues", "queues"),
    Category.GRAPHQL_DOCUMENT: _switch("graphql.document", "graphql_document"),
    Category.GRAPHQL_VARIABLES: _switch("graphql.variables", "graphql_variables"),
    Category.GEN_AI_INPUT: _gen_ai_input,
    Category.GEN_AI_OUTPUT: _gen_ai_output,
    Category.GEN_AI: _gen_ai,
    Category.REQUEST_BODY: _body("incoming_request", "outgoing_request"),
    Category.RESPONSE_BODY: _body("outgoing_response", "incoming_response"),
    Category.TEXT: _text,
}


def is_free_text(key: str) -> bool:
    """Whether the key says nothing about its value: anything may be in it."""
    return category_of(key) in (Category.TERMS, Category.TEXT)


# -- by the settings ------------------------------------------------------------------------------


def _hash(of: Collection) -> Rule:
    key = of.hash_key.encode()

    def hashed(value: Any, _around: Mapping[str, Any]) -> Any:
        if isinstance(value, (list, tuple)):
            return [hashed(item, _around) for item in value]
        text = str(value)
        if _HASHED.fullmatch(text):
            return text
        return "hmac:" + hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()[:32]

    return Rule("hashed with your key", "attribute_actions", hashed)


_ACTIONS: Final[dict[str, Callable[[Collection], Rule]]] = {
    "keep": lambda _of: _keep("attribute_actions"),
    "drop": lambda _of: _drop("attribute_actions"),
    "filter": lambda _of: _filter("attribute_actions"),
    "hash": _hash,
}
