"""The default exporter with a real client, and Sentry as it may be: near, far, failing, gone."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import sentry_sdk
from sentry_sdk.integrations.asyncio import AsyncioIntegration
from sentry_sdk.scope import Scope
from sentry_sdk.transport import Transport

import otel_sentry_asgi
from otel_sentry_asgi import _active
from otel_sentry_asgi.export import Clean, Origin
from otel_sentry_exporters import envelope
from otel_sentry_exporters.envelope import MAX_CLIENTS, EnvelopeExporter
from otel_sentry_exporters.sdk import SdkExporter
from tests.support.by_hand import made_profile
from tests.support.raw import reset
from tests.support.sentry import OK, FakeSentry, Item, serve_sentry, status

LONG = 10.0
"""Seconds. Only what is broken takes so long."""

NOWHERE = Origin()
Init = Callable[..., Any]


@pytest.fixture
def sentry() -> Iterator[FakeSentry]:
    with serve_sentry() as running:
        yield running


@pytest.fixture
def exporter() -> Iterator[EnvelopeExporter]:
    made = EnvelopeExporter()
    yield made
    made.shutdown()


def init(dsn: str | None, **given: Any) -> Any:
    experiments = {"transport_compression_algo": "gzip", **given.pop("_experiments", {})}
    off: dict[str, Any] = {"default_integrations": False, "auto_enabling_integrations": False}
    sentry_sdk.init(dsn=dsn, **off, **{"_experiments": experiments, **given})
    return sentry_sdk.get_client()


def transaction(spans: int = 1, **changes: Any) -> Clean[Any]:
    now = time.time()
    ids = {"trace_id": "a" * 32, "span_id": "b" * 16}
    times = {"start_timestamp": now, "timestamp": now}
    payload = {
        "type": "transaction",
        "event_id": uuid4().hex,
        "platform": "python",
        "transaction": "GET /",
        **times,
        "contexts": {"trace": {**ids, "op": "http.server"}},
        "spans": [{**ids, **times, "data": {"n": number}} for number in range(spans)],
    }
    return Clean({**payload, **changes})


def ids_of(sentry: FakeSentry) -> list[str]:
    return [item.json["event_id"] for _, item in sentry.of_type("transaction")]


def spans_in(items: list[tuple[float, Item]]) -> int:
    return sum(len(item.json["spans"]) + 1 for _, item in items if item.type == "transaction")


# -- far ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_at_50_ms_and_300_a_second_everything_arrives_and_errors_do_not_wait(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    """sentry-sdk alone delivers 20 a second of both then, from one queue of 100."""
    sentry.delay = 0.05
    init(sentry.dsn)
    rate, seconds = 300, 3
    begin = time.monotonic()
    captured: dict[str, float] = {}
    sent = []
    for number in range(rate * seconds):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        made = transaction(6)
        sent.append(made.payload["event_id"])
        exporter.export(made, NOWHERE)
        if number % 50 == 0:
            event_id = sentry_sdk.capture_message(f"error {number}")
            assert event_id is not None
            captured[event_id] = time.monotonic()
    assert exporter.force_flush(LONG)
    assert sorted(ids_of(sentry)) == sorted(sent)
    arrived = {item.json["event_id"]: at for at, item in sentry.of_type("event")}
    assert arrived.keys() == captured.keys()
    delays = sorted(arrived[one] - captured[one] for one in captured)
    assert delays[len(delays) // 2] < 0.2
    assert sentry.reported("transaction") == {}
    assert exporter.lost == {}


def test_errors_do_not_wait_behind_transactions(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    let_go, free = threading.Event(), set[threading.Thread]()

    def answer(_: socket.socket, __: int) -> bytes:
        # The connection on which the first upload comes is the client's own.
        free.update(() if free else (threading.current_thread(),))
        if threading.current_thread() not in free:
            let_go.wait(LONG)
        return OK

    init(sentry.dsn)
    sentry.answer = answer
    sentry_sdk.capture_message("first")
    sentry.wait_for(lambda: sentry.of_type("event"))
    for _ in range(150):
        exporter.export(transaction(), NOWHERE)
    sentry_sdk.capture_message("later")
    sentry.wait_for(lambda: len(sentry.of_type("event")) == 2)
    assert sentry.of_type("transaction") == []
    let_go.set()
    assert exporter.force_flush(LONG)
    assert len(ids_of(sentry)) == 150


# -- failing --------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[bytes | None, str | None]] = {
    "413": (status(413), "send_error"),
    "500": (status(500), "network_error"),
    "503": (status(503, "Retry-After: 60"), "network_error"),
    "302": (status(302, "Location: /"), "network_error"),
    "reset": (None, "network_error"),
    "garbage": (b"SSH-2.0\r\n\r\n", "network_error"),
}


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_is_not_taken_is_reported(
    sentry: FakeSentry, exporter: EnvelopeExporter, answer: bytes | None, reason: str
) -> None:
    def refuse(connected: socket.socket, _: int) -> bytes:
        if answer is None:
            reset(connected)
        return answer or b""

    init(sentry.dsn)
    sentry.answer = refuse
    for _ in range(5):
        exporter.export(transaction(6), NOWHERE)
    wait_delivered(exporter)
    sentry.answer = lambda *_: OK
    exporter.export(transaction(6), NOWHERE)
    assert exporter.force_flush(LONG)
    assert len(ids_of(sentry)) == 1
    assert exporter.lost == {reason: 35}
    sentry.wait_for(lambda: sentry.reported("transaction"))
    assert sentry.reported("transaction") == {reason: 5}
    assert sentry.reported("span") == {reason: 35}


def wait_delivered(exporter: EnvelopeExporter) -> None:
    """Without the client's own flush, which would send the report into the failing server."""
    for route in exporter._known_routes():
        assert route.delivery is not None
        assert route.delivery.flush(LONG)


