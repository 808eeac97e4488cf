"""Sentry's trace headers, read and written, and its dynamic sampling context: what the server needs
to know of a trace's sampling.

Rules (Sentry's trace propagation spec): `trace_id` and `public_key` are required, numbers are
strings, `sample_rand < sample_rate` exactly when sampled, a raw path is no transaction name, and
what came with a trace is frozen. In the `baggage` header, the members of others stay as they are
and ours are percent-encoded, a blank as `%20`: Sentry's readers take a `+` for a plus.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._translate.text import encodable
from otel_sentry_asgi.sampling import Decision, rand_between, to_rate

PREFIX = "sentry-"

MAX_HEADER = 8192
"""Bytes of a `baggage` header that everybody passes on (W3C Baggage, 3.3.2)."""

MAX_MEMBERS = 64
"""Likewise its members."""

_TRACE = later(
    r"[ \t]*(?:00-)?([0-9a-fA-F]{32})-([0-9a-fA-F]{16})(?:-([01]))?(?:-00)?[ \t]*", re.ASCII
)
_FIRST = ("trace_id", "public_key", "sampled", "sample_rand", "sample_rate", "org_id")
"""What is written first: if a header has no room for all, the rest is left out."""


class ClientFacts(NamedTuple):
    """What the Sentry client contributes."""

    public_key: str
    release: str | None = None
    environment: str | None = None
    org_id: str | None = None


class SentryTrace(NamedTuple):
    """A `sentry-trace` header. *sampled* is None where the decision was left to others."""

    trace_id: int
    span_id: int
    sampled: bool | None


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
        context.update(_decided(decision))
    return context


def _decided(decision: Decision) -> dict[str, str]:
    return {
        "sample_rate": format_rate(decision.sample_rate or 0.0),
        "sample_rand": f"{decision.sample_rand:.6f}",
        "sampled": "true" if decision.sampled else "false",
    }


def continued(context: Mapping[str, str], decision: Decision, *, changed: bool) -> dict[str, str]:
    """The context of a trace that came from elsewhere: as received, with what it did not say yet
    (a number that is none says nothing), and with what was decided here where that *changed* it.
    An empty one stays empty."""
    if not context or decision.sample_rate is None:
        return dict(context)
    here = _decided(decision)
    if changed:
        return {**context, **here}
    numbers = {"sample_rate": to_number, "sample_rand": to_rand}
    is_none = {key for key, read in numbers.items() if read(context.get(key)) is None}
    return {**here, **{key: value for key, value in context.items() if key not in is_none}}


def received_rand(trace_id: int, context: Mapping[str, str], sampled: bool | None) -> float | None:
    """The `sample_rand` of a trace that came with a context: what it says, else a number that fits
    its decision; None where nothing is known."""
    rand = to_rand(context.get("sample_rand"))
    if rand is not None:
        return int(round(rand * 1_000_000, 3)) / 1_000_000
    rate = to_number(context.get("sample_rate"))
    if rate is None or sampled is None:
        return None
    return rand_between(trace_id, 0.0, rate) if sampled else rand_between(trace_id, rate, 1.0)


def to_number(text: str | None) -> float | None:
    """A rate or random number as headers carry it; None if it is not in [0, 1]."""
    try:
        return to_rate(float(text)) if text else None
    except ValueError:
        return None


def to_rand(text: str | None) -> float | None:
    """A random number as headers carry it; None if it is not in [0, 1)."""
    number = to_number(text)
    return number if number is not None and number < 1.0 else None


def may_continue(theirs: str | None, ours: str | None, *, strict: bool) -> bool:
    """Whether a trace of the organisation *theirs* may be continued by a client of *ours*."""
    return theirs == ours or (not strict and (theirs is None or ours is None))


def format_rate(rate: float) -> str:
    """A rate as the shortest text that reads back as the same number: `0.25`, `1.0`."""
    return repr(float(rate))


def parse_sentry_trace(header: str) -> SentryTrace | None:
    """The first of the header's values; None if it is not one. Also in W3C's form."""
    first = next((part for part in header[:MAX_HEADER].split(",") if part.strip()), "")
    match = _TRACE.fullmatch(first)
    if match is None:
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    if not trace_id or not span_id:
        return None
    return SentryTrace(trace_id, span_id, None if match[3] is None else match[3] == "1")


def format_sentry_trace(trace: SentryTrace) -> str:
    """The header's value."""
    flag = "" if trace.sampled is None else "-1" if trace.sampled else "-0"
    return f"{trace_hex(trace.trace_id)}-{span_hex(trace.span_id)}{flag}"


def parse_baggage(headers: Iterable[str]) -> dict[str, str]:
    """Sentry's members of one or several `baggage` headers, decoded; of what is too long, those
    that are whole."""
    context: dict[str, str] = {}
    text = ",".join(headers)
    if len(text) > MAX_HEADER:
        text = text[: MAX_HEADER + 1].rpartition(",")[0]
    for member in text.split(",")[:180]:
        key, is_pair, value = member.strip().partition("=")
        if is_pair and key.startswith(PREFIX):
            context[unquote(key[len(PREFIX) :].strip())] = unquote(value.partition(";")[0].strip())
    return context


def merge_baggage(existing: str, context: Mapping[str, str]) -> str:
    """The header with all members of others as they are, and *context* as Sentry's members.

    Without room for `trace_id` and `public_key`, none is added.
    """
    others = [m for m in existing.split(",") if m.strip() and not m.strip().startswith(PREFIX)]
    ordered = [key for key in _FIRST if key in context]
    ordered += [key for key in context if key not in _FIRST]
    size = sum(len(encodable(member).encode()) + 1 for member in others)
    members: list[str] = []
    for key in ordered:
        member = f"{PREFIX}{_quoted(key)}={_quoted(context[key])}"
        if len(others) + len(members) < MAX_MEMBERS and size + len(member) <= MAX_HEADER:
            size += len(member) + 1
            members.append(member)
        elif key in _FIRST[:2]:
            return ",".join(others)
    return ",".join([*others, *members])


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")
