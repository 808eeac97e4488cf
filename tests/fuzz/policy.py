"""Coverage-guided fuzzing of what cleans headers, cookies, queries, URLs, SQL and bodies.

`make fuzz` runs it for a minute in an environment of its own; `python tests/fuzz/policy.py
-max_total_time=3600` for longer. It must not crash, not leak what it planted, give the same when it
cleans again, and be done within a second for what libFuzzer makes.
"""

import sys
import time
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["otel_sentry_asgi._policy"]):
    from otel_sentry_asgi._policy import Policy
    from otel_sentry_asgi._policy._body import clean_body_text
    from otel_sentry_asgi._policy._rules import clean_baggage, clean_query, clean_url
    from otel_sentry_asgi._policy._sql import _without_literals
    from otel_sentry_asgi._translate.request import parse_cookies

CANARY = "c4n4ry"
POLICY = Policy()
SYSTEMS = ("", "postgresql", "mysql", "sqlite", "mssql", "oracle", "redis")


def one(data: bytes) -> None:
    """One input: a system, and a text that stands before and after what is planted."""
    provider = atheris.FuzzedDataProvider(data)
    system = SYSTEMS[provider.ConsumeIntInRange(0, len(SYSTEMS) - 1)]
    text = provider.ConsumeUnicode(4_096)
    before = time.perf_counter()
    rule = POLICY.query
    cleaners: dict[str, Callable[[str], str]] = {
        "url": lambda given: clean_url(given, rule),
        "query": lambda given: clean_query(given, rule),
        "baggage": lambda given: clean_baggage(given, rule),
        "name": POLICY.text,
        "text": POLICY.free_text,
        "body": lambda given: clean_body_text(given, lambda key: "token" in key),
        "sql": lambda given: _without_literals(given, system),
    }
    for name, clean in cleaners.items():
        once = clean(text)
        assert clean(once) == once, (name, text, once)
    literal = text.replace("'", "''")
    if system == "mysql":
        literal = literal.replace("\\", "\\\\")
    for name, planted, clean in (
        ("query", f"{text}&token={CANARY}", cleaners["query"]),
        ("url", f"https://bob:{CANARY}@h/{text}", cleaners["url"]),
        ("baggage", f"{text},token={CANARY}", cleaners["baggage"]),
        ("sql", f"SELECT '{literal}{CANARY}'", cleaners["sql"]),
    ):
        if CANARY not in text:
            assert CANARY not in clean(planted), (name, planted)
    request = {
        "headers": {"authorization": CANARY, text: text, "cookie": f"{text}; sid={CANARY}"},
        "cookies": dict(parse_cookies(f"{text}; sid={CANARY}")),
        "query_string": text,
        "url": text,
        "env": {"REMOTE_ADDR": CANARY},
        "data": {"password": CANARY, text: text},
    }
    cleaned = POLICY.request(request)
    assert POLICY.request(cleaned) == cleaned
    assert CANARY in text or CANARY not in str(cleaned), cleaned
    assert time.perf_counter() - before < 1, len(text)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
