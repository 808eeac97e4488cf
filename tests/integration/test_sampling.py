"""Sentry samples on top of OTel: what arrives on each side, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.scenario import scenario

SET_UP = """
from collections import Counter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON, ParentBased, ParentBasedTraceIdRatio, TraceIdRatioBased)
from otel_sentry_asgi._dsc import parse_baggage

memory = InMemorySpanExporter()

def otel(sampler=ALWAYS_ON):
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    return provider

def otlp_traces():
    return {span.context.trace_id for span in memory.get_finished_spans()}

def sentry_traces():
    names()
    return {int(one["contexts"]["trace"]["trace_id"], 16) for one in payloads("transaction")}

def rates():
    return sorted({e.headers["trace"]["sample_rate"] for e in transport.envelopes
                   if e.get_transaction_event() is not None})
"""


def run(code: str, **env: str) -> dict[str, Any]:
    return scenario(SET_UP + code, env=env)


def test_all_to_otlp_a_part_to_sentry_and_all_errors_is_one_line() -> None:
    facts = run(
        """
otel()
init(traces_sample_rate=0.25)
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), *["/a"] * 150, *["/boom"] * 50)
sent = sentry_traces()
lost = Counter()
for reason, category, quantity in transport.lost:
    lost[f"{reason} {category}"] += quantity
expected = {i for i in otlp_traces() if (i & (1 << 64) - 1) * 1_000_000 >> 64 < 250_000}
report(otlp=len(otlp_traces()), errors=len(payloads("event")), same=sent == expected,
       sent=len(sent), lost=lost, rates=rates())
"""
    )
    assert (facts["otlp"], facts["errors"]) == (200, 50)
    assert facts["same"] is True
    assert facts["rates"] == ["0.25"]
    left_out = 200 - facts["sent"]
    assert facts["lost"] == {
        "sample_rate transaction": left_out,
        "sample_rate span": left_out,
    }


@pytest.mark.parametrize(
    ("sampler", "rate", "smaller"),
    [
        ("ParentBasedTraceIdRatio(0.5)", 1.0, "0.5"),
        ("ParentBasedTraceIdRatio(0.5)", 0.25, "0.25"),
        ("TraceIdRatioBased(0.25)", 0.5, "0.25"),
    ],
)
def test_the_smaller_of_two_rates_arrives_and_is_the_one_that_is_told(
    sampler: str, rate: float, smaller: str
) -> None:
    facts = run(
        f"""
otel({sampler})
init(traces_sample_rate={rate})
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), *["/a"] * 200)
sent = sentry_traces()
below = all((i & (1 << 64) - 1) / (1 << 64) < {smaller} for i in sent)
report(rates=rates(), below=below, subset=sent <= otlp_traces(), sent=len(sent))
"""
    )
    assert facts["rates"] == [smaller]
    assert facts["below"] is True
    assert facts["subset"] is True
    assert 0 < facts["sent"] < 200


def test_a_sampler_is_told_what_the_transaction_will_be() -> None:
    facts = run(
        """
contexts = []
def sampler(context):
    contexts.append(context)
    return 1.0
otel()
init(traces_sample_rate=None, traces_sampler=sampler)
otel_sentry_asgi.instrument()
app = OpenTelemetryMiddleware(hello)
get(app, "/a?b=1")
get(app, "/a", headers={"sentry-trace": "a" * 32 + "-" + "b" * 16 + "-0"})
names()
one, two = contexts
final = payloads("transaction")[0]
context = one["transaction_context"]
report(same=[context["name"] == final["transaction"],
             context["op"] == final["contexts"]["trace"]["op"],
             context["source"] == final["transaction_info"]["source"],
             context["trace_id"] == final["contexts"]["trace"]["trace_id"],
             context["span_id"] == final["contexts"]["trace"]["span_id"]],
       keys=sorted(context), path=one["asgi_scope"]["path"], parents=[one["parent_sampled"],
       two["parent_sampled"]], method=one["attributes"]["http.method"],
       parent=two["transaction_context"]["parent_span_id"], sent=len(sentry_traces()))
