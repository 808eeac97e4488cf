"""Forks in the middle of traffic: a child sends its own and nothing of its parent's, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scenario import scenario
from tests.support.slow import SlowSentry

pytestmark = pytest.mark.slow

CHILDREN, EACH = 6, 5
STARTED, OF_EACH = 2, 5  # As in the program.

TRAFFIC = f"""
import os, threading, time
from opentelemetry.sdk.trace import TracerProvider

FIRST
SECOND
tracer, over, done = trace.get_tracer("x"), threading.Event(), []

def send(name):
    with tracer.start_as_current_span(name):
        sentry_sdk.capture_message(name)

send("warm")
def work(who):
    count = 0
    while not over.is_set():
        send(f"parent {{who}} {{count}}")
        done.append(1)
        count += 1
        time.sleep(0.005)

threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
for thread in threads:
    thread.start()
children = []
for child in range({CHILDREN}):
    before = len(done)
    while len(done) < before + 3:
        time.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        for number in range({EACH}):
            send(f"child {{child}} {{number}}")
        flushed = otel_sentry_asgi._active.active().pipeline.force_flush(20)
        os._exit(0 if flushed else 1)
    children.append(pid)
over.set()
for thread in threads:
    thread.join()
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
flushed = otel_sentry_asgi._active.active().pipeline.force_flush(20)
report(codes=codes, sent=len(done) + 1, flushed=flushed)
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("provider", ["before", "after"])
def test_a_child_shares_nothing_with_its_parent(provider: str) -> None:
    """Each transaction and each error arrives once, and no connection brings both sides'."""
    steps = [
        "trace.set_tracer_provider(TracerProvider())",
        "sentry_sdk.init(dsn=os.environ['SENTRY_DSN'], traces_sample_rate=1.0,"
        " _experiments={'transport_compression_algo': 'gzip'}); otel_sentry_asgi.instrument()",
    ]
    first, second = steps if provider == "before" else reversed(steps)
    with SlowSentry(0.01) as sentry:
        code = TRAFFIC.replace("FIRST", first).replace("SECOND", second)
        code = "import warnings; warnings.simplefilter('ignore')\n" + code
        facts = scenario(code, env={"SENTRY_DSN": sentry.dsn}, timeout=60)

        assert facts["codes"] == [0] * CHILDREN
        assert facts["flushed"] is True
        owners = _owners(sentry)
        transactions = sentry.transactions()
        errors = [str(payload["message"]) for payload in sentry.payloads("event")]
    for names in (transactions, errors):
        assert len(names) == len(set(names))
        assert sum(name.startswith("child") for name in names) == CHILDREN * EACH
        assert len(names) == facts["sent"] + CHILDREN * EACH
    assert all(len(processes) == 1 for processes in owners.values())


@pytest.mark.parametrize("exporter", ["envelope.EnvelopeExporter", "sdk.SdkExporter"])
def test_no_thread_of_uploads_imports_a_module(exporter: str) -> None:
    """A child that is forked meanwhile would wait for the lock of that import for ever."""
    module, name = exporter.split(".")
    with SlowSentry(0) as sentry:
        facts = scenario(
            f"""
import os, threading
from opentelemetry.sdk.trace import TracerProvider
from otel_sentry_exporters.{module} import {name}

imported = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            imported.append(name)

sentry_sdk.init(dsn={sentry.dsn!r}, traces_sample_rate=1.0, release="a",
                _experiments={{"transport_compression_algo": "gzip"}})
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument(exporter={name}())
sys.meta_path.insert(0, Finder())
for _ in range(2):
    with trace.get_tracer("x").start_as_current_span("a"):
        sentry_sdk.capture_message("hello")
    otel_sentry_asgi._active.active().pipeline.force_flush(20)
report(imported=imported, stats=otel_sentry_asgi.stats())
"""
        )
    assert facts["imported"] == []
    assert facts["stats"]["transactions"] == 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_multiprocessing_starts_sends_its_own_up_to_its_end(method: str) -> None:
    """Forked ones end without exit handlers."""
    with SlowSentry(0.05) as sentry:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.integration.processes", method],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "SENTRY_DSN": sentry.dsn},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        owners = _owners(sentry)
        transactions = sentry.transactions()
        errors = [str(payload["message"]) for payload in sentry.payloads("event")]

    whose = ["before", "during", "after", *(f"child{one}" for one in range(STARTED))]
    expected = sorted(f"{who} {number}" for who in whose for number in range(OF_EACH))
    assert sorted(transactions) == expected
    assert sorted(errors) == expected
    assert all(len(processes) == 1 for processes in owners.values())


def _owners(sentry: SlowSentry) -> dict[int, set[str]]:
    """Of each connection the processes whose telemetry it has brought."""
    owners: dict[int, set[str]] = {}
    for upload in sentry.uploads:
        for kind, payload in upload.payloads:
            if kind in ("transaction", "event"):
                name = payload.get("transaction" if kind == "transaction" else "message", "")
                owners.setdefault(upload.port, set()).add(_process(str(name)))
    return owners


def _process(name: str) -> str:
    kind, _, rest = name.partition(" ")
    if kind == "child":
        return f"child {rest.split()[0]}"
    return kind if kind.startswith("child") else "parent"
