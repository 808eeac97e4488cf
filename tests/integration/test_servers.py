"""Each server logs what leaves the application in its own way: one issue under all of them."""

from __future__ import annotations

import sys

import httpx
import pytest

from tests.integration.conftest import title
from tests.support._process import accepts, spawn
from tests.support.kent import Kent

HOST = "127.0.0.1"
SERVERS = {
    "uvicorn": ["uvicorn", "--host", HOST, "--port", "{port}"],
    "hypercorn": ["hypercorn", "--bind", f"{HOST}:{{port}}"],
    "hypercorn-trio": ["hypercorn", "--worker-class", "trio", "--bind", f"{HOST}:{{port}}"],
    "granian": ["granian", "--interface", "asgi", "--host", HOST, "--port", "{port}"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_one_issue_under_every_server(server: str, kent: Kent) -> None:
    def command(port: int) -> list[str]:
        arguments = [part.format(port=port) for part in SERVERS[server]]
        return [sys.executable, "-m", *arguments, "tests.integration.servers:app"]

    child, port = spawn(command, env=lambda _: {"SENTRY_DSN": kent.dsn}, ready=accepts)
    try:
        assert httpx.get(f"http://{HOST}:{port}/a", timeout=60).status_code == 200
        assert httpx.get(f"http://{HOST}:{port}/boom", timeout=60).status_code == 500
        kent.wait_for(lambda kent: len(kent.transactions()) == 2)
    finally:
        child.stop()

    (error,) = [item.body for item in kent.errors()]
    assert title(error) == "ValueError: boom"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    names = [item.body["transaction"] for item in kent.transactions()]
    assert names == ["GET /a", "GET /boom"]
