"""Uploads make no spans: those to Sentry in neither backend, those of OTLP none in Sentry."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentry_sdk
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._traffic import OwnTraffic
from tests.support.scenario import scenario

SET_UP = """
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

class Server(BaseHTTPRequestHandler):
    posts, headers_seen = [], []
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Server.posts.append(self.path)
        Server.headers_seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    do_GET = do_POST
    def log_message(self, *args): pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
HOST = f"http://127.0.0.1:{server.server_port}"
ENVELOPES = HOST + "/sentry/api/1/envelope/"

def to(span):
    data = span["data"]
    return data.get("url.full", data.get("http.url", "")).replace(HOST, "")

memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=HOST + "/v1/traces")))
trace.set_tracer_provider(provider)
for one in (URLLib3Instrumentor, RequestsInstrumentor, HTTPXClientInstrumentor,
            AioHttpClientInstrumentor):
    one().instrument()
"""

MODES = pytest.mark.parametrize("mode", ["", "http"])


@MODES
@pytest.mark.parametrize("proxied", [False, True])
def test_uploads_to_sentry_make_no_spans_on_either_side(mode: str, proxied: bool) -> None:
    """The DSN is on the host of the application, which it calls as well."""
    facts = scenario(
        SET_UP
        + f"""
proxied = {proxied}
host = "sentry.test" if proxied else HOST[7:]
proxies = {{"http_proxy": HOST}} if proxied else {{}}
sentry_sdk.init(dsn=f"http://k@{{host}}/sentry/1", traces_sample_rate=1.0, **proxies)
"""
        + """
kept = []
class Recorder:
    def export(self, transaction, origin):
        kept.append(transaction.payload)
        sentry_sdk.capture_event(dict(transaction.payload))
    def force_flush(self, timeout):
        sentry_sdk.flush(timeout)
        return True
    def shutdown(self): pass

otel_sentry_asgi.instrument(exporter=Recorder())

async def app(scope, receive, send):
    async with httpx.AsyncClient() as client:
        await client.post(HOST + "/shop", content=b"x")
    await hello(scope, receive, send)

for _ in range(3):
    get(OpenTelemetryMiddleware(app), "/a", "/b")
    sentry_sdk.capture_message("hello")
    sentry_sdk.flush()
    otel_sentry_asgi._active.active().pipeline.force_flush(5)
def url(span):
    return span.attributes.get("url.full") or span.attributes.get("http.url")
urls = [url(span) for span in memory.get_finished_spans() if span.kind is trace.SpanKind.CLIENT]
report(urls=sorted({one.replace(HOST, "") for one in urls if "://shop" not in one}),
       uploads=sum("/api/1/envelope/" in path for path in Server.posts),
       traced=[p for p, h in zip(Server.posts, Server.headers_seen) if "api/1" in p
               and {"traceparent", "sentry-trace"} & {key.lower() for key in h}],
       joined=all("sentry-trace" in h for p, h in zip(Server.posts, Server.headers_seen)
                  if p == "/shop"),
       names=sorted({one["transaction"] for one in kept}),
       spans=sorted({to(span) for one in kept for span in one["spans"]}))
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode, "NO_PROXY": "127.0.0.1"},
    )
    assert facts["uploads"] >= 9
    assert facts["urls"] == ["/shop"]
    assert facts["traced"] == []
    assert facts["joined"] is True
    assert facts["names"] == ["GET /a", "GET /b"]
    assert "/shop" in facts["spans"]
    assert not [one for one in facts["spans"] if "envelope" in one or "v1/traces" in one]


