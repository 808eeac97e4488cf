"""`instrument()` is a guest: any order, nothing replaced, and all of it goes away again."""

from __future__ import annotations

import pytest

from tests.support.scenario import scenario

PROVIDER = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
"""


@pytest.mark.parametrize(
    "order",
    [
        "init, provider, instrument, wrap",
        "init, provider, wrap, instrument",
        "init, instrument, provider, wrap",
        "init, instrument, wrap, provider",
        "instrument, init, provider, wrap",
        "provider, wrap, instrument, init",
        "instrument, provider, wrap, init",
    ],
)
def test_any_order_of_initialisation(order: str) -> None:
    steps = {
        "init": "init()",
        "provider": "trace.set_tracer_provider(TracerProvider())",
        "instrument": "otel_sentry_asgi.instrument()",
        "wrap": "app = OpenTelemetryMiddleware(hello)",
    }
    code = PROVIDER + "\n".join(steps[step] for step in order.split(", "))

    facts = scenario(
        code + "\nget(app, '/a', '/boom')\nreport(names=names(), errors=len(payloads('event')))"
    )

    assert facts["names"] == ["GET /a", "GET /boom"]
    assert facts["errors"] == 1


def test_the_provider_that_comes_is_joined_and_stays_the_applications() -> None:
    facts = scenario(
        PROVIDER
        + """
        init()
        otel_sentry_asgi.instrument()
        before = type(trace.get_tracer_provider()).__name__
        mine = TracerProvider()
        trace.set_tracer_provider(mine)
        get(OpenTelemetryMiddleware(hello), "/a")
        report(names=names(), mine=trace.get_tracer_provider() is mine, before=before)
        """.replace("        ", "")
    )

    assert facts["names"] == ["GET /a"]
    assert facts["mine"] is True
    assert facts["before"] == "ProxyTracerProvider"


def test_a_provider_is_made_only_when_asked_for() -> None:
    facts = scenario(
        """
        init()
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        otel_sentry_asgi.instrument(create_provider=True)
        get(OpenTelemetryMiddleware(hello), "/a")
        report(names=names(), provider=type(trace.get_tracer_provider()).__name__)
        """
    )

    assert facts["names"] == ["GET /a"]
    assert facts["provider"] == "TracerProvider"


def test_an_explicit_provider_is_joined_and_the_global_one_is_not() -> None:
    facts = scenario(
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        init()
        mine, other = TracerProvider(), TracerProvider()
        trace.set_tracer_provider(other)
        otel_sentry_asgi.instrument(tracer_provider=mine)
        get(OpenTelemetryMiddleware(hello, tracer_provider=mine), "/a")
        report(names=names(), mine=processors(mine), other=processors(other))
        """
    )

    assert facts["names"] == ["GET /a"]
    assert facts["mine"] == ["SentrySpanProcessor"]
    assert facts["other"] == []


@pytest.mark.parametrize(
    "twice",
    [
        "otel_sentry_asgi.instrument()",
        "trace.get_tracer_provider().add_span_processor(otel_sentry_asgi.SentrySpanProcessor())",
        "app = otel_sentry_asgi.SentryMiddleware(app)",
        "app = OpenTelemetryMiddleware(app)",
    ],
)
def test_what_is_set_up_twice_sends_once(twice: str) -> None:
    facts = scenario(
        PROVIDER
        + f"""
init()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
app = OpenTelemetryMiddleware(hello)
{twice}
get(app, "/a", "/boom")
report(names=names(), errors=len(payloads("event")))
"""
    )

    assert facts["names"] == ["GET /a", "GET /boom"]
    assert facts["errors"] == 1


