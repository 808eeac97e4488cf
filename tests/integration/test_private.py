"""What is planted everywhere leaves exactly where the settings say, searched for in all that both
receivers got: over real connections, under every setting and generation of the conventions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.integration.places import BODY, HEADERS, OPEN, PLACES, PRIVATE, QUERY, SETTINGS, WITH_PII
from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver
from tests.support.relay import relay_check
from tests.support.server import ServerProcess, serve_process

AS_TEXT = {**HEADERS, "content-type": "text/plain"}

pytestmark = pytest.mark.slow


@dataclass
class Canary:
    """The service and what is on its other side."""

    server: ServerProcess
    kent: Kent
    raw: OtlpReceiver
    clean: OtlpReceiver

    def under(self, setting: str) -> None:
        """Give it a client with other options, and forget what came before."""
        options = {"dsn": self.kent.dsn, **SETTINGS[setting]}
        self._post("/_client", json=options)
        self._post("/_flush")
        for receiver in (self.kent, self.raw, self.clean):
            receiver.reset()

    def ask(self, what: str, **given: object) -> None:
        """A request with everything in it, and all that comes of it."""
        url = f"{self.server.url}/{what}/7?{QUERY}"
        sent: Any = {"json": BODY, "headers": HEADERS, **given}
        answer = httpx.post(url, **sent)
        assert answer.status_code == (500 if what == "boom" else 200)
        self._post("/_flush")

    def _post(self, path: str, **given: Any) -> None:
        httpx.post(f"{self.server.url}{path}", timeout=20, **given).raise_for_status()


@pytest.fixture(scope="module", params=["old", "http,database", "http/dup,database/dup"])
def canary(request: pytest.FixtureRequest, kent_server: Kent) -> Iterator[Canary]:
    with OtlpReceiver() as raw, OtlpReceiver() as clean:
        env = {
            "OTEL_SEMCONV_STABILITY_OPT_IN": request.param,
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": ".*",
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": ".*",
            "RAW_LEG": raw.traces_endpoint,
            "CLEAN_LEG": clean.traces_endpoint,
        }
        arguments = ["--header", "X-Argv:argv-secret"]
        with serve_process("tests.integration.canary:app", env=env, arguments=arguments) as server:
            yield Canary(server, kent_server, raw, clean)


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_leaves_that_the_settings_keep_in(canary: Canary, setting: str) -> None:
    canary.under(setting)

    for what in ("ok", "handled", "boom"):
        canary.ask(what)

    sentry, other = canary.kent.raw(), canary.clean.raw()
    assert canary.kent.transactions()
    assert len(canary.kent.errors()) >= 3
    kept_in = [place.value for place in PLACES if setting not in place.may_leave]
    assert [value for value in kept_in if value in sentry] == []
    # Secrets that travel in messages are known from the request, which that leg knows nothing of.
    unknown = {"header-bearer"} if setting in WITH_PII else set()
    assert [value for value in kept_in if value in other and value not in unknown] == []
    if setting not in WITH_PII:
        assert "argv-secret" not in sentry  # With personal data it is in locals of the server.
    for item in [*canary.kent.transactions(), *canary.kent.errors()]:
        assert len(item.body.get("extra", {}).get("sys.argv", ["program"])) == 1
        problems = relay_check(item.body)
        assert [one for one in problems if one.kind not in ("remark", "trimmed")] == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_may_leave_arrives(canary: Canary, setting: str) -> None:
    """So that the search is known to find what is there."""
    canary.under(setting)

    for what in ("ok", "boom"):
        canary.ask(what)

    sentry = canary.kent.raw()
    may = [place.value for place in PLACES if setting in place.may_leave]
    assert [value for value in may if value not in sentry] == []
    unheard = (
        "body",
        "cookie",
        "crumb",
        "tag",
        "extra",
        "context",
        "argument",
        "argv",
        "exception",
    )
    planted = [place.value for place in PLACES if not place.value.startswith(unheard)]
    raw = canary.raw.raw()
    assert len([value for value in planted if value in raw]) > 0.9 * len(planted)


@pytest.mark.parametrize("setting", [PRIVATE, OPEN])
@pytest.mark.parametrize(
    "given",
    [
        {"files": {"file": ("a.txt", b"file-content")}, "data": {"field": "file-field"}},
        {
            "content": b"raw-content, long enough",
            "headers": AS_TEXT,
        },
        {"content": b"{" + b"x" * 20_000 + b"large-content"},
    ],
    ids=["multipart", "text", "too large"],
)
def test_bodies_that_cannot_be_filtered_do_not_leave(
    canary: Canary, setting: str, given: dict[str, Any]
) -> None:
    canary.under(setting)
    canary.ask("ok", json=None, **given)
    if setting == PRIVATE:  # With personal data the application's locals may hold them.
        canary.ask("boom", json=None, **given)
        assert canary.kent.errors()
    text = "\n".join(
        map(str, canary.kent.transactions() + canary.kent.errors() * (setting == PRIVATE))
    )
    assert [one for one in canary.kent.transactions() if "/{item}" in str(one.body)]
    for value in ("file-content", "file-field", "raw-content", "large-content"):
        assert value not in text
