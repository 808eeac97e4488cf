"""Sentry's headers beside OTel's: what comes in is continued, what goes out is added."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import sentry_sdk
from multidict import CIMultiDict
from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import attach, detach
from opentelemetry.context.context import Context
from opentelemetry.instrumentation.asgi import ASGIGetter, OpenTelemetryMiddleware, asgi_getter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Setter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests.structures import CaseInsensitiveDict
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

import otel_sentry_asgi
from otel_sentry_asgi import SentryPropagator, trace_propagation_meta
from otel_sentry_asgi._dsc import parse_baggage, parse_sentry_trace

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "4bf92f3577b34da6a3ce929d0e0e4736"
SENTRYS = (
    f"sentry-trace_id={TRACE},sentry-public_key=web,sentry-release=web%401,"
    "sentry-transaction=%2Fproducts%2F%3Aid,sentry-sample_rate=0.25,sentry-sample_rand=0.1,"
    "sentry-sampled=true,sentry-replay_id=abc"
)
BROWSER = {"sentry-trace": f"{TRACE}-{SPAN}-1", "baggage": f"tenant=a%20b,{SENTRYS}"}
RECEIVED = parse_baggage([BROWSER["baggage"]])
W3C = {"traceparent": f"00-{OTHER}-00f067aa0ba902b7-01"}
DSN = "http://public@o12.sentry.test/1"

Init = Callable[..., None]


class Silent(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        """Nowhere."""


@pytest.fixture
def start() -> Iterator[Init]:
    """A client that sends nothing, and `instrument()` on a provider of the test's own."""
    before = propagate.get_global_textmap()

    def start(settings: dict[str, Any] | None = None, **options: Any) -> None:
        options = {"dsn": DSN, "traces_sample_rate": 1.0, "release": "shop@1", **options}
        sentry_sdk.init(transport=Silent(options), environment="test", **options)
        otel_sentry_asgi.instrument(tracer_provider=PROVIDER, **(settings or {}))

    yield start
    otel_sentry_asgi.uninstrument()
    assert propagate.get_global_textmap() is before


PROVIDER = TracerProvider(sampler=ALWAYS_ON)


