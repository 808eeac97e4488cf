"""The oldest versions that pyproject.toml admits: `make oldest` runs this with them.

It passes with any versions, so the ordinary run has it, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentry_sdk

from tests.support.scenario import scenario

SERVICE = """
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

init()
log = Log()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
app = FastAPI()
tracer = trace.get_tracer("shop")

@app.get("/items/{number}")
async def item(number: int):
    sentry_sdk.set_tag("number", number)
    query = {"db.system": "sqlite", "db.statement": "SELECT 'ann'"}
    with tracer.start_as_current_span("query", attributes=query):
        return {}

@app.get("/boom")
async def boom():
    with tracer.start_as_current_span("inner") as span:
        span.record_exception(KeyError("recorded"))
        raise ValueError("bad")
"""


@pytest.mark.parametrize(
    "wrap",
    [
        "app = OpenTelemetryMiddleware(app)",
        "from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor\n"
        "FastAPIInstrumentor.instrument_app(app)",
    ],
)
def test_transactions_and_issues(wrap: str) -> None:
    facts = scenario(
        SERVICE
        + wrap
        + """
headers = {"cookie": "sid=c00kie"}
codes = get(app, "/items/3?token=hunter2", "/boom", headers=headers)
sent = names()
first, second = payloads("transaction")
errors = payloads("event")
otel_sentry_asgi.uninstrument()
report(
    codes=codes, sent=sent, tags=first["tags"], spans=[s["description"] for s in first["spans"]],
    query=first["request"]["query_string"], log=log.messages,
    raw=json.dumps([first, second, errors]),
    errors={e["exception"]["values"][-1]["type"]:
            e["exception"]["values"][-1]["mechanism"]["handled"] for e in errors},
    same_trace=len({e["contexts"]["trace"]["trace_id"] for e in [second, *errors]}) == 1,
    count=len(errors),
)
"""
    )

    assert facts["codes"] == [200, 500]
    assert facts["sent"] == ["GET /items/{number}", "GET /boom"]
    assert facts["tags"] == {"number": 3}
    assert "SELECT ?" in facts["spans"]
    assert facts["query"] == "token=[Filtered]"
    assert facts["errors"] == {"ValueError": False, "KeyError": True}
    assert facts["count"] == 2
    assert facts["same_trace"] is True
    assert facts["log"] == []
    assert "hunter2" not in facts["raw"]
    assert "c00kie" not in facts["raw"]


def test_profiles() -> None:
    facts = scenario(
        """
import threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

init(profiles_sample_rate=1.0)
log = Log()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
app = FastAPI()

def hot():
    profile, deadline = sentry_sdk.get_isolation_scope().profile, time.monotonic() + 10
    here = str(threading.get_ident())
    while sum(one["thread_id"] == here for one in list(profile.samples)) < 5:
        assert time.monotonic() < deadline

@app.get("/thread")
def in_a_thread():
    hot()

@app.get("/loop")
async def on_the_loop():
    hot()

app = OpenTelemetryMiddleware(app)
codes = get(app, "/thread", "/loop")
sent = names()
functions = [{frame["function"] for frame in profile["profile"]["frames"]}
             for profile in payloads("profile")]
otel_sentry_asgi.uninstrument()
report(codes=codes, sent=sent, hot=["hot" in names for names in functions],
       handlers=[sorted(names & {"in_a_thread", "on_the_loop"}) for names in functions],
       referred=[t["contexts"]["profile"]["profile_id"] for t in payloads("transaction")],
       ids=[profile["event_id"] for profile in payloads("profile")], log=log.messages)
"""
    )
    assert facts["codes"] == [200, 200]
    assert facts["sent"] == ["GET /thread", "GET /loop"]
    assert facts["hot"] == [True, True]
    assert facts["handlers"] == [["in_a_thread"], ["on_the_loop"]]
    assert facts["ids"] == facts["referred"]
    assert facts["log"] == []


def test_continuous_profiles() -> None:
    facts = scenario(
        SERVICE.replace(
            "init()", "init(profile_session_sample_rate=1.0, profile_lifecycle='manual')"
        )
        + """
import time

