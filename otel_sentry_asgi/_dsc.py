"""Sentry's dynamic sampling context: what the server needs to know of a trace's sampling.

Rules (Sentry's trace propagation spec): `trace_id` and `public_key` are required, numbers are
strings, `sample_rand < sample_rate` exactly when sampled, and a raw path is no transaction name.
"""

from __future__ import annotations

from dataclasses import dataclass

from otel_sentry_asgi._ids import trace_hex
from otel_sentry_asgi.sampling import Decision


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What the Sentry client contributes."""

    public_key: str
    release: str | None = None
    environment: str | None = None
    org_id: str | None = None


def sampling_context(
    trace_id: int, facts: ClientFacts | None, decision: Decision | None
) -> dict[str, str] | None:
    """The context of a trace that begins here; None without a public key."""
    if facts is None:
        return None
    context = {"trace_id": trace_hex(trace_id), "public_key": facts.public_key}
    for key in ("release", "environment", "org_id"):
        value = getattr(facts, key)
        if value:
            context[key] = str(value)
    if decision is not None and decision.sample_rate is not None:
        context["sample_rate"] = format_rate(decision.sample_rate)
        context["sample_rand"] = f"{decision.sample_rand:.6f}"
        context["sampled"] = "true" if decision.sampled else "false"
    return context


def format_rate(rate: float) -> str:
    """A rate as the shortest text that reads back as the same number: `0.25`, `1.0`."""
    return repr(float(rate))
