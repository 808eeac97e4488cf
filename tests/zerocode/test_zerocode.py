"""Nothing in the code: `opentelemetry-instrument`, the environment, and OTel's configuration file.

`BIN` is where the scripts are: by default this environment's, under `make wheel` those of a fresh
one with nothing but the built wheel, a framework and a server.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support._process import ChildProcess, accepts, spawn
from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver

BIN = Path(os.environ.get("ZEROCODE_BIN", str(Path(sys.executable).parent)))
HERE = Path(__file__).parent

# No exporter but what a test names. The distribution's default is gRPC, for which nothing is there.
QUIET = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kent_server() -> Iterator[Kent]:
    with Kent() as kent:
        yield kent


@pytest.fixture
def kent(kent_server: Kent) -> Kent:
    kent_server.reset()
    return kent_server


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what would set up OTel or Sentry, and with *variables*."""
    ours = ("OTEL_", "SENTRY_", "PYTHONPATH")
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith(ours)}
    path = f"{BIN}{os.pathsep}{inherited['PATH']}"
    return {**inherited, **QUIET, **variables, "PATH": path, "PYTHONUNBUFFERED": "1"}


@contextmanager
def service(**variables: str) -> Iterator[tuple[str, ChildProcess]]:
    """`opentelemetry-instrument uvicorn main:app`, as its base URL and its process."""

    def command(port: int) -> list[str]:
        prefix = [str(BIN / "opentelemetry-instrument")]
        server = [str(BIN / "uvicorn"), "main:app", "--host", "127.0.0.1", "--port", str(port)]
        # `env -i`: the support code would add this process's variables.
        pairs = [f"{key}={value}" for key, value in environment(**variables).items()]
        return ["/usr/bin/env", "-i", *pairs, *prefix, *server]

    child, port = spawn(command, ready=accepts, cwd=HERE)
    try:
        yield f"http://127.0.0.1:{port}", child
    finally:
        child.stop()


def run(script: str, **variables: str) -> str:
    """`opentelemetry-instrument python SCRIPT`; what it printed."""
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), str(BIN / "python"), script],
        env=environment(**variables),
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def ask(url: str, *paths: str) -> list[int]:
    with httpx.Client(base_url=url, trust_env=False) as client:
        return [client.get(path).status_code for path in paths]


def names(kent: Kent) -> list[str]:
    return [item.body["transaction"] for item in kent.transactions()]


def exceptions(kent: Kent) -> list[str]:
    return [item.body["exception"]["values"][-1]["type"] for item in kent.errors()]


def trace_of(body: dict[str, Any]) -> str:
    return str(body["contexts"]["trace"]["trace_id"])