def span_of(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def served(headers: dict[str, str], provider: TracerProvider = PROVIDER) -> dict[str, str]:
    """The headers of a request that a service makes while it serves one with *headers*."""
    tracer = provider.get_tracer("shop")
    outgoing: dict[str, str] = {}
    token = attach(propagate.extract(headers))
    try:
        with (
            tracer.start_as_current_span("GET /", kind=SpanKind.SERVER),
            tracer.start_as_current_span("call", kind=SpanKind.CLIENT),
        ):
            propagate.inject(outgoing)
    finally:
        detach(token)
    return outgoing


# -- in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"sentry-trace", b"Sentry-Trace"])
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_it_is_found_in_an_asgi_scope_however_its_name_is_written(
    name: bytes, kind: Callable[[Any], Any], start: Init
) -> None:
    start()
    headers = [(b"host", b"shop.example"), (name, BROWSER["sentry-trace"].encode())]
    carrier = {"type": "http", "headers": kind(headers)}
    ours = SentryPropagator().extract(carrier, getter=asgi_getter)
    assert span_of(ours).trace_id == int(TRACE, 16)


@pytest.mark.parametrize("headers", [["a"], [()], [1], [("a", "b")], []])
def test_a_carrier_with_something_else_called_headers_is_read(headers: Any, start: Init) -> None:
    start()
    carrier = {**BROWSER, "headers": headers}
    assert span_of(SentryPropagator().extract(carrier)).trace_id == int(TRACE, 16)


def test_of_an_asgi_scope_without_it_nothing_is_decoded(start: Init) -> None:
    start()

    class Asked(ASGIGetter):
        def get(self, carrier: Any, key: str) -> Any:
            raise AssertionError(key)

    carrier = {"type": "http", "headers": [(b"host", b"shop.example")]}
    assert not span_of(SentryPropagator().extract(carrier, getter=Asked())).is_valid


def test_a_browsers_trace_is_continued(start: Init) -> None:
    start()
    span = span_of(propagate.extract(BROWSER))
    assert (span.trace_id, span.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert span.is_remote
    assert span.trace_flags.sampled
    assert not span.trace_state, "Sentry's state is no tracestate"


@pytest.mark.parametrize(
    ("prefers", "expected"), [(None, OTHER), ("w3c", OTHER), ("sentry", TRACE)]
)
def test_of_two_traces_w3cs_is_continued_unless_told_otherwise(
    start: Init, prefers: str | None, expected: str
) -> None:
    start({} if prefers is None else {"incoming_trace": prefers})
    assert f"{span_of(propagate.extract({**BROWSER, **W3C})).trace_id:032x}" == expected
    out = served({**BROWSER, **W3C})
    context = parse_baggage([out["baggage"]])
    assert out["sentry-trace"].startswith(expected)
    assert context["trace_id"] == expected
    assert (context.get("replay_id") == "abc") is (expected == TRACE), "sampling of its own trace"


def test_the_same_trace_in_both_headers_keeps_w3cs_span_and_sentrys_sampling(start: Init) -> None:
    start()
    w3c = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
    span = span_of(propagate.extract({**BROWSER, **w3c}))
    assert (f"{span.span_id:016x}", dict(span.trace_state)) == ("00f067aa0ba902b7", {"vendor": "1"})
    assert parse_baggage([served({**BROWSER, **w3c})["baggage"]]) == RECEIVED


@pytest.mark.parametrize(
    ("org_id", "strict", "theirs", "continues"),
    [
        ("12", False, "12", True),
        ("12", False, "13", False),
        ("12", False, None, True),
        ("12", True, None, False),
        ("12", True, "12", True),
        ("13", False, "12", False),
    ],
)
@pytest.mark.parametrize("with_traceparent", [True, False])
def test_a_trace_of_another_organisation_is_not_continued(
    start: Init,
    org_id: str,
    strict: bool,
    theirs: str | None,
    continues: bool,
    with_traceparent: bool,
) -> None:
    """Nor is its sampling, where OTel continues it by its own header."""
    start(org_id=org_id, strict_trace_continuation=strict)
    members = "" if theirs is None else f",sentry-org_id={theirs}"
    headers = {**BROWSER, "baggage": BROWSER["baggage"] + members}
    if with_traceparent:
        headers["traceparent"] = f"00-{TRACE}-{SPAN}-01"
    out = served(headers)
    assert out["sentry-trace"].startswith(TRACE) is (continues or with_traceparent)
    context = parse_baggage([out["baggage"]])
    assert ("replay_id" in context) is continues
    assert (context["public_key"] == "web") is continues


def test_without_a_client_nothing_changes() -> None:
    """Neither in nor out."""
    otel_sentry_asgi.instrument(tracer_provider=PROVIDER)
    assert not span_of(propagate.extract(BROWSER)).is_valid
    assert "sentry-trace" not in served({})


@pytest.mark.parametrize("junk", ["", "x", f"{TRACE}-{SPAN}-9", "0" * 9_000])
def test_junk_is_no_trace(start: Init, junk: str) -> None:
    start()
    assert not span_of(propagate.extract({"sentry-trace": junk, "baggage": junk})).is_valid


def test_the_number_of_the_trace_decides_as_it_came(start: Init) -> None:
    """Also without `sentry-trace`: OTel's own propagators carry Sentry's members along."""
    start()
    w3c = {"traceparent": f"00-{TRACE}-{SPAN}-01", "baggage": BROWSER["baggage"]}
    served(w3c)
    bridge = otel_sentry_asgi._active.active()
    assert bridge is not None
    decision = bridge.decisions.get(int(TRACE, 16))
    assert decision is not None
    assert (decision.sampled, decision.sample_rand) == (True, 0.1)


@pytest.mark.parametrize("flag", ["-0", "-1", ""])
def test_sentrys_decision_wins_over_the_rate(start: Init, flag: str) -> None:
    start(traces_sample_rate=0.0 if flag == "-1" else 1.0)
    out = served({"sentry-trace": f"{TRACE}-{SPAN}{flag}"})
    assert parse_sentry_trace(out["sentry-trace"]) == (
        int(TRACE, 16),
        parse_sentry_trace(out["sentry-trace"]).span_id,  # type: ignore[union-attr]
        flag != "-0",
    )
    assert "baggage" not in out, "a context that came empty is frozen as such"


# -- out -------------------------------------------------------------------------------------------


def test_a_trace_that_begins_here_goes_out_whole(start: Init) -> None:
    start()
    out = served({})
    incoming = parse_sentry_trace(out["sentry-trace"])
    assert incoming is not None
    ids = f"00-{incoming.trace_id:032x}-{incoming.span_id:016x}-0"
    assert out["traceparent"].startswith(ids)
    assert incoming.sampled is True
    context = parse_baggage([out["baggage"]])
    assert context.pop("sample_rand")
    assert context == {
        "trace_id": f"{incoming.trace_id:032x}",
        "public_key": "public",
        "release": "shop@1",
        "environment": "test",
        "org_id": "12",
        "sample_rate": "1.0",
        "sampled": "true",
        "transaction": "GET /",
    }
    assert "GET%20%2F" in out["baggage"]
    assert "+" not in out["baggage"]


def test_what_came_goes_on_as_it_came(start: Init) -> None:
    start(traces_sample_rate=0.0)
    out = served(BROWSER)
    assert parse_baggage([out["baggage"]]) == RECEIVED
    assert out["baggage"].startswith("tenant=a+b,"), "as OTel's own propagator writes it"
    assert out["sentry-trace"].startswith(TRACE)
    assert out["sentry-trace"].endswith("-1")


def test_a_samplers_rate_goes_on_in_place_of_the_one_that_came(start: Init) -> None:
    asked = []

    def sampler(context: dict[str, Any]) -> float:
        asked.append((context["parent_sampled"], context["parent_sample_rate"]))
        return 0.05

    start(traces_sampler=sampler)
    out = served(BROWSER)
    assert asked == [(True, 0.25)]
    changed = {"sample_rate": "0.05", "sampled": "false", "sample_rand": "0.100000"}
    assert parse_baggage([out["baggage"]]) == {**RECEIVED, **changed}
    assert out["sentry-trace"].endswith("-0")


def test_with_tracing_off_no_decision_is_invented(start: Init) -> None:
    start(traces_sample_rate=None)
    out = served({})
    assert parse_sentry_trace(out["sentry-trace"]).sampled is None  # type: ignore[union-attr]
    assert not {"sampled", "sample_rate", "sample_rand"} & parse_baggage([out["baggage"]]).keys()
    assert served(BROWSER)["sentry-trace"].endswith("-1"), "of others it is passed on"


def test_what_otel_leaves_out_is_said_to_be_left_out(start: Init) -> None:
    start()
    out = served({}, TracerProvider(sampler=ALWAYS_OFF))
    context = parse_baggage([out["baggage"]])
    assert out["sentry-trace"].endswith("-0")
    assert context["sampled"] == "false"
    assert float(context["sample_rand"]) >= float(context["sample_rate"])


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        ("https://api.shop.test/a", True),
        ("https://pay.test/", False),
        ("http://o12.sentry.test/api/1/envelope/", False),
        ("http://o12.sentry.test/", False),
    ],
)
@pytest.mark.parametrize("name", ["url.full", "http.url"])
def test_headers_go_to_the_targets_and_never_to_sentry(
    start: Init, url: str, goes: bool, name: str
) -> None:
    start(trace_propagation_targets=[r"shop\.test", "sentry"])
    tracer, carrier = PROVIDER.get_tracer("shop"), dict[str, str]()
    with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes={name: url}):
        propagate.inject(carrier)
    assert ("sentry-trace" in carrier) is ("baggage" in carrier) is goes
    assert "traceparent" in carrier


