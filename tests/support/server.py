"""Real servers on 127.0.0.1: in a thread of this process, or in a process of their own."""

import asyncio
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import hypercorn.asyncio
import hypercorn.trio
import trio
import trio.testing
import uvicorn

from tests.support._process import ChildProcess, accepts, spawn

AsgiApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
ServerName: TypeAlias = Literal["uvicorn", "hypercorn", "hypercorn-trio"]
Lifespan: TypeAlias = Literal["auto", "on", "off"]
Websockets: TypeAlias = Literal["auto", "none", "websockets-sansio", "wsproto"]

_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 10.0
_GRACEFUL_TIMEOUT = 5


class _Server(Protocol):
    def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve on *listener* until `stop`, and call *ready* when requests are answered."""

    def stop(self) -> None:
        """Ask `run` to end, from another thread."""


@contextmanager
def serve(
    app: AsgiApp,
    *,
    server: ServerName = "uvicorn",
    lifespan: Lifespan = "on",
    ws: Websockets = "auto",
) -> Iterator[str]:
    """Run *app* in a thread and yield its base URL, for instance `http://127.0.0.1:49152`.

    On return from the block the server has ended gracefully: open requests got five seconds, the
    lifespan has shut down. With `lifespan="on"` a failing startup fails here. *lifespan* and *ws*
    are uvicorn's; hypercorn has only its own, which is "auto" for both.
    """
    running = _make(server, app, lifespan, ws)
    ready = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            running.run(listener, ready.set)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failures.append(error)
        finally:
            ended.set()
            ready.set()

    ended = threading.Event()
    with socket.socket() as listener:
        # Bound here, so that no other process can take the port in between.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=run, name=f"{server} {url}", daemon=True)
        thread.start()
        if not ready.wait(_START_TIMEOUT) or ended.is_set():
            running.stop()
            msg = f"{server} did not start: {failures or 'see its log'}"
            raise RuntimeError(msg) from (failures[0] if failures else None)
        try:
            yield url
        finally:
            running.stop()
            thread.join(_GRACEFUL_TIMEOUT + _STOP_TIMEOUT)
            assert not thread.is_alive(), f"{server} did not stop"
    if failures:
        raise failures[0]


def _make(name: ServerName, app: AsgiApp, lifespan: Lifespan, ws: Websockets) -> _Server:
    if name == "uvicorn":
        return _Uvicorn(app, lifespan, ws)
    return _Hypercorn(app) if name == "hypercorn" else _HypercornTrio(app)


class _Uvicorn:
    def __init__(self, app: AsgiApp, lifespan: Lifespan, ws: Websockets) -> None:
        # Without a log configuration it leaves the loggers of this process as they are.
        config = uvicorn.Config(
            app,
            lifespan=lifespan,
            ws=ws,
            log_config=None,
            timeout_graceful_shutdown=_GRACEFUL_TIMEOUT,
        )
        self._server = _TellingServer(config)

    def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        self._server.ready = ready
        self._server.run(sockets=[listener])

    def stop(self) -> None:
        self._server.should_exit = True


class _TellingServer(uvicorn.Server):
    ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()


class _Hypercorn:
    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._stop: Callable[[], object] = lambda: None

    def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        asyncio.run(self._serve(_hypercorn_config(listener), ready))

    def stop(self) -> None:
        with suppress(RuntimeError):  # It has ended by itself.
            self._stop()

    async def _serve(self, config: hypercorn.Config, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        async def until_stopped() -> None:
            # Hypercorn waits for this as soon as it listens.
            self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
            ready()
            await stopped.wait()

        await hypercorn.asyncio.serve(self._app, config, shutdown_trigger=until_stopped)


class _HypercornTrio:
    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._stop: Callable[[], object] = lambda: None

    def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        trio.run(self._serve, _hypercorn_config(listener), ready)

    def stop(self) -> None:
        with suppress(RuntimeError):  # It has ended by itself.
            self._stop()

    async def _serve(self, config: hypercorn.Config, ready: Callable[[], None]) -> None:
        token = trio.lowlevel.current_trio_token()
        stopped = trio.Event()

        async def until_stopped() -> None:
            # It waits for this before a failed startup has ended it.
            await trio.testing.wait_all_tasks_blocked()
            self._stop = lambda: token.run_sync_soon(stopped.set)
            ready()
            await stopped.wait()

        await hypercorn.trio.serve(self._app, config, shutdown_trigger=until_stopped)


def _hypercorn_config(listener: socket.socket) -> hypercorn.Config:
    config = hypercorn.Config()
    # A duplicate: hypercorn closes the one that it is given.
    config.bind = [f"fd://{listener.dup().detach()}"]
    config.graceful_timeout = _GRACEFUL_TIMEOUT
    return config


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, child: ChildProcess, port: int) -> None:
        self._child = child
        self.url = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def output(self) -> str:
        """What it has printed; all of it after `stop`."""
        return self._child.output()

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code; leaving the block does so as well."""
        return self._child.stop()


@contextmanager
def serve_process(
    target: str | Path,
    *,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
) -> Iterator[ServerProcess]:
    """Run *target* in a process of its own, on top of this one's environment.

    A string is an import path for uvicorn (`tests.apps:app`); a `Path` is a script, which finds
    the port to listen on in `PORT`. *arguments* are added to the command line.
    """
    if isinstance(target, Path):
        start = [sys.executable, str(target)]
    else:
        start = [sys.executable, "-m", "uvicorn", target, "--host", "127.0.0.1"]

    def command(port: int) -> list[str]:
        where = [] if isinstance(target, Path) else ["--port", str(port)]
        return [*start, *where, *arguments]

    child, port = spawn(
        command,
        env=lambda port: {**(env or {}), "PORT": str(port)},
        ready=accepts,
        cwd=cwd,
        timeout=timeout,
    )
    try:
        yield ServerProcess(child, port)
    finally:
        child.stop()
