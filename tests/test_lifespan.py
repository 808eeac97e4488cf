"""A failed start-up or shutdown is one error, however application and server tell of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from otel_sentry_asgi._lifespan import Lifespan

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Receive, Send], Awaitable[None]]


class FakeBridge:
    """Stands in for bridge and issues, and notes what it is told."""

    def __init__(self) -> None:
        self.issues = self
        self.calls: list[Any] = []

    def is_ready(self) -> bool:
        self.calls.append("is_ready")
        return True

    def lifespan_fails(self) -> None:
        self.calls.append("lifespan_fails")

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        assert mechanism == "auto.lifespan.otel.asgi"
        self.calls.append((error, message))

    def end(self) -> None:
        self.calls.append("end")


class Broken(FakeBridge):
    """Fails whatever it is told."""

    def is_ready(self) -> bool:
        raise ValueError("ours")

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        raise ValueError("ours")

    def end(self) -> None:
        raise ValueError("ours")


def run(app: App, bridge: FakeBridge) -> list[Message]:
    """Run *app* for a lifespan; return what it sent, and raise what it raised."""
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": next(events)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        with Lifespan(bridge, receive, send) as lifespan:  # type: ignore[arg-type]
            await app(lifespan.receive, lifespan.send)

    asyncio.run(main())
    return sent


def of_errors(bridge: FakeBridge) -> list[Any]:
    return [call for call in bridge.calls if isinstance(call, tuple)]


async def succeeds(receive: Receive, send: Send) -> None:
    for done in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
        await receive()
        await send({"type": done})


def test_what_succeeds_is_passed_on_and_no_error() -> None:
    bridge = FakeBridge()
    assert run(succeeds, bridge) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    assert of_errors(bridge) == []


def test_what_has_ended_is_sent_before_the_server_hears_that_shutdown_is_over() -> None:
    """Servers end the process on that word."""
    bridge = FakeBridge()
    order: list[Any] = []

    async def app(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        order.append(list(bridge.calls))
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        order.append(list(bridge.calls))

    run(app, bridge)
    assert order == [["is_ready"], ["is_ready", "end"]]


@pytest.mark.parametrize("when", ["startup", "shutdown"])
def test_an_exception_is_one_error_and_passes_as_it_is(when: str) -> None:
    bridge, error = FakeBridge(), ValueError("no database")

    async def app(receive: Receive, send: Send) -> None:
        await receive()
        if when == "shutdown":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": f"lifespan.{when}.failed", "message": "Traceback ..."})
        raise error

    with pytest.raises(ValueError, match="no database") as caught:
        run(app, bridge)
    assert caught.value is error
    assert of_errors(bridge) == [(error, "Traceback ...")]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"message": "no database"}, "no database"),
        ({}, "lifespan.startup.failed"),
        ({"message": ""}, "lifespan.startup.failed"),
    ],
)
def test_a_failure_without_an_exception_is_an_error_with_its_message(
    message: Message, expected: str
) -> None:
    bridge = FakeBridge()

    async def app(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})

    run(app, bridge)
    assert of_errors(bridge) == [(None, expected)]


def test_the_server_hears_of_a_failure_after_us() -> None:
    """It logs the message at once, and sentry-sdk makes events of what is logged."""
    bridge = FakeBridge()

    async def app(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    run(app, bridge)
    assert "lifespan_fails" in bridge.calls


def test_an_application_without_lifespan_support_makes_no_error() -> None:
    """It raises before it asks for an event, as the ASGI specification has it."""
    bridge = FakeBridge()

    async def app(_receive: Receive, _send: Send) -> None:
        raise TypeError("http only")

    with pytest.raises(TypeError):
        run(app, bridge)
    assert of_errors(bridge) == []


def test_a_cancelled_lifespan_is_no_error() -> None:
    bridge = FakeBridge()

    async def app(receive: Receive, _send: Send) -> None:
        await receive()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(app, bridge)
    assert of_errors(bridge) == []


def test_no_failure_of_ours_reaches_application_or_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        "otel_sentry_asgi._guard.on_failure", lambda where, _error: told.append(where)
    )

    async def fails(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    assert run(succeeds, Broken()) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    assert set(told) == {"lifespan"}
    assert run(fails, Broken()) == [{"type": "lifespan.startup.failed"}]
