"""What is sent in and must not come out on the Sentry side, and where it is found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from tests.support.kent import Item
from tests.support.otlp import OtlpReceiver, OtlpSpan


@dataclass(frozen=True, slots=True)
class Planted:
    """A value that goes in; how it does."""

    value: str
    way: str


COOKIE: Final = Planted("sid-8c1d-ada", "session cookie")
BEARER: Final = Planted("eyJ-41ab-ada", "Authorization")
API_KEY: Final = Planted("key-77c0-ada", "X-Api-Key")
TOKEN: Final = Planted("tok-90fe-ada", "token in a query")
ADDRESS: Final = Planted("203.0.113.77", "X-Forwarded-For")
EMAIL: Final = Planted("ada@home.test", "e-mail in SQL")
PASSWORD: Final = Planted("pw-09d2-shop", "password in a URL")

PRIVATE: Final = (COOKIE, BEARER, API_KEY, TOKEN, ADDRESS, EMAIL, PASSWORD)

PUBLIC: Final = Planted("teal-4711", "colour, may leave")
"""Shows that the search finds what is there."""


def in_sentry(planted: Planted, items: Iterable[Item]) -> dict[str, int]:
    """How many items of each type hold the value anywhere: header, payload, plain or quoted."""
    found: dict[str, int] = {}
    for item in items:
        texts = texts_in([item.envelope, item.header, item.body])
        if any(_holds(text, planted.value) for text in texts):
            found[item.type] = found.get(item.type, 0) + 1
    return found


def in_otlp(planted: Planted, receiver: OtlpReceiver) -> dict[str, int]:
    """How many spans hold the value under each attribute key; `(elsewhere)` if it is in the bytes
    but in no span."""
    found: dict[str, int] = {}
    for span in receiver.spans():
        for key in {key for key, value in _attributes(span) if _holds(str(value), planted.value)}:
            found[key] = found.get(key, 0) + 1
    if not found and _holds(receiver.raw(), planted.value):
        return {"(elsewhere)": 1}
    return found


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def _holds(text: str, value: str) -> bool:
    return value in text or quote(value, safe="") in text


def _attributes(span: OtlpSpan) -> Iterator[tuple[str, Any]]:
    yield from span.attributes.items()
    for event in span.events:
        yield from ((f"{event.name} {key}", value) for key, value in event.attributes.items())
    yield ("(status)", span.status_message)
    yield ("(name)", span.name)
