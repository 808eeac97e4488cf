"""From provider to exporter: noise, sizes, streams, log records; and what is counted of it."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import sentry_sdk
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind
from sentry_sdk.utils import Dsn

import otel_sentry_asgi
from otel_sentry_asgi import _deciding, _guard, _sentry_scopes, propagator, sentry
from otel_sentry_asgi import processor as processor_module
from otel_sentry_asgi._active import active
from otel_sentry_asgi._coverage import MAX_ENTRIES, Coverage
from otel_sentry_asgi._pipeline import IDLE_SLICE, LONG_SLICE, MANY, SLICE, Pipeline
from otel_sentry_asgi._profiles import Profiles
from otel_sentry_asgi._scope import current_exchange
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._translate.segment import STRETCH
from otel_sentry_asgi._worker import Worker
from otel_sentry_asgi.middleware import SentryMiddleware
from otel_sentry_asgi.processor import SentrySpanProcessor
from otel_sentry_asgi.sentry import MAX_POLICIES
from otel_sentry_asgi.span_exporter import SentrySpanExporter
from otel_sentry_asgi.testing import RecordingExporter, span
from tests.integration.prelude import DSN, Kept


class Service:
    """The bridge between a provider and a client that keeps what it would send."""

    def __init__(self, settings: dict[str, Any], options: dict[str, Any]) -> None:
        self.transport, self.exporter = Kept(), RecordingExporter()
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.loggers = LoggerProvider(shutdown_on_exit=False)
        sentry_sdk.init(dsn=DSN, transport=self.transport, traces_sample_rate=1.0, **options)
        otel_sentry_asgi.instrument(
            tracer_provider=self.provider,
            logger_provider=self.loggers,
            meter_provider=self.meters,
            **{"exporter": self.exporter, **settings},
        )
        self.tracer = self.provider.get_tracer("shop")

    def request(self, path: str, inside: Callable[[], object], **attributes: Any) -> None:
        given = {"url.path": path, "http.request.method": "GET", **attributes}
        with self.tracer.start_as_current_span(path, kind=SpanKind.SERVER, attributes=given):
            inside()

    def log(self, body: Any, severity: SeverityNumber, **attributes: Any) -> None:
        record = LogRecord(body=body, severity_number=severity, attributes=attributes, timestamp=1)
        self.loggers.get_logger("shop.stock").emit(record)

    def items(self, kind: str) -> list[Any]:
        sentry_sdk.flush()
        envelopes = self.transport.envelopes
        return [item.payload.json for one in envelopes for item in one.items if item.type == kind]

    def lost(self) -> dict[tuple[str, str | None], int]:
        total: dict[tuple[str, str | None], int] = {}
        for reason, category, quantity in self.transport.lost:
            total[reason, category] = total.get((reason, category), 0) + quantity
        return total

    def metrics(self) -> dict[tuple[Any, ...], int]:
        found: Any = self.reader.get_metrics_data()
        return {
            (metric.name, *point.attributes.values()): point.value
            for resource in (found.resource_metrics if found else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def serve(options: dict[str, Any] | None = None, **settings: Any) -> Service:
        made.append(Service(settings, options or {}))
        return made[-1]

    yield serve
    otel_sentry_asgi.uninstrument()
    for service in made:
        service.meters.shutdown()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def test_ignored_requests_are_counted_and_their_errors_reported(
    serve: Callable[..., Service],
) -> None:
    service = serve()

    def fails() -> None:
        with service.tracer.start_as_current_span("query"):
            sentry_sdk.capture_exception(ValueError("bad"))

    service.request("/healthz", fails)
    service.provider.force_flush()
    assert service.exporter.transactions == []
    assert service.lost() == {("ignored", "transaction"): 1, ("ignored", "span"): 2}
    [error] = service.items("event")
    assert error["exception"]["values"][0]["type"] == "ValueError"
    assert otel_sentry_asgi.stats()["lost.ignored"] == 2


def test_the_event_loop_has_its_turn_in_the_middle_of_a_large_transaction(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[Pipeline] = []
    monkeypatch.setattr(Pipeline, "_breathe", lambda pipeline: pauses.append(pipeline))
    service = serve()

    def work() -> None:
        for _ in range(STRETCH * 3):
            service.tracer.start_span("query").end()

    service.request("/orders", work)
    service.provider.force_flush()
    [transaction] = service.exporter.transactions
    assert len(transaction["spans"]) == STRETCH * 3
    assert len(pauses) == 3 + 3  # And before the policy, before the exporter, and behind it.


@pytest.mark.parametrize(
    ("waiting", "is_open", "length"),
    [
        (0, True, SLICE),
        (1, False, SLICE),
        (0, False, IDLE_SLICE),
        (MANY, True, LONG_SLICE),
        (MANY, False, LONG_SLICE),
    ],
)
def test_the_worker_lets_others_run_the_oftener_the_more_likely_they_want_to(
    waiting: int,
    is_open: bool,
    length: float,
    serve: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = serve()
    bridge = active()
    assert bridge is not None
    pipeline, now, slept = bridge.pipeline, [1.0], list[float]()
    root = service.tracer.start_span("root")
    if not is_open:
        root.end()
    service.provider.force_flush()
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=slept.append)
    monkeypatch.setattr(Worker, "waiting", waiting)
    monkeypatch.setattr("otel_sentry_asgi._pipeline.time", clock)
    pipeline._slice_ends = 0.0
    for now[0], slices in ((1.0, 1), (1.0 + 0.9 * length, 1), (1.0 + 1.1 * length, 2)):
        pipeline._breathe()
        assert len(slept) == slices
    root.end()


def test_roots_that_overlap_in_one_context_do_not_hold_those_that_have_ended(
    serve: Callable[..., Service],
) -> None:
    """Each would be looked at by every one that ends later."""
    service = serve()
    roots = [service.tracer.start_span("root", kind=SpanKind.CONSUMER) for _ in range(50)]
    for root in roots[:-1]:
        root.end()
    exchange, held = current_exchange.get(), 0
    while exchange is not None and exchange.previous is not None:
        exchange, held = exchange.previous.exchange, held + 1
    assert held <= 2
    roots[-1].end()
    assert current_exchange.get() is None


class Resting(RecordingExporter):
    """Collects what it is given until nothing follows for now."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: list[int] = []

    def rest(self) -> None:
        self.rests.append(len(self.exported))


