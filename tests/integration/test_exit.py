"""The last requests before the end of the process, with a Sentry that is slow or hangs."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import httpx
import pytest

from tests.support._process import ChildProcess, accepts, spawn
from tests.support.otlp import OtlpReceiver
from tests.support.scenario import scenario
from tests.support.slow import SlowSentry

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"
SERVERS = {
    "uvicorn": ["uvicorn", "--host", HOST, "--port", "{port}"],
    "uvicorn-workers": ["uvicorn", "--workers", "2", "--host", HOST, "--port", "{port}"],
    "gunicorn": ["gunicorn", "-w", "2", "-k", "asgi", "-b", f"{HOST}:{{port}}"],
    "gunicorn-uvicorn": [
        *("gunicorn", "-w", "2", "-k", "uvicorn.workers.UvicornWorker"),
        *("-b", f"{HOST}:{{port}}"),
    ],
    "gunicorn-preload": [
        *("gunicorn", "--preload", "-w", "2", "-k", "uvicorn.workers.UvicornWorker"),
        *("-b", f"{HOST}:{{port}}"),
    ],
    "hypercorn": ["hypercorn", "--bind", f"{HOST}:{{port}}"],
    "granian": ["granian", "--interface", "asgi", "--host", HOST, "--port", "{port}"],
}
REQUESTS = 60
ONCE = 5  # The client's `shutdown_timeout` in seconds: long beside what a busy machine takes.


def start(
    server: str, application: str = "tests.integration.servers:app", **variables: str
) -> tuple[ChildProcess, str]:
    def command(port: int) -> list[str]:
        arguments = [part.format(port=port) for part in SERVERS[server]]
        return [sys.executable, "-m", *arguments, application]

    child, port = spawn(command, env=lambda _: variables, ready=accepts, timeout=60)
    return child, f"http://{HOST}:{port}"


def ask(url: str, count: int) -> set[str]:
    """*count* requests, all of which are answered; what with."""

    async def main() -> list[Any]:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=60, limits=limits
        ) as client:
            return await asyncio.gather(*[client.get(f"/r{number}") for number in range(count)])

    answers = asyncio.run(main())
    assert [answer.status_code for answer in answers] == [200] * count
    return {answer.text for answer in answers}


@pytest.mark.parametrize("server", [name for name in SERVERS if name != "uvicorn-workers"])
def test_what_was_just_answered_is_delivered(server: str) -> None:
    """50 ms to Sentry; one connection would need three seconds."""
    with SlowSentry(0.05) as sentry:
        child, url = start(server, SENTRY_DSN=sentry.dsn)
        try:
            ask(url, REQUESTS)
        finally:
            child.stop()

        assert sorted(sentry.transactions()) == sorted(f"GET /r{one}" for one in range(REQUESTS))


def test_both_of_uvicorns_workers_deliver() -> None:
    """They take turns as it comes, so it is asked until both have answered."""
    with SlowSentry(0.05) as sentry:
        child, url = start("uvicorn-workers", SENTRY_DSN=sentry.dsn)
        pids: set[str] = set()
        asked = 0
        try:
            while len(pids) < 2 and asked < 100 * REQUESTS:
                pids |= ask(url, REQUESTS)
                asked += REQUESTS
        finally:
            child.stop()

        assert len(pids) == 2
        assert str(child.pid) not in pids
        assert len(sentry.transactions()) == asked


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "hypercorn", "granian"])
def test_an_application_without_a_lifespan_loses_nothing_either(server: str) -> None:
    """Django's handler takes requests only, so no server would tell it of the end. A quarter of a
    second to Sentry, because Django takes its time as well."""
    with SlowSentry(0.25) as sentry:
        child, url = start(server, SENTRY_DSN=sentry.dsn, FRAMEWORK="django")
        try:
            ask(url, REQUESTS)
        finally:
            child.stop()

        paths = [payload["request"]["url"] for payload in sentry.payloads("transaction")]
        assert sorted(paths) == sorted(f"{url}/r{one}" for one in range(REQUESTS))
        assert "Traceback" not in child.output()


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize("framework", ["starlette", "plain"])
def test_a_shutdown_that_fails_is_one_error(server: str, framework: str) -> None:
    """Uvicorn ends by the signal that it was sent, without exit handlers."""
    with SlowSentry(0.25) as sentry:
        application = "tests.integration.lifespans:app"
        child, _ = start(server, application, SENTRY_DSN=sentry.dsn, FRAMEWORK=framework)
        child.stop()

        (error,) = sentry.payloads("event")
    (value,) = error["exception"]["values"]
    assert (value["type"], value["value"]) == ("RuntimeError", "not closed")
    assert value["mechanism"]["handled"] is False
    assert value["stacktrace"]["frames"][-1]["filename"] == "tests/integration/lifespans.py"


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "hypercorn"])
def test_a_sentry_that_hangs_holds_up_the_exit_once(server: str) -> None:
    """Hypercorn runs exit handlers as well, which had a timeout each."""
    with SlowSentry(None) as sentry:
        child, url = start(server, SENTRY_DSN=sentry.dsn, SHUTDOWN_TIMEOUT=str(ONCE))
        try:
            ask(url, REQUESTS)
        finally:
            begun = time.monotonic()
            child.stop()
            took = time.monotonic() - begun

    assert took < 2 * ONCE, "the timeout and what the server itself takes on a busy machine"


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_process_that_ends_waits_once_for_a_sentry_that_hangs(rate: float) -> None:
    """The provider's shutdown, ours, and the client's own; errors wait in the client's transport,
    which does not say that it has waited in vain."""
    with SlowSentry(None) as sentry:
        facts = scenario(
            f"""
import atexit, time
from opentelemetry.sdk.trace import TracerProvider
@atexit.register
def last():
    report(took=time.monotonic() - begun, sent=otel_sentry_asgi.stats())
sentry_sdk.init(dsn={sentry.dsn!r}, traces_sample_rate={rate}, shutdown_timeout={ONCE})
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
with trace.get_tracer("x").start_as_current_span("a"):
    sentry_sdk.capture_message("hello")
begun = time.monotonic()
"""
        )

    assert facts["sent"].get("transactions", 0) == rate
    assert ONCE <= facts["took"] < 2 * ONCE


@pytest.mark.parametrize("asked", [True, False])
def test_the_providers_exporters_are_flushed_if_asked(asked: bool) -> None:
    with SlowSentry(0) as sentry, OtlpReceiver() as otlp:
        child, url = start(
            "uvicorn",
            SENTRY_DSN=sentry.dsn,
            OTEL_SENTRY_FLUSH_PROVIDER=str(asked),
            OTLP_ENDPOINT=otlp.traces_endpoint,
        )
        try:
            ask(url, 5)
        finally:
            child.stop()

        servers = [span for span in otlp.spans() if span.kind == "SERVER"]
        assert len(servers) == (5 if asked else 0)
