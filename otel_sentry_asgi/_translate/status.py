"""OTel status and protocol codes to Sentry's span status."""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import Status, StatusCode

from otel_sentry_asgi._semconv import (
    ERROR_TYPE,
    HTTP_STATUS,
    RPC_GRPC_STATUS,
    RPC_STATUS,
    Attributes,
    number,
    text,
)

_OK: Final = StatusCode.OK
_UNSET: Final = StatusCode.UNSET

# The order is that of the gRPC codes: the index is the code.
GRPC: Final = (
    "ok",
    "cancelled",
    "unknown_error",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal_error",
    "unavailable",
    "data_loss",
    "unauthenticated",
)

STATUSES: Final = frozenset(GRPC)

# Two of gRPC's own names are shorter.
_SHORT: Final = {"unknown": "unknown_error", "internal": "internal_error"}

# Exceptions that say what happened, by the last part of `error.type`.
_ERRORS: Final = {
    "CancelledError": "cancelled",
    "ClientDisconnect": "cancelled",
    "ClientDisconnected": "cancelled",
    "TimeoutError": "deadline_exceeded",
    "timeout": "deadline_exceeded",
}

# sentry-sdk's own table (`tracing_utils.get_span_status_from_http_code`) and 499 for clients that
# left.
_HTTP: Final = {
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    409: "already_exists",
    413: "failed_precondition",
    429: "resource_exhausted",
    499: "cancelled",
    501: "unimplemented",
    503: "unavailable",
    504: "deadline_exceeded",
}


def from_http(code: int) -> str | None:
    """Sentry's status for an HTTP status code; None for what is no HTTP status."""
    known = _HTTP.get(code)
    if known is not None:
        return known
    if 100 <= code < 400:
        return "ok"
    if 400 <= code < 500:
        return "invalid_argument"
    return "internal_error" if 500 <= code < 600 else None


def _from_rpc(data: Attributes, name: str) -> str | None:
    code = number(data, name)
    if code is not None:
        return GRPC[code] if 0 <= code < len(GRPC) else None
    word = (text(data, name) or "").lower()
    word = _SHORT.get(word, word)
    return word if word in STATUSES else None


def to_status(
    status: Status, data: Attributes, *, cancelled: bool = False, crashed: bool = False
) -> str:
    """By OTel's explicit OK, HTTP code, gRPC code, then OTel's ERROR or UNSET.

    *cancelled*: the client left before the response was complete. *crashed*: an exception left the
    application, maybe after all that is known otherwise. *data* has current names.
    """
    code = status.status_code
    if code is _OK:
        return "internal_error" if crashed else "ok"
    known = _from_code(data)
    if code is _UNSET:
        if known not in (None, "ok"):
            return known
        return "cancelled" if cancelled else "internal_error" if crashed else "ok"
    if known and known != "ok":
        return known
    if cancelled:
        return "cancelled"
    named = _ERRORS.get(str(data.get(ERROR_TYPE)).rpartition(".")[2])
    if named is not None:
        return named
    word = (status.description or "").lower()
    return word if word in STATUSES and word != "ok" else "internal_error"


def _from_code(data: Attributes) -> str | None:
    code = number(data, HTTP_STATUS) if HTTP_STATUS in data else None
    known = from_http(code) if code is not None else None
    if known is None and (RPC_STATUS in data or RPC_GRPC_STATUS in data):
        return _from_rpc(data, RPC_STATUS) or _from_rpc(data, RPC_GRPC_STATUS)
    return known