@MODES
def test_what_others_upload_is_left_out_of_sentry(mode: str) -> None:
    """A tunnel of the application's own, and OTLP by hand: as roots, and inside of a request."""
    facts = scenario(
        SET_UP
        + """
import os, aiohttp, requests, urllib3
init(dsn=HOST.replace("://", "://k@") + "/sentry/1")
transport.parsed_dsn = sentry_sdk.utils.Dsn(HOST.replace("://", "://k@") + "/sentry/1")
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = HOST
otel_sentry_asgi.instrument()

async def upload(url):
    async with httpx.AsyncClient() as client, aiohttp.ClientSession() as session:
        await client.post(url, content=b"x")
        await (await session.post(url, data=b"x")).read()
    requests.post(url, data=b"x")
    urllib3.PoolManager().request("POST", url, body=b"x")

async def app(scope, receive, send):
    for url in (ENVELOPES, HOST + "/v1/traces", HOST + "/v1/traces/mine"):
        await upload(url)
    await hello(scope, receive, send)

get(OpenTelemetryMiddleware(app), "/a")
asyncio.run(upload(ENVELOPES))
asyncio.run(upload(HOST + "/v1/traces"))
sent = names()
urls = [to(span) for one in payloads("transaction") for span in one["spans"]]
report(names=sent, urls=sorted(set(urls)),
       otlp=len([s for s in memory.get_finished_spans() if s.kind is trace.SpanKind.CLIENT]))
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode},
    )
    assert facts["names"] == ["GET /a"]
    assert facts["urls"] == ["/v1/traces/mine"]
    assert facts["otlp"] > 0, "OTel's side keeps what the application did"


MESSAGES = """
async def app(scope, receive, send):
    sentry_sdk.capture_message("hello")
    async with httpx.AsyncClient() as client:
        await client.post(HOST + "/shop", content=b"x")
    await hello(scope, receive, send)

def url(span):
    return span.attributes.get("url.full") or span.attributes.get("http.url")

def clients():
    spans = [span for span in memory.get_finished_spans() if span.kind is trace.SpanKind.CLIENT]
    return sorted({url(one).replace(HOST, "") for one in spans if "://shop" not in url(one)})

def wait(count):
    until = time.monotonic() + 20
    while len(uploads()) < count and time.monotonic() < until:
        time.sleep(0.01)
    return len(uploads())

def uploads():
    return [path for path in Server.posts if "envelope" in path or "stream" in path]
"""


@MODES
@pytest.mark.parametrize("dsn", ["None", "HOST.replace('://', '://k@') + '/sentry/1'"])
def test_uploads_to_spotlight_make_no_spans(mode: str, dsn: str) -> None:
    """The client makes them where an event is captured: in the middle of a request."""
    facts = scenario(
        SET_UP
        + MESSAGES
        + f"""
sentry_sdk.init(dsn={dsn}, spotlight=HOST + "/stream", traces_sample_rate=1.0)
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(app), "/a")
otel_sentry_asgi._active.active().pipeline.force_flush(5)
sentry_sdk.flush()
otel_sentry_asgi.uninstrument()
before = clients()
sentry_sdk.capture_message("after")
report(urls=before, streams=Server.posts.count("/stream"), after=clients())
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode, "NO_PROXY": "127.0.0.1"},
    )
    assert facts["urls"] == ["/shop"]
    assert facts["streams"] >= 3, "the message, the transaction, and what comes after"
    assert facts["after"] == ["/shop", "/stream"], "it would be seen"


