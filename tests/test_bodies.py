"""Bodies are kept as the application reads them: never more than the limit, never consumed."""

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sentry_asgi._bodies import RAW, TOO_LARGE, Body, body_of
from otel_sentry_asgi._policy import FILTERED

JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"


def scope(kind: bytes = JSON, length: int | None = None, **given: Any) -> dict[str, Any]:
    headers = [(b"host", b"h"), (b"Content-Type", kind)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http", "method": "POST", "headers": headers, **given}


def messages(*chunks: bytes) -> list[dict[str, Any]]:
    last = len(chunks) - 1
    return [
        {"type": "http.request", "body": chunk, "more_body": index < last}
        for index, chunk in enumerate(chunks)
    ]


def read(body: Body, given: list[dict[str, Any]]) -> list[Any]:
    """What an application receives that reads all of it."""
    pending = list(given)

    async def receive() -> dict[str, Any]:
        return pending.pop(0)

    async def application() -> list[Any]:
        noting = body.noting(receive)
        return [await noting() for _ in given]

    return asyncio.run(application())


def facts(kind: bytes, *chunks: bytes, limit: int = 10_000) -> Any:
    body = body_of(scope(kind), lambda: limit)
    assert body is not None
    given = messages(*chunks)
    assert read(body, given) == given
    assert body.facts() == body.facts()
    return body.facts()


def test_half_a_surrogate_pair_in_json_keeps_no_event_back() -> None:
    """Relay takes no JSON with one, so a caller could keep its errors out of Sentry."""
    text = rb'{"\udfff": ["\ud800", "\ud83d\ude00"]}'
    assert facts(JSON, text) == {"data": {"?": ["?", "\U0001f600"]}}


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (JSON, b'{"a": [1, "b"]}', {"a": [1, "b"]}),
        (b"application/json; charset=utf-8", b'"a"', "a"),
        (b"Application/LD+JSON", b"[]", []),
        (JSON, '{"a": "\u00fc"}'.encode("utf-16"), {"a": "\u00fc"}),
        (FORM, b"a=1&b=2&b=%203&c", {"a": "1", "b": ["2", " 3"], "c": ""}),
        (FORM, b"a=\xff", {"a": "\ufffd"}),
    ],
)
def test_json_and_forms_are_parsed(kind: bytes, text: bytes, expected: Any) -> None:
    assert facts(kind, text) == {"data": expected}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (JSON, b'{"password": "secret"'),
        (JSON, b"password=secret"),
        (JSON, b"[" * 100_000),
        (FORM, b"&".join([b"a=1"] * 2_000)),
    ],
    ids=["cut", "no json", "deep", "many"],
)
def test_what_cannot_be_parsed_is_filtered(kind: bytes, text: bytes) -> None:
    assert facts(kind, text, limit=1_000_000) == {"data": FILTERED}


@pytest.mark.parametrize(
    "kind", [b"multipart/form-data; boundary=x", b"text/plain", b"application/octet-stream", b"x"]
)
def test_of_other_bodies_only_the_size_is_kept_and_receive_stays_as_it_is(kind: bytes) -> None:
    body = body_of(scope(kind, 12), lambda: 10_000)
    assert body is not None
    assert body.noting(read) is read  # type: ignore[arg-type,comparison-overlap]
    assert body.facts() == {"body_removed": {"rule": RAW, "size": 12}}


def test_a_compressed_body_is_none_that_can_be_read() -> None:
    given = scope()
    given["headers"].append((b"content-encoding", b"gzip"))
    body = body_of(given, lambda: 10_000)
    assert body is not None
    assert body.facts() == {"body_removed": {"rule": RAW, "size": None}}


def test_a_body_that_is_announced_as_too_large_is_not_looked_at() -> None:
    body = body_of(scope(length=11), lambda: 10)
    assert body is not None
    assert body.noting(read) is read  # type: ignore[arg-type,comparison-overlap]
    assert body.facts() == {"body_removed": {"rule": TOO_LARGE, "size": 11}}


@pytest.mark.parametrize("chunks", [[b"12345", b"67890", b"1"], [b"x" * 11], [b"x" * 9, b"xx"]])
def test_a_body_that_grows_too_large_is_let_go_at_once(chunks: list[bytes]) -> None:
    body = body_of(scope(), lambda: 10)
    assert body is not None
    for message in messages(*chunks):
        body.note(message)
    assert body.facts()["body_removed"]["rule"] == TOO_LARGE
    assert body._chunks == []


@pytest.mark.parametrize(
    "given",
    [
        scope(method="GET"),
        scope(method="HEAD"),
        scope(method="OPTIONS"),
        scope(type="websocket"),
        scope(length=0),
        {"type": "http", "method": "POST", "headers": []},
        {"type": "http", "method": "POST"},
    ],
    ids=str,
)
def test_requests_without_a_body_have_none(given: dict[str, Any]) -> None:
    assert body_of(given, lambda: 10_000) is None


def test_without_a_limit_nothing_is_kept() -> None:
    assert body_of(scope(), lambda: 0) is None


def test_the_limit_is_not_asked_for_where_there_can_be_no_body() -> None:
    assert body_of(scope(method="GET"), lambda: pytest.fail("asked")) is None


def test_what_the_application_has_not_read_to_the_end_is_not_known() -> None:
    body = body_of(scope(), lambda: 10_000)
    assert body is not None
    assert body.facts() == {}
    body.note({"type": "http.request", "body": b'{"a":', "more_body": True})
    body.note({"type": "http.disconnect"})
    assert body.facts() == {}
    body.note({"type": "http.request", "body": b"1}"})
    assert body.facts() == {"data": {"a": 1}}


def test_a_body_is_whole_when_all_that_was_announced_has_come() -> None:
    body = body_of(scope(length=8), lambda: 10_000)
    assert body is not None
    body.note({"type": "http.request", "body": b'{"a": 1}', "more_body": True})
    assert body.facts() == {"data": {"a": 1}}


def test_an_empty_body_is_none() -> None:
    assert facts(JSON, b"") == {}


def test_what_is_kept_does_not_change_with_the_applications_buffer() -> None:
    body = body_of(scope(), lambda: 10_000)
    assert body is not None
    buffer = bytearray(b'{"a": 1}')
    body.note({"type": "http.request", "body": buffer})
    buffer[:] = b"xxxxxxxx"
    assert body.facts() == {"data": {"a": 1}}


@given(
    value=st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=5),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    limit=st.integers(1, 200),
)
def test_the_chunks_do_not_matter_and_never_more_than_the_limit_is_held(
    value: dict[str, str], cuts: list[int], limit: int
) -> None:
    whole = json.dumps(value).encode()
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    body = body_of(scope(), lambda: limit)
    assert body is not None
    for message in messages(*(whole[a:b] for a, b in pairwise(edges))):
        body.note(message)
        assert sum(map(len, body._chunks)) <= limit
    expected: Any = {"body_removed": {"rule": TOO_LARGE, "size": len(whole)}}
    if len(whole) <= limit:
        expected = {"data": value}
    found = body.facts()
    if "body_removed" in found:
        found["body_removed"]["size"] = len(whole)  # Counting stops at the limit.
    assert found == expected