def test_an_exporter_that_collects_is_told_when_nothing_follows(
    serve: Callable[..., Service],
) -> None:
    exporter = Resting()
    service = serve(exporter=exporter)
    for path in ("/orders", "/healthz"):
        service.request(path, lambda: None)
        service.provider.force_flush()
    assert [origin.more for _, origin in exporter.exported] == [True]
    assert exporter.rests[-1] == 1


def test_an_exporter_that_does_not_collect_is_not_asked_to(serve: Callable[..., Service]) -> None:
    service = serve()
    service.request("/orders", lambda: None)
    service.provider.force_flush()
    assert [origin.more for _, origin in service.exporter.exported] == [False]


def test_what_is_not_sampled_is_counted_as_transactions_and_as_spans(
    serve: Callable[..., Service],
) -> None:
    service = serve({"traces_sampler": lambda _: 0.0})
    for _ in range(2):
        service.request("/orders", lambda: service.tracer.start_span("query").end())
    service.provider.force_flush()
    assert service.exporter.transactions == []
    assert service.lost() == {("sample_rate", "transaction"): 2, ("sample_rate", "span"): 4}


def test_the_options_of_the_client_count_too(serve: Callable[..., Service]) -> None:
    service = serve({"trace_ignore_status_codes": {404}})
    service.request("/orders", lambda: None, **{"http.response.status_code": 404})
    service.request("/orders", lambda: None, **{"http.response.status_code": 200})
    service.provider.force_flush()
    assert len(service.exporter.transactions) == 1
    assert service.lost() == {("ignored", "transaction"): 1, ("ignored", "span"): 1}


