"""Sentry's options, as sentry-sdk resolves them, to a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_sentry_asgi._policy._policy import Policy
from otel_sentry_asgi._policy._rules import IMPERSONAL, INSENSITIVE, NOTHING, KeyValueRule


def to_policy(
    collection: Mapping[str, Any] | None,
    *,
    pii: bool,
    local_variables: bool = True,
    **own: Any,
) -> Policy:
    """The policy for a resolved `data_collection`, or for `send_default_pii` where there is none.
    *own*: fields of `Collection` that other options and our settings add."""
    if collection is None or not collection.get("provided_by_user"):
        rule = INSENSITIVE if pii else IMPERSONAL
        return Policy(
            user_info=pii,
            cookies=INSENSITIVE if pii else NOTHING,
            headers=rule,
            query=rule,
            database_query_data=pii,
            queues=pii,
            graphql_document=pii,
            graphql_variables=pii,
            gen_ai_inputs=pii,
            gen_ai_outputs=pii,
            frame_variables=INSENSITIVE if local_variables else NOTHING,
            **own,
        )
    headers = collection.get("http_headers") or {}
    graphql, gen_ai = collection.get("graphql") or {}, collection.get("gen_ai") or {}
    return Policy(
        user_info=bool(collection.get("user_info")),
        cookies=_rule(collection.get("cookies")),
        headers=_rule(headers.get("request")),
        query=_rule(collection.get("url_query_params")),
        database_query_data=bool(collection.get("database_query_data")),
        queues=bool(collection.get("queues")),
        graphql_document=bool(graphql.get("document")),
        graphql_variables=bool(graphql.get("variables")),
        gen_ai_inputs=bool(gen_ai.get("inputs")),
        gen_ai_outputs=bool(gen_ai.get("outputs")),
        bodies=frozenset(collection.get("http_bodies") or ()),
        frame_variables=_rule(collection.get("stack_frame_variables")),
        **own,
    )


def _rule(behaviour: object) -> KeyValueRule:
    """A `data_collection` behaviour; a bool is all or nothing, what is missing is nothing."""
    if isinstance(behaviour, Mapping):
        terms = tuple(str(term).lower() for term in behaviour.get("terms") or ())
        return KeyValueRule(str(behaviour.get("mode", "denylist")), terms)
    return INSENSITIVE if behaviour else NOTHING