@pytest.mark.parametrize("targets", [["shop"], [], None])
def test_with_chosen_targets_nothing_goes_where_the_url_is_not_known(
    targets: list[str] | None, start: Init
) -> None:
    """None are no targets, as for sentry-sdk."""
    start(trace_propagation_targets=targets)
    assert "sentry-trace" not in served({})


@pytest.mark.parametrize("own", ["", "tenant=a,"])
def test_what_came_of_sentrys_does_not_go_on_to_others_than_the_targets(
    own: str, start: Init
) -> None:
    """OTel's propagator passes all of `baggage` on to everybody."""
    start(trace_propagation_targets=[r"shop\.test"])
    tracer = PROVIDER.get_tracer("shop")
    came = propagate.extract({**BROWSER, "baggage": own + SENTRYS})
    kinds: list[Any] = [{}, httpx.Headers(), CIMultiDict(), CaseInsensitiveDict()]
    url = {"url.full": "https://pay.test/"}
    with tracer.start_as_current_span("GET", came, kind=SpanKind.CLIENT, attributes=url) as span:
        context = trace.set_span_in_context(span, came)
        for carrier in kinds:
            propagate.inject(carrier, context)
            assert carrier.get("baggage") == (own.rstrip(",") or None)
            assert "sentry-trace" not in carrier
        pairs: list[Any] = []
        propagate.inject(pairs, context, setter=Append())
        values = [value for name, value in pairs if name == "baggage"]
        assert values == ([b"tenant=a"] if own else [])
        opaque = Opaque()
        propagate.inject(opaque, context, setter=OpaqueSetter())
        assert opaque.headers["baggage"] == own.rstrip(",")