"""
    )
    assert facts["same"] == [True] * 5
    assert {"trace_id", "span_id", "parent_span_id", "op", "name", "description"} <= set(
        facts["keys"]
    )
    assert (facts["path"], facts["method"]) == ("/a", "GET")
    assert facts["parents"] == [None, False]
    assert facts["parent"] == "b" * 16
    assert facts["sent"] == 2, "the sampler wins over the parent"


def test_a_sampler_that_raises_samples_nothing_and_says_so() -> None:
    facts = run(
        """
otel()
init(traces_sampler=lambda context: 1 / 0)
otel_sentry_asgi.instrument()
codes = get(OpenTelemetryMiddleware(hello), "/a", "/boom")
report(codes=codes, sent=len(sentry_traces()), errors=len(payloads("event")), lost=transport.lost)
"""
    )
    assert (facts["codes"], facts["sent"], facts["errors"]) == ([200, 500], 0, 1)
    counted = [one[2] for one in facts["lost"] if one[:2] == ["callback_error", "transaction"]]
    assert sum(counted) == 2


def test_backpressure_lowers_the_rate() -> None:
    facts = run(
        """
otel()
init(traces_sample_rate=1.0)
monitor = sentry_sdk.get_client().monitor
transport.is_healthy = lambda: False
for _ in range(3):
    monitor.run()
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), *["/a"] * 200)
report(rates=rates(), sent=len(sentry_traces()), lost=sorted({lost[0] for lost in transport.lost}))
"""
    )
    assert facts["rates"] == ["0.125"]
    assert 5 < facts["sent"] < 60
    assert facts["lost"] == ["backpressure"]


def test_what_failed_is_kept_whatever_the_rate_when_asked_for() -> None:
    facts = run(
        """
otel()
init(traces_sample_rate=0.0)
otel_sentry_asgi.instrument(keep_failed=True)
get(OpenTelemetryMiddleware(hello), "/a", "/boom", "/a")
with trace.get_tracer("job").start_as_current_span("job") as span:
    with trace.get_tracer("job").start_as_current_span("step") as step:
        step.set_status(trace.StatusCode.ERROR)
report(names=names(), rates=rates(),
       lost=sum(n for _, c, n in transport.lost if c == "transaction"),
       sampled=[e.headers["trace"]["sampled"] for e in transport.envelopes
                if e.get_transaction_event()])
"""
    )
    assert sorted(facts["names"]) == ["GET /boom", "job"]
    assert (facts["rates"], facts["sampled"]) == (["1.0"], ["true", "true"])
    assert facts["lost"] == 2


def test_errors_name_their_transaction_to_the_sampling_as_soon_as_it_has_a_name() -> None:
    """In a request and in a job, without literals of SQL; a raw path is no name."""
    facts = run(
        """
otel()
init()
otel_sentry_asgi.instrument()
async def app(scope, receive, send):
    sentry_sdk.capture_message("early")
    scope["path_template"] = "/orders/{id}"
    sentry_sdk.capture_message("late")
    raise ValueError
get(OpenTelemetryMiddleware(app), "/orders/7")
tracer = trace.get_tracer("job")
statement = {"db.system": "sqlite", "db.statement": "SELECT 'ann'"}
for name, attributes in (("job", {}), ("SELECT 'ann'", statement)):
    with tracer.start_as_current_span(name, attributes=attributes):
        sentry_sdk.capture_message("job")
names()
report(of={kind: [e.headers["trace"].get("transaction") for e in transport.envelopes
                  if e.items[0].type == kind] for kind in ("event", "transaction")})
"""
    )
    sent = ["GET /orders/{id}", "job", "SELECT ?"]
    assert facts["of"]["transaction"] == sent
    assert facts["of"]["event"] == [None, sent[0], *sent]


def test_a_front_end_that_leaves_a_trace_out_of_sentry_leaves_it_to_otel() -> None:
    facts = run(
        """
