"""Each neighbour and each order has one stated outcome."""

from __future__ import annotations

import pytest

from tests.support.scenario import scenario

BEGIN = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
log = Log()
"""
END = """
get(OpenTelemetryMiddleware(hello), "/a", "/boom")
report(names=names(), errors=len(payloads("event")), log=log.messages)
"""


def test_sentry_initialised_twice_sends_to_the_last_client() -> None:
    facts = scenario(
        BEGIN
        + """
first = Kept()
sentry_sdk.init(dsn=DSN, transport=first, traces_sample_rate=1.0)
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
init()
get(OpenTelemetryMiddleware(hello), "/a", "/boom")
report(names=names(), errors=len(payloads("event")), first=len(first.envelopes))
"""
    )

    assert facts["names"] == ["GET /a", "GET /boom"]
    assert (facts["errors"], facts["first"]) == (1, 0)


def test_a_wrapped_provider_that_forwards_processors_is_joined() -> None:
    facts = scenario(
        BEGIN
        + """
class Wrapper(trace.TracerProvider):
    def __init__(self, inner): self.inner = inner
    def get_tracer(self, *args, **kwargs): return self.inner.get_tracer(*args, **kwargs)
    def add_span_processor(self, one): self.inner.add_span_processor(one)
init()
trace.set_tracer_provider(Wrapper(TracerProvider()))
otel_sentry_asgi.instrument()
"""
        + END
    )

    assert facts["names"] == ["GET /a", "GET /boom"]


def test_what_comes_behind_a_provider_that_stands_for_another_is_joined() -> None:
    """As Logfire's does it: what was there before is shut down. One that stays the same, though it
    is shut down, is joined once more, and sends everything once."""
    facts = scenario(
        """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
class Proxy(trace.TracerProvider):
    def __init__(self):
        self.provider = TracerProvider()
    def get_tracer(self, *args, **kwargs):
        return self.provider.get_tracer(*args, **kwargs)
    def add_span_processor(self, processor):
        self.provider.add_span_processor(processor)
init()
proxy = Proxy()
trace.set_tracer_provider(proxy)
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), "/a")
first = proxy.provider
first.shutdown()
get(OpenTelemetryMiddleware(hello), "/b")
proxy.provider = TracerProvider()
first._active_span_processor.shutdown()
get(OpenTelemetryMiddleware(hello), "/c")
with trace.get_tracer("x").start_as_current_span("outside"):
    pass
sent = names()
otel_sentry_asgi.uninstrument()
for provider in (first, proxy.provider):
    with provider.get_tracer("x").start_as_current_span("after"):
        pass
report(names=sent, after=len(payloads("transaction")), left=processors(proxy.provider))
"""
    )
    assert sorted(facts["names"]) == ["GET /a", "GET /b", "GET /c", "outside"]
    assert facts["after"] == 4


@pytest.mark.parametrize(
    ("provider", "warns"), [("trace.NoOpTracerProvider()", False), ("Wrapper()", True)]
)
def test_a_provider_that_takes_no_processors_leaves_errors_only(provider: str, warns: bool) -> None:
    facts = scenario(
        BEGIN
        + f"""
class Wrapper(trace.TracerProvider):
    def get_tracer(self, *args, **kwargs): return TracerProvider().get_tracer(*args, **kwargs)
init()
trace.set_tracer_provider({provider})
otel_sentry_asgi.instrument()
"""
        + END
    )

    assert facts["names"] == []
    assert facts["errors"] == 1
    told = [one for one in facts["log"] if "takes no span processors" in one]
    assert len(told) == warns


def test_of_several_providers_the_one_that_was_given_is_joined() -> None:
    """A processor by hand joins another one, through the same bridge."""
    facts = scenario(
        BEGIN
        + """
init()
mine, other, third = TracerProvider(), TracerProvider(), TracerProvider()
trace.set_tracer_provider(third)
otel_sentry_asgi.instrument(tracer_provider=mine)
other.add_span_processor(otel_sentry_asgi.SentrySpanProcessor())
for provider, name in ((mine, "mine"), (other, "other"), (third, "third")):
    with provider.get_tracer("x").start_as_current_span(name):
        pass
report(names=names())
"""
    )

    assert facts["names"] == ["mine", "other"]


def test_sentrys_own_tracing_adds_nothing_to_a_request() -> None:
    facts = scenario(
        BEGIN
        + """
async def app(scope, receive, send):
    with sentry_sdk.start_span(op="own", name="own"):
        await hello(scope, receive, send)
init(traces_sample_rate=1.0)
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(app), "/a")
report(names=names(), spans=[s["description"] for s in payloads("transaction")[0]["spans"]])
"""
    )

    assert facts["names"] == ["GET /a"]
    assert "own" not in facts["spans"]


def test_sentrys_own_wsgi_layer_steps_aside_within_a_request() -> None:
    """As around a Flask application that is mounted. Outside of requests it is as it was."""
    facts = scenario(
        BEGIN
        + """
