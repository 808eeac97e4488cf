"""A real issue tracker, in its strictest mode: it stores what we send and calls it right.

`make bugsink` runs this in an environment of its own: Bugsink brings brotli, which would change how
sentry-sdk sends to everybody else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support._process import accepts, free_port, spawn
from tests.support.scenario import scenario

pytest.importorskip("bugsink")

BIN = Path(sys.executable).parent
PROJECT = """
from projects.models import Project
from teams.models import Team
print("dsn", Project.objects.create(name="shop", team=Team.objects.create(name="shop")).dsn)
"""


@dataclass(frozen=True, slots=True)
class Bugsink:
    """A server with one project, and a token to read it back."""

    port: int
    dsn: str
    token: str

    def get(self, path: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}/api/canonical/0/{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            results: list[dict[str, Any]] = json.load(response)["results"]
            return results


@pytest.fixture(scope="module")
def bugsink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bugsink]:
    folder, port = tmp_path_factory.mktemp("bugsink"), free_port()
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"

    def run(command: str, *arguments: str, **env: str) -> str:
        done = subprocess.run(
            [str(BIN / command), *arguments],
            cwd=folder,
            env={**os.environ, "PATH": path, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    run("bugsink-create-conf", "--template=local", "--host=127.0.0.1", f"--port={port}")
    with (folder / "bugsink_conf.py").open("a") as file:
        file.write(
            'BUGSINK["PHONEHOME"] = False\n'
            'BUGSINK["VALIDATE_ON_DIGEST"] = "strict"\n'
            'ALLOWED_HOSTS = ["127.0.0.1", "localhost"]\n'
            f'DATABASES["default"]["NAME"] = "{folder}/db.sqlite3"\n'
            f'DATABASES["snappea"]["NAME"] = "{folder}/snappea.sqlite3"\n'
        )
    run("bugsink-manage", "migrate")
    run("bugsink-manage", "migrate", "--database=snappea")
    run("bugsink-manage", "prestart", CREATE_SUPERUSER="admin@example.org:admin")
    dsn = run("bugsink-manage", "shell", "-c", PROJECT).removeprefix("dsn ")
    token = run("bugsink-manage", "create_auth_token")
    child, _ = spawn(
        lambda _: [
            *(sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}"),
            *("--workers=1", "--threads=2", "bugsink.wsgi"),
        ],
        env=lambda _: {"PATH": path},
        ready=lambda _: accepts(port),
        cwd=folder,
    )
    try:
        yield Bugsink(port, dsn, token)
    finally:
        child.stop()


def test_it_stores_every_issue_under_its_title_and_culprit(bugsink: Bugsink) -> None:
    """Unhandled with a chain, recorded, logged, of a group, and of text only; and transactions,
    which it does not take, keep none of them back."""
    scenario(
        f"""
        import logging
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        sentry_sdk.init(dsn="{bugsink.dsn}", traces_sample_rate=1.0)
        trace.set_tracer_provider(TracerProvider())
        otel_sentry_asgi.instrument()
        tracer = trace.get_tracer("shop")

        async def app(scope, receive, send):
            with tracer.start_as_current_span("work") as span:
                if scope["path"] == "/chain":
                    try:
                        raise KeyError("sku")
                    except KeyError as error:
                        raise ValueError("cannot price") from error
                if scope["path"] == "/recorded":
                    span.record_exception(LookupError("recorded"))
                if scope["path"] == "/logged":
                    logging.getLogger("shop").error("stock is low")
                if scope["path"] == "/text":
                    kind = {{"exception.type": "java.lang.Error"}}
                    span.add_event("exception", {{**kind, "exception.message": "told"}})
            await hello(scope, receive, send)

        get(OpenTelemetryMiddleware(app), "/chain", "/recorded", "/logged", "/text")
        assert otel_sentry_asgi._active.active().pipeline.force_flush(10)
        """
    )
    expected = {
        ("ValueError", "cannot price", "GET /chain"),
        ("LookupError", "recorded", "GET /recorded"),
        ("Log Message", "stock is low", "GET /logged"),
        ("Error", "told", "GET /text"),
    }

    until = time.monotonic() + 20
    issues: list[dict[str, Any]] = []
    while len(issues) < len(expected) and time.monotonic() < until:
        issues = bugsink.get("issues/?project=1")

    found = {
        (one["calculated_type"], one["calculated_value"], one["transaction"]) for one in issues
    }
    assert found == expected