@MODES
def test_uploads_of_the_asynchronous_transport_make_no_spans(mode: str) -> None:
    facts = scenario(
        SET_UP
        + MESSAGES
        + """
from sentry_sdk.integrations.asyncio import AsyncioIntegration

async def main():
    sentry_sdk.init(dsn=HOST.replace("://", "://k@") + "/sentry/1", traces_sample_rate=1.0,
                    integrations=[AsyncioIntegration()], _experiments={"transport_async": True})
    otel_sentry_asgi.instrument()
    await get_async(OpenTelemetryMiddleware(app), "/a")
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, otel_sentry_asgi._active.active().pipeline.force_flush, 5)
    kind = type(sentry_sdk.get_client().transport).__name__
    return kind, await loop.run_in_executor(None, wait, 2)

kind, arrived = asyncio.run(main())
report(kind=kind, arrived=arrived, urls=clients(),
       traced=[p for p, h in zip(Server.posts, Server.headers_seen) if "api/1" in p
               and {"traceparent", "sentry-trace"} & {key.lower() for key in h}])
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode, "NO_PROXY": "127.0.0.1"},
    )
    assert facts["kind"] == "AsyncHttpTransport"
    assert facts["arrived"] >= 2, "the message and the transaction"
    assert facts["urls"] == ["/shop"]
    assert facts["traced"] == []


@MODES
def test_uploads_through_a_tunnel_make_no_spans(mode: str, tmp_path: Path) -> None:
    """An https DSN behind a proxy: by CONNECT, of our own connections and of sentry-sdk's."""
    facts = scenario(
        SET_UP
        + MESSAGES
        + f"""
import select, socket, ssl, trustme
authority = trustme.CA()
authority.cert_pem.write_to_path({str(tmp_path / "ca.pem")!r})
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(tls)
secure = ThreadingHTTPServer(("127.0.0.1", 0), Server)
secure.socket = tls.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=secure.serve_forever, daemon=True).start()
tunnels = []

class Proxy(BaseHTTPRequestHandler):
    def do_CONNECT(self):
        tunnels.append(self.path)
        with socket.create_connection(("127.0.0.1", secure.server_port)) as there:
            self.send_response(200)
            self.end_headers()
            sides = [self.connection, there]
            while True:
                for side in select.select(sides, [], [])[0]:
                    piece = side.recv(65536)
                    if not piece:
                        return
                    sides[side is self.connection].sendall(piece)
    def log_message(self, *args): pass

proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
proxy.daemon_threads = secure.daemon_threads = True
threading.Thread(target=proxy.serve_forever, daemon=True).start()
sentry_sdk.init(dsn=f"https://k@localhost:{{secure.server_port}}/sentry/1", traces_sample_rate=1.0,
                ca_certs={str(tmp_path / "ca.pem")!r},
                https_proxy=f"http://127.0.0.1:{{proxy.server_port}}")
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(app), "/a")
otel_sentry_asgi._active.active().pipeline.force_flush(5)
sentry_sdk.flush()
report(arrived=wait(2), urls=clients(), tunnels=len(tunnels))
sys.stdout.flush(); os._exit(0)
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode, "NO_PROXY": "127.0.0.1"},
    )
    assert facts["arrived"] >= 2, "the message and the transaction"
    assert facts["tunnels"] >= 2, "one of each"
    assert facts["urls"] == ["/shop"]


@MODES
def test_otlp_to_endpoints_that_only_the_code_names_is_left_out(mode: str) -> None:
    """OTel's processors and readers suppress the spans of their exporters' uploads, in a request
    and on threads of their own. Of an exporter that nobody runs so, the URL must be known."""
    facts = scenario(
        SET_UP
        + """
import requests
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor

CODE = HOST + "/collector/v1/"
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=CODE + "traces")))
reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=CODE + "metrics"))
meters = MeterProvider([reader])
logs = LoggerProvider()
logs.add_log_record_processor(
    BatchLogRecordProcessor(OTLPLogExporter(endpoint=CODE + "logs")))
init()
otel_sentry_asgi.instrument(logger_provider=logs, meter_provider=meters,
                            ignore_orphan_clients=False)

async def app(scope, receive, send):
    logs.get_logger("x").emit(body="hello", severity_number=SeverityNumber.INFO)
    await hello(scope, receive, send)

for _ in range(2):
    get(OpenTelemetryMiddleware(app), "/a")
    for one in (provider, meters, logs):
        one.force_flush()
requests.post(CODE + "mine", data=b"x")
sent = names()
urls = sorted({to(span) for one in payloads("transaction") for span in one["spans"]})
uploads = sorted(set(Server.posts))
for one in (meters, logs):
    one.shutdown()
report(names=sent, urls=urls, uploads=uploads)
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode},
    )
    assert facts["uploads"] == [
        "/collector/v1/logs",
        "/collector/v1/metrics",
        "/collector/v1/mine",
        "/collector/v1/traces",
        "/v1/traces",
    ]
    first, second, by_hand = facts["names"]
    assert (first, second) == ("GET /a", "GET /a")
    assert "/collector/v1/mine" in by_hand
    assert [url for url in facts["urls"] if "v1" in url] == []


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("http://k@[::1]:9000/sentry/1", "http://[::1]:9000/sentry/api/1/envelope/"),
        ("https://k@sentry.test/1", "https://sentry.test/api/1/envelope/"),
        ("https://k@sentry.test:8443/1", "https://sentry.test:8443/api/1/envelope/"),
    ],
)
def test_an_upload_is_known_by_its_url(dsn: str, url: str) -> None:
    """Also to an IPv6 address, which stands in brackets."""
    span = ReadableSpan("POST", kind=SpanKind.CLIENT, attributes={"url.full": url})
    other = ReadableSpan("POST", kind=SpanKind.CLIENT, attributes={"url.full": f"{url[:-10]}2"})
    with sentry_sdk.new_scope() as scope:
        scope.set_client(sentry_sdk.Client(dsn=dsn, default_integrations=False))
        assert OwnTraffic().holds(span)
        assert not OwnTraffic().holds(other)