def test_what_is_sent_and_lost_is_a_metric(serve: Callable[..., Service]) -> None:
    service = serve()
    service.request("/orders", lambda: None)
    service.request("/healthz", lambda: None)
    service.provider.force_flush()
    assert service.metrics() == {
        ("otel_sentry_asgi.sent", "transaction"): 1,
        ("otel_sentry_asgi.sent", "span"): 1,
        ("otel_sentry_asgi.lost", "ignored"): 1,
    }
    otel_sentry_asgi.uninstrument()
    assert service.metrics() == {}


class Trimming(RecordingExporter):
    """It would do it itself."""

    trims = True


@pytest.mark.parametrize("exporter", [RecordingExporter, Trimming])
def test_too_large_transactions_are_trimmed_on_their_way_unless_their_exporter_does_it(
    serve: Callable[..., Service], exporter: type[RecordingExporter]
) -> None:
    service = serve(exporter=(taken := exporter()))
    many = {f"field {number}": "v" * 2_000 for number in range(100)}

    def queries() -> None:
        for _ in range(200):
            with service.tracer.start_as_current_span("query", attributes=many):
                pass

    service.request("/orders", queries)
    service.provider.force_flush()
    [transaction] = taken.transactions
    lost = transaction.get("_dropped_spans", 0)
    assert (lost > 0) == (exporter is RecordingExporter)
    assert len(transaction["spans"]) + lost == 200
    assert otel_sentry_asgi.stats().get("lost.buffer_overflow", 0) == lost
    assert otel_sentry_asgi.stats()["spans"] == 201 - lost


async def nothing(message: Any = None) -> Any:
    """Neither a client nor a server."""
    return {"type": "websocket.disconnect"}


