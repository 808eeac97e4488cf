"""The policies that matter most: what sentry-sdk resolves its options to, and ours from that."""

from typing import Any

from otel_sentry_asgi._policy import Policy, to_policy

_BODIES = ["incoming_request", "outgoing_request", "outgoing_response"]

EMPTY: dict[str, Any] = {
    "provided_by_user": True,
    "user_info": True,
    "cookies": {"mode": "denylist"},
    "http_headers": {"request": {"mode": "denylist"}},
    "http_bodies": _BODIES,
    "url_query_params": {"mode": "denylist"},
    "graphql": {"document": True, "variables": True},
    "gen_ai": {"inputs": True, "outputs": True},
    "database_query_data": True,
    "queues": True,
    "stack_frame_variables": True,
    "frame_context_lines": 5,
}
"""What `data_collection={}` comes to."""

OFF: dict[str, Any] = {
    "user_info": False,
    "cookies": {"mode": "off"},
    "http_headers": {"request": {"mode": "off"}},
    "http_bodies": [],
    "url_query_params": {"mode": "off"},
    "graphql": {"document": False, "variables": False},
    "gen_ai": {"inputs": False, "outputs": False},
    "database_query_data": False,
    "queues": False,
    "stack_frame_variables": False,
}
"""A `data_collection` with every category off."""

STRICT: dict[str, Any] = {"provided_by_user": True, **OFF, "frame_context_lines": 5}
"""What `data_collection=OFF` comes to."""

PRIVATE: Policy = to_policy(None, pii=False)
OPEN: Policy = to_policy(None, pii=True)
COLLECTING: Policy = to_policy(EMPTY, pii=True)
STRICTEST: Policy = to_policy(STRICT, pii=False)

POLICIES = {"private": PRIVATE, "open": OPEN, "collecting": COLLECTING, "strictest": STRICTEST}

SECRET_KEYS = [
    *("Cookie", "set-cookie", "Authorization", "X-Forwarded-For", "x-real-ip"),
    *("HTTP_COOKIE", "HTTP_X_FORWARDED_FOR", "REMOTE_ADDR"),
]
"""Names of headers that do not leave, as dictionaries have them."""
