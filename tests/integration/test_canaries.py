"""Whatever hypothesis plants where, in whatever form: what the settings forbid is not in the bytes
that both receivers got, and what is promised is.

A real server and real connections, in this process: a request takes some milliseconds.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
import sentry_sdk
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation import _semconv
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

import otel_sentry_asgi
from otel_sentry_asgi.cleaning import CleaningSpanExporter
from otel_sentry_asgi.testing import span_context
from tests.integration.places import SETTINGS, STRICT
from tests.integration.plants import Plan, plans
from tests.support.sentry import FakeSentry, serve_sentry
from tests.support.server import AsgiApp, serve

logger = logging.getLogger("shop")

MODES = ["", "http,database", "http/dup,database/dup"]


class Shop:
    """An application that does what the plan of the moment says."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.app: AsgiApp = self.answer
        self.tracer: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        self.remember()
        if self.plan.outcome == "boom":
            self.fail()
        if self.plan.outcome == "handled":
            try:
                self.fail()
            except ValueError:
                logger.exception("it did not work")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def remember(self) -> None:
        plan = self.plan
        with self.tracer.start_as_current_span(
            "inner", attributes=plan.attributes, links=[Link(span_context(9, 9), plan.links)]
        ) as span:
            span.add_event("seen", plan.events)
        for name in plan.names:
            self.tracer.start_span(name, kind=SpanKind.CLIENT).end()
        for system, statement in plan.statements:
            attributes = {"db.system": system, "db.statement": statement}
            self.tracer.start_span(statement, kind=SpanKind.CLIENT, attributes=attributes).end()
        for crumb in plan.crumbs:
            sentry_sdk.add_breadcrumb(crumb)
        for number, (method, value) in enumerate(plan.scope):
            getattr(sentry_sdk.get_isolation_scope(), method)(f"given{number}", value)

    def fail(self) -> None:
        """In a frame that holds the plan's variables."""
        names = ", ".join(self.plan.variables)
        space: dict[str, Any] = {"said": lambda: " ".join(self.plan.texts), "__name__": "shop"}
        exec(f"def fails({names}):\n    raise ValueError(said())\n", space)
        space.pop("fails")(**self.plan.variables)


class Stack:
    """The service between its clients and its two receivers."""

    def __init__(self, url: str, shop: Shop, sentry: FakeSentry, otlp: FakeSentry) -> None:
        self.address = urlsplit(url).netloc
        self.shop, self.sentry, self.otlp = shop, sentry, otlp
        self.clients: dict[str, Any] = {}
        common: dict[str, Any] = {
            "dsn": sentry.dsn,
            "traces_sample_rate": 1.0,
            "attach_stacktrace": True,
            "_experiments": {"transport_compression_algo": "gzip"},
        }
        for name, options in SETTINGS.items():
            sentry_sdk.init(**common, **options)
            self.clients[name] = sentry_sdk.get_client()

    def ask(self, plan: Plan, setting: str, mode: str) -> tuple[bytes, bytes]:
        """What both receivers got of a request."""
        self.shop.plan = plan
        sentry_sdk.get_global_scope().set_client(self.clients[setting])
        provider = TracerProvider(resource=Resource(plan.resource), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(
            endpoint=f"http://127.0.0.1:{self.otlp.port}/v1/traces",
            compression=Compression.NoCompression,
        )
        provider.add_span_processor(BatchSpanProcessor(CleaningSpanExporter(exporter)))
        otel_sentry_asgi.instrument(tracer_provider=provider)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", mode)
            stability = _semconv._OpenTelemetrySemanticConventionStability
            patch.setattr(stability, "_initialized", False)
            self.shop.app = OpenTelemetryMiddleware(
                self.shop.answer,
                tracer_provider=provider,
                http_capture_headers_server_request=[".*"],
                http_capture_headers_server_response=[".*"],
            )
        self.shop.tracer = provider.get_tracer("shop")
        try:
            self._send(plan)
            assert provider.force_flush()
        finally:
            otel_sentry_asgi.uninstrument()
            sentry_sdk.flush()
            provider.shutdown()
        return b"\n".join(self.sentry.take()), b"\n".join(self.otlp.take())

    def _send(self, plan: Plan) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        query = "&".join(plan.query)
        connection.putrequest("POST", f"/{plan.outcome}/7" + (f"?{query}" if query else ""))
        for name, value in plan.headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(plan.body)))
        connection.endheaders(plan.body)
        status = connection.getresponse().status
        connection.close()
        assert status == (500 if plan.outcome == "boom" else 200)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    shop = Shop()
    with ExitStack() as opened:
        sentry, otlp = (opened.enter_context(serve_sentry()) for _ in range(2))
        url = opened.enter_context(serve(shop, lifespan="off"))
        yield Stack(url, shop, sentry, otlp)


def found_in(markers: set[str], raw: bytes) -> set[str]:
    """In any case, encoded once or twice."""
    once = unquote_to_bytes(raw)
    text = b"\n".join([raw, once, unquote_to_bytes(once)]).decode("latin-1")
    folded = text.lower()
    return {marker for marker in markers if marker in text or marker.lower() in folded}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The send_default_pii option is deprecated:DeprecationWarning")
@given(plan=plans(), setting=st.sampled_from(list(SETTINGS)), mode=st.sampled_from(MODES))
@limits(
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_what_is_forbidden_does_not_leave(
    stack: Stack, plan: Plan, setting: str, mode: str
) -> None:
    sentry, otlp = stack.ask(plan, setting, mode)
    assert b'"type":"transaction"' in sentry
    assert otlp
    forbidden = {marker for marker, may in plan.may_leave.items() if setting not in may}
    # A body that is not to be kept is not looked at, so nobody knows its secrets.
    unknown = plan.echoed & plan.of_body if setting == STRICT else set()
    assert found_in(forbidden - unknown, sentry) == set()
    assert found_in(forbidden - plan.echoed, otlp) == set()
    promised = {marker for marker, may in plan.promised.items() if setting in may}
    assert found_in(promised, sentry) == promised