async def busy(scope, receive, send):
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(100))
    await hello(scope, receive, send)

sentry_sdk.profiler.start_profiler()
codes = get(OpenTelemetryMiddleware(busy), "/busy")
sent = names()
sentry_sdk.profiler.stop_profiler()
chunks = payloads("profile_chunk")
frames = [frame for chunk in chunks for frame in chunk["profile"]["frames"]]
otel_sentry_asgi.uninstrument()
report(codes=codes, sent=sent, log=log.messages,
       functions=[frame["function"] for frame in frames],
       packages=sorted({frame["module"].partition(".")[0] for frame in frames}),
       ids=[chunk["profiler_id"] for chunk in chunks],
       referred=[t["contexts"]["profile"]["profiler_id"] for t in payloads("transaction")])
"""
    )
    assert facts["codes"] == [200]
    assert "busy" in facts["functions"]
    assert "opentelemetry" in facts["packages"]  # The layer that is around it is seen.
    assert not {"otel_sentry_asgi", "otel_sentry_exporters"} & set(facts["packages"])
    assert facts["referred"] == facts["ids"]
    assert facts["log"] == []


LOGGING = """
import logging
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from otel_sentry_asgi.cleaning import clean_log

def own(given, hint):
    return None if given["body"] == "left out" else clean_log(given, hint)

init(enable_logs=True, before_send_log=BEFORE, OPTIONS)
log = Log()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()

async def app(scope, receive, send):
    facts = {"shop.note": "for opensesame", "shop.token": "t0ken", "user.id": "ann", "n": 1}
    sentry_sdk.logger.info("seen opensesame at {url}", url="https://u:hunter2@h/", attributes=facts)
    sentry_sdk.logger.info("left out")
    logging.getLogger("shop").warning("took %s", "opensesame")
    await hello(scope, receive, send)

codes = get(OpenTelemetryMiddleware(app), "/", headers={"x-api-key": "opensesame"})
sentry_sdk.flush()
sent = [one for items in payloads("log") for one in items["items"]]
report(codes=codes, log=log.messages, bodies=[one["body"] for one in sent],
       attributes={key: value["value"] for key, value in sent[0]["attributes"].items()},
       raw=json.dumps(sent))
"""


@pytest.mark.parametrize(("pii", "user"), [("False", None), ("True", "ann")])
@pytest.mark.parametrize("before", ["clean_log", "own"])
def test_structured_logs_of_sentry_sdk_are_cleaned(before: str, pii: str, user: object) -> None:
    options = f"send_default_pii={pii}"
    quiet = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    code = LOGGING.replace("BEFORE", before).replace("OPTIONS", options)
    facts = scenario(quiet + code)
    assert facts["codes"] == [200]
    assert facts["log"] == []
    assert facts["bodies"][0] == "seen [Filtered] at https://[Filtered]@h/"
    assert facts["bodies"][-1] == "took [Filtered]"
    assert len(facts["bodies"]) == (3 if before == "clean_log" else 2)
    attributes = facts["attributes"]
    assert attributes["shop.note"] == "for [Filtered]"
    assert attributes["shop.token"] == "[Filtered]"
    assert attributes["n"] == 1
    assert attributes.get("user.id") == user
    for secret in ("opensesame", "hunter2", "t0ken"):
        assert secret not in facts["raw"]


def test_what_tells_of_handlers_enters_no_context() -> None:
    """What profiles rely on, in the sentry-sdk that is installed."""
    sources = Path(sentry_sdk.integrations.__file__).parent.rglob("*.py")
    telling = [text for one in sources if "update_active_thread_id" in (text := one.read_text())]
    assert telling
    assert not [text for text in telling if "copy_context" in text or "contextvars" in text]


PROPAGATED = """
from opentelemetry import baggage, propagate
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider

log = Log()
init()
trace.set_tracer_provider(TracerProvider())
before = propagate.get_global_textmap()
SET_UP
tracer = trace.get_tracer("shop")

