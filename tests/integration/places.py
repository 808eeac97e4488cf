"""Where a secret can be, and which settings let it leave.

Values are ASCII and stand nowhere else, so that they are found in bytes as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.policies import OFF

PRIVATE, OPEN, COLLECTING, STRICT = "private", "open", "collecting", "strict"

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    PRIVATE: {},
    OPEN: {"send_default_pii": True},
    COLLECTING: {"data_collection": {}},
    STRICT: {"data_collection": OFF},
}

WITH_PII: Final = frozenset({OPEN, COLLECTING})
NOT_STRICT: Final = frozenset({PRIVATE, OPEN, COLLECTING})
NEVER: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """A value that is planted, and the settings under which it may leave."""

    value: str
    may_leave: frozenset[str]


_HEADERS: Final = {
    "authorization": ("Bearer header-bearer", "header-bearer", NEVER),
    "proxy-authorization": ("Basic cHJveHktcGFzc3dvcmQ=", "cHJveHktcGFzc3dvcmQ=", NEVER),
    "cookie": ("theme=cookie-theme; sid=cookie-sid", "cookie-theme", WITH_PII),
    "x-api-key": ("header-apikey", "header-apikey", NEVER),
    "x-csrf-token": ("header-csrf", "header-csrf", NEVER),
    "x-shop-secret": ("header-secret", "header-secret", NEVER),
    "x-amzn-oidc-data": ("header-oidc", "header-oidc", NEVER),
    "x-client-cert": ("header-cert", "header-cert", NEVER),
    "x-forwarded-for": ("198.51.100.21", "198.51.100.21", WITH_PII),
    "forwarded": ("for=198.51.100.22", "198.51.100.22", WITH_PII),
    "x-real-ip": ("198.51.100.23", "198.51.100.23", WITH_PII),
    "cf-connecting-ip": ("198.51.100.24", "198.51.100.24", WITH_PII),
    "true-client-ip": ("198.51.100.25", "198.51.100.25", WITH_PII),
    "via": ("1.1 header-via", "header-via", WITH_PII),
    "x-user-name": ("header-user", "header-user", WITH_PII),
    "referer": ("https://u:referer-userinfo@h/?token=referer-token", "referer-token", NEVER),
    "baggage": ("token=baggage-token,color=teal", "baggage-token", NEVER),
    "accept-language": ("header-language", "header-language", NOT_STRICT),
}
HEADERS: Final = {name: value for name, (value, _, _) in _HEADERS.items()}

HEADERS_MAY: Final = {
    name: (value.replace(needle, "{}"), may) for name, (value, needle, may) in _HEADERS.items()
}
"""With a gap for the value, and where that may leave."""

QUERY: Final = (
    "token=query-token&q=query-plain&api%5Fkey=query-encoded"
    "&next=https%3A%2F%2Fu%3Aquery-userinfo%40h%2F%3Ftoken%3Dquery-nested"
)
BODY: Final = {"password": "body-password", "note": "body-note", "deep": [{"pwd": "body-deep"}]}

_ATTRIBUTES: Final = {
    "user.id": ("attr-user", WITH_PII),
    "enduser.id": ("attr-enduser", WITH_PII),
    "session.id": ("attr-session", NEVER),
    "db.query.parameter.name": ("attr-parameter", WITH_PII),
    "db.connection_string": ("attr-connection", NEVER),
    "messaging.kafka.message.key": ("attr-kafka", WITH_PII),
    "graphql.document": ("attr-document", WITH_PII),
    "graphql.variables": ("attr-variables", WITH_PII),
    "gen_ai.prompt": ("attr-prompt", WITH_PII),
    "gen_ai.completion": ("attr-completion", WITH_PII),
    "process.command_args": ("attr-argument", NEVER),
    "shop.password": ("attr-password", NEVER),
    "http.response.header.set_cookie": ("attr-setcookie", NEVER),
    "url.fragment": ("attr-fragment", WITH_PII),
    "shop.note": ("attr-note", frozenset(SETTINGS)),
}
ATTRIBUTES: Final = {key: value for key, (value, _) in _ATTRIBUTES.items()}

ATTRIBUTES_MAY: Final = {key: may for key, (_, may) in _ATTRIBUTES.items()}

_RESOURCE: Final = {
    "process.owner": ("resource-owner", WITH_PII),
    "process.command_line": ("resource-command", NEVER),
    "shop.token": ("resource-token", NEVER),
    "service.name": ("resource-name", frozenset(SETTINGS)),
}
RESOURCE: Final = {key: value for key, (value, _) in _RESOURCE.items()}

RESOURCE_MAY: Final = {key: may for key, (_, may) in _RESOURCE.items()}

PLACES: Final = [
    *(Place(value, may) for _, value, may in _HEADERS.values()),
    *(Place(value, may) for value, may in _ATTRIBUTES.values()),
    *(Place(value, may) for value, may in _RESOURCE.values()),
    *(
        Place(value, NEVER)
        for value in (
            *("cookie-sid", "referer-userinfo", "proxy-password"),
            *("query-token", "query-encoded", "query-userinfo", "query-nested"),
            *("body-password", "body-deep"),
            *("link-token", "event-password", "crumb-password", "tag-password", "extra-password"),
            *("context-token", "argument-secret", "crumb-userinfo", "crumb-token"),
            *("exception-userinfo", "exception-token"),
        )
    ),
    Place("query-plain", NOT_STRICT),
    Place("body-note", NOT_STRICT),
    Place("sql-literal", WITH_PII),
    Place("sql-in-name", WITH_PII),
    Place("sql-comment", WITH_PII),
    Place("crumb-fragment", WITH_PII),
]
