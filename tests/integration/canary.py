"""A service that puts what it gets into every place that can hold it, in a process of its own.

`/_client` gives it another Sentry client, `/_flush` sends everything. Otherwise the path begins
with what happens to the request: `ok`, `handled` or `boom`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import warnings
from typing import Any

import httpx
import sentry_sdk
from fastapi import FastAPI, Request
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

import otel_sentry_asgi
from otel_sentry_asgi.cleaning import CleaningSpanExporter
from otel_sentry_asgi.testing import span_context
from tests.integration.places import ATTRIBUTES, RESOURCE

logger = logging.getLogger("canary")

provider = TracerProvider(resource=Resource(RESOURCE))
for name, wrap in (("RAW_LEG", lambda exporter: exporter), ("CLEAN_LEG", CleaningSpanExporter)):
    exporter = wrap(OTLPSpanExporter(endpoint=os.environ[name]))
    provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("canary")

app = FastAPI()
otel_sentry_asgi.instrument()
FastAPIInstrumentor.instrument_app(app)
SQLite3Instrumentor().instrument()


@app.post("/_client")
async def client(request: Request) -> None:
    options = await request.json()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sentry_sdk.init(
            traces_sample_rate=1.0,
            attach_stacktrace=True,
            **{"_experiments": {"transport_compression_algo": "gzip"}, **options},
        )


@app.post("/_flush")
def flush() -> None:
    bridge = otel_sentry_asgi._active.active()
    assert bridge is not None
    assert bridge.pipeline.force_flush(5)
    assert provider.force_flush()
    sentry_sdk.flush()


class Shopper:
    """A value that prints with a secret of the request in it."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __repr__(self) -> str:
        return f"<Shopper {self.token}>"


def remember(request: Request, body: Any) -> None:
    """Whatever an application does to what it is given."""
    url = str(request.url)
    with tracer.start_as_current_span(
        f"GET {url}",
        kind=SpanKind.CLIENT,
        attributes=ATTRIBUTES,
        links=[Link(span_context(9, 9), {"link.token": "link-token"})],
    ) as span:
        span.add_event(f"sees {url}", {"password": "event-password"})
        span.record_exception(ValueError(f"recorded at {request.headers['authorization']}"))
    with sqlite3.connect(":memory:") as database:
        database.cursor().execute("SELECT 'sql-literal' -- sql-comment")
    with tracer.start_as_current_span(
        "SELECT 'sql-in-name'",
        kind=SpanKind.CLIENT,
        attributes={"db.system": "postgresql", "db.query.text": "SELECT 'sql-in-name'"},
    ):
        pass
    sentry_sdk.add_breadcrumb(
        category="x", message=f"at {url}", data={"password": "crumb-password"}
    )
    sentry_sdk.set_tag("page", "https://u:tag-password@h/")
    sentry_sdk.set_extra("page", {"deep": ["https://u:extra-password@h/"]})
    sentry_sdk.set_context("page", {"url": "https://h/?token=context-token"})
    logger.warning("logged %s", url)
    subprocess.run([sys.executable, "-c", "", "argument-secret"], check=True)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(204))) as http:
        http.get("http://u:crumb-userinfo@other.test/x?token=crumb-token#crumb-fragment")


@app.api_route("/{what}/{item}", methods=["GET", "POST"])
async def everything(what: str, item: str, request: Request) -> dict[str, str]:
    body = await request.body()
    if request.headers.get("content-type", "").startswith("application/json"):
        parsed = await request.json()
        assert parsed["note"]
    headers = dict(request.headers)
    raw = request.scope["headers"]
    cookies = request.cookies
    value = headers["authorization"].partition(" ")[2]
    shopper = Shopper(value)
    remember(request, body)
    if what == "ok":
        return {"item": item}
    try:
        raise ValueError(f"no {shopper} at https://u:exception-userinfo@h/?token=exception-token")
    except ValueError:
        if what == "boom":
            raise
        logger.exception("handled with %s", value)
        sentry_sdk.capture_message(f"message with {cookies} {raw}")
    return {"item": item}
