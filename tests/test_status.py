"""What a span came to, row by row."""

from typing import Any

import pytest
from opentelemetry.trace import Status, StatusCode

from otel_sentry_asgi._translate import status as translate
from otel_sentry_asgi._translate.attributes import to_current
from otel_sentry_asgi._translate.status import GRPC, STATUSES, from_http

UNSET, OK, ERROR = Status(StatusCode.UNSET), Status(StatusCode.OK), Status(StatusCode.ERROR)


def to_status(status: Status, attributes: dict[str, Any], **given: bool) -> str:
    return translate.to_status(status, to_current(attributes, [], on_server=True), **given)


HTTP = [
    (100, "ok"),
    (200, "ok"),
    (204, "ok"),
    (302, "ok"),
    (399, "ok"),
    (400, "invalid_argument"),
    (401, "unauthenticated"),
    (402, "invalid_argument"),
    (403, "permission_denied"),
    (404, "not_found"),
    (409, "already_exists"),
    (413, "failed_precondition"),
    (418, "invalid_argument"),
    (429, "resource_exhausted"),
    (499, "cancelled"),
    (500, "internal_error"),
    (501, "unimplemented"),
    (502, "internal_error"),
    (503, "unavailable"),
    (504, "deadline_exceeded"),
    (599, "internal_error"),
]

RPC = [
    (0, "OK", "ok"),
    (1, "CANCELLED", "cancelled"),
    (2, "UNKNOWN", "unknown_error"),
    (3, "INVALID_ARGUMENT", "invalid_argument"),
    (4, "DEADLINE_EXCEEDED", "deadline_exceeded"),
    (5, "NOT_FOUND", "not_found"),
    (6, "ALREADY_EXISTS", "already_exists"),
    (7, "PERMISSION_DENIED", "permission_denied"),
    (8, "RESOURCE_EXHAUSTED", "resource_exhausted"),
    (9, "FAILED_PRECONDITION", "failed_precondition"),
    (10, "ABORTED", "aborted"),
    (11, "OUT_OF_RANGE", "out_of_range"),
    (12, "UNIMPLEMENTED", "unimplemented"),
    (13, "INTERNAL", "internal_error"),
    (14, "UNAVAILABLE", "unavailable"),
    (15, "DATA_LOSS", "data_loss"),
    (16, "UNAUTHENTICATED", "unauthenticated"),
]


@pytest.mark.parametrize(("code", "expected"), HTTP)
@pytest.mark.parametrize("name", ["http.response.status_code", "http.status_code"])
@pytest.mark.parametrize("kind", [int, str])
def test_an_http_code_tells_under_either_name_as_number_or_text(
    code: int, expected: str, name: str, kind: type
) -> None:
    assert from_http(code) == expected
    assert to_status(UNSET, {name: kind(code)}) == expected


@pytest.mark.parametrize("code", [-1, 0, 99, 600, 10**30])
def test_what_is_no_http_code_tells_nothing(code: int) -> None:
    assert from_http(code) is None
    assert to_status(UNSET, {"http.status_code": code}) == "ok"
    assert to_status(ERROR, {"http.status_code": code}) == "internal_error"


@pytest.mark.parametrize(("code", "name", "expected"), RPC)
@pytest.mark.parametrize("key", ["rpc.grpc.status_code", "rpc.response.status_code"])
def test_a_grpc_code_tells_under_either_name_as_number_text_or_word(
    code: int, name: str, expected: str, key: str
) -> None:
    assert GRPC[code] == expected
    for value in (code, str(code), name, name.lower()):
        assert to_status(UNSET, {key: value}) == expected


@pytest.mark.parametrize("code", [-1, 17, "17", "BROKEN", "", True, 1.0, ("1",), None])
def test_what_is_no_grpc_code_tells_nothing(code: Any) -> None:
    assert to_status(UNSET, {"rpc.grpc.status_code": code}) == "ok"
    assert to_status(ERROR, {"rpc.grpc.status_code": code}) == "internal_error"


