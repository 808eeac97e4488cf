"""One real request for each row: what Sentry gets, and the same ids on the OTLP side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.integration.apps import AT_ONCE, BY_HAND, INSTRUMENTED
from tests.integration.conftest import Run, Service, ids, is_late, title
from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver
from tests.support.relay import relay_check

STACKS = [*INSTRUMENTED, *BY_HAND]
KNOWS_ROUTES = {name for name in STACKS if "plain" not in name}
SPANS_WEBSOCKETS = [name for name in STACKS if name != "starlette_native"]

Init = Callable[..., None]


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def sound(kent: Kent, otlp: OtlpReceiver) -> Iterator[None]:
    """Whatever arrived, Relay takes it without a complaint and the OTLP side knows its ids."""
    yield
    service = Service(kent, otlp)
    for item in [*kent.transactions(), *kent.errors()]:
        problems = [p for p in relay_check(item.body) if p.kind not in ("remark", "trimmed")]
        assert problems == []
        trace_id, span_id = ids(item.body)
        if service.otlp_ids:
            assert (trace_id, span_id) in service.otlp_ids
        assert item.envelope["trace"]["trace_id"] == trace_id
        assert item.envelope["trace"]["public_key"] == "public"
        for span in item.body.get("spans", ()):
            assert (span["trace_id"], span["span_id"]) in service.otlp_ids


def named(stack: str, route: str, path: str) -> tuple[str, str]:
    return (f"GET {route}", "route") if stack in KNOWS_ROUTES else (f"GET {path}", "url")


def name_of(event: dict[str, Any]) -> tuple[str, str]:
    return event["transaction"], event["transaction_info"]["source"]


def test_a_request_with_a_database_span(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/orders/77").status_code == 200

    transaction = service.transaction()
    trace = transaction["contexts"]["trace"]
    assert name_of(transaction) == named(stack, "/orders/{id}", "/orders/77")
    assert (trace["op"], trace["status"]) == ("http.server", "ok")
    assert transaction["tags"]["order"] == "77"
    assert transaction["contexts"]["response"]["status_code"] == 200
    assert transaction["request"]["method"] == "GET"
    assert transaction["request"]["url"] == f"{url}/orders/77"
    assert transaction["request"]["headers"]["user-agent"].startswith("python-httpx")
    (query,) = [span for span in transaction["spans"] if span.get("op") == "db"]
    assert query["description"] == "SELECT id FROM orders WHERE customer = ?"
    assert query["origin"] == "auto.db.otel.sqlite3"
    assert not any("http send" in span["description"] for span in transaction["spans"])
    assert service.errors == []


def test_a_page_that_is_not_there(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/nothing").status_code == 404

    transaction = service.transaction()
    assert name_of(transaction) == ("GET /nothing", "url")
    assert transaction["contexts"]["trace"]["status"] == "not_found"
    assert service.errors == []


def test_a_500_without_an_exception_is_no_error_event(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/failing").status_code == 500

    assert service.transaction()["contexts"]["trace"]["status"] == "internal_error"
    assert service.errors == []


@pytest.mark.parametrize(
    ("path", "types"),
    [("/boom", ["ShopError"]), ("/boom-in-span", ["KeyError", "ShopError"])],
)
def test_an_unhandled_exception(
    stack: str, path: str, types: list[str], init: Init, run: Run
) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}{path}").status_code == 500

    error, transaction = service.error(), service.transaction()
    values = error["exception"]["values"]
    assert [value["type"] for value in values] == types
    assert values[-1]["mechanism"]["handled"] is False
    assert values[-1]["stacktrace"]["frames"][-1]["function"] == path[1:].replace("-", "_")
    assert not any(
        "otel_sentry_asgi" in (frame.get("module") or "")
        for frame in values[-1]["stacktrace"]["frames"]
    )
    assert error["tags"]["from"] == transaction["tags"]["from"]
    assert error["request"]["url"] == transaction["request"]["url"] == f"{url}{path}"
    assert name_of(error) == name_of(transaction) == named(stack, path, path)
    assert ids(error)[0] == ids(transaction)[0]
    assert transaction["contexts"]["trace"]["status"] == "internal_error"
    failed = [span for span in transaction["spans"] if span["description"] == "price"]
    assert ids(error)[1] == (failed[0]["span_id"] if failed else ids(transaction)[1])


def test_a_recorded_exception_that_was_dealt_with(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/recorded").status_code == 200

    error, transaction = service.error(), service.transaction()
    (span,) = [span for span in transaction["spans"] if span["description"] == "mail"]
    assert title(error) == "ShopError: dealt with"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is True
    assert ids(error) == (span["trace_id"], span["span_id"])
    assert transaction["contexts"]["trace"]["status"] == "ok"


def test_one_exception_is_one_error_whoever_saw_it(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/recorded-thrice").status_code == 500

    assert title(service.error()) == "ShopError: thrice"


def test_an_exception_after_the_response(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/background").status_code == 200

    error = service.error()
    (transaction,) = [one for one in service.transactions if not is_late(one)]
    spans = [(span["trace_id"], span["span_id"]) for span in transaction["spans"]]
    spans += [ids(one) for one in service.transactions if is_late(one)]
    assert title(error) == "ShopError: after the response"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert error["tags"]["from"] == "background"
    assert error["request"]["url"] == f"{url}/background"
    assert ids(error)[0] == ids(transaction)[0]
    assert ids(error) in spans


def test_an_exception_in_a_task_that_outlives_the_request(
    stack: str, init: Init, run: Run, kent: Kent
) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/task").status_code == 200
        kent.wait_for(Kent.transactions)
        assert httpx.get(f"{url}/release").status_code == 200

    error = service.error()
    late = service.transaction(late=True)
    (first,) = [one for one in service.transactions if one["transaction"] == "GET /task"]
    assert title(error) == "ShopError: from a task"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert error["tags"]["from"] == late["tags"]["from"] == "task"
    assert error["request"]["url"] == late["request"]["url"] == f"{url}/task"
    assert ids(error) == ids(late)
    assert ids(late)[0] == ids(first)[0]
    assert late["transaction"] == "outliving"


def test_an_error_that_is_logged(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/log").status_code == 200

    error, transaction = service.error(), service.transaction()
    assert title(error) == "stock is low"
    assert error["tags"]["from"] == "log"
    assert error["request"]["url"] == f"{url}/log"
    assert ids(error)[0] == ids(transaction)[0]


def test_requests_do_not_share_anything(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            urls = [f"{url}/together/{number}" for number in range(AT_ONCE)]
            assert {answer.status_code for answer in pool.map(httpx.get, urls)} == {200}
        assert httpx.get(f"{url}/ids").text == ""

    together = [one for one in service.transactions if "/together/" in one["request"]["url"]]
    assert len(together) == AT_ONCE
    for transaction in together:
        number = transaction["request"]["url"].rpartition("/")[2]
        assert transaction["tags"]["number"] == number
        assert transaction["user"] == {"id": f"user-{number}"}
        work = [s["description"] for s in transaction["spans"] if "work" in s["description"]]
        assert work == [f"work {number}"]
    (after,) = [one for one in service.transactions if one["request"]["url"].endswith("/ids")]
    assert "number" not in after.get("tags", {})
    assert "user" not in after


@pytest.mark.parametrize("stack", SPANS_WEBSOCKETS)
def test_a_websocket(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service), connect(url.replace("http", "ws") + "/ws/lobby") as socket:
        for text in ("one", "two", "three"):
            socket.send(text)
            assert socket.recv() == text

    transaction = service.transaction()
    trace = transaction["contexts"]["trace"]
    expected = ("/ws/{id}", "route") if stack in KNOWS_ROUTES else ("/ws/lobby", "url")
    assert name_of(transaction) == expected
    assert (trace["op"], trace["status"]) == ("websocket.server", "ok")
    assert transaction["tags"]["room"] == "lobby"
    assert transaction["request"]["url"].endswith("/ws/lobby")
    assert not [s for s in transaction["spans"] if "websocket" in s["description"]]
    assert len(transaction["spans"]) <= 2, "no span for each message"
    assert service.errors == []


def test_a_websocket_that_fails(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service), connect(url.replace("http", "ws") + "/boom/ws") as socket:
        socket.send("go")
        with pytest.raises(ConnectionClosed):
            socket.recv()

    error = service.error()
    assert title(error) == "ShopError: in a websocket"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert error["request"]["url"].endswith("/boom/ws")
    if stack in SPANS_WEBSOCKETS:
        transaction = service.transaction()
        assert ids(error) == ids(transaction)
        assert transaction["contexts"]["trace"]["status"] == "internal_error"


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_callers_trace_is_continued(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack) as (url, service):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert httpx.get(f"{url}/orders/1", headers=headers).status_code == 200

    transaction = service.transaction()
    assert transaction["contexts"]["trace"]["trace_id"] == TRACE
    assert transaction["contexts"]["trace"]["parent_span_id"] == PARENT
    assert {trace_id for trace_id, _ in service.otlp_ids} == {TRACE}


@pytest.mark.parametrize("path", ["/boom", "/boom-in-span"])
def test_errors_of_a_trace_that_the_caller_did_not_sample(
    stack: str, path: str, init: Init, run: Run
) -> None:
    init()

    with run(stack) as (url, service):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert httpx.get(f"{url}{path}", headers=headers).status_code == 500

    error = service.error()
    assert service.transactions == []
    assert service.otlp_ids == set()
    assert error["contexts"]["trace"]["trace_id"] == TRACE
    assert error["request"]["url"] == f"{url}{path}"
    assert error["tags"]["from"] == path[1:].replace("-", "_")


def test_errors_of_a_trace_that_otel_did_not_sample(stack: str, init: Init, run: Run) -> None:
    init()

    with run(stack, sampler=ALWAYS_OFF) as (url, service):
        assert httpx.get(f"{url}/boom").status_code == 500

    error = service.error()
    assert service.transactions == []
    assert error["tags"]["from"] == "boom"
    assert len(error["contexts"]["trace"]["trace_id"]) == 32


def test_errors_only_mode(stack: str, init: Init, run: Run) -> None:
    init(traces_sample_rate=None)

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/boom-in-span").status_code == 500

    error = service.error()
    assert service.transactions == []
    assert ids(error) in service.otlp_ids
    assert error["tags"]["from"] == "boom_in_span"


def test_stream_mode(stack: str, init: Init, run: Run) -> None:
    init(trace_lifecycle="stream")

    with run(stack) as (url, service):
        assert httpx.get(f"{url}/boom-in-span").status_code == 500

    transaction, error = service.transaction(), service.error()
    assert ids(error)[0] == ids(transaction)[0]
    assert [span["description"] for span in transaction["spans"] if span["description"] == "price"]