def test_uninstrument_takes_away_exactly_what_was_added() -> None:
    facts = scenario(
        """
        from opentelemetry import propagate
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from sentry_sdk import scope
        from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
        from sentry_sdk.transport import BaseHttpTransport

        def state():
            provider = trace.get_tracer_provider()
            return [
                provider, provider.sampler, tuple(provider._active_span_processor._span_processors),
                propagate.get_global_textmap(), sentry_sdk.get_client(),
                sentry_sdk.get_client().transport, dict(sentry_sdk.get_client().options),
                list(scope.global_event_processors), scope.has_external_propagation_context(),
                type(vars(OpenTelemetryMiddleware)["__call__"]).__name__,
                type(vars(SentryAsgiMiddleware)["_run_app"]).__name__,
                type(vars(BaseHttpTransport)["_send_request"]).__name__,
            ]

        init()
        provider, memory = TracerProvider(), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(memory))
        trace.set_tracer_provider(provider)
        before = state()
        rounds = []
        for _ in range(2):
            otel_sentry_asgi.instrument()
            during = state()
            app = OpenTelemetryMiddleware(hello)
            get(app, "/a")
            rounds.append(names())
            otel_sentry_asgi.uninstrument()
        get(app, "/b")
        changed = [index for index, (a, b) in enumerate(zip(before, during)) if a != b]
        sent = [one["transaction"] for one in payloads("transaction")]
        report(same=state() == before, changed=changed, rounds=rounds, sent=sent,
               memory=len(memory.get_finished_spans()), active=sentry_sdk.is_initialized())
        """
    )

    assert facts["same"] is True
    # The processors, the propagator beside the one that is there, the global event processors, the
    # slot for ids, and the three wrapped methods.
    assert facts["changed"] == [2, 3, 7, 8, 9, 10, 11]
    assert facts["rounds"] == [["GET /a"], ["GET /a", "GET /a"]]
    assert facts["sent"] == ["GET /a", "GET /a"]
    assert facts["memory"] == 9, "OTel's own exporter goes on"
    assert facts["active"] is True


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "sentry_sdk.init() has not been called"),
        ("sentry_sdk.init(traces_sample_rate=1.0)", "the Sentry client has no DSN"),
    ],
)
def test_without_a_client_it_is_inert_and_says_why_once(given: str, why: str) -> None:
    facts = scenario(
        PROVIDER
        + f"""
import threading
{given}
log = Log()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
app = OpenTelemetryMiddleware(hello)
codes = get(app, "/a")
with trace.get_tracer("shop").start_as_current_span("job"):
    pass
threads = [thread.name for thread in threading.enumerate()]
codes += get(app, "/boom", "/a")
assert otel_sentry_asgi._active.active().pipeline.force_flush(5)
report(codes=codes, log=log.messages, stats=otel_sentry_asgi.stats(), threads=threads)
"""
    )

    assert facts["codes"] == [200, 500, 200]
    assert facts["log"] == [f"nothing is sent to Sentry: {why}"]
    assert facts["stats"] == {}
    assert "otel-sentry-asgi" not in facts["threads"]


def test_a_client_that_was_closed_is_said_to_be() -> None:
    facts = scenario(
        PROVIDER
        + """
init()
sentry_sdk.get_client().close()
log = Log()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), "/a")
report(log=log.messages, stats=otel_sentry_asgi.stats())
"""
    )

    assert facts["log"] == ["nothing is sent to Sentry: the Sentry client has been closed"]
    assert facts["stats"] == {}


def test_what_ends_once_there_is_a_client_is_sent() -> None:
    """Also where it began before."""
    facts = scenario(
        PROVIDER
        + """
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
tracer = trace.get_tracer("shop")
with tracer.start_as_current_span("early"):
    init()
    tracer.start_span("child").end()
report(names=names(), stats=otel_sentry_asgi.stats())
"""
    )

    assert facts["names"] == ["early"]
    assert facts["stats"] == {"spans": 2, "transactions": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("linger=-1", "linger must be at least 0 seconds, not -1"),
        ("max_spans=0", "at least 1, not 0"),
        ("errors='some'", "errors must be one of"),
        ("colour='red'", "no such setting: colour"),
        ("exporters=[]", "no such setting: exporters; did you mean exporter?"),
        ("tracer_provider=object()", "tracer_provider must have add_span_processor()"),
        ("exporter=object()", "exporter must have export()"),
        ("settings=otel_sentry_asgi.Settings(), linger=1", "linger"),
    ],
)
def test_bad_settings_are_named(given: str, message: str) -> None:
    facts = scenario(
        f"""
        try:
            otel_sentry_asgi.instrument({given})
        except otel_sentry_asgi.SettingsError as error:
            report(message=str(error))
        """
    )

    assert message in facts["message"]