LIMITS: dict[str, tuple[bytes, int]] = {
    "retry-after": (status(429, "Retry-After: 60"), 1),
    "transaction": (status(429, "X-Sentry-Rate-Limits: 60:transaction:key"), 1),
    "with 200": (status(200, "X-Sentry-Rate-Limits: 60:transaction;span:key"), 1),
    "all": (status(200, "X-Sentry-Rate-Limits: 60::organization"), 1),
    "another": (status(200, "X-Sentry-Rate-Limits: 60:error:key"), 6),
    "over again": (status(429, "X-Sentry-Rate-Limits: 0:transaction:key"), 6),
}


@pytest.mark.parametrize(("answer", "uploads"), LIMITS.values(), ids=LIMITS.keys())
def test_rate_limits_are_kept(
    sentry: FakeSentry, exporter: EnvelopeExporter, answer: bytes, uploads: int
) -> None:
    init(sentry.dsn)
    sentry.answer = lambda *_: answer
    for _ in range(6):
        exporter.export(transaction(6), NOWHERE)
        wait_delivered(exporter)
    assert len(sentry.uploads) == uploads
    lost = 6 - uploads
    assert exporter.lost == ({"ratelimit_backoff": lost * 7} if lost else {})
    sentry.answer = lambda *_: OK
    sentry_sdk.flush(LONG)
    assert sentry.reported("transaction")["ratelimit_backoff"] == lost
    assert sentry.reported("span")["ratelimit_backoff"] == lost * 7


