"""What is collected: Sentry's options as resolved, and what our own settings add."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._pairs import hide_pairs, hide_tokens
from otel_sentry_asgi._policy._rules import (
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    SENSITIVE,
    KeyValueRule,
    is_secret_header,
)

BODIES: Final = frozenset({"incoming_request", "outgoing_request", "outgoing_response"})
"""All that `data_collection.http_bodies` collects by default. Bodies are asked for by direction, so
that a list without `outgoing_response` keeps the answers of the service in."""

ACTIONS: Final = ("keep", "drop", "filter", "hash")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What may leave, by category; the default is the most private of `send_default_pii`."""

    user_info: bool = False
    cookies: KeyValueRule = NOTHING
    headers: KeyValueRule = IMPERSONAL
    query: KeyValueRule = IMPERSONAL
    database_query_data: bool = False
    queues: bool = False
    graphql_document: bool = False
    graphql_variables: bool = False
    gen_ai_inputs: bool = False
    gen_ai_outputs: bool = False
    bodies: frozenset[str] = BODIES
    frame_variables: KeyValueRule = INSENSITIVE
    scrubbed: frozenset[str] = frozenset()
    """The keys that the client's Event Scrubber denies, lower-case."""
    terms: tuple[str, ...] = ()
    """Sensitive terms of our own settings."""
    allowed: tuple[str, ...] = ("*",)
    """Attributes in no row of the table that may leave: names, and prefixes that end in `*`."""
    actions: tuple[tuple[str, str], ...] = ()
    """What the settings say of single attributes: names or prefixes, and one of `ACTIONS`."""
    hash_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Of the policy, which is no dataclass by itself: to make one takes a millisecond."""

    @property
    def closed_graphql(self) -> tuple[str, ...]:
        """The names under which GraphQL requests hold what may not leave."""
        document = () if self.graphql_document else ("query",)
        return document if self.graphql_variables else (*document, "variables")

    def terms_of(self, query: str) -> tuple[str, ...]:
        """`terms`; for the query string of a GraphQL request, what of it may not leave, too."""
        if ("query=" in query or "persistedQuery" in query) and _GRAPHQL.search(query):
            return self.terms + self.closed_graphql
        return self.terms

    def action(self, key: str) -> str | None:
        """What the settings say of an attribute: by its name, else by the longest prefix."""
        fitting = [(len(name), action) for name, action in self.actions if _fits(key, name)]
        return max(fitting)[1] if fitting else None

    def denies(self, key: str) -> bool:
        """Whether a key of a body, a breadcrumb or the like forbids its value."""
        return (
            SENSITIVE[key, self.terms]
            or key.lower() in self.scrubbed
            or is_secret_header(key, self.headers, self.terms)
        )

    def hide(self, text: str) -> str:
        """The text without values of keys that are denied, and without tokens."""
        return hide_tokens(hide_pairs(text, self.denies))

    def allows(self, key: str) -> bool:
        """Whether an attribute in no row of the table may leave."""
        return any(_fits(key, name) for name in self.allowed)


# A document, or the hash of one that is known.
_GRAPHQL: Final = later(r"(?:^|[?&;])query=[^&;]*?(?:\{|%7[Bb])|persistedQuery")


def _fits(key: str, name: str) -> bool:
    return key.startswith(name[:-1]) if name.endswith("*") else key == name
