"""What the policy costs: less than a third of the translation, and linear in hostile input."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._policy._body import clean_body_text
from otel_sentry_asgi._policy._rules import clean_baggage, clean_query, clean_url
from otel_sentry_asgi._policy._sql import _BY_SYSTEM, without_literals
from otel_sentry_asgi._policy._values import clean_vars, text_cleaner
from otel_sentry_asgi._translate import span as translation
from otel_sentry_asgi._translate.request import to_request
from otel_sentry_asgi._translate.segment import RequestFacts, to_transaction
from otel_sentry_asgi.testing import span
from tests.policies import POLICIES, PRIVATE

ROOT = span(
    "GET /orders/{id}",
    kind=SpanKind.SERVER,
    scope="opentelemetry.instrumentation.asgi",
    attributes={
        "http.scheme": "http",
        "http.host": "127.0.0.1:8000",
        "net.host.port": 8000,
        "http.flavor": "1.1",
        "http.target": "/orders/7",
        "http.url": "http://127.0.0.1:8000/orders/7?page=2",
        "http.method": "GET",
        "http.user_agent": "python-httpx/0.28",
        "net.peer.ip": "127.0.0.1",
        "http.route": "/orders/{id}",
        "http.status_code": 200,
    },
)
QUERIES = [
    span(
        "SELECT",
        span_id=number,
        parent=1,
        kind=SpanKind.CLIENT,
        scope="opentelemetry.instrumentation.sqlite3",
        attributes={
            "db.system": "sqlite",
            "db.name": "shop.db",
            "db.statement": f"SELECT id, price FROM orders WHERE customer = ? LIMIT {number}",
        },
    )
    for number in range(2, 8)
]
SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "scheme": "http",
    "path": "/orders/7",
    "query_string": b"page=2",
    "headers": [
        (b"host", b"127.0.0.1:8000"),
        (b"accept", b"*/*"),
        (b"user-agent", b"python-httpx/0.28"),
        (b"cookie", b"sid=abc; theme=dark"),
        (b"authorization", b"Bearer x"),
    ],
    "client": ("127.0.0.1", 5555),
}


OWN = [
    span("work", span_id=n, parent=1, attributes={"app.tenant": "acme", "n": n, "note": f"no {n}"})
    for n in range(2, 8)
]


def translated(children: Sequence[ReadableSpan] = QUERIES) -> Any:
    facts = RequestFacts(request=to_request(SCOPE))
    return to_transaction(ROOT, children, event_id="e" * 32, facts=facts)


def forget() -> None:
    """Translate as if no span had been seen before."""
    translation._known.clear()
    translation._once.clear()


def timed(work: Callable[[], Any]) -> int:
    """Nanoseconds of this thread's own: the machine may be busy."""
    before = time.thread_time_ns()
    work()
    return time.thread_time_ns() - before


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("children", "is_known", "limit"),
    [
        (QUERIES, False, 1 / 3),
        # Where spans are not translated but recalled, and where there are none, or their texts are
        # searched for what the policy has taken out of the request.
        (QUERIES, True, 0.45),
        ([], True, 0.7),
        (OWN, False, 0.75),
    ],
    ids=["six queries", "the same again", "none", "own attributes"],
)
def test_the_policy_costs_less_than_a_third_of_the_translation(
    children: Sequence[ReadableSpan], is_known: bool, limit: float, name: str
) -> None:
    """Medians of runs that take turns in one process; the best of five, for a busy machine."""
    policy = POLICIES[name]
    ratios = []
    for _ in range(5):
        translating, cleaning = [], []
        for _ in range(200):
            if not is_known:
                forget()
            translating.append(timed(lambda: translated(children)))
            if not is_known:
                forget()
            payload = translated(children)
            cleaning.append(timed(lambda payload=payload: policy.clean(payload)))  # type: ignore[misc]
        ratios.append(statistics.median(cleaning) / statistics.median(translating))
    assert min(ratios) < limit, ratios


# What would make a pattern go back, and back again.
HOSTILE = [
    *(
        "a",
        "'",
        '"',
        "`",
        "[",
        "$",
        "$$",
        "/*",
        "*/",
        "--",
        "\\",
        "\\'",
        "''",
        "q'[",
        "$a$",
        "1",
        "1.",
    ),
    *(
        "//",
        "://",
        "http://",
        "a://a",
        "@",
        ":@",
        "#",
        "?",
        "?#",
        "=",
        "&",
        ";",
        ",",
        "%",
        "%25",
        " ",
    ),
    *("//:", "//:a", ":\\/\\/a:", "%3A%2F%2F", "%253A%252F%252Fa", "%40", "a=", "?a=%3F", "%3Fa="),
    *("?a=http%3A%2F%2F", "?a=/?", "{", "[[", '{"a":', "\n", "Headers(", "b'", "1e", "0x", ".."),
    *('"a" ', '= "a"', '("', "in (", "1:", "$1.", "aaaaaaaa-", "aaaaaaaa-aaaa-"),
    *("'\\", "/* *", "-", "$a", "q'", "1_", "a1", "= ", "'\"`", "0xf$$", "1d$a$", '= 12345"a"'),
    *(";aa=", '"pwd":', '"pwd":"', "'pwd': {", "pwd=", "pwd={", ";pwd=", '\\"pwd\\":', "('pwd','"),
]
CLEANERS: dict[str, Callable[[str], Any]] = {
    **{
        f"sql {system}": lambda text, system=system: without_literals(text, system)  # type: ignore[misc]
        for system in ("", "postgresql", "oracle", "mssql", "sqlite", "mysql", "informix", "redis")
    },
    "url": lambda text: clean_url(text, PRIVATE.query),
    "query": lambda text: clean_query(text, PRIVATE.query),
    "baggage": lambda text: clean_baggage(text, PRIVATE.query),
    "text": text_cleaner(frozenset({"secret"}), PRIVATE.query, (), PRIVATE._told),
    "name": PRIVATE.text,
    "body": lambda text: clean_body_text(text, lambda key: False),
    "locals": lambda text: clean_vars(
        {"a": text}, lambda name: True, PRIVATE.headers, (), raw=False
    ),
}
SHORT, LONG = 4_000, 32_000


@pytest.mark.slow
@pytest.mark.parametrize("cleaner", CLEANERS)
def test_time_grows_with_the_length_of_hostile_input_and_not_faster(cleaner: str) -> None:
    """Eight times the length takes some eight times as long; a square would take 64 times."""
    clean = CLEANERS[cleaner]
    for piece in HOSTILE:
        for start, end in (("", ""), ("x", "\\"), ("'", "'"), ("http://", "x")):
            texts = [start + piece * (length // len(piece)) + end for length in (SHORT, LONG)]
            # A square is over the limit each time, a busy machine is not.
            assert any(_is_linear(clean, texts) for _ in range(3)), (piece, start, end)


def _is_linear(clean: Callable[[str], Any], texts: list[str]) -> bool:
    short, long = (timed(partial(clean, text)) for text in texts)
    return long < 24 * max(short, 100_000)


def test_every_dialect_is_among_those_that_are_timed() -> None:
    timed_ones = {_BY_SYSTEM[name] for name in ("postgresql", "mssql", "sqlite", "mysql")}
    assert timed_ones == set(_BY_SYSTEM.values())
