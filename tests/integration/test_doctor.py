"""`python -m otel_sentry_asgi doctor` says what stands in the way, and how its test is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

from otel_sentry_asgi._cli.doctor import without_headers
from tests.support.kent import Kent

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def doctor(*arguments: str, **variables: str) -> tuple[int, str]:
    """Its exit code and what it printed."""
    ours = ("OTEL_", "SENTRY_")
    inherited: Mapping[str, str] = {
        key: os.environ[key] for key in os.environ if not key.startswith(ours)
    }
    done = subprocess.run(
        [sys.executable, "-m", "otel_sentry_asgi", "doctor", *arguments],
        cwd=ROOT,
        env={**inherited, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("app", [(), ("--app", "tests.integration.servers:app")])
def test_a_set_up_that_works(kent: Kent, app: tuple[str, ...]) -> None:
    code, printed = doctor(*app, SENTRY_DSN=kent.dsn)

    assert code == 0, printed
    assert "nothing stands in the way" in printed
    assert "no trace headers in requests of aiohttp, httpx: " in printed
    (transaction,), (error,) = kent.transactions(), kent.errors()
    assert f"trace {transaction.body['contexts']['trace']['trace_id']}" in printed
    assert f"event {error.body['event_id']}" in printed
    assert f"/issues/?project=1&query={error.body['event_id']}\n" in printed
    assert f"/trace/{transaction.body['contexts']['trace']['trace_id']}/\n" in printed


def test_what_is_printed_has_no_key_in_it(kent: Kent) -> None:
    """It is made to be shown to others."""
    _, printed = doctor("--no-send", SENTRY_DSN=kent.dsn, OTEL_SENTRY_HASH_KEY="opensesame")

    assert "settings: hash_key\n" in printed
    assert "opensesame" not in printed


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "sentry_sdk.init() has not been called"),
        ({"OTEL_SDK_DISABLED": "true"}, "OpenTelemetry: off"),
        ({"OTEL_SENTRY_LINGR": "1"}, "OTEL_SENTRY_LINGR is no setting"),
        ({"SENTRY_TRACES_SAMPLE_RATE": "0"}, "set traces_sample_rate to more than 0"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "the test transaction was not sent"),
        (
            {
                "OTEL_PROPAGATORS": "tracecontext,sentry_asgi,baggage",
                "OTEL_SENTRY_PROPAGATE": "false",
            },
            "put `sentry_asgi` last in OTEL_PROPAGATORS",
        ),
        ({"SENTRY_DSN": "http://public@127.0.0.1:9/1"}, "sending failed"),
    ],
)
def test_what_stands_in_the_way(kent: Kent, variables: dict[str, str], message: str) -> None:
    given = {"SENTRY_DSN": kent.dsn, **variables} if variables else {}
    code, printed = doctor(**given)

    assert code == 1
    assert message in printed
    assert "!!" in printed


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nope:app", "No module named 'nope'"),
        ("./main.py:app", "not MODULE:NAME"),
        (":app", "not MODULE:NAME"),
        ("tests.integration.servers:nope", "has no attribute 'nope'"),
    ],
)
def test_an_application_that_is_not_there(app: str, message: str) -> None:
    code, printed = doctor("--app", app)

    assert code == 2
    assert printed.startswith(f"--app {app}: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_clients_whose_requests_carry_no_headers_are_named() -> None:
    modules = {**sys.modules, **dict.fromkeys(("aiohttp", "httpx", "requests"))}
    before = without_headers(modules)
    HTTPXClientInstrumentor().instrument()
    URLLib3Instrumentor().instrument()
    try:
        assert before == ["aiohttp", "httpx", "requests"]
        assert without_headers(modules) == ["aiohttp"]  # requests sends by urllib3.
    finally:
        HTTPXClientInstrumentor().uninstrument()
        URLLib3Instrumentor().uninstrument()


def test_looking_sends_nothing(kent: Kent) -> None:
    code, _ = doctor("--no-send", SENTRY_DSN=kent.dsn)

    assert code == 0
    assert kent.items() == []
