"""Child processes that listen on a port of 127.0.0.1."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support._wait import until

_ATTEMPTS = 3
_STOP_TIMEOUT = 10.0


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def accepts(port: int) -> bool:
    """Whether something on 127.0.0.1 accepts connections on *port*."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class ChildProcess:
    """A process that is ended by its own pid, its output kept in a file so that it cannot block."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._final_output: str | None = None
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        """Everything written to stdout and stderr so far; the whole of it after `stop`."""
        if self._final_output is not None:
            return self._final_output
        # A positioned read: the child shares this file's offset and goes on writing at it.
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def stop(self) -> int:
        """End the process with SIGTERM, or with SIGKILL if it does not listen; its exit code."""
        if self._final_output is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._final_output = self.output()
            self._output.close()
        return self._process.returncode


def spawn(
    command: Callable[[int], Sequence[str]],
    *,
    ready: Callable[[int], bool] = accepts,
    env: Callable[[int], Mapping[str, str]] = lambda _: {},
    cwd: Path | None = None,
    timeout: float = 60.0,
) -> tuple[ChildProcess, int]:
    """Start *command* on a free port and return once it is *ready* there.

    A port can be taken between being found free and being listened on: then another one is tried.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        port = free_port()
        arguments = command(port)
        child = ChildProcess(arguments, env=env(port), cwd=cwd)
        try:
            _wait_ready(child, port, ready, timeout)
        except BaseException:
            child.stop()
            raise
        if child.running:
            return child, port
        child.stop()
        if attempt == _ATTEMPTS or "in use" not in child.output().lower():
            break
    msg = f"{arguments} ended before it listened:\n{child.output()}"
    raise RuntimeError(msg)


def _wait_ready(
    child: ChildProcess, port: int, ready: Callable[[int], bool], timeout: float
) -> None:
    until(
        lambda: not child.running or ready(port),
        timeout=timeout,
        describe=lambda: f"port {port} is not ready; output:\n{child.output()}",
    )
