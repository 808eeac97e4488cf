"""The receivers, servers and validators of `tests.support` do what they say, with real traffic."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx
import pytest
import sentry_sdk
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer
from sentry_sdk.session import Session
from sentry_sdk.types import Event
from websockets.sync.client import connect

from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver, OtlpSpan, Rotel, rotel_runs
from tests.support.relay import relay_check, relay_normalize
from tests.support.server import ServerName, serve, serve_process

SERVERS: tuple[ServerName, ...] = ("uvicorn", "hypercorn", "hypercorn-trio")


@pytest.fixture(scope="module")
def running_kent() -> Iterator[Kent]:
    with Kent() as kent:
        yield kent


@pytest.fixture
def kent(running_kent: Kent) -> Kent:
    running_kent.reset()
    return running_kent


@pytest.fixture
def client(kent: Kent) -> Iterator[sentry_sdk.Client]:
    client = sentry_sdk.Client(
        **kent.options,
        release="shop@1.0",
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    yield client
    client.close()


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def make_transaction(**changes: Any) -> dict[str, Any]:
    end = datetime.now(timezone.utc)
    ids = {"trace_id": "a" * 32, "span_id": "b" * 16}
    transaction = {
        "type": "transaction",
        "event_id": uuid4().hex,
        "platform": "python",
        "transaction": "GET /items/{id}",
        "transaction_info": {"source": "route"},
        "start_timestamp": (end - timedelta(seconds=1)).timestamp(),
        "timestamp": end.timestamp(),
        "contexts": {"trace": {**ids, "op": "http.server", "status": "ok"}},
        "spans": [],
    }
    return {**transaction, **changes}


def send(client: sentry_sdk.Client, event: Any) -> None:
    payload: Event = event
    client.capture_event(payload, scope=sentry_sdk.Scope())
    client.flush()


class TestKent:
    def test_it_gives_back_each_kind_of_item_apart(
        self, kent: Kent, client: sentry_sdk.Client
    ) -> None:
        send(client, make_transaction())
        send(client, {"message": "broken", "level": "error"})
        client.capture_session(Session(release="shop@1.0", did="someone"))
        assert client.transport is not None
        client.transport.record_lost_event("sample_rate", data_category="transaction")
        client.flush()

        kent.wait_for(lambda kent: kent.sessions() and kent.client_reports())
        (transaction,) = kent.transactions()
        (error,) = kent.errors()
        (session,) = kent.sessions()
        (report,) = kent.client_reports()
        assert transaction.body["transaction"] == "GET /items/{id}"
        assert transaction.header["type"] == transaction.type == "transaction"
        assert transaction.envelope["event_id"] == transaction.body["event_id"]
        assert error.body["message"] == "broken"
        assert session.body["attrs"]["release"] == "shop@1.0"
        assert report.body["discarded_events"] == [
            {"reason": "sample_rate", "category": "transaction", "quantity": 1}
        ]
        assert kent.items() == [transaction, error, session, report]

    def test_it_adds_up_the_sessions_of_two_minutes(
        self, kent: Kent, client: sentry_sdk.Client
    ) -> None:
        minute = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)
        cases: tuple[tuple[datetime, Literal["exited", "crashed"]], ...] = (
            (minute, "exited"),
            (minute + timedelta(seconds=59), "crashed"),
            (minute + timedelta(seconds=60), "exited"),
        )
        for started, how in cases:
            session = Session(session_mode="request", release="shop@1.0", started=started)
            session.close(how)
            client.capture_session(session)
        client.session_flusher.flush()
        client.flush()

        kent.wait_for(Kent.sessions)
        assert len(kent.sessions()[0].body["aggregates"]) == 2
        assert kent.session_counts() == {"exited": 2, "crashed": 1}

    def test_what_a_client_sent_is_found_in_the_raw_text_as_it_was_written(
        self, kent: Kent, client: sentry_sdk.Client
    ) -> None:
        send(client, make_transaction(tags={"city": "Zürich canary"}))
        kent.wait_for(Kent.transactions)
        assert "Zürich canary" in kent.raw()
        assert "shop@1.0" in kent.raw()
        assert "X-Sentry-Auth" in kent.log()

    def test_a_reset_forgets_everything(self, kent: Kent, client: sentry_sdk.Client) -> None:
        send(client, {"message": "broken"})
        kent.wait_for(Kent.errors)
        kent.reset()
        assert kent.items() == []
        assert kent.raw() == ""

    def test_it_keeps_the_last_hundred_items(self, kent: Kent, client: sentry_sdk.Client) -> None:
        for number in range(102):
            send(client, {"message": str(number)})
        kent.wait_for(lambda kent: kent.errors()[-1].body["message"] == "101")
        messages = [item.body["message"] for item in kent.items()]
        assert messages == [str(number) for number in range(2, 102)]

    def test_a_wait_in_vain_ends_and_tells_what_is_there(
        self, kent: Kent, client: sentry_sdk.Client
    ) -> None:
        send(client, {"message": "broken"})
        kent.wait_for(Kent.errors)
        with pytest.raises(AssertionError, match=r"not within 0\.05 s: kent has \['event'\]"):
            kent.wait_for(Kent.transactions, timeout=0.05)

    def test_what_it_cannot_take_is_an_error_and_not_an_empty_answer(
        self, kent: Kent, client: sentry_sdk.Client
    ) -> None:
        scope = sentry_sdk.Scope()
        scope.add_attachment(bytes=b"hi", filename="hi.txt")
        client.capture_event({"message": "broken"}, scope=scope)
        client.flush()
        with pytest.raises(ValueError, match="kent answered 500"):
            kent.wait_for(Kent.errors)


@contextmanager
def tracer_to(
    endpoint: str, compression: Compression = Compression.NoCompression
) -> Iterator[Tracer]:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(endpoint=endpoint, compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        yield provider.get_tracer("tests")
    finally:
        provider.shutdown()


def emit(tracer: Tracer) -> tuple[str, str]:
    """Emit two spans and return the trace id and the id of the outer one."""
    with tracer.start_as_current_span("outer", kind=SpanKind.SERVER) as outer:
        context = outer.get_span_context()
        with tracer.start_as_current_span("inner", links=[Link(context)]) as inner:
            inner.set_attributes({"n": 1, "ok": True, "share": 0.5, "who": "Zoë", "many": [1, 2]})
            inner.add_event("tick", {"at": "noon"})
            inner.set_status(StatusCode.ERROR, "bad")
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def two_spans(receiver: OtlpReceiver) -> list[OtlpSpan]:
    spans = receiver.spans()
    return spans if len(spans) == 2 else []


class TestOtlpReceiver:
    def test_it_gives_back_spans_as_they_were_made(self, otlp: OtlpReceiver) -> None:
        with tracer_to(otlp.traces_endpoint) as tracer:
            trace_id, outer_id = emit(tracer)
        inner, outer = otlp.wait_for(two_spans)

        assert (outer.name, outer.kind, outer.status) == ("outer", "SERVER", "UNSET")
        assert (outer.trace_id, outer.span_id, outer.parent_id) == (trace_id, outer_id, None)
        assert (inner.name, inner.kind) == ("inner", "INTERNAL")
        assert (inner.trace_id, inner.parent_id) == (trace_id, outer_id)
        assert (inner.status, inner.status_message) == ("ERROR", "bad")
        assert inner.attributes == {"n": 1, "ok": True, "share": 0.5, "who": "Zoë", "many": [1, 2]}
        assert [(event.name, event.attributes) for event in inner.events] == [
            ("tick", {"at": "noon"})
        ]
        assert [(link.trace_id, link.span_id) for link in inner.links] == [(trace_id, outer_id)]
        assert outer.start_unix_nano <= inner.start_unix_nano < inner.end_unix_nano
        assert "Zoë" in otlp.raw()
        assert [resource["service.name"] for resource in otlp.resources()] == ["shop", "shop"]

    def test_it_takes_gzip(self, otlp: OtlpReceiver) -> None:
        with tracer_to(otlp.traces_endpoint, Compression.Gzip) as tracer:
            emit(tracer)
        assert otlp.wait_for(two_spans)
        assert "Zoë" in otlp.raw()

    def test_a_reset_forgets_everything(self, otlp: OtlpReceiver) -> None:
        with tracer_to(otlp.traces_endpoint) as tracer:
            emit(tracer)
        otlp.wait_for(two_spans)
        otlp.reset()
        assert otlp.spans() == []
        assert otlp.raw() == ""

    def test_a_wait_in_vain_ends_and_tells_what_is_there(self, otlp: OtlpReceiver) -> None:
        with tracer_to(otlp.traces_endpoint) as tracer:
            emit(tracer)
        otlp.wait_for(two_spans)
        with pytest.raises(AssertionError, match=r"received \['inner', 'outer'\]"):
            otlp.wait_for(lambda _: False, timeout=0.05)


@pytest.mark.skipif(not rotel_runs(), reason="no rotel for this platform")
class TestRotel:
    def test_it_forwards_what_it_gets(self, otlp: OtlpReceiver) -> None:
        with Rotel(forward_to=otlp.endpoint) as rotel:
            with tracer_to(rotel.traces_endpoint, Compression.Gzip) as tracer:
                trace_id, _ = emit(tracer)
            spans = otlp.wait_for(two_spans)
            rotel.wait_for(lambda rotel: "Str(shop)" in rotel.log())
        assert {resource["service.name"] for resource in otlp.resources()} == {"shop"}
        assert {span.name for span in spans} == {"inner", "outer"}
        assert {span.trace_id for span in spans} == {trace_id}


class App:
    """A plain ASGI application that answers with the server's port, and echoes websockets."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.threads: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.threads.add(threading.current_thread().name)
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._echo(receive, send)
        else:
            body = str(scope["server"][1]).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            self.seen.append(step)
            await send({"type": f"lifespan.{step}.complete"})

    async def _echo(self, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        text = (await receive())["text"]
        await send({"type": "websocket.send", "text": text.upper()})
        await send({"type": "websocket.close", "code": 1000})


class TestServe:
    @pytest.mark.parametrize("server", SERVERS)
    def test_it_serves_http_websockets_and_the_lifespan(self, server: ServerName) -> None:
        app = App()
        with serve(app, server=server) as url:
            assert app.seen == ["startup"]
            response = httpx.get(url)
            assert response.status_code == 200
            assert url.endswith(f":{response.text}")
            # On trio, hypercorn 0.18 sends from two tasks at once when both ends close a
            # websocket, and now and then fails by it.
            if server != "hypercorn-trio":
                with connect(url.replace("http", "ws", 1)) as socket:
                    socket.send("hello")
                    assert socket.recv() == "HELLO"
        assert app.seen == ["startup", "shutdown"]
        assert threading.current_thread().name not in app.threads
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)

    @pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
    def test_uvicorn_can_use_each_websocket_implementation(
        self, ws: Literal["websockets-sansio", "wsproto"]
    ) -> None:
        with serve(App(), ws=ws) as url, connect(url.replace("http", "ws", 1)) as socket:
            socket.send("hello")
            assert socket.recv() == "HELLO"

    def test_without_a_lifespan_the_application_sees_none(self) -> None:
        app = App()
        with serve(app, lifespan="off") as url:
            httpx.get(url)
        assert app.seen == []

    @pytest.mark.parametrize("server", SERVERS)
    def test_a_failing_startup_fails_at_once(self, server: ServerName) -> None:
        async def broken(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        with (
            pytest.raises(RuntimeError, match=f"{server} did not start"),
            serve(broken, server=server),
        ):
            pytest.fail("it served")

    def test_servers_run_side_by_side(self) -> None:
        with serve(App()) as first, serve(App()) as second:
            assert first != second
            assert httpx.get(first).text != httpx.get(second).text


SCRIPT = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write((os.environ["GREETING"] + sys.argv[1]).encode())

def leave(*_):
    print("left in peace")
    sys.exit(7)

signal.signal(signal.SIGTERM, leave)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class TestServeProcess:
    def test_an_import_path_runs_under_uvicorn(self) -> None:
        with serve_process(f"{__name__}:app", arguments=["--lifespan", "on"]) as server:
            assert httpx.get(server.url).status_code == 200
            server.stop()
            assert "GET / HTTP/1.1" in server.output()
            assert f"Finished server process [{server.pid}]" in server.output()

    def test_a_script_finds_its_port_and_environment(self, tmp_path: Path) -> None:
        script = tmp_path / "greet.py"
        script.write_text(SCRIPT)
        with serve_process(script, env={"GREETING": "hello "}, arguments=["you"]) as server:
            assert httpx.get(server.url).text == "hello you"
            assert server.stop() == 7
        assert "left in peace" in server.output()

    def test_a_process_that_ends_is_not_waited_for(self) -> None:
        with pytest.raises(RuntimeError, match="no_such_module"), serve_process("no_such_module:x"):
            pytest.fail("it served")


class TestRelayCheck:
    def test_a_good_transaction_has_no_problems(self) -> None:
        transaction = make_transaction()
        before = dict(transaction)
        assert relay_check(transaction) == []
        assert transaction == before

    def test_a_span_without_a_start_rejects_the_transaction(self) -> None:
        span = {"trace_id": "a" * 32, "span_id": "c" * 16, "timestamp": 1.0}
        (problem,) = relay_check(make_transaction(spans=[span]))
        assert problem.kind == "fatal"
        assert "span is missing timestamp" in problem.details["reason"]

    def test_a_bad_value_is_an_error_where_it_is(self) -> None:
        stored, problems = relay_normalize(make_transaction(level="loud"))
        assert stored is not None
        assert {(problem.path, problem.kind, problem.code) for problem in problems} == {
            ("level", "error", "invalid_data"),
            ("level", "reported", "invalid_data"),
        }

    def test_an_unknown_key_and_a_cut_value_are_told(self) -> None:
        problems = relay_check(make_transaction(colour="red", transaction="x" * 300))
        assert {(problem.path, problem.kind) for problem in problems} >= {
            ("colour", "error"),
            ("transaction", "remark"),
            ("transaction", "trimmed"),
        }


app = App()
