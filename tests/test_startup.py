"""What makes start-up dear does not come back: `import otel_sentry_asgi` and `instrument()`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = """
import json, re, sys
import sentry_sdk
from opentelemetry import _logs, trace
from opentelemetry.instrumentation import asgi, instrumentor
from opentelemetry.sdk.trace import TracerProvider, export
sentry_sdk.init(dsn="http://public@127.0.0.1:9/1", traces_sample_rate=1.0)
trace.set_tracer_provider(TracerProvider())
before = set(sys.modules)
import otel_sentry_asgi
otel_sentry_asgi.instrument()
modules = sorted(sys.modules.keys() - before)
ours = ("otel_sentry_asgi", "otel_sentry_exporters")
things = [
    (name, key, thing)
    for name in modules
    if name.partition(".")[0] in ours
    for key, thing in vars(sys.modules[name]).items()
]
dataclasses = [
    key
    for name, key, thing in things
    if isinstance(thing, type) and thing.__module__ == name
    and "__dataclass_fields__" in vars(thing)
]
patterns = [f"{name}.{key}" for name, key, thing in things if isinstance(thing, re.Pattern)]
print(json.dumps({
    "dataclasses": sorted(dataclasses),
    "patterns": patterns,
    "ours": [name for name in modules if name.partition(".")[0] in ours],
    "others": [name for name in modules if name.partition(".")[0] not in ours],
}))
"""


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    """What has come to a process that had OTel and sentry-sdk."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_only_what_has_many_fields_is_a_dataclass(started: dict[str, Any]) -> None:
    """Each takes 0.3 to 1.5 ms: its methods are compiled from text."""
    assert started["dataclasses"] == ["Collection", "Settings"]


def test_no_regular_expression_is_compiled(started: dict[str, Any]) -> None:
    """Forty take 4 ms."""
    assert started["patterns"] == []


def test_nothing_is_imported_that_otel_and_sentry_sdk_do_not_import(
    started: dict[str, Any],
) -> None:
    """But for the codec of host names, without which a forked child could hang."""
    assert set(started["others"]) <= {"encodings.idna", "stringprep"}


@pytest.mark.parametrize(
    "module",
    [
        "otel_sentry_asgi.__main__",
        "otel_sentry_asgi._arguments",
        "otel_sentry_asgi._cli",
        "otel_sentry_asgi.cleaning",
        "otel_sentry_asgi.logs",
        "otel_sentry_asgi.span_exporter",
        "otel_sentry_asgi.testing",
        "otel_sentry_exporters.console",
    ],
)
def test_what_not_everybody_uses_is_not_imported(started: dict[str, Any], module: str) -> None:
    assert "otel_sentry_asgi.instrumentor" in started["ours"]
    assert module not in started["ours"]
