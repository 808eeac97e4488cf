"""A failed start-up or shutdown is one error, however application and server tell of it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from otel_sentry_asgi._lifespan import MARK
from otel_sentry_asgi.middleware import run as run_layer

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Receive, Send], Awaitable[None]]


class FakeBridge:
    """Stands in for bridge and issues, and notes what it is told."""

    def __init__(self, ready: bool = True) -> None:
        self.issues = self
        self.ready = ready
        self.calls: list[Any] = []

    def is_ready(self) -> bool:
        self.calls.append("is_ready")
        return self.ready

    def lifespan_fails(self) -> None:
        self.calls.append("lifespan_fails")

    def failed(self, error: BaseException | None, message: str, mechanism: str) -> None:
        assert mechanism == "auto.lifespan.otel.asgi"
        self.calls.append((error, message))

    def claim(self, error: BaseException) -> None:
        self.calls.append(f"claim {error}")

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


def run(app: App, bridge: FakeBridge, layers: int = 1) -> list[Message]:
    """Run *app* for a lifespan; return what the server was sent, and raise what it was raised."""
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[Message] = []
    scope: dict[str, Any] = {"type": "lifespan"}

    async def receive() -> Message:
        return {"type": next(events)}

    async def send(message: Message) -> None:
        sent.append(message)

    layered = functools.reduce(lambda inner, _: wrapped(inner, bridge), range(layers), plain(app))
    try:
        asyncio.run(layered(scope, receive, send))
    finally:
        assert MARK not in scope
    return sent


def plain(app: App) -> Any:
    async def of_scope(_scope: Any, receive: Receive, send: Send) -> None:
        await app(receive, send)

    return of_scope


def wrapped(app: Any, bridge: Any) -> Any:
    return functools.partial(run_layer, bridge, app)


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


async def fails(receive: Receive, send: Send, when: str, error: Exception | None) -> None:
    """As frameworks do: they tell of an exception while they handle it, and raise it again."""
    await receive()
    if when == "shutdown":
        await send({"type": "lifespan.startup.complete"})
        await receive()
    message = {"type": f"lifespan.{when}.failed", "message": "Traceback ..."}
    if error is None:
        await send(message)
        return
    try:
        raise error
    except ValueError:
        await send(message)
        raise


@pytest.mark.parametrize("when", ["startup", "shutdown"])
def test_an_exception_is_one_error_and_passes_as_it_is(when: str) -> None:
    bridge, error = FakeBridge(), ValueError("no database")

    async def app(receive: Receive, send: Send) -> None:
        await fails(receive, send, when, error)

    with pytest.raises(ValueError, match="no database") as caught:
        run(app, bridge)
    assert caught.value is error
    assert of_errors(bridge) == [(error, "Traceback ...")]


@pytest.mark.parametrize("error", [None, ValueError("no database")], ids=repr)
def test_a_shutdown_that_fails_is_reported_and_sent_before_the_server_hears_of_it(
    error: Exception | None,
) -> None:
    """Uvicorn ends the process then, by the signal that it has been sent."""
    bridge = FakeBridge()
    heard: list[list[Any]] = []

    async def app(receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            await send(message)
            heard.append(list(bridge.calls))

        await fails(receive, noting, "shutdown", error)

    with suppress(ValueError):
        run(app, bridge)
    assert heard[-1] == ["is_ready", (error, "Traceback ..."), "end", "lifespan_fails"]
    assert of_errors(bridge) == [(error, "Traceback ...")]


def test_of_a_start_up_that_fails_the_exception_is_reported_if_it_comes_later() -> None:
    bridge, error = FakeBridge(), ValueError("no database")

    async def app(receive: Receive, send: Send) -> None:
        await fails(receive, send, "startup", None)
        raise error

    with pytest.raises(ValueError, match="no database"):
        run(app, bridge)
    assert of_errors(bridge) == [(error, "Traceback ...")]


@pytest.mark.parametrize("when", ["startup", "shutdown"])
def test_an_exception_is_sent_though_no_message_tells_of_it(when: str) -> None:
    bridge, error = FakeBridge(), ValueError("no database")

    async def app(receive: Receive, send: Send) -> None:
        await receive()
        if when == "shutdown":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        raise error

    with pytest.raises(ValueError, match="no database"):
        run(app, bridge)
    assert bridge.calls == ["is_ready", (error, ""), "end"]


def test_what_a_server_raises_in_its_place_is_claimed() -> None:
    """Hypercorn raises out of `send`, and what it raises is logged."""
    bridge, error = FakeBridge(), ValueError("no database")

    async def app(receive: Receive, send: Send) -> None:
        with suppress(ValueError):
            await fails(receive, send, "startup", error)
        raise OSError("failed")

    with pytest.raises(OSError, match="failed"):
        run(app, bridge)
    assert of_errors(bridge) == [(error, "Traceback ...")]
    assert bridge.calls[-2:] == ["claim failed", "end"]


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


REFUSALS = [
    None,
    ValueError("Django can only handle ASGI/HTTP connections, not lifespan."),
    ValueError("No application configured for scope type 'lifespan'"),
    ValueError("WSGI wrapper received a non-HTTP scope"),
    AssertionError(),
    NotImplementedError(),
]
FAILURES = [
    TypeError("__init__() got an unexpected keyword argument 'allow'"),
    KeyError("DATABASE_URL"),
    AssertionError("no database"),
    asyncio.CancelledError(),
    SystemExit(3),
]


def raising(error: BaseException | None) -> App:
    """An application that returns or raises before it asks for an event."""

    async def app(_receive: Receive, _send: Send) -> None:
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
def test_an_application_without_a_lifespan_is_given_one(
    refusal: BaseException | None, layers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """So that the server tells of the end of the process; which is no error, and flushes once."""
    bridge = FakeBridge()
    caplog.set_level("INFO", "otel_sentry_asgi")

    assert run(raising(refusal), bridge, layers) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    assert bridge.calls == ["is_ready", "end"]
    (message,) = caplog.messages
    assert (repr(refusal) if refusal else "it returned") in message


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_what_may_be_a_failed_start_up_passes_as_it_is(failure: BaseException) -> None:
    """Servers that are told to insist on the lifespan end for it. No error: it may also be that the
    application does not support lifespans."""
    bridge = FakeBridge()

    with pytest.raises(type(failure)) as caught:
        run(raising(failure), bridge)
    # Of a task's cancellation asyncio makes another before Python 3.11.
    assert caught.value is failure or isinstance(failure, asyncio.CancelledError)
    assert of_errors(bridge) == []
    assert "end" not in bridge.calls


@pytest.mark.parametrize("refusal", [one for one in REFUSALS if one], ids=repr)
def test_after_the_first_event_it_is_a_failure_whatever_it_says(refusal: BaseException) -> None:
    async def app(receive: Receive, _send: Send) -> None:
        await receive()
        raise refusal

    bridge = FakeBridge()
    with pytest.raises(type(refusal)) as caught:
        run(app, bridge)
    assert caught.value is refusal
    assert of_errors(bridge) == [(refusal, "")]


def test_an_application_that_has_told_of_its_start_up_has_a_lifespan() -> None:
    async def app(receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no lifespan today"})
        raise ValueError("no lifespan today")

    bridge = FakeBridge()
    with pytest.raises(ValueError, match="today"):
        run(app, bridge)


@pytest.mark.parametrize("refusal", REFUSALS[:2], ids=repr)
def test_without_a_client_an_application_is_given_nothing(refusal: BaseException | None) -> None:
    bridge = FakeBridge(ready=False)
    if refusal is None:
        assert run(raising(refusal), bridge) == []
    else:
        with pytest.raises(type(refusal)):
            run(raising(refusal), bridge)
    assert bridge.calls == ["is_ready"]


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

    async def message_only(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    assert run(succeeds, Broken()) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    assert set(told) == {"lifespan"}
    assert run(message_only, Broken()) == [{"type": "lifespan.startup.failed"}]
