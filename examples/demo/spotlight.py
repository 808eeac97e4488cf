"""Spotlight, Sentry's viewer for development, from npm."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support._process import accepts, spawn
from tests.support.kent import Item

# Its own pin of hono answers every request with 500.
PACKAGE = {
    "private": True,
    "dependencies": {"@spotlightjs/spotlight": "4.11.8"},
    "overrides": {"hono": "4.12.25"},
}
FOLDER = Path(__file__).parents[2] / "build" / "spotlight"

_QUIET = 0.3
"""Seconds. The stream begins with everything there is; a pause says that it is through."""


class NoNodeError(RuntimeError):
    """There is no Node to run Spotlight with."""


@dataclass(frozen=True, slots=True)
class Spotlight:
    """A running Spotlight."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.port}/1"

    def items(self) -> list[Item]:
        """What it has got, in the order of arrival."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_QUIET)
        items: list[Item] = []
        try:
            connection.request("GET", "/stream", headers={"Accept": "text/event-stream"})
            response = connection.getresponse()
            while line := response.readline():
                if line.startswith(b"data: "):
                    items.extend(_items(line[6:]))
        except TimeoutError:
            pass
        finally:
            connection.close()
        return items


@contextmanager
def spotlight() -> Iterator[Spotlight]:
    """Install Spotlight below `build/` if it is not there yet, and run it."""
    npm = shutil.which("npm")
    if npm is None:
        msg = "SPOTLIGHT=1 needs Node and npm, which are not on the PATH"
        raise NoNodeError(msg)
    binary = FOLDER / "node_modules" / ".bin" / "spotlight"
    if not binary.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "package.json").write_text(json.dumps(PACKAGE))
        print("installing Spotlight with npm ...", flush=True)
        subprocess.run([npm, "install", "--no-audit", "--no-fund"], cwd=FOLDER, check=True)
    # It reports to its makers; a proxy that is not there keeps it from doing so.
    nowhere = {"https_proxy": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"}
    child, port = spawn(
        lambda port: [str(binary), "server", "-p", str(port)],
        env=lambda _: nowhere,
        ready=accepts,
    )
    try:
        yield Spotlight(port)
    finally:
        child.stop()


def _items(envelope: bytes) -> Iterator[Item]:
    header, parts = json.loads(envelope)
    own = {key: value for key, value in header.items() if not key.startswith("__spotlight")}
    for part_header, body in parts:
        yield Item(
            type=part_header.get("type", "event"), envelope=own, header=part_header, body=body
        )
