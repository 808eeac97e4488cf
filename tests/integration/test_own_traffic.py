"""Uploads make no spans: those to Sentry in neither backend, those of OTLP none in Sentry."""

from __future__ import annotations

import pytest

from tests.support.scenario import scenario

SET_UP = """
import threading, time
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
