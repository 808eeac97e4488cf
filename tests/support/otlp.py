"""The OTLP side: a receiver to assert on, and a real collector to put in front of it."""

import asyncio
import os
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from oteltap import (
    OtelTapHttpProtobufReceiver,
    OtelTapHttpProtobufReceiverSettings,
    OtelTapInitializationError,
)
from typing_extensions import Self

from tests.support._front import Front
from tests.support._process import ChildProcess, accepts, free_port, spawn
from tests.support._wait import until

T = TypeVar("T")

_ATTEMPTS = 3
_START_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class OtlpEvent:
    name: str
    time_unix_nano: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OtlpLink:
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OtlpSpan:
    """A span as it was on the wire, with ids in hex and enums by their short names."""

    trace_id: str
    span_id: str
    parent_id: str | None
    trace_state: str
    name: str
    kind: str
    start_unix_nano: int
    end_unix_nano: int
    status: str
    status_message: str
    attributes: dict[str, Any]
    events: tuple[OtlpEvent, ...]
    links: tuple[OtlpLink, ...]


class OtlpReceiver:
    """oteltap on a free port, in a thread of its own, for the length of a `with` block.

    It takes HTTP/protobuf, also with gzip. Spans are what oteltap made of a request; resources and
    the raw text come from the request itself, because oteltap does not tell them.
    """

    def __init__(self) -> None:
        self._port = 0
        self._lock = threading.Lock()
        self._messages: list[Span] = []
        self._requests: list[bytes] = []
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="otlp-receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT) or self._error is not None:
            msg = "the OTLP receiver did not start"
            raise RuntimeError(msg) from self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """The base, as in `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def traces_endpoint(self) -> str:
        """What `OTLPSpanExporter(endpoint=...)` wants."""
        return f"{self.endpoint}/v1/traces"

    def spans(self) -> list[OtlpSpan]:
        """What has arrived, in the order of arrival."""
        return [_span(message) for message in self._snapshot()]

    def raw(self) -> str:
        """All requests, decompressed, as text to search for what must not be there: protobuf leaves
        strings as they are. Ids and numbers are not readable in it."""
        with self._lock:
            return b"\n".join(self._requests).decode(errors="replace")

    def resources(self) -> list[dict[str, Any]]:
        """The attributes of the resources of each request, in the order of arrival."""
        with self._lock:
            requests = list(self._requests)
        return [
            _attributes(resource_spans.resource.attributes)
            for request in requests
            for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans
        ]

    def reset(self) -> None:
        """Forget all spans."""
        with self._lock:
            self._messages.clear()
            self._requests.clear()

    def wait_for(self, probe: Callable[[Self], T], timeout: float = 30.0) -> T:
        """Return the first true value of *probe*: `receiver.wait_for(OtlpReceiver.spans)`."""
        return until(lambda: probe(self), timeout=timeout, describe=self._describe)

    def _describe(self) -> str:
        return f"received {[span.name for span in self.spans()]}"

    def _snapshot(self) -> list[Span]:
        with self._lock:
            return list(self._messages)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        receiver, port = await _start_oteltap()
        front = await asyncio.start_server(Front(port, self._keep), "127.0.0.1", 0)
        self._port = front.sockets[0].getsockname()[1]
        collector = asyncio.create_task(self._collect(receiver))
        # One turn of the loop, so that the subscription is there before the first span is.
        await asyncio.sleep(0)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        front.close()
        await receiver.stop()
        await collector

    def _keep(self, body: bytes) -> None:
        with self._lock:
            self._requests.append(body)

    async def _collect(self, receiver: OtelTapHttpProtobufReceiver) -> None:
        async for message in receiver.stream_traces():
            with self._lock:
                self._messages.append(message)


async def _start_oteltap() -> tuple[OtelTapHttpProtobufReceiver, int]:
    for attempt in range(1, _ATTEMPTS + 1):
        port = free_port()
        receiver = OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port))
        try:
            return await receiver.start(), port
        except OtelTapInitializationError:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError


class Rotel:
    """The rotel collector as a subprocess, forwarding what it gets to another OTLP endpoint.

    It takes gRPC too. What it forwards over HTTP is always gzipped.
    """

    def __init__(self, *, forward_to: str) -> None:
        self._forward_to = forward_to
        self._grpc_port = 0
        self._port = 0
        self._child: ChildProcess | None = None
        self._folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        try:
            self._child, self._port = spawn(
                self._command, ready=self._listens, env=lambda _: _rotel_environment()
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
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def traces_endpoint(self) -> str:
        return f"{self.endpoint}/v1/traces"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._grpc_port}"

    def log(self) -> str:
        """Everything received, resource and instrumentation scope included, as rotel prints it."""
        return self._child.output() if self._child is not None else ""

    def wait_for(self, probe: Callable[[Self], T], timeout: float = 30.0) -> T:
        """Return the first true value of *probe*."""
        return until(lambda: probe(self), timeout=timeout, describe=self.log)

    def _listens(self, port: int) -> bool:
        return accepts(port) and accepts(self._grpc_port)

    def _command(self, port: int) -> list[str]:
        binary = _rotel_binary()
        assert self._folder is not None
        assert binary is not None
        folder = Path(self._folder.name)
        self._grpc_port = free_port()
        options = {
            "otlp-http-endpoint": f"127.0.0.1:{port}",
            "otlp-grpc-endpoint": f"127.0.0.1:{self._grpc_port}",
            "pid-file": str(folder / "pid"),
            "log-file": str(folder / "log"),
            "debug-log": "traces",
            "debug-log-verbosity": "detailed",
            "batch-timeout": "20ms",
            "exporter": "otlp",
            "otlp-exporter-protocol": "http",
            "otlp-exporter-endpoint": self._forward_to,
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(binary), "start", *flags]


def rotel_runs() -> bool:
    """Whether there is a rotel for this platform and this Python."""
    binary = _rotel_binary()
    if binary is None:
        return False
    command = [str(binary), "--version"]
    environment = {**os.environ, **_rotel_environment()}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


def _rotel_binary() -> Path | None:
    spec = find_spec("rotel")
    return Path(spec.origin).with_name("rotel-agent") if spec and spec.origin else None


def _rotel_environment() -> dict[str, str]:
    # The binary is linked with libpython, which is not always where the loader looks.
    return {"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""}


def _span(message: Span) -> OtlpSpan:
    return OtlpSpan(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex() or None,
        trace_state=message.trace_state,
        name=message.name,
        kind=Span.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_"),
        start_unix_nano=message.start_time_unix_nano,
        end_unix_nano=message.end_time_unix_nano,
        status=Status.StatusCode.Name(message.status.code).removeprefix("STATUS_CODE_"),
        status_message=message.status.message,
        attributes=_attributes(message.attributes),
        events=tuple(
            OtlpEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in message.events
        ),
        links=tuple(
            OtlpLink(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
            for link in message.links
        ),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)