def test_settings_come_from_the_environment() -> None:
    facts = scenario(
        "otel_sentry_asgi.instrument(linger=3)\n"
        "s = otel_sentry_asgi._active.active().settings\n"
        "report(linger=s.linger, spans=s.max_spans, keep=s.keep_asgi_spans,"
        " terms=s.sensitive_terms)",
        env={
            "OTEL_SENTRY_LINGER": "9",
            "OTEL_SENTRY_MAX_SPANS": "10",
            "OTEL_SENTRY_KEEP_ASGI_SPANS": "true",
            "OTEL_SENTRY_SENSITIVE_TERMS": "Iban, bic",
        },
    )

    assert (facts["linger"], facts["spans"], facts["keep"]) == (3, 10, True)
    assert facts["terms"] == ["iban", "bic"]


@pytest.mark.parametrize("mode", ["", "http", "http/dup"])
def test_every_generation_of_the_conventions(mode: str) -> None:
    facts = scenario(
        PROVIDER
        + """
init()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()
get(OpenTelemetryMiddleware(hello), "/a?token=hunter2&page=2")
names()
(one,) = payloads("transaction")
data = one["contexts"]["trace"]["data"]
report(trace={k: one["contexts"]["trace"][k] for k in ("op", "status", "origin")},
       name=one["transaction"], info=one["transaction_info"], keys=sorted(data),
       request=one["request"], response=one["contexts"]["response"], raw=json.dumps(one))
""",
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": mode},
    )

    assert facts["trace"] == {"op": "http.server", "status": "ok", "origin": "auto.http.otel.asgi"}
    assert (facts["name"], facts["info"]) == ("GET /a", {"source": "url"})
    assert facts["request"]["query_string"] == "token=[Filtered]&page=2"
    assert facts["response"]["status_code"] == 200
    assert "http.request.method" in facts["keys"]
    assert "http.method" not in facts["keys"]
    assert "hunter2" not in facts["raw"]


def test_uploads_do_not_trace_themselves() -> None:
    facts = scenario(
        """
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

        class Sentry(BaseHTTPRequestHandler):
            posts = 0
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                Sentry.posts += 1
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()
            def log_message(self, *args): pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Sentry)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sentry_sdk.init(dsn=f"http://k@127.0.0.1:{server.server_port}/1", traces_sample_rate=1.0,
                        auto_session_tracking=False)
        trace.set_tracer_provider(TracerProvider())
        URLLib3Instrumentor().instrument()
        otel_sentry_asgi.instrument()
        get(OpenTelemetryMiddleware(hello), "/a")
        for _ in range(5):
            otel_sentry_asgi._active.active().pipeline.force_flush(5)
        report(posts=Sentry.posts, stats=otel_sentry_asgi.stats())
        server.shutdown()
        server.server_close()
        """,
        env={"OTEL_SEMCONV_STABILITY_OPT_IN": "http"},
    )

    assert facts["posts"] == 1
    assert facts["stats"]["transactions"] == 1


def test_what_had_ended_is_sent_at_exit() -> None:
    """In either order of init and instrument, without a flush by the application."""
    for first, second in (
        ("init()", "otel_sentry_asgi.instrument()"),
        ("otel_sentry_asgi.instrument()", "init()"),
    ):
        facts = scenario(
            PROVIDER
            + f"""
import atexit
atexit.register(
    lambda: report(
        sent=[
            (one["transaction"], [span["description"] for span in one["spans"]])
            for one in payloads("transaction")
        ]
    )
)
trace.set_tracer_provider(TracerProvider())
{first}
{second}
otel_sentry_asgi._active.active().settings
get(OpenTelemetryMiddleware(hello), "/a")
open_root = trace.get_tracer("app").start_span("never ends")
with trace.use_span(open_root), trace.get_tracer("app").start_as_current_span("ended below"):
    pass
"""
        )

        assert facts["sent"] == [["GET /a", []], ["never ends", ["ended below"]]]


def test_a_forked_child_sends_its_own_and_nothing_of_its_parents() -> None:
    facts = scenario(
        PROVIDER
        + """
import os
init()
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument(settle=60, linger=60)
app = OpenTelemetryMiddleware(hello)
get(app, "/parent")
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    transport.envelopes.clear()
    get(app, "/child")
    os.write(writer, json.dumps(names()).encode())
    os._exit(0)
os.waitpid(child, 0)
report(parent=names(), child=json.loads(os.read(reader, 1000)))
"""
    )

    assert facts["parent"] == ["GET /parent"]
    assert facts["child"] == ["GET /child"]
