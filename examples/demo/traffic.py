"""What the shop is put through, and what should come of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from examples.demo.private import ADDRESS, API_KEY, BEARER, COOKIE, EMAIL, PUBLIC, TOKEN

HEADERS: Final = {
    "Cookie": f"session={COOKIE.value}",
    "Authorization": f"Bearer {BEARER.value}",
    "X-Api-Key": API_KEY.value,
    "X-Forwarded-For": ADDRESS.value,
}
QUERY: Final = f"colour={PUBLIC.value}&token={TOKEN.value}"


@dataclass(frozen=True, slots=True)
class Reply:
    """One request or websocket session, from the caller's side."""

    answer: str
    trace_id: str
    owner: str | None = None
    """The tag and user that everything of this request must have."""
    caller: str | None = None
    """The trace that the caller asked for."""


Drive = Callable[["Caller"], Awaitable[Sequence[Reply]]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Traffic, and for each reply to it what Sentry should have."""

    name: str
    drive: Drive
    answer: str
    """Status code, or close code of a websocket; several when servers differ."""
    transactions: int = 1
    follow_ups: int = 0
    issue: str | None = None
    """How the title of the one issue begins."""
    handled: bool | None = None
    spans: bool = True
    """Whether the OTLP side has spans."""
    hot: str | None = None
    """The hottest function of its profile; None if it has none."""
    show: bool = False
    """Whether the report draws all there is."""


class Caller:
    """Sends requests to the shop; each carries all that is private."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def ask(
        self, method: str, path: str, *, owner: str | None = None, parent: str = "", **body: Any
    ) -> Reply:
        headers = {**HEADERS, **({"traceparent": parent} if parent else {})}
        url = f"{self._base_url}{path}?{QUERY}"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            response = await client.request(method, url, headers=headers, json=body or None)
        answer, trace_id = str(response.status_code), _trace_id(response.headers)
        return Reply(answer, trace_id, owner, caller=parent.split("-")[1] if parent else None)

    async def talk(self, *messages: str) -> Reply:
        """Send each message and wait for its answer; the reply is the close code."""
        url = f"{self._base_url.replace('http', 'ws', 1)}/support?{QUERY}"
        async with connect(url, additional_headers=HEADERS, proxy=None) as socket:
            assert socket.response is not None
            trace_id = _trace_id(socket.response.headers)
            try:
                for message in messages:
                    await socket.send(message)
                    await socket.recv()
            except ConnectionClosed:
                pass
        assert socket.close_code is not None
        return Reply(str(int(socket.close_code)), trace_id)


def one(method: str, path: str, **options: Any) -> Drive:
    async def drive(caller: Caller) -> list[Reply]:
        return [await caller.ask(method, path, **options)]

    return drive


def session(*messages: str) -> Drive:
    async def drive(caller: Caller) -> list[Reply]:
        return [await caller.talk(*messages)]

    return drive


async def eight_at_once(caller: Caller) -> list[Reply]:
    names = [f"customer-{number}" for number in range(8)]
    asked = (caller.ask("GET", f"/baskets/{name}", owner=name) for name in names)
    return await asyncio.gather(*asked)


def _trace_id(headers: Any) -> str:
    """The shop tells it in the form of a `traceparent`."""
    return str(headers["traceresponse"]).split("-")[1]


def traceparent(*, sampled: bool) -> str:
    """Of a caller with a trace of its own, another one each time the demo runs."""
    return f"00-{token_hex(16)}-{token_hex(8)}-0{int(sampled)}"


SCENARIOS: Final = (
    Scenario("plain, with a database span", one("GET", "/products/1"), "200", show=True),
    Scenario("not found", one("GET", "/products/99"), "404"),
    Scenario("an e-mail in a statement", one("POST", "/customers", email=EMAIL.value), "201"),
    Scenario("slow, with a profile", one("GET", "/search/copper%20ketle"), "200", hot="distance"),
    Scenario("500 without an exception", one("GET", "/stock"), "500"),
    Scenario(
        "unhandled, no open span",
        one("GET", "/reports/average"),
        "500",
        issue="ZeroDivisionError",
        handled=False,
    ),
    Scenario(
        "unhandled in a span, chained",
        one("POST", "/orders"),
        "500",
        issue="PaymentFailedError",
        handled=False,
        show=True,
    ),
    Scenario(
        "handled, and recorded",
        one("GET", "/recommendations"),
        "200",
        issue="TimeoutError",
        handled=True,
    ),
    Scenario(
        "recorded, captured, logged",
        one("POST", "/refunds"),
        "200",
        issue="PermissionError",
        handled=True,
    ),
    Scenario(
        "raised after the response",
        one("POST", "/newsletter"),
        "202",
        issue="ConnectionResetError",
        handled=False,
    ),
    Scenario(
        "raised in a task left behind",
        one("POST", "/exports"),
        "202",
        follow_ups=1,
        issue="OSError",
        handled=False,
        show=True,
    ),
    Scenario("logging.error", one("GET", "/prices/XTS"), "200", issue="no exchange rate for XTS"),
    Scenario(
        "eight at once, tag and user", eight_at_once, "200", issue="stale basket of customer-"
    ),
    Scenario("websocket", session("my kettle is cold", "it is plugged in"), "1000"),
    Scenario(
        "websocket that fails",
        session("hello", "a human, please"),
        "1006 1011",
        issue="NotImplementedError",
        handled=False,
        show=True,
    ),
    Scenario(
        "traceparent, sampled",
        one("GET", "/products/2", parent=traceparent(sampled=True)),
        "200",
    ),
    Scenario(
        "traceparent, not sampled",
        one("GET", "/reports/average", parent=traceparent(sampled=False)),
        "500",
        transactions=0,
        issue="ZeroDivisionError",
        handled=False,
        spans=False,
    ),
)


async def drive(base_url: str) -> list[tuple[Scenario, Sequence[Reply]]]:
    """Put the shop through everything, one after the other."""
    caller = Caller(base_url)
    return [(scenario, await scenario.drive(caller)) for scenario in SCENARIOS]