def served(headers):
    out = {}
    token = attach(baggage.set_baggage("cart", "a b", propagate.extract(headers)))
    try:
        with tracer.start_as_current_span("GET /", kind=trace.SpanKind.SERVER) as span:
            propagate.inject(out)
    finally:
        detach(token)
    members = dict(one.split("=") for one in out["baggage"].split(","))
    parent = f"{span.parent.span_id:016x}" if span.parent else None
    return {"out": out, "members": members, "parent": parent}

browser = {"sentry-trace": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
           "baggage": "tenant=north,sentry-trace_id=0af7651916cd43dd8448eb211c80319c,"
                      "sentry-public_key=web,sentry-sample_rate=0.25,sentry-sampled=true"}
report(continued=served(browser), begun=served({}), again=served({}), log=log.messages)
"""


@pytest.mark.parametrize("set_up", ["", "otel_sentry_asgi.instrument()"])
@pytest.mark.parametrize(
    "propagators", ["tracecontext,baggage,sentry_asgi", "sentry_asgi,tracecontext,baggage"]
)
def test_the_propagator_from_its_entry_point(propagators: str, set_up: str) -> None:
    """What comes after ours and writes `baggage` overwrites it: `instrument()` puts another behind
    that, and without it the log says so, once."""
    facts = scenario(PROPAGATED.replace("SET_UP", set_up), env={"OTEL_PROPAGATORS": propagators})
    begun = facts["begun"]

    assert_continued(facts["continued"])
    assert begun["out"]["sentry-trace"].split("-")[0] == begun["out"]["traceparent"].split("-")[1]
    assert begun["members"]["cart"] in ("a+b", "a%20b"), "as OTel's writes it"
    if propagators.endswith("sentry_asgi") or set_up:
        assert begun["members"]["sentry-public_key"] == "public"
        assert begun["members"]["sentry-trace_id"] == begun["out"]["sentry-trace"].split("-")[0]
        assert facts["log"] == []
    else:
        assert "sentry-public_key" not in begun["members"]
        (message,) = facts["log"]
        assert "W3CBaggagePropagator" in message
        assert "OTEL_PROPAGATORS" in message


def test_sentry_sdks_propagator_of_the_same_name() -> None:
    """`sentry` is one of two entry points. Either way `instrument()` leaves W3C's trace first, and
    `uninstrument()` puts back what was there."""
    facts = scenario(
        PROPAGATED.replace("SET_UP", "otel_sentry_asgi.instrument()")
        + """
w3c = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
continued, both = served(browser), served({**browser, **w3c})
otel_sentry_asgi.uninstrument()
report(continued=continued, both=both, log=log.messages,
       back=propagate.get_global_textmap() is before)
""",
        env={"OTEL_PROPAGATORS": "tracecontext,baggage,sentry"},
    )
    assert_continued(facts["continued"])
    assert facts["both"]["out"]["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736")
    assert facts["both"]["parent"] == "00f067aa0ba902b7"
    assert facts["back"] is True
    assert facts["log"] == []


def assert_continued(served: dict[str, Any]) -> None:
    """A request with a browser's headers, in the one that is made while it is served."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    assert served["parent"] == "b7ad6b7169203331"
    assert served["out"]["sentry-trace"].startswith(trace_id)
    assert served["out"]["traceparent"].startswith(f"00-{trace_id}")
    assert served["members"]["tenant"] == "north"
    assert served["members"]["sentry-trace_id"] == trace_id
    assert served["members"]["sentry-public_key"] == "web", "as it was received"


def test_an_event_before_the_route_is_known_does_not_settle_what_other_services_are_told() -> None:
    """Older versions ask the scope for the sampling context of each event."""
    facts = scenario("""
        from opentelemetry import propagate
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider
        from types import SimpleNamespace

        init()
        trace.set_tracer_provider(TracerProvider())
        otel_sentry_asgi.instrument()
        carrier = {}

        async def app(scope, receive, send):
            sentry_sdk.capture_message("early")
            scope["route"] = SimpleNamespace(path="/items/{id}", path_format="/items/{id}")
            propagate.inject(carrier)
            await hello(scope, receive, send)

        get(OpenTelemetryMiddleware(app), "/items/3")
        report(baggage=carrier["baggage"])
    """)
    assert "sentry-transaction=GET%20%2Fitems%2F%7Bid%7D" in facts["baggage"]