def test_the_sampling_of_another_trace_does_not_go_on_with_this_one(start: Init) -> None:
    start()
    out = served({"sentry-trace": f"{OTHER}-{SPAN}-1", "baggage": f"tenant=a,{SENTRYS}"})
    assert out["sentry-trace"].startswith(OTHER)
    assert out["baggage"] == "tenant=a"


def test_an_application_on_the_host_of_a_sentry_with_a_path_is_not_sentry(start: Init) -> None:
    start(dsn="https://public@corp.test/sentry/1")
    for path, goes in (("/sentry/api/1/envelope/", False), ("/shop/", True)):
        carrier: dict[str, str] = {}
        url = {"url.full": f"https://corp.test{path}"}
        tracer = PROVIDER.get_tracer("shop")
        with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=url):
            propagate.inject(carrier)
        assert ("sentry-trace" in carrier) is goes


# -- beside others ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("tracecontext", "baggage", "sentry")))
)
def test_in_whatever_order_the_applications_composite_runs_nothing_is_lost(
    start: Init, order: tuple[str, ...]
) -> None:
    made = {
        "tracecontext": TraceContextTextMapPropagator(),
        "baggage": W3CBaggagePropagator(),
        "sentry": SentryPropagator(),
    }
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([made[name] for name in order]))
    try:
        start()
        headers = {**BROWSER, "traceparent": f"00-{TRACE}-{SPAN}-01"}
        out = served(headers)
        otel_sentry_asgi.uninstrument()
    finally:
        propagate.set_global_textmap(before)
    assert out["traceparent"].startswith(f"00-{TRACE}")
    assert out["sentry-trace"].startswith(TRACE)
    assert out["baggage"].startswith("tenant=")
    assert parse_baggage([out["baggage"]]) == RECEIVED
    assert out["baggage"].count("sentry-trace_id") == 1


class Opaque:
    """A carrier that can only be written."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}


class OpaqueSetter(Setter[Any]):
    def set(self, carrier: Any, key: str, value: str) -> None:
        carrier.headers[key] = value


def test_baggage_of_the_application_is_kept_in_any_carrier(start: Init) -> None:
    start()
    context = baggage.set_baggage("tenant", "a")
    kinds: list[Any] = [{}, httpx.Headers(), CIMultiDict(), CaseInsensitiveDict(), Opaque()]
    with PROVIDER.get_tracer("shop").start_as_current_span("call", context) as span:
        context = trace.set_span_in_context(span, context)
        for carrier in kinds:
            if isinstance(carrier, Opaque):
                propagate.inject(carrier, context, setter=OpaqueSetter())
                carrier = carrier.headers
            else:
                propagate.inject(carrier, context)
            assert carrier["baggage"].startswith("tenant=a,sentry-trace_id=")


@pytest.mark.parametrize("key", ["baggage", "Baggage"])
def test_a_header_that_the_application_wrote_is_kept(start: Init, key: str) -> None:
    start()
    kinds: list[Any] = [{}, httpx.Headers(), CIMultiDict(), CaseInsensitiveDict()]
    with PROVIDER.get_tracer("shop").start_as_current_span("call"):
        for carrier in kinds:
            carrier[key] = "mine=1;p, sentry-release=old"
            propagate.inject(carrier)
            assert [name.lower() for name in carrier].count("baggage") == 1
            assert carrier[key].startswith("mine=1;p,sentry-trace_id=")
            assert "old" not in carrier[key]


class Append(Setter[Any]):
    """As OTel's instrumentations of Kafka clients have it."""

    def set(self, carrier: Any, key: str, value: str) -> None:
        carrier.append((key, value.encode()))