def test_an_attachment_over_the_limit_stays_behind_alone(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    init(sentry.dsn)
    scope = Scope()
    scope.add_attachment(b"12345", "a.bin", add_to_transactions=True)
    sentry.answer = lambda *_: status(200, "X-Sentry-Rate-Limits: 60:attachment:key")
    for _ in range(2):
        exporter.export(transaction(), Origin(isolation_scope=scope))
        wait_delivered(exporter)
    assert exporter.force_flush(LONG)
    assert len(ids_of(sentry)) == 2
    assert len(sentry.of_type("attachment")) == 1
    assert sentry.reported("attachment") == {"ratelimit_backoff": 5}


def test_a_profile_comes_in_the_envelope_of_its_transaction(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    """Of the event as it is sent. Over the limit it stays behind alone."""
    init(sentry.dsn, before_send_transaction=lambda event, _: {**event, "transaction": "named"})
    sentry.answer = lambda *_: status(200, "X-Sentry-Rate-Limits: 60:profile:key")
    profile = made_profile()
    sent = [transaction(), transaction()]
    for one in sent:
        exporter.export(one, Origin(profile=profile))
        wait_delivered(exporter)
    assert exporter.force_flush(LONG)
    assert ids_of(sentry) == [one.payload["event_id"] for one in sent]
    ((_, item),) = sentry.of_type("profile")
    assert item.json["event_id"] == profile.event_id
    (about,) = item.json["transactions"]
    assert (about["id"], about["name"]) == (sent[0].payload["event_id"], "named")
    assert "made_profile" not in str(item.json)
    assert "test_a_profile_comes" in item.json["profile"]["frames"][0]["function"]
    assert sentry.reported("profile") == {"ratelimit_backoff": 1}


def test_a_profile_goes_out_whatever_hooks_leave_of_the_event(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    init(sentry.dsn, before_send_transaction=lambda event, _: {"event_id": event["event_id"]})
    exporter.export(transaction(), Origin(profile=made_profile()))
    assert exporter.force_flush(LONG)
    ((_, item),) = sentry.of_type("profile")
    assert item.json["transactions"][0]["trace_id"] == f"{1:032x}"


def test_a_profile_is_lost_with_its_envelope(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    init(sentry.dsn)
    sentry.answer = lambda *_: status(500)
    exporter.export(transaction(), Origin(profile=made_profile()))
    wait_delivered(exporter)
    sentry.answer = lambda *_: OK
    assert exporter.force_flush(LONG)
    assert sentry.reported("profile") == {"network_error": 1}


DROPPED: dict[str, dict[str, Any]] = {
    "before_send": {"before_send_transaction": lambda *_: None},
    "callback_error": {"before_send_transaction": lambda *_: [][0]},
    "event_processor": {},
    "ratelimit_backoff": {},
}


@pytest.mark.parametrize("reason", DROPPED)
def test_a_profile_is_lost_with_its_transaction(
    sentry: FakeSentry, exporter: EnvelopeExporter, reason: str
) -> None:
    init(sentry.dsn, **DROPPED[reason])
    scope = Scope()
    if reason == "event_processor":
        scope.add_event_processor(lambda *_: None)
    if reason == "ratelimit_backoff":
        sentry.answer = lambda *_: status(200, "X-Sentry-Rate-Limits: 60:transaction:key")
        exporter.export(transaction(), NOWHERE)
        wait_delivered(exporter)
    exporter.export(transaction(), Origin(isolation_scope=scope, profile=made_profile()))
    exporter.export(transaction(), Origin(isolation_scope=scope))
    assert exporter.force_flush(LONG)
    assert sentry.of_type("profile") == []
    assert sentry.reported("transaction") == {reason: 2}
    assert sentry.reported("profile") == {reason: 1}


def test_a_server_that_is_gone_is_waited_for_within_the_bound() -> None:
    """Delivered plus reported is what was produced."""
    sentry = FakeSentry()
    with serve_sentry(sentry):
        init(sentry.dsn)
    exporter = EnvelopeExporter(max_bytes=20_000)
    produced = 400
    begin = time.monotonic()
    for _ in range(produced):
        exporter.export(transaction(6), NOWHERE)
    assert time.monotonic() - begin < LONG
    (route,) = exporter._known_routes()
    assert route.delivery is not None
    assert route.delivery._bytes <= 20_000
    assert not route.delivery.flush(0.05)
    with serve_sentry(sentry, port=sentry.port):
        assert route.delivery.flush(LONG)
        assert exporter.force_flush(LONG)
        sentry.wait_for(lambda: sentry.reported("transaction"))
        delivered = len(ids_of(sentry))
        assert len(set(ids_of(sentry))) == delivered
        assert delivered > 20
        assert sentry.reported("transaction") == {"queue_overflow": produced - delivered}
        assert sentry.reported("span") == {"queue_overflow": 7 * (produced - delivered)}
        assert exporter.lost == {"queue_overflow": 7 * (produced - delivered)}
        exporter.shutdown()
    assert route.delivery._bytes == 0


def test_what_is_lost_in_an_outage_is_reported_although_the_clients_own_uploads_fail(
    exporter: EnvelopeExporter,
) -> None:
    """Whatever the client sends takes the report along every 30 seconds, and it is lost with it."""
    sentry = FakeSentry()
    with serve_sentry(sentry):
        client = init(sentry.dsn)
    exporter._max_bytes = 10_000
    produced = 100
    for _ in range(produced):
        exporter.export(transaction(6), NOWHERE)
    client.transport._last_client_report_sent = 0.0
    sentry_sdk.capture_message("lost")
    sentry_sdk.flush(LONG)
    with serve_sentry(sentry, port=sentry.port):
        assert exporter.force_flush(LONG)
        delivered = len(ids_of(sentry))
        assert 0 < delivered < produced
        assert sentry.reported("transaction") == {"queue_overflow": produced - delivered}
        assert sentry.reported("span") == {"queue_overflow": 7 * (produced - delivered)}
        assert exporter.lost == {"queue_overflow": 7 * (produced - delivered)}


@pytest.mark.parametrize("reason", ["queue_overflow", "buffer_overflow", "sample_rate"])
def test_what_the_bridge_loses_in_an_outage_is_reported_too(
    exporter: EnvelopeExporter, reason: str
) -> None:
    sentry = FakeSentry()
    with serve_sentry(sentry):
        client = init(sentry.dsn, traces_sample_rate=1.0)
    pipeline = _active.obtain(exporter=exporter).pipeline
    exporter.export(transaction(6), NOWHERE)
    pipeline._lost_spans(reason, 7, segments=1)
    client.transport._last_client_report_sent = 0.0
    sentry_sdk.capture_message("lost")
    sentry_sdk.flush(LONG)
    pipeline._lost_spans(reason, 7, segments=1)
    with serve_sentry(sentry, port=sentry.port):
        assert exporter.force_flush(LONG)
        assert len(ids_of(sentry)) == 1
        assert sentry.reported("transaction") == {reason: 2}
        assert sentry.reported("span") == {reason: 14}
        pipeline._lost_spans(reason, 1)  # Sentry is there: the client has it at once.
        sentry_sdk.flush(LONG)
        assert sentry.reported("span") == {reason: 15}


def test_what_hooks_drop_in_an_outage_is_reported_too(exporter: EnvelopeExporter) -> None:
    sentry = FakeSentry()
    with serve_sentry(sentry):
        client = init(
            sentry.dsn,
            before_send_transaction=lambda event, _: event if event["spans"] else None,
        )
    for spans in (1, 0):
        exporter.export(transaction(spans), NOWHERE)
    client.transport._last_client_report_sent = 0.0
    sentry_sdk.capture_message("lost")
    sentry_sdk.flush(LONG)
    with serve_sentry(sentry, port=sentry.port):
        assert exporter.force_flush(LONG)
        assert len(ids_of(sentry)) == 1
        assert sentry.reported("transaction") == {"before_send": 1}


def test_what_had_no_answer_holds_losses_back_until_something_gets_through(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    """Also while nothing waits."""

    def refuse(connected: socket.socket, _: int) -> bytes:
        reset(connected)
        return b""

    init(sentry.dsn)
    sentry.answer = refuse
    exporter.export(transaction(), NOWHERE)
    wait_delivered(exporter)
    exporter.lose("sample_rate", (("span", 2),))
    sentry_sdk.flush(LONG)
    sentry.answer = lambda *_: OK
    sentry_sdk.flush(LONG)
    assert sentry.reported("span") == {}
    exporter.export(transaction(), NOWHERE)
    assert exporter.force_flush(LONG)
    assert sentry.reported("span") == {"sample_rate": 2, "network_error": 2}


def test_whatever_the_server_does_delivered_and_reported_is_what_was_produced(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    def answer(connected: socket.socket, number: int) -> bytes:
        kind = number % 7
        if kind == 3:
            reset(connected)
        return (OK, status(500), OK, b"", status(413), status(429, "Retry-After: 0.01"), OK)[kind]

    init(sentry.dsn)
    sentry.answer = answer
    produced = 300
    for _ in range(produced):
        exporter.export(transaction(2), NOWHERE)
    wait_delivered(exporter)
    sentry.answer = lambda *_: OK
    assert exporter.force_flush(LONG)
    sentry.wait_for(lambda: sentry.reported("transaction"))
    counted_by_sentry = sum(answer.startswith(b"HTTP/1.1 429") for _, _, answer in sentry.uploads)
    reported = sum(sentry.reported("transaction").values())
    # A reset on a connection in use may be a server that hung up before: it is sent once more.
    delivered = set(ids_of(sentry))
    assert len(delivered) == len(ids_of(sentry))
    assert len(delivered) + reported + counted_by_sentry == produced
    assert sum(exporter.lost.values()) == 3 * reported


def test_a_hanging_server_holds_up_nobody_and_flush_keeps_its_deadline(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    let_go = threading.Event()
    sentry.answer = lambda *_: (let_go.wait(LONG) and OK) or OK
    init(sentry.dsn)
    begin = time.monotonic()
    for _ in range(200):
        exporter.export(transaction(), NOWHERE)
    assert time.monotonic() - begin < 2.0
    begin = time.monotonic()
    assert not exporter.force_flush(0.3)
    assert time.monotonic() - begin < 2.0
    let_go.set()
    assert exporter.force_flush(LONG)
    assert len(ids_of(sentry)) == 200


@pytest.mark.parametrize("kind", [EnvelopeExporter, SdkExporter])
def test_a_flush_is_not_done_before_the_clients_own_events_are(
    sentry: FakeSentry, kind: type[EnvelopeExporter | SdkExporter]
) -> None:
    """Errors go through the client's transport, which does not tell."""
    let_go = threading.Event()
    sentry.answer = lambda *_: (let_go.wait(LONG) and OK) or OK
    init(sentry.dsn)
    exporter = kind()
    sentry_sdk.capture_message("hello")
    begin = time.monotonic()
    assert not exporter.force_flush(0.3)
    assert 0.3 <= time.monotonic() - begin < 2.0
    let_go.set()
    assert exporter.force_flush(LONG)
    assert len(sentry.of_type("event")) == 1
    exporter.shutdown()


@pytest.mark.parametrize("kind", [EnvelopeExporter, SdkExporter])
def test_the_asynchronous_transport_cannot_be_waited_for(
    sentry: FakeSentry, kind: type[EnvelopeExporter | SdkExporter]
) -> None:
    """Its loop may be the one that waits; sentry-sdk warns of the attempt. What is sent arrives."""
    exporter = kind()

    async def main() -> None:
        client = init(
            sentry.dsn,
            integrations=[AsyncioIntegration()],
            _experiments={"transport_async": True},
        )
        assert type(client.transport).__name__ == "AsyncHttpTransport"
        exporter.export(transaction(), NOWHERE)
        assert not exporter.force_flush(LONG)
        await client.close_async(LONG)

    asyncio.run(main())
    assert len(ids_of(sentry)) == 1
    exporter.shutdown()


def test_shutdown_reports_what_waits_and_leaves_nothing_behind(sentry: FakeSentry) -> None:
    exporter = EnvelopeExporter()
    init(sentry.dsn)
    exporter.export(transaction(), NOWHERE)
    assert exporter.force_flush(LONG)
    exporter.shutdown()
    exporter.shutdown()
    sentry.wait_for(lambda: not uploaders())
    exporter.export(transaction(), NOWHERE)
    assert exporter.force_flush(LONG)
    assert len(ids_of(sentry)) == 2
    exporter.shutdown()


def uploaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "otel-sentry-upload"]


def test_reports_leave_beside_transactions_where_there_is_nothing_else(
    sentry: FakeSentry, exporter: EnvelopeExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "REPORT_EVERY", 0.0)
    client = init(sentry.dsn)
    client.transport.record_lost_event("sample_rate", data_category="transaction", quantity=3)
    exporter.export(transaction(), NOWHERE)
    sentry.wait_for(lambda: sentry.reported("transaction"))
    assert sentry.reported("transaction") == {"sample_rate": 3}


# -- large ----------------------------------------------------------------------------------------

MEBIBYTE = 1 << 20
"""Relay answers 413 to an item of more."""


def grows(event: Any, _hint: Any) -> Any:
    """What no scope and no processor of sentry-sdk's would let pass."""
    event["extra"] = {f"row {number}": ["a" * 2_000] * 10 for number in range(200)}
    event["transaction"] = "b" * 300_000
    return event


def grows_by_spans(event: Any, _hint: Any) -> Any:
    event["spans"] += [{**event["spans"][0], "data": {"n": "d" * 100}} for _ in range(9_000)]
    return event


def spoils(event: Any, _hint: Any) -> Any:
    """Of another form than ours."""
    event.update(spans=["c" * 400_000] * 4, contexts=None, request="d" * 400_000)
    return event


def scope_with(tags: int, text: int) -> Scope:
    scope = Scope()
    for number in range(tags):
        scope.set_tag(f"tag {number}", "t" * text)
    scope.set_context("shop", {"notes": "n" * text})
    scope.set_extra("orders", ["o" * text] * tags)
    return scope


LARGE: dict[str, tuple[dict[str, Any], Callable[[], Scope]]] = {
    "by its scope": ({}, partial(scope_with, 400, 3_000)),
    "by many small tags": ({}, partial(scope_with, 12_000, 100)),
    "by a hook": ({"before_send_transaction": grows}, Scope),
    "by spans of a hook": ({"before_send_transaction": grows_by_spans}, Scope),
    "of another form": ({"before_send_transaction": spoils}, Scope),
    "with spotlight": ({"spotlight": "http://127.0.0.1:9/stream"}, partial(scope_with, 400, 3_000)),
}


@pytest.mark.parametrize(("options", "scope"), LARGE.values(), ids=LARGE.keys())
def test_nothing_is_larger_than_sentry_takes_whatever_is_added(
    sentry: FakeSentry,
    exporter: EnvelopeExporter,
    options: dict[str, Any],
    scope: Callable[[], Scope],
) -> None:
    init(sentry.dsn, **options)
    exporter.export(transaction(3), Origin(isolation_scope=scope()))
    assert exporter.force_flush(LONG)
    ((_, item),) = sentry.of_type("transaction")
    assert len(item.body) < MEBIBYTE
    assert '"!limit"' in item.body.decode() or exporter.lost
    assert item.json["event_id"]
    assert sentry.reported("transaction") == {}
    assert sentry.reported("span") == exporter.lost


def test_children_that_are_lost_for_their_size_are_reported_and_marked(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    init(sentry.dsn, before_send_transaction=grows_by_spans)
    exporter.export(transaction(3, _dropped_spans=2), NOWHERE)
    assert exporter.force_flush(LONG)
    ((_, item),) = sentry.of_type("transaction")
    kept = len(item.json["spans"])
    assert 3 < kept < 9_003
    assert "_dropped_spans" not in item.json
    assert item.json["_meta"]["spans"][""] == {"len": 5}  # Those that there were before the hook.
    assert exporter.lost == {"buffer_overflow": 9_003 - kept}
    assert sentry.reported("span") == {"buffer_overflow": 2 + 9_003 - kept}


def test_a_transport_of_the_applications_own_gets_nothing_larger_either(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    client = init(sentry.dsn, transport=Own)
    exporter.export(transaction(3), Origin(isolation_scope=scope_with(400, 3_000)))
    (captured,) = client.transport.envelopes
    (item,) = captured.items
    assert len(item.get_bytes()) < MEBIBYTE


# -- clients --------------------------------------------------------------------------------------


class Own(Transport):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.envelopes: list[Any] = []
        self.lost: Counter[str] = Counter()

    def capture_envelope(self, envelope: Any) -> None:
        self.envelopes.append(envelope)

    def record_lost_event(self, reason: str, *_: Any, quantity: int = 1, **__: Any) -> None:
        self.lost[reason] += quantity


def test_a_transport_of_the_applications_own_delivers(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    client = init(sentry.dsn, transport=Own, before_send_transaction=lambda event, _: event)
    exporter.export(transaction(2), NOWHERE)
    assert exporter.force_flush(LONG)
    (captured,) = client.transport.envelopes
    assert captured.get_transaction_event()["transaction"] == "GET /"
    assert sentry.uploads == []
    assert uploaders() == []


class Uncounting(Own):
    def record_lost_event(self, *_: Any, **__: Any) -> None:
        raise TypeError("unexpected keyword argument 'quantity'")


def test_a_transport_that_cannot_count_losses_loses_nothing_more(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    def shorter(event: Any, _: Any) -> Any:
        return {**event, "spans": []}

    client = init(sentry.dsn, transport=Uncounting, before_send_transaction=shorter)
    exporter.export(transaction(2), NOWHERE)
    exporter.lose("sample_rate", (("span", 2),))
    assert len(client.transport.envelopes) == 1


@pytest.mark.filterwarnings("ignore:.*[Ff]unction.*:DeprecationWarning")
def test_a_function_as_a_transport_gets_what_sentry_sdk_gives_it(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    """Of transactions that is nothing (sentry-sdk's `_FunctionTransport` takes error events)."""
    seen: list[Any] = []
    client = init(sentry.dsn, transport=seen.append)
    exporter.export(transaction(), NOWHERE)
    ours = len(seen)
    given: Any = transaction().payload
    sentry_sdk.capture_event(given)
    assert len(seen) == 2 * ours
    client.flush(LONG)
    assert sentry.uploads == []
    assert uploaders() == []


def test_http_2_is_left_to_the_clients_transport(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    client = init(sentry.dsn, _experiments={"transport_http2": True})
    assert type(client.transport).__name__ == "Http2Transport"
    exporter.export(transaction(), NOWHERE)
    assert exporter.force_flush(LONG)
    assert len(ids_of(sentry)) == 1
    assert uploaders() == []
    client.transport._pool.close()


@pytest.mark.parametrize("with_dsn", [False, True])
def test_spotlight_gets_a_copy(
    sentry: FakeSentry, exporter: EnvelopeExporter, with_dsn: bool
) -> None:
    with serve_sentry() as spotlight:
        url = f"http://127.0.0.1:{spotlight.port}/stream"
        init(sentry.dsn if with_dsn else None, spotlight=url)
        exporter.export(transaction(), NOWHERE)
        assert exporter.force_flush(LONG)
        assert len(ids_of(spotlight)) == 1
    assert len(ids_of(sentry)) == with_dsn


def test_without_a_client_nothing_happens(exporter: EnvelopeExporter) -> None:
    sentry_sdk.get_global_scope().set_client(None)
    exporter.export(transaction(), NOWHERE)
    assert exporter.force_flush(LONG)


@pytest.mark.parametrize("kind", [EnvelopeExporter, SdkExporter])
def test_what_comes_for_a_client_that_was_closed_is_lost(
    sentry: FakeSentry, kind: type[EnvelopeExporter | SdkExporter]
) -> None:
    init(sentry.dsn).close(timeout=0)
    exporter = kind()
    exporter.export(transaction(2), NOWHERE)
    assert exporter.lost == {"network_error": 3}
    assert sentry.uploads == []


def test_a_connection_outlives_its_client(
    sentry: FakeSentry,
    exporter: EnvelopeExporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its reports do not."""
    monkeypatch.setattr(envelope, "REPORT_EVERY", 0.0)
    client = init(sentry.dsn)
    exporter.export(transaction(), NOWHERE)
    assert exporter.force_flush(LONG)
    client.close(timeout=0)
    exporter.export(transaction(), NOWHERE)
    wait_delivered(exporter)
    assert len(ids_of(sentry)) == 2
    assert exporter.lost == {}
    assert caplog.messages == []


def test_a_client_that_is_set_later_gets_what_comes_later(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    with serve_sentry() as second:
        init(sentry.dsn)
        exporter.export(transaction(transaction="first"), NOWHERE)
        init(second.dsn)
        exporter.export(transaction(transaction="second"), NOWHERE)
        assert exporter.force_flush(LONG)
        names = [
            [item.json["transaction"] for _, item in one.of_type("transaction")]
            for one in (sentry, second)
        ]
        exporter.shutdown()
    assert names == [["first"], ["second"]]


def test_the_client_of_the_requests_own_scope_is_the_one(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    with serve_sentry() as tenant:
        init(sentry.dsn)
        scope = Scope()
        scope.set_client(sentry_sdk.Client(dsn=tenant.dsn, default_integrations=False))
        for _ in range(3):
            exporter.export(transaction(), Origin(isolation_scope=scope))
            exporter.export(transaction(), NOWHERE)
        assert exporter.force_flush(LONG)
        assert (len(ids_of(tenant)), len(ids_of(sentry))) == (3, 3)
        scope.client.close(timeout=0)
        exporter.shutdown()


def test_clients_that_come_and_go_leave_a_bounded_number_of_threads(
    sentry: FakeSentry, exporter: EnvelopeExporter
) -> None:
    for _ in range(MAX_CLIENTS * 2):
        init(sentry.dsn)
        exporter.export(transaction(), NOWHERE)
        wait_delivered(exporter)
    assert len(ids_of(sentry)) == MAX_CLIENTS * 2
    assert len(exporter._known_routes()) == MAX_CLIENTS
    sentry.wait_for(lambda: len(uploaders()) <= MAX_CLIENTS)


# -- fork -----------------------------------------------------------------------------------------


def sockets() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.add(int(name))
    return found


def peer_of(number: int) -> int | None:
    """The port at the other end."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connected:
        return int(connected.getpeername()[1])
    return None


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks at /proc")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_forks_during_traffic_share_nothing(sentry: FakeSentry, exporter: EnvelopeExporter) -> None:
    init(sentry.dsn)
    sentry.delay = 0.005
    stop = threading.Event()
    made = Counter[str]()

    def produce() -> None:
        while not stop.is_set():
            exporter.export(transaction(transaction="parent"), NOWHERE)
            made["parent"] += 1
            time.sleep(0.002)

    producer = threading.Thread(target=produce)
    producer.start()
    sentry.wait_for(lambda: sentry.of_type("transaction"))
    codes = []
    for _ in range(5):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                # All sockets to Sentry are the parent's.
                if exporter.lost or any(peer_of(number) == sentry.port for number in sockets()):
                    os._exit(3)
                exporter.export(transaction(transaction="child"), NOWHERE)
                code = 0 if exporter.force_flush(LONG) else 2
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    producer.join(LONG)
    assert exporter.force_flush(LONG)
    assert codes == [0] * 5
    names = Counter(item.json["transaction"] for _, item in sentry.of_type("transaction"))
    assert names == {"parent": made["parent"], "child": 5}
    assert len(set(ids_of(sentry))) == sum(names.values())


def test_stats_have_what_the_exporter_lost(sentry: FakeSentry) -> None:
    init(sentry.dsn, traces_sample_rate=1.0)
    sentry.answer = lambda *_: status(500)
    exporter = EnvelopeExporter()
    _active.obtain(exporter=exporter)
    exporter.export(transaction(2), NOWHERE)
    wait_delivered(exporter)
    assert otel_sentry_asgi.stats() == {"lost.network_error": 3}
