"""OTel status and protocol codes to Sentry's span status."""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import Status, StatusCode

from otel_sentry_asgi._semconv import HTTP_STATUS, RPC_STATUS, Attributes, first, first_int

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


def _from_rpc(attributes: Attributes) -> str | None:
    code = first_int(attributes, RPC_STATUS)
    if code is not None:
        return GRPC[code] if 0 <= code < len(GRPC) else None
    name = first(attributes, RPC_STATUS)
    word = name.lower() if isinstance(name, str) else ""
    word = _SHORT.get(word, word)
    return word if word in STATUSES else None


def to_status(status: Status, attributes: Attributes) -> str:
    """By OTel's explicit OK, HTTP code, gRPC code, then OTel's ERROR or UNSET."""
    if status.status_code is StatusCode.OK:
        return "ok"
    code = first_int(attributes, HTTP_STATUS)
    known = (from_http(code) if code is not None else None) or _from_rpc(attributes)
    if status.status_code is StatusCode.UNSET:
        return known or "ok"
    if known and known != "ok":
        return known
    word = (status.description or "").lower()
    return word if word in STATUSES and word != "ok" else "internal_error"