def test_a_list_of_headers_has_each_of_ours_once(start: Init) -> None:
    """Also where they are those of a message that came, and setters append."""
    start()
    context = baggage.set_baggage("tenant", "a")
    carrier: list[Any] = [("Baggage", b"mine=1"), ("odd",), (1, 2), ("sentry-trace", b"old")]
    odd = carrier[1:3]
    with PROVIDER.get_tracer("shop").start_as_current_span("call", context) as span:
        context = trace.set_span_in_context(span, context)
        propagate.inject(carrier, context, setter=Append())
    found = [(name, value) for name, value in carrier[2:] if name != "traceparent"]
    assert carrier[:2] == odd
    assert [name.lower() for name, _ in found] == ["sentry-trace", "baggage"]
    assert found[0][1].startswith(f"{span.get_span_context().trace_id:032x}".encode())
    assert found[1][1].startswith(b"mine=1,tenant=a,sentry-trace_id=")


def test_a_list_of_bytes_is_read(start: Init) -> None:
    start()

    class AppendBytes(Setter[Any]):
        def set(self, carrier: Any, key: str, value: str) -> None:
            carrier.append((key.encode(), value.encode()))

    carrier: list[Any] = [(b"baggage", b"mine=1")]
    with PROVIDER.get_tracer("shop").start_as_current_span("call"):
        propagate.inject(carrier, setter=AppendBytes())
    values = [value for name, value in carrier if name == b"baggage"]
    assert [value[:23] for value in values] == [b"mine=1,sentry-trace_id="]


def test_what_a_full_carrier_does_not_take_takes_nothing_away(start: Init) -> None:
    """Some brokers take ten headers and no more."""
    start()

    class Full(Setter[Any]):
        def set(self, carrier: Any, key: str, value: str) -> None:
            """Nothing."""

    carrier: list[Any] = [("baggage", "mine=1"), ("sentry-trace", "old")]
    before = list(carrier)
    with PROVIDER.get_tracer("shop").start_as_current_span("call"):
        propagate.inject(carrier, setter=Full())
    assert carrier == before


class Attributes(Setter[Any]):
    """As OTel's instrumentations of SQS and SNS have it."""

    def set(self, carrier: Any, key: str, value: str) -> None:
        carrier[key] = {"StringValue": value, "DataType": "String"}


@pytest.mark.parametrize("otels", [True, False])
def test_baggage_that_otel_has_written_in_its_own_way_is_kept(otels: bool, start: Init) -> None:
    """And where OTel does not send any, there is none."""
    before = propagate.get_global_textmap()
    if not otels:
        propagate.set_global_textmap(TraceContextTextMapPropagator())
    try:
        start()
        context = baggage.set_baggage("tenant", "a")
        carrier: dict[str, Any] = {}
        with PROVIDER.get_tracer("shop").start_as_current_span("call", context) as span:
            context = trace.set_span_in_context(span, context)
            propagate.inject(carrier, context, setter=Attributes())
        written = carrier["baggage"]["StringValue"]
        assert written.startswith("tenant=a," if otels else "sentry-trace_id=")
        assert "sentry-trace_id=" in written
        otel_sentry_asgi.uninstrument()
    finally:
        propagate.set_global_textmap(before)


def test_outside_of_a_trace_nothing_is_written(start: Init) -> None:
    start()
    carrier: dict[str, str] = {}
    propagate.inject(carrier, Context())
    assert carrier == {}