def assert_whole(kent: Kent) -> None:
    """A transaction for each of the two requests, an issue for the one that failed."""
    kent.wait_for(lambda kent: len(kent.transactions()) == 2 and kent.errors())
    assert names(kent) == ["GET /orders/{order_id}"] * 2
    assert exceptions(kent) == ["ZeroDivisionError"]
    (error,) = kent.errors()
    assert error.body["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert trace_of(error.body) == trace_of(kent.transactions()[1].body)


def test_the_environment_is_enough(kent: Kent) -> None:
    """Also where nothing configures OTel: the first request finds no provider."""
    with service(SENTRY_DSN=kent.dsn, OTEL_PYTHON_CONFIGURATOR="none") as (url, _):
        assert ask(url, "/orders/1", "/orders/0") == [200, 500]
        assert_whole(kent)


def test_two_exporters_send_to_both_sides_and_to_sentry_once(kent: Kent) -> None:
    with (
        OtlpReceiver() as otlp,
        service(
            SENTRY_DSN=kent.dsn,
            OTEL_TRACES_EXPORTER="otlp,sentry",
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint,
        ) as (url, _),
    ):
        assert ask(url, "/orders/1", "/orders/0") == [200, 500]
        assert_whole(kent)
        ours = {trace_of(item.body) for item in kent.transactions()}
        otlp.wait_for(lambda otlp: ours <= {span.trace_id for span in otlp.spans()})
    # It has ended, so whatever was to come is there.
    assert_whole(kent)


def test_the_exporter_alone_serves_a_process_without_asgi(kent: Kent) -> None:
    run(
        "batch.py",
        SENTRY_DSN=kent.dsn,
        OTEL_TRACES_EXPORTER="sentry",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sentry_asgi",
    )

    assert names(kent) == ["job good", "job bad"]
    good, bad = (item.body for item in kent.transactions())
    assert [span["description"] for span in good["spans"]] == ["fetch", "store"]
    assert bad["contexts"]["trace"]["status"] == "internal_error"
    assert exceptions(kent) == ["ValueError"]
    assert trace_of(kent.errors()[0].body) == trace_of(bad)


@pytest.mark.parametrize("exporter", ["none", "sentry"])
def test_a_process_without_asgi_sends_once_with_the_instrumentor(kent: Kent, exporter: str) -> None:
    run("batch.py", SENTRY_DSN=kent.dsn, OTEL_TRACES_EXPORTER=exporter)

    assert names(kent) == ["job good", "job bad"]
    assert exceptions(kent) == ["ValueError"]


CONFIGURATION = """
file_format: "1.0"
resource:
  attributes: [{name: service.name, value: shop}]
tracer_provider:
  processors:
    - batch:
        schedule_delay: 50
        exporter: {sentry: {max_spans: 1}}
"""
INSTRUMENTED = """
instrumentation/development:
  python:
    sentry_asgi: {max_spans: 1}
"""


@pytest.mark.parametrize("instrumented", [True, False])
def test_a_configuration_file(kent: Kent, tmp_path: Path, instrumented: bool) -> None:
    """With options, which are the settings."""
    file = tmp_path / "otel.yaml"
    file.write_text(CONFIGURATION + (INSTRUMENTED if instrumented else ""))
    disabled = {} if instrumented else {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "sentry_asgi"}

    printed = run("batch.py", SENTRY_DSN=kent.dsn, OTEL_CONFIG_FILE=str(file), **disabled)

    assert names(kent) == ["job good", "job bad"]
    assert [len(item.body["spans"]) for item in kent.transactions()] == [1, 1]
    assert exceptions(kent) == ["ValueError"]
    assert "already instrumented" not in printed


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SENTRY_TRACES_SAMPLE_RATE": "2"}, "SENTRY_TRACES_SAMPLE_RATE must be a number"),
        ({"SENTRY_SEND_DEFAULT_PII": "maybe"}, "SENTRY_SEND_DEFAULT_PII must be true or false"),
        ({"OTEL_SENTRY_MAX_SPANS": "0"}, "max_spans must be a whole number"),
        ({"SENTRY_DSN": "garbage"}, "SENTRY_DSN cannot be used"),
        ({"SENTRY_DSN": "garbage", "OTEL_TRACES_EXPORTER": "sentry"}, "SENTRY_DSN cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_and_harms_nobody(
    kent: Kent, variables: dict[str, str], message: str
) -> None:
    """The instrumentations after ours are loaded, and the process runs."""
    printed = run("batch.py", **{"SENTRY_DSN": kent.dsn, **variables})

    assert message in printed
    assert "Failed to auto initialize" not in printed
    assert kent.items() == []


def test_the_environment_decides_what_is_sampled(kent: Kent) -> None:
    run("batch.py", SENTRY_DSN=kent.dsn, SENTRY_TRACES_SAMPLE_RATE="0")

    assert names(kent) == []
    assert exceptions(kent) == ["ValueError"]


def test_a_client_that_the_application_makes_takes_over(kent: Kent) -> None:
    with Kent() as first:
        run("own_client.py", SENTRY_DSN=first.dsn, APPLICATIONS_DSN=kent.dsn)

        assert first.items() == []
    assert names(kent) == ["job good", "job bad"]
    assert exceptions(kent) == ["ValueError"]


def test_without_a_dsn_nothing_happens(kent: Kent) -> None:
    with service() as (url, child):
        assert ask(url, "/orders/1", "/orders/0") == [200, 500]
    assert child.output().count("nothing is sent to Sentry") == 1
    assert kent.items() == []