def test_a_websocket_comes_in_pieces_and_as_a_whole(serve: Callable[..., Service]) -> None:
    service = serve(max_spans=2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number in range(5):
            with service.tracer.start_as_current_span(f"message {number}"):
                pass

    wrapped = OpenTelemetryMiddleware(app, tracer_provider=service.provider)
    scope = {"type": "websocket", "path": "/room", "scheme": "ws", "headers": []}
    asyncio.run(wrapped(scope, nothing, nothing))
    service.provider.force_flush()
    *pieces, whole = service.exporter.transactions
    trace = whole["contexts"]["trace"]
    assert trace["op"] == "websocket.server"
    for piece in pieces:
        assert piece["transaction"] == whole["transaction"]
        assert piece["contexts"]["trace"]["op"] == "websocket.server.partial"
        assert piece["contexts"]["trace"]["parent_span_id"] == trace["span_id"]
    spans = [span["description"] for one in service.exporter.transactions for span in one["spans"]]
    assert spans == [f"message {number}" for number in range(5)]
    assert service.lost() == {}


def test_sentry_logs_are_linked_and_clean(serve: Callable[..., Service]) -> None:
    service = serve({"enable_logs": True}, send_logs=True)
    service.request(
        "/orders",
        lambda: service.log(
            "see https://bob:hunter2@shop.example/",
            SeverityNumber.WARN,
            **{"http.request.header.authorization": "hunter2", "count": 3},
        ),
    )
    service.provider.force_flush()
    [entry] = [entry for payload in service.items("log") for entry in payload["items"]]
    [transaction] = service.exporter.transactions
    trace = transaction["contexts"]["trace"]
    assert (entry["trace_id"], entry["span_id"]) == (trace["trace_id"], trace["span_id"])
    assert entry["level"] == "warn"
    assert entry["attributes"]["count"]["value"] == 3
    assert entry["attributes"]["logger.name"]["value"] == "shop.stock"
    assert "hunter2" not in str(entry)
    assert otel_sentry_asgi.stats()["logs"] == 1


@pytest.mark.parametrize(
    "body", ["got opensesame", ["opensesame", {"password": "other"}], {"a": 1}]
)
def test_secrets_of_the_request_are_in_no_log(serve: Callable[..., Service], body: Any) -> None:
    service = serve({"enable_logs": True}, send_logs=True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        service.log(body, SeverityNumber.WARN, seen="is opensesame")

    wrapped = OpenTelemetryMiddleware(app, tracer_provider=service.provider)
    headers = [(b"authorization", b"Bearer opensesame")]
    scope = {"type": "http", "path": "/orders", "method": "GET", "headers": headers}
    asyncio.run(wrapped(scope, nothing, nothing))
    service.provider.force_flush()
    [entry] = [entry for payload in service.items("log") for entry in payload["items"]]
    assert entry["attributes"]["seen"]["value"] == "is [Filtered]"
    assert "opensesame" not in str(entry)
    assert "other" not in str(entry)


def test_the_body_of_a_log_is_cleaned_like_other_messages(serve: Callable[..., Service]) -> None:
    """What no rule forbids of a query stays."""
    service = serve({"enable_logs": True}, send_logs=True)

    def work() -> None:
        service.log("GET https://bob:pw@h/p?page=2&token=x took 5", SeverityNumber.WARN)
        service.log({"url": "https://bob:pw@h/p?page=2&token=x"}, SeverityNumber.WARN)

    service.request("/orders", work)
    service.provider.force_flush()
    logs = [entry["body"] for payload in service.items("log") for entry in payload["items"]]
    assert logs == [
        "GET https://[Filtered]@h/p?page=2&token=[Filtered] took 5",
        "{'url': 'https://h/p?page=2&token=[Filtered]'}",
    ]


@pytest.mark.parametrize("given", [False, True])
def test_what_is_said_to_a_model_is_in_logs_by_its_options_only(
    serve: Callable[..., Service], given: bool
) -> None:
    collection = {"gen_ai": {"inputs": given, "outputs": given}}
    service = serve({"enable_logs": True, "data_collection": collection}, send_logs=True)
    body, name = {"content": "I am Bob"}, {"event.name": "gen_ai.user.message"}
    service.request("/chat", lambda: service.log(body, SeverityNumber.INFO, **name))
    service.provider.force_flush()
    [entry] = [entry for payload in service.items("log") for entry in payload["items"]]
    assert ("I am Bob" in entry["body"]) is given


def test_without_being_asked_no_log_is_sent(serve: Callable[..., Service]) -> None:
    service = serve({"enable_logs": True})
    service.request("/orders", lambda: service.log("text", SeverityNumber.WARN))
    assert service.items("log") == []


def test_logs_that_cannot_be_sent_are_said_to_be_so_once(
    serve: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    service = serve({"enable_logs": False}, send_logs=True)
    for _ in range(2):
        service.request("/orders", lambda: service.log("text", SeverityNumber.WARN))
    assert service.items("log") == []
    [said] = [one for one in caplog.messages if "send_logs" in one]
    assert said.startswith("send_logs is True, but the Sentry client sends no logs")


def test_records_are_breadcrumbs_of_the_errors_of_their_request(
    serve: Callable[..., Service],
) -> None:
    service = serve()
    service.log("of no request", SeverityNumber.WARN)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        service.log("quiet", SeverityNumber.DEBUG)
        service.log({"stock": 0, "password": "hunter2"}, SeverityNumber.WARN, left=0)
        raise ValueError("bad")

    async def nothing(message: Any = None) -> Any:
        return {}

    wrapped = OpenTelemetryMiddleware(app, tracer_provider=service.provider)
    with pytest.raises(ValueError, match="bad"):
        asyncio.run(wrapped({"type": "http", "path": "/", "headers": []}, nothing, nothing))
    [error] = service.items("event")
    [crumb] = [one for one in error["breadcrumbs"]["values"] if one.get("type") == "log"]
    assert (crumb["category"], crumb["level"]) == ("shop.stock", "warning")
    assert crumb["data"] == {"left": 0}
    assert "stock" in crumb["message"]
    assert "hunter2" not in str(error["breadcrumbs"])


@pytest.mark.parametrize("by_sdk", [True, False])
def test_records_of_logging_are_left_to_sentry_sdk_while_it_takes_them(
    serve: Callable[..., Service], by_sdk: bool
) -> None:
    service = serve({"enable_logs": True, "default_integrations": by_sdk}, send_logs=True)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            service.log(record.getMessage(), SeverityNumber.WARN)

    logger, handler = logging.getLogger("shop.stock"), Handler()
    logger.addHandler(handler)
    try:
        logger.warning("low")
    finally:
        logger.removeHandler(handler)
    entries = [entry for payload in service.items("log") for entry in payload["items"]]
    origins = [entry["attributes"]["sentry.origin"]["value"] for entry in entries]
    assert origins == ["auto.log.stdlib" if by_sdk else "auto.log.otel"]


def test_another_client_has_its_own_policy_within_a_turn(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has gathered is taken in one turn, in which the client's options are read once."""
    service = serve({"data_collection": {"user_info": True}}, settle=3_600.0)
    export = service.exporter.export

    def export_and_change(*given: Any) -> None:
        export(*given)
        sentry_sdk.init(dsn=DSN, transport=service.transport, traces_sample_rate=1.0)

    monkeypatch.setattr(service.exporter, "export", export_and_change)
    for name in ("first", "second"):
        with service.tracer.start_as_current_span(name, attributes={"user.id": "7"}):
            pass
    service.provider.force_flush()
    told = {one["transaction"]: one["contexts"]["trace"] for one in service.exporter.transactions}
    assert told["first"]["data"]["user.id"] == "7"
    assert "user.id" not in told["second"]["data"]


class Tenant:
    """A client of its own for some requests."""

    def __init__(self, name: str, **options: Any) -> None:
        self.transport = Kept()
        given = {"traces_sample_rate": 1.0, "default_integrations": False, **options}
        dsn = f"http://{name}@127.0.0.1:9/2"
        self.transport.parsed_dsn = Dsn(dsn)
        self.client = sentry_sdk.Client(dsn=dsn, transport=self.transport, **given)

    def take_over(self) -> None:
        sentry_sdk.get_isolation_scope().set_client(self.client)


def test_what_the_client_of_the_requests_own_scope_says_counts(
    serve: Callable[..., Service],
) -> None:
    """Whichever come together in a turn."""
    personal = {"user_info": True}
    service = serve({"data_collection": personal, "release": "global@1"}, settle=3_600.0)
    closed = Tenant("closed", release="closed@1")
    opened = Tenant("opened", data_collection=personal, trace_ignore_status_codes={404})

    def inside(tenant: Tenant | None, name: str) -> None:
        if tenant is not None:
            tenant.take_over()
        service.tracer.start_span(name, attributes={"user.id": "7"}).end()

    for name, tenant in (("closed", closed), ("global", None), ("opened", opened)):
        service.request(f"/{name}", partial(inside, tenant, name))
    service.request("/not", partial(inside, opened, ""), **{"http.response.status_code": 404})
    service.provider.force_flush()

    seen = {one["transaction"]: one for one in service.exporter.transactions}
    assert seen.keys() == {"GET /closed", "GET /global", "GET /opened"}
    users = {name: one["spans"][0]["data"].get("user.id") for name, one in seen.items()}
    assert users == {"GET /closed": None, "GET /global": "7", "GET /opened": "7"}
    contexts = [one["contexts"]["trace"]["dynamic_sampling_context"] for one in seen.values()]
    releases = {one["public_key"]: one.get("release") for one in contexts}
    assert releases.keys() == {"closed", "public", "opened"}
    assert (releases["closed"], releases["public"]) == ("closed@1", "global@1")
    assert opened.transport.lost == [("ignored", "transaction", 1), ("ignored", "span", 2)]
    assert service.lost() == {}


def test_an_exception_of_which_there_is_only_text_follows_its_requests_client(
    serve: Callable[..., Service],
) -> None:
    service = serve()
    tenant = Tenant("tenant", include_source_context=False)
    stack = f'Traceback (most recent call last):\n  File "{__file__}", line 1, in work\n    x\nE: e'
    told = {
        "exception.type": "E",
        "exception.message": "e",
        "exception.stacktrace": stack,
    }
    with service.tracer.start_as_current_span("job") as job:
        tenant.take_over()
        job.add_event("exception", told)
    service.provider.force_flush()
    items = [item for one in tenant.transport.envelopes for item in one.items]
    [event] = [json for item in items if (json := item.payload.json) is not None]
    [frame] = event["exception"]["values"][0]["stacktrace"]["frames"]
    assert "post_context" not in frame


def test_one_requests_client_does_not_say_whether_there_is_backpressure(
    serve: Callable[..., Service],
) -> None:
    serve()
    with sentry_sdk.new_scope() as scope:
        scope.set_client(Tenant("tenant", enable_backpressure_handling=False).client)
        assert sentry.handles_backpressure()


def test_a_few_policies_are_remembered(serve: Callable[..., Service]) -> None:
    serve()
    settings = Settings()

    def policy_of(client: Any) -> Any:
        with sentry_sdk.new_scope() as scope:
            scope.set_client(client)
            return sentry.policy(settings)

    personal = [{"user_info": wanted} for wanted in (False, True)]
    clients = [Tenant("tenant", data_collection=one).client for one in personal]
    first, second = map(policy_of, clients)
    assert first is not second
    assert policy_of(clients[0]) is first
    assert policy_of(clients[1]) is second
    for number in range(MAX_POLICIES):
        sentry.policy(Settings(hash_key=str(number)))
    assert policy_of(clients[0]) is not first


def test_what_cannot_be_read_is_counted_as_lost(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: None)
    monkeypatch.setattr(sentry, "ignored_spans", lambda: 1 / 0)
    service.request("/orders", lambda: None)
    service.provider.force_flush()
    assert otel_sentry_asgi.stats()["lost.internal_sdk_error"] == 1


def fails(*_: Any, **__: Any) -> Any:
    raise TypeError("unexpected keyword argument")


def test_a_loss_that_cannot_be_reported_keeps_nothing_back(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transport of the application's own may not know `quantity`."""
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: None)
    monkeypatch.setattr(Kept, "record_lost_event", fails)

    def rate(facts: Any) -> float:
        return 0.0 if facts["transaction_context"]["name"] == "GET /unsampled" else 1.0

    service = serve({"traces_sampler": rate}, settle=3_600.0)
    for path in ("/unsampled", "/healthz", "/orders"):
        service.request(path, lambda: None)
    service.provider.force_flush()
    assert [one["transaction"] for one in service.exporter.transactions] == ["GET /orders"]
    lost = {"lost.sample_rate": 1, "lost.ignored": 1}
    assert otel_sentry_asgi.stats().items() >= lost.items()


@pytest.mark.parametrize(
    ("holder", "step"),
    [(sentry, "have_scopes"), (Profiles, "watch"), (Pipeline, "_count_unsampled")],
)
def test_what_fails_before_the_items_are_taken_keeps_none_back(
    holder: Any, step: str, serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: failed.append(where))
    service = serve()
    monkeypatch.setattr(holder, step, fails)
    service.request("/orders", lambda: None)
    service.provider.force_flush()
    assert len(service.exporter.transactions) == 1
    assert "turn" in failed


def test_a_span_that_ends_while_uninstrument_runs_starts_no_thread(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    service, bridge = serve(), active()
    assert bridge is not None
    late = service.tracer.start_span("late")
    service.tracer.start_span("in time").end()
    retire = bridge.retire

    def retire_late() -> None:
        retire()
        late.end()

    monkeypatch.setattr(bridge, "retire", retire_late)
    otel_sentry_asgi.uninstrument()
    assert [sent["transaction"] for sent in service.exporter.transactions] == ["in time"]
    names = {thread.name for thread in threading.enumerate() if thread not in before}
    assert "otel-sentry-asgi" not in names


def test_a_span_that_a_finalizer_exports_during_an_export_is_sent_too(
    serve: Callable[..., Service],
) -> None:
    """OTel's simple processor exports on the thread on which the span ends."""
    service, exporter = serve(), SentrySpanExporter()
    results: list[SpanExportResult] = []

    def export(one: ReadableSpan) -> None:
        results.append(exporter.export([one]))

    class Interrupted(ReadableSpan):
        @property
        def parent(self) -> None:
            if not nested:
                nested.append(True)
                export(span("inner", trace_id=2))

    nested: list[bool] = []
    context = span("outer", trace_id=1).context
    outer = Interrupted("outer", context, start_time=1, end_time=2)
    thread = threading.Thread(target=export, args=(outer,), daemon=True)
    thread.start()
    thread.join(10)
    assert results == [SpanExportResult.SUCCESS] * 2
    names = [sent["transaction"] for sent in service.exporter.transactions]
    assert sorted(names) == ["inner", "outer"]


def test_what_fails_in_the_trace_of_a_scope_is_none_of_the_applications(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: failed.append(where))
    service, told = serve(), list[str | None]()
    monkeypatch.setattr(propagator, "outgoing", fails)
    monkeypatch.setattr(_deciding, "context_of", fails)
    trace_of: Any = sentry_sdk.get_isolation_scope

    def ask() -> None:
        told.append(sentry_sdk.get_traceparent())
        told.append(sentry_sdk.get_baggage())
        told.append(trace_of()._propagation_context.dynamic_sampling_context["trace_id"])

    service.request("/orders", ask)
    service.provider.force_flush()
    [transaction] = service.exporter.transactions
    trace_id = transaction["contexts"]["trace"]["trace_id"]
    assert [trace_id in str(one) for one in told] == [True] * 3
    assert set(failed) == {"trace of a scope"}


def test_the_events_of_a_scope_that_outlives_its_request_are_clean_and_shown(
    serve: Callable[..., Service],
) -> None:
    """sentry-sdk takes a request's scopes into its threads, which may go on for long."""
    shown, scopes = list[Any](), list[Any]()

    def look(payload: Any) -> Any:
        shown.append(payload)
        return payload

    service = serve(on_payload=look)

    def say(event: Any, hint: Any) -> Any:
        event["contexts"]["shop"] = {"database": "postgresql://kim:opensesame@db/shop"}
        return event

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sentry_sdk.get_isolation_scope().add_event_processor(say)
        scopes.extend((sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope()))

    asyncio.run(SentryMiddleware(app)({"type": "http", "path": "/"}, nothing, nothing))
    gc.collect()
    [finish] = scopes[1]._event_processors
    assert finish.__self__() is None
    with sentry_sdk.scope.use_isolation_scope(scopes[0]), sentry_sdk.scope.use_scope(scopes[1]):
        sentry_sdk.capture_message("late")
        sentry_sdk.capture_event({"type": "transaction", "contexts": {"trace": {}}})
    sent = service.items("event") + service.items("transaction")
    assert [one["contexts"]["shop"]["database"].count("opensesame") for one in sent] == [0, 0]
    assert [one["message"] for one in shown] == ["late"]


@pytest.mark.parametrize("has_span", [False, True])
def test_a_request_whose_scopes_cannot_be_made_runs_as_if_nobody_looked(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, has_span: bool
) -> None:
    """Whatever is current, before it and after it; also where OTel's server span is outside."""
    failed: list[str] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, _: failed.append(where))
    service, seen = serve(), list[Any]()
    monkeypatch.setattr(_sentry_scopes, "_session", fails)

    def current() -> tuple[Any, ...]:
        scopes = sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope()
        return *scopes, current_exchange.get()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current())

    async def request() -> None:
        before = current()
        span = partial(service.tracer.start_as_current_span, "request", kind=SpanKind.SERVER)
        with span() if has_span else nullcontext():
            outside = current()
            await SentryMiddleware(app)({"type": "http", "path": "/"}, nothing, nothing)
            assert seen == [outside]
            assert current() == outside
        assert current() == before

    asyncio.run(request())
    service.provider.force_flush()
    assert failed == ["request"]
    assert len(service.exporter.transactions) == has_span


# -- several processors ---------------------------------------------------------------------------


@pytest.mark.parametrize("first_to_end", [0, 1])
@pytest.mark.parametrize("first_to_start", [0, 1])
def test_one_processor_on_two_providers_sends_everything_once(
    serve: Callable[..., Service], first_to_start: int, first_to_end: int
) -> None:
    """On the first, beside that of `instrument()`; whatever overlaps."""
    service, other = serve(), TracerProvider(shutdown_on_exit=False)
    mine = SentrySpanProcessor()
    service.provider.add_span_processor(mine)
    other.add_span_processor(mine)
    tracers = {"both": service.tracer, "one": other.get_tracer("shop")}
    names = ["both", "one"]
    names.insert(0, names.pop(first_to_start))
    spans = {name: tracers[name].start_span(name) for name in names}
    names.insert(0, names.pop(first_to_end))
    for name in names:
        spans[name].end()
    mine.force_flush()
    assert sorted(sent["transaction"] for sent in service.exporter.transactions) == ["both", "one"]


def test_a_processor_that_was_added_twice_sends_everything_once(
    serve: Callable[..., Service],
) -> None:
    service, other = serve(), TracerProvider(shutdown_on_exit=False)
    mine = SentrySpanProcessor()
    for _ in range(2):
        other.add_span_processor(mine)
    with pytest.raises(ValueError), other.get_tracer("shop").start_as_current_span("fails"):  # noqa: PT011
        raise ValueError
    mine.force_flush()
    assert [sent["transaction"] for sent in service.exporter.transactions] == ["fails"]
    assert len(service.items("event")) == 1


def test_a_processor_takes_over_when_another_is_detached(serve: Callable[..., Service]) -> None:
    service = serve()
    first, second = SentrySpanProcessor(), SentrySpanProcessor()
    other = TracerProvider(shutdown_on_exit=False)
    for processor in (first, second):
        other.add_span_processor(processor)
    span = other.get_tracer("shop").start_span("span")
    first.detach()
    span.end()
    second.force_flush()
    assert [sent["transaction"] for sent in service.exporter.transactions] == ["span"]


def test_processors_that_run_in_threads_send_everything_once(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever one does while another is in the middle of the same."""
    service, processors = serve(), (SentrySpanProcessor(), SentrySpanProcessor())
    other = TracerProvider(
        active_span_processor=ConcurrentMultiSpanProcessor(2), shutdown_on_exit=False
    )
    bridge, calls = active(), list[str]()
    assert bridge is not None
    started, ended = bridge.started, bridge.ended

    def starting(span: Any, context: Any) -> None:
        calls.append("started")
        # The second has looked before the first put its own there.
        del span.record_exception
        processors[1].on_start(span, context)
        started(span, context)

    def ending(span: Any) -> None:
        calls.append("ended")
        processors[1].on_end(span)
        ended(span)

    monkeypatch.setattr(bridge, "started", starting)
    monkeypatch.setattr(bridge, "ended", ending)
    for processor in processors:
        other.add_span_processor(processor)
    span: Any = other.get_tracer("shop").start_span("work")
    span.end()
    processors[0].force_flush()
    assert calls == ["started", "ended"]
    assert [sent["transaction"] for sent in service.exporter.transactions] == ["work"]
    assert "record_exception" not in vars(span)


def test_processors_that_run_in_threads_do_not_fail_the_end_of_a_span(
    serve: Callable[..., Service],
) -> None:
    serve()

    class Span:
        """One whose attribute another thread takes away between the look and the deletion."""

        record_exception = property(lambda self: MethodType(processor._recorder, self))

    processor = SentrySpanProcessor()
    span: Any = Span()
    processor._on_ending(span)
    assert span.record_exception is not None


def test_spans_are_marked_only_while_a_provider_has_two(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor_module, "coverage", Coverage())
    serve()
    seen: list[Any] = []

    class Last(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            seen.append(span)

    other = TracerProvider(shutdown_on_exit=False)
    first, second = SentrySpanProcessor(), SentrySpanProcessor()
    for processor in (first, second, Last()):
        other.add_span_processor(processor)
    for _ in range(2):
        other.get_tracer("shop").start_span("work").end()
        second.detach()
    assert ["_sentry_ended" in vars(span) for span in seen] == [True, False]


def test_a_processor_that_two_providers_share_does_not_displace_others() -> None:
    coverage, resources = Coverage(), [Resource({}), Resource({}), Resource({})]
    coverage.add("theirs", resources[0])
    for _ in range(MAX_ENTRIES):
        coverage.add("mine", resources[1])
        coverage.add("mine", resources[2])
    assert coverage.covers(span("work", resource=resources[0]))
    for _ in range(MAX_ENTRIES):
        coverage.add("many", Resource({}))
    assert not coverage.covers(span("work", resource=resources[0]))