from asgiref.wsgi import WsgiToAsgi
from flask import Flask
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
init(integrations=[FlaskIntegration()], release="shop@1")
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
flask = Flask("shop")
@flask.get("/ok")
def ok():
    sentry_sdk.set_tag("shop", "north")
    return "ok"
@flask.get("/boom")
def boom():
    raise ValueError("boom")
def bare(environ, start_response):
    raise ValueError("bare")
get(OpenTelemetryMiddleware(WsgiToAsgi(flask)), "/ok", "/boom")
get(OpenTelemetryMiddleware(WsgiToAsgi(SentryWsgiMiddleware(bare))), "/bare")
inside, tags = names(), payloads("transaction")[0].get("tags")
flask.test_client().get("/ok")
otel_sentry_asgi.uninstrument()
handled = [one["exception"]["values"][-1]["mechanism"]["handled"] for one in payloads("event")]
sessions = [one for item in payloads("sessions") for one in item["aggregates"]]
report(inside=inside, tags=tags, after=len(payloads("transaction")), handled=handled,
       crashed=sum(one.get("crashed", 0) for one in sessions),
       exited=sum(one.get("exited", 0) for one in sessions),
       wrapped=type(vars(SentryWsgiMiddleware)["__call__"]).__name__)
"""
    )

    assert facts["inside"] == ["GET /ok", "GET /boom", "GET /bare"]
    assert facts["tags"] == {"shop": "north"}
    assert facts["after"] == 4
    assert facts["handled"] == [False, False]
    assert (facts["exited"], facts["crashed"]) == (2, 2)
    assert facts["wrapped"] == "function"


@pytest.mark.parametrize("exporter", [True, False])
def test_otlp_integration_and_ours_both_send_and_the_doctor_says_so(exporter: bool) -> None:
    facts = scenario(
        BEGIN
        + f"""
from sentry_sdk.integrations.otlp import OTLPIntegration
from otel_sentry_asgi._cli.doctor import examine
trace.set_tracer_provider(TracerProvider())
init(integrations=[OTLPIntegration(setup_otlp_traces_exporter={exporter})])
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), "/a", "/boom")
told = [one.what for one in examine({{}}) if one.advice]
report(names=names(), errors=len(payloads("event")), kinds=processors(), told=told)
import os; sys.stdout.flush(); os._exit(0)
"""
    )

    assert facts["names"] == ["GET /a", "GET /boom"]
    assert facts["errors"] == 1
    expected = (
        ["BatchSpanProcessor", "SentrySpanProcessor"] if exporter else ["SentrySpanProcessor"]
    )
    assert facts["kinds"] == expected
    assert ("OTLPIntegration sends every span" in "".join(facts["told"])) is exporter


def test_settings_that_come_too_late_are_said_to_be_ignored() -> None:
    facts = scenario(
        BEGIN
        + """
otel_sentry_asgi.SentryInstrumentor().instrument()
otel_sentry_asgi.instrument(linger=3)
report(log=log.messages)
"""
    )

    assert facts["log"] == ["instrument() has been called before; nothing changes, linger neither"]


def test_fastapis_own_telemetry_without_sentrys_integrations() -> None:
    facts = scenario(
        BEGIN
        + """
from fastapi import FastAPI
app = FastAPI()
@app.get("/orders/{number}")
async def order(number: int):
    return 100 // number
init(auto_enabling_integrations=False)
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
get(app, "/orders/1", "/orders/0")
(error,) = payloads("event")
report(names=names(), handled=error["exception"]["values"][-1]["mechanism"]["handled"],
       request=error["request"]["url"])
"""
    )

    assert facts["names"] == ["GET /orders/{number}"] * 2
    assert facts["handled"] is False
    assert facts["request"] == "http://shop/orders/0"


def test_the_exporter_takes_over_after_uninstrument_and_neither_sends_twice() -> None:
    facts = scenario(
        BEGIN
        + """
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otel_sentry_asgi.span_exporter import SentrySpanExporter
init()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(SentrySpanExporter()))
trace.set_tracer_provider(provider)
def work(name):
    with provider.get_tracer("x").start_as_current_span(name):
        with provider.get_tracer("x").start_as_current_span("below"):
            pass
work("before")
otel_sentry_asgi.instrument()
work("during")
otel_sentry_asgi.uninstrument()
work("after")
got = [(one["transaction"], len(one["spans"])) for one in payloads("transaction")]
report(names=got)
"""
    )

    assert facts["names"] == [["before", 1], ["during", 1], ["after", 1]]
