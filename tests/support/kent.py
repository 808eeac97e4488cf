"""The Sentry side: kent, a fake Sentry that keeps every envelope item as it came."""

import http.client
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import Self

from tests.support._process import ChildProcess, spawn
from tests.support._wait import until

T = TypeVar("T")

# Not the `kent-server` script: that one is not on the path of a bare interpreter.
_MAIN = "import sys; sys.argv[0] = 'kent-server'; from kent.cli_server import main; main()"


@dataclass(frozen=True, slots=True)
class Item:
    """One envelope item as kent received it."""

    type: str
    envelope: dict[str, Any]
    header: dict[str, Any]
    body: dict[str, Any]


class Kent:
    """A kent subprocess on a free port, for the length of a `with` block.

    It keeps the last 100 items; its ids are its own and not shown. It answers 500 to attachments,
    and to brotli, so make clients with `options`.
    """

    def __init__(self) -> None:
        self._child: ChildProcess | None = None
        self._port = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._seen: dict[str, Item] = {}

    def __enter__(self) -> Self:
        # Flask reads settings from the working directory, so it gets an empty one.
        self._folder = tempfile.TemporaryDirectory()
        try:
            self._child, self._port = spawn(
                lambda port: (
                    *(sys.executable, "-c", _MAIN),
                    *("run", "--host", "127.0.0.1", "--port", str(port)),
                ),
                ready=_answers,
                cwd=Path(self._folder.name),
            )
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self._port}/1"

    @property
    def options(self) -> dict[str, Any]:
        """The options that a client needs to send to it: `sentry_sdk.init(**kent.options)`."""
        return {"dsn": self.dsn, "_experiments": {"transport_compression_algo": "gzip"}}

    def items(self) -> list[Item]:
        """What it holds, in the order of arrival."""
        ids = [event["event_id"] for event in self._get("/api/eventlist/")["events"]]
        # Items do not change, so each is fetched once.
        self._seen = {id_: self._seen.get(id_) or self._item(id_) for id_ in ids}
        return list(self._seen.values())

    def transactions(self) -> list[Item]:
        return self.of_type("transaction")

    def errors(self) -> list[Item]:
        return self.of_type("event")

    def sessions(self) -> list[Item]:
        """Single sessions and aggregates."""
        return self.of_type("session", "sessions")

    def session_counts(self) -> Counter[str]:
        """How many sessions ended how. sentry-sdk sends one aggregate for each minute in which
        some began, so a test that a minute's end falls into gets two."""
        counts: Counter[str] = Counter()
        for item in self.of_type("sessions"):
            for aggregate in item.body["aggregates"]:
                counts.update({how: n for how, n in aggregate.items() if how != "started"})
        return counts

    def client_reports(self) -> list[Item]:
        return self.of_type("client_report")

    def of_type(self, *types: str) -> list[Item]:
        return [item for item in self.items() if item.type in types]

    def raw(self) -> str:
        """All it has stored, envelope and item headers included, as text to search for what must
        not be there. Characters beyond ASCII are not escaped; quotes and backslashes are."""
        return "\n".join(
            json.dumps([item.envelope, item.header, item.body], ensure_ascii=False)
            for item in self.items()
        )

    def log(self) -> str:
        """What kent printed: the headers of each request are in it."""
        return self._child.output() if self._child is not None else ""

    def reset(self) -> None:
        """Forget all items."""
        _request("POST", self._port, "/api/flush/")
        self._seen.clear()

    def wait_for(self, probe: Callable[[Self], T], timeout: float = 30.0) -> T:
        """Return the first true value of *probe*: `kent.wait_for(Kent.transactions)`."""
        return until(lambda: probe(self), timeout=timeout, describe=self._describe)

    def _describe(self) -> str:
        return f"kent has {[item.type for item in self.items()]}"

    def _item(self, id_: str) -> Item:
        payload = self._get(f"/api/event/{id_}")["payload"]
        header = payload["header"] or {}
        return Item(
            type=header.get("type", "event"),
            envelope=payload["envelope_header"] or {},
            header=header,
            body=payload["body"],
        )

    def _get(self, path: str) -> dict[str, Any]:
        answer = _request("GET", self._port, path)
        assert isinstance(answer, dict)
        return answer


def _answers(port: int) -> bool:
    try:
        return "events" in _request("GET", port, "/api/eventlist/")
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _request(method: str, port: int, path: str) -> Any:
    # Not urllib: it would go through a proxy that the environment names.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        msg = f"kent answered {response.status} to {method} {path}: {body[:500]!r}"
        raise ValueError(msg)
    return json.loads(body)