def test_a_trace_that_only_passes_through_is_none_of_ours(start: Init) -> None:
    start()
    carrier: dict[str, str] = {}
    propagate.inject(carrier, propagate.extract(W3C))
    assert "sentry-trace" not in carrier
    propagate.inject(carrier, propagate.extract(BROWSER))
    assert carrier["sentry-trace"] == BROWSER["sentry-trace"]
    assert parse_baggage([carrier["baggage"]]) == RECEIVED


def test_the_composite_tells_all_fields(start: Init) -> None:
    start()
    names = {"traceparent", "tracestate", "baggage", "sentry-trace"}
    assert propagate.get_global_textmap().fields == names


def test_it_can_be_left_out(start: Init) -> None:
    before = propagate.get_global_textmap()
    start({"propagate": False})
    assert propagate.get_global_textmap() is before
    assert "sentry-trace" not in served({})


# -- the name --------------------------------------------------------------------------------------

ASGI = {
    "type": "http",
    "method": "GET",
    "scheme": "http",
    "path": "/x",
    "query_string": b"",
    "headers": [],
    "server": ("shop", 80),
}


def told(
    name: str, source: str | None = None, attributes: dict[str, str] | None = None
) -> dict[str, str | None]:
    """The transaction's name in what leaves a request that calls itself so: in the headers that
    OTel's clients and sentry-sdk's own write, and in what sentry-sdk has of the trace."""
    found: dict[str, str | None] = {}

    async def call(_scope: Any, _receive: Any, send: Any) -> None:
        trace.get_current_span().set_attributes(attributes or {})
        scope = sentry_sdk.get_current_scope()
        if name:
            scope.set_transaction_name(name, source=source)
        isolation = sentry_sdk.get_isolation_scope()
        known = isolation._propagation_context.dynamic_sampling_context  # type: ignore[union-attr]
        found["scope"] = (known or {}).get("transaction")
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        headers = [carrier["baggage"], sentry_sdk.get_baggage() or ""]
        found["header"], found["get_baggage"] = (
            parse_baggage([header]).get("transaction") for header in headers
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(_message: Any) -> None:
        """Nowhere."""

    app = OpenTelemetryMiddleware(call, tracer_provider=PROVIDER)
    asyncio.run(app(dict(ASGI), receive, send))
    return found


@pytest.mark.parametrize(
    ("name", "source", "told_as"),
    [
        ("checkout", None, "checkout"),
        ("https://me:pw@shop/pay?card=4111", None, "https://shop/pay"),
        ("/pay?card=4111", "custom", "/pay"),
        ("x" * 9_000, None, "x" * 200),
        ("caf\ud800", None, "caf?"),
        ("a\r\nSet-Cookie: b", None, "a\r\nSet-Cookie: b"),
        ("/pay/4111", "url", None),
        ("", None, None),
    ],
)
def test_the_name_that_goes_out_is_the_one_of_events(
    start: Init, name: str, source: str | None, told_as: str | None
) -> None:
    """Cleaned and cut, and never a raw path."""
    start()
    assert told(name, source) == dict.fromkeys(("scope", "header", "get_baggage"), told_as)


def test_a_statement_that_names_a_request_goes_out_without_its_literals(start: Init) -> None:
    start()
    statement = "SELECT * FROM cards WHERE number = '4111'"
    found = told(statement, attributes={"db.system": "postgresql", "db.statement": statement})
    plain = "SELECT * FROM cards WHERE number = ?"
    assert found == dict.fromkeys(("scope", "header", "get_baggage"), plain)


# -- a page ----------------------------------------------------------------------------------------


def test_a_page_carries_the_trace_to_the_browser(start: Init) -> None:
    start(release='shop@1"<&')
    with PROVIDER.get_tracer("shop").start_as_current_span("GET /", kind=SpanKind.SERVER) as span:
        meta = trace_propagation_meta()
    ids = span.get_span_context()
    assert f'<meta name="sentry-trace" content="{ids.trace_id:032x}-{ids.span_id:016x}-1">' in meta
    assert f'<meta name="baggage" content="sentry-trace_id={ids.trace_id:032x},' in meta
    assert meta.count("<") == meta.count(">") == 2
    assert trace_propagation_meta() == ""


def test_a_page_without_a_client_carries_nothing() -> None:
    with PROVIDER.get_tracer("shop").start_as_current_span("GET /"):
        assert trace_propagation_meta() == ""
