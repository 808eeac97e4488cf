"""Neighbours that are no test dependency of the rest: `make neighbours`, in an environment of its
own."""

from __future__ import annotations

import pytest

from tests.support.scenario import scenario

IGNORE = "import warnings; warnings.simplefilter('ignore')\n"


@pytest.mark.parametrize("order", ["before", "after"])
def test_logfires_provider_is_joined(order: str) -> None:
    pytest.importorskip("logfire", exc_type=ImportError)
    steps = [
        "otel_sentry_asgi.instrument()",
        "logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False)",
    ]
    first, second = steps if order == "before" else reversed(steps)
    facts = scenario(
        IGNORE
        + f"""
import logfire, os
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
async def app(scope, receive, send):
    with logfire.span("work"):
        await hello(scope, receive, send)
init()
{first}
{second}
get(OpenTelemetryMiddleware(app), "/a", "/boom")
report(names=names(), errors=len(payloads("event")),
       provider=type(trace.get_tracer_provider()).__name__,
       spans=[span["description"] for span in payloads("transaction")[0]["spans"]])
sys.stdout.flush(); os._exit(0)
"""
    )

    assert facts["provider"] == "ProxyTracerProvider"
    assert facts["names"] == ["GET /a", "GET /boom"]
    assert (facts["errors"], facts["spans"]) == (1, ["work"])


def test_a_second_configure_is_joined_again() -> None:
    """It shuts down what is behind Logfire's provider, and puts another there."""
    pytest.importorskip("logfire", exc_type=ImportError)
    facts = scenario(
        IGNORE
        + """
import logfire, os
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
async def app(scope, receive, send):
    with logfire.span("work"):
        if scope["path"] == "/open":
            configure()
        await hello(scope, receive, send)
def configure():
    logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False)
init()
configure()
otel_sentry_asgi.instrument()
app = OpenTelemetryMiddleware(app)
get(app, "/a")
configure()
get(app, "/b", "/boom", "/open", "/c")
sent = names()
otel_sentry_asgi.uninstrument()
get(app, "/d")
report(names=sent, errors=len(payloads("event")), after=len(payloads("transaction")),
       spans=[[span["description"] for span in one["spans"]] for one in payloads("transaction")])
sys.stdout.flush(); os._exit(0)
"""
    )

    assert sorted(facts["names"]) == ["GET /a", "GET /b", "GET /boom", "GET /c", "GET /open"]
    assert facts["spans"] == [["work"]] * 5
    assert (facts["errors"], facts["after"]) == (1, 5)


def test_greenlets_are_isolated_under_gevent() -> None:
    pytest.importorskip("gevent", exc_type=ImportError)
    facts = scenario(
        IGNORE
        + """
from gevent import monkey; monkey.patch_all()
import gevent, os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
init()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
tracer = trace.get_tracer("jobs")
def job(number):
    with tracer.start_as_current_span(f"job {number}", kind=SpanKind.CONSUMER):
        sentry_sdk.set_tag("number", str(number))
        gevent.sleep(0.01)
        with tracer.start_as_current_span("below"):
            gevent.sleep(0.01)
gevent.joinall([gevent.spawn(job, number) for number in range(50)])
sent = names()
mixed = [one["transaction"] for one in payloads("transaction")
         if one["transaction"] != "job " + one["tags"]["number"] or len(one["spans"]) != 1]
report(sent=len(set(sent)), count=len(sent), mixed=mixed)
sys.stdout.flush(); os._exit(0)
"""
    )

    assert (facts["sent"], facts["count"], facts["mixed"]) == (50, 50, [])
