"""What a request brought along of a Sentry trace, kept in the OTel context.

It is written by our propagator. Where only OTel's own are at work, Sentry's members of the
`baggage` header are in OTel's baggage, and are taken from there. In both cases they count only for
the trace that they name: with `traceparent` of one trace and `sentry-trace` of another, the
sampling of the other is none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry import baggage
from opentelemetry.context import create_key, get_value, set_value
from opentelemetry.context.context import Context

from otel_sentry_asgi import sentry
from otel_sentry_asgi._dsc import PREFIX, may_continue
from otel_sentry_asgi._ids import trace_hex

_KEY = create_key("otel-sentry-received")
_TRACE_ID = f"{PREFIX}trace_id"


class Received(NamedTuple):
    """Sentry's decision, None where there was none, and dynamic sampling context of a trace."""

    trace_id: int
    sampled: bool | None
    context: Mapping[str, str]


def with_received(received: Received, otel_context: Context) -> Context:
    """*otel_context* with what was received."""
    return set_value(_KEY, received, otel_context)


def received_in(otel_context: Context | None, trace_id: int) -> Received | None:
    """What came with this trace, if anything did that may be continued."""
    known = get_value(_KEY, otel_context)
    if isinstance(known, Received) and known.trace_id == trace_id:
        return known
    members = baggage.get_all(otel_context)
    if not members or members.get(_TRACE_ID) != trace_hex(trace_id):
        return None
    context = {
        key[len(PREFIX) :]: str(value) for key, value in members.items() if key.startswith(PREFIX)
    }
    if not is_ours(context):
        return None
    return Received(trace_id, _SAMPLED.get(context.get("sampled")), context)


_SAMPLED: dict[str | None, bool] = {"true": True, "false": False}


def is_ours(context: Mapping[str, str]) -> bool:
    """Whether the client's organisation may continue a trace with this context."""
    ours, strict = sentry.continuation()
    return may_continue(context.get("org_id"), ours, strict=strict)