@pytest.mark.parametrize("attributes", [{}, {"http.status_code": 500}, {"rpc.grpc.status_code": 2}])
def test_an_explicit_ok_wins_over_every_code(attributes: dict[str, Any]) -> None:
    assert to_status(OK, attributes) == "ok"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, "internal_error"),
        ({"http.status_code": 503}, "unavailable"),
        ({"http.status_code": 200}, "internal_error"),
        ({"rpc.grpc.status_code": 0}, "internal_error"),
        ({"rpc.grpc.status_code": 7}, "permission_denied"),
    ],
)
def test_an_error_takes_the_code_unless_the_code_says_ok(
    attributes: dict[str, Any], expected: str
) -> None:
    assert to_status(ERROR, attributes) == expected
    described = Status(StatusCode.ERROR, "ValueError: broken")
    assert to_status(described, attributes) == expected


@pytest.mark.parametrize("word", sorted(STATUSES - {"ok"}))
def test_an_error_takes_its_description_when_that_is_a_status(word: str) -> None:
    assert to_status(Status(StatusCode.ERROR, word.upper()), {}) == word


def test_an_error_is_never_ok() -> None:
    assert to_status(Status(StatusCode.ERROR, "ok"), {}) == "internal_error"


def test_http_wins_over_grpc() -> None:
    both = {"http.status_code": 404, "rpc.grpc.status_code": 2}
    assert to_status(UNSET, both) == "not_found"


def test_the_stable_name_wins_over_the_old_one() -> None:
    both = {"http.response.status_code": 404, "http.status_code": 500}
    assert to_status(UNSET, both) == "not_found"


def test_without_any_code_nothing_went_wrong() -> None:
    assert to_status(UNSET, {}) == "ok"


# -- what an error says of itself -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        ("asyncio.exceptions.CancelledError", "cancelled"),
        ("CancelledError", "cancelled"),
        ("starlette.requests.ClientDisconnect", "cancelled"),
        ("TimeoutError", "deadline_exceeded"),
        ("asyncio.exceptions.TimeoutError", "deadline_exceeded"),
        ("timeout", "deadline_exceeded"),
        ("ValueError", "internal_error"),
        ("500", "internal_error"),
        (5, "internal_error"),
    ],
)
def test_the_type_of_an_error_may_say_what_happened(error_type: Any, expected: str) -> None:
    assert to_status(ERROR, {"error.type": error_type}) == expected
    assert to_status(ERROR, {"error.type": error_type, "http.status_code": 503}) == "unavailable"
    assert to_status(UNSET, {"error.type": error_type}) == "ok"


def test_a_client_that_left_has_cancelled_what_did_not_fail_otherwise() -> None:
    assert to_status(UNSET, {}, cancelled=True) == "cancelled"
    assert to_status(UNSET, {"http.status_code": 200}, cancelled=True) == "cancelled"
    assert to_status(UNSET, {"http.status_code": 404}, cancelled=True) == "not_found"
    assert to_status(ERROR, {"error.type": "ConnectionError"}, cancelled=True) == "cancelled"
    assert to_status(ERROR, {"http.status_code": 503}, cancelled=True) == "unavailable"
    assert to_status(OK, {}, cancelled=True) == "ok"


def test_what_crashed_has_failed_whatever_was_said_before() -> None:
    assert to_status(UNSET, {}, crashed=True) == "internal_error"
    assert to_status(UNSET, {"http.status_code": 200}, crashed=True) == "internal_error"
    assert to_status(OK, {"http.status_code": 200}, crashed=True) == "internal_error"
    assert to_status(UNSET, {"http.status_code": 404}, crashed=True) == "not_found"
    assert to_status(ERROR, {"error.type": "TimeoutError"}, crashed=True) == "deadline_exceeded"
    assert to_status(UNSET, {}, cancelled=True, crashed=True) == "cancelled"
