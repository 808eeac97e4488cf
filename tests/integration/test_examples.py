"""The examples do what their docstrings say."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver
from tests.support.server import serve_process

Event = dict[str, Any]


@contextmanager
def running(example: str, kent: Kent, **environment: str) -> Iterator[httpx.Client]:
    """A client of the example, which runs under uvicorn and sends to *kent*."""
    options = {"SENTRY_DSN": kent.dsn, **environment}
    with (
        serve_process(f"examples.{example}:app", env=options) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


def only_transaction(kent: Kent) -> Event:
    kent.wait_for(Kent.transactions)
    (transaction,) = kent.transactions()
    return transaction.body


def only_issue(kent: Kent) -> Event:
    kent.wait_for(lambda kent: kent.errors() and kent.transactions())
    (error,) = kent.errors()
    return error.body


def trace_id(event: Event) -> str:
    found: str = event["contexts"]["trace"]["trace_id"]
    return found


def test_a_plain_application(kent: Kent) -> None:
    with running("plain_asgi", kent) as client:
        assert client.get("/hello").text == "Hello!\n"
        transaction = only_transaction(kent)
        assert transaction["transaction"] == "GET /hello"
        assert transaction["contexts"]["trace"]["op"] == "http.server"
        assert [span["description"] for span in transaction["spans"]] == ["greet"]

        kent.reset()
        assert client.get("/broken").status_code == 500
        error, transaction = only_issue(kent), only_transaction(kent)
    (exception,) = error["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("LookupError", "nobody to greet")
    assert exception["mechanism"]["handled"] is False
    frame = exception["stacktrace"]["frames"][-1]
    assert (frame["filename"], frame["in_app"]) == ("examples/plain_asgi.py", True)
    assert transaction["contexts"]["trace"]["status"] == "internal_error"
    assert trace_id(error) == trace_id(transaction)


def test_a_fastapi_application(kent: Kent) -> None:
    with running("fastapi_app", kent) as client:
        assert client.get("/items/1").json() == {"name": "hammer"}
        transaction = only_transaction(kent)
        assert transaction["transaction"] == "GET /items/{item_id}"
        assert transaction["transaction_info"] == {"source": "route"}
        assert transaction["tags"] == {"shelf": "1"}

        kent.reset()
        assert client.get("/items/2").status_code == 500
        error, transaction = only_issue(kent), only_transaction(kent)
    assert [value["type"] for value in error["exception"]["values"]] == ["KeyError"]
    assert error["transaction"] == "GET /items/{item_id}"
    assert error["tags"] == transaction["tags"] == {"shelf": "2"}
    assert trace_id(error) == trace_id(transaction)


def test_dual_export(kent: Kent, otlp: OtlpReceiver) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with running("dual_export", kent, **endpoint) as client:
        assert client.get("/quote/EUR").json() == {"rate": 1.08}
        transaction = only_transaction(kent)
        assert transaction["transaction"] == "GET /quote/{currency}"
        ids = {span["span_id"] for span in transaction["spans"]}
        ids.add(transaction["contexts"]["trace"]["span_id"])
        otlp.wait_for(lambda otlp: ids <= {span.span_id for span in otlp.spans()})
        assert {span.trace_id for span in otlp.spans()} == {trace_id(transaction)}

        kent.reset()
        assert client.get("/quote/XXX").status_code == 404
        error, transaction = only_issue(kent), only_transaction(kent)
        assert error["exception"]["values"][-1]["mechanism"]["handled"] is True
        assert trace_id(error) == trace_id(transaction)
        (recorded,) = otlp.wait_for(
            lambda otlp: [
                (span.span_id, event.attributes["exception.type"])
                for span in otlp.spans()
                for event in span.events
            ]
        )
    assert recorded == (error["contexts"]["trace"]["span_id"], "KeyError")