otel(ParentBased(ALWAYS_ON))
init(traces_sample_rate=1.0)
otel_sentry_asgi.instrument()
app = OpenTelemetryMiddleware(hello)
for flag in ("-0", "-1", ""):
    get(app, "/a" + flag, headers={"sentry-trace": "a" * 32 + "-" + "b" * 16 + flag})
    otel_sentry_asgi._active.active().decisions.clear()
report(otlp=len({s.context.span_id for s in memory.get_finished_spans() if s.parent.is_remote}),
       names=names())
"""
    )
    assert facts["otlp"] == 3
    assert facts["names"] == ["GET /a-1", "GET /a"]


# -- Sentry decides for OTel -----------------------------------------------------------------------


def test_with_sentrys_sampler_both_sides_have_the_same_and_all_errors_come() -> None:
    facts = run(
        """
asked = []
def sampler(context):
    asked.append(context["transaction_context"]["name"])
    return 0.5
otel(otel_sentry_asgi.SentrySampler())
init(traces_sampler=sampler)
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), *["/a"] * 60, *["/boom"] * 20)
sent = sentry_traces()
report(same=sent == otlp_traces(), sent=len(sent), asked=len(asked), name=asked[0],
       errors=len(payloads("event")), rates=rates(),
       lost=sum(n for r, c, n in transport.lost if (r, c) == ("sample_rate", "transaction")))
"""
    )
    assert facts["same"] is True
    assert facts["asked"] == 80, "once a trace"
    assert facts["errors"] == 20
    assert facts["name"] == "GET /a"
    assert facts["rates"] == ["0.5"]
    assert facts["lost"] == 80 - facts["sent"]
    assert 0 < facts["sent"] < 80


@pytest.mark.parametrize(
    ("client", "sampled"),
    [
        ("init(traces_sample_rate=0.0)", False),
        ("init(traces_sample_rate=1.0)", True),
        ("init(traces_sample_rate=None)", True),
        ("", True),
    ],
)
def test_sentrys_sampler_asks_the_wrapped_one_first_and_alone_without_a_client(
    client: str, sampled: bool
) -> None:
    facts = run(
        f"""
from otel_sentry_asgi import SentrySampler
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
{client}
otel_sentry_asgi.instrument()
results = [SentrySampler(wrapped).should_sample(None, 1, "x").decision.name
           for wrapped in (ALWAYS_OFF, ALWAYS_ON)]
report(results=results)
"""
    )
    assert facts["results"] == ["DROP", "RECORD_AND_SAMPLE" if sampled else "DROP"]


def test_sentrys_sampler_comes_from_the_environment() -> None:
    facts = run(
        """
from opentelemetry.sdk._configuration import _import_sampler, _get_sampler
report(description=_import_sampler(_get_sampler()).get_description())
""",
        OTEL_TRACES_SAMPLER="sentry",
        OTEL_TRACES_SAMPLER_ARG="parentbased_traceidratio=0.25",
    )
    assert str(facts["description"]).startswith(
        "SentrySampler{ParentBased{root:TraceIdRatioBased{0.25}"
    )


def test_a_sampler_that_is_not_known_is_named() -> None:
    facts = run(
        """
from otel_sentry_asgi.sampler import from_argument
messages = []
for argument in ("colour", "traceidratio=red", "traceidratio=2"):
    try:
        from_argument(argument)
    except otel_sentry_asgi.SettingsError as error:
        messages.append(str(error))
report(messages=messages, default=from_argument("").get_description())
"""
    )
    assert all("OTEL_TRACES_SAMPLER_ARG must be one of" in one for one in facts["messages"])
    assert [one.rpartition("not ")[2] for one in facts["messages"]] == [
        "'colour'",
        "'traceidratio=red'",
        "'traceidratio=2'",
    ]
    assert "AlwaysOnSampler" in str(facts["default"])
