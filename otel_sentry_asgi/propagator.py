"""Sentry's headers beside those of OTel: `sentry-trace`, and Sentry's members of `baggage`.

What comes in is kept in the OTel context (`_received`), never in the tracestate. What goes out is
derived from the span that is current; other members of `baggage` stay as they are. An OTel
propagator is not told where a request goes, so `trace_propagation_targets` looks at the URL of the
client span that is current: instrumentations start it before they inject.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from html import escape
from operator import itemgetter
from typing import Any

from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from otel_sentry_asgi import sentry
from otel_sentry_asgi._active import active
from otel_sentry_asgi._deciding import decide_by_id, name_in, otel_sampler
from otel_sentry_asgi._dsc import (
    PREFIX,
    SentryTrace,
    format_sentry_trace,
    merge_baggage,
    parse_baggage,
    parse_sentry_trace,
    sampling_context,
)
from otel_sentry_asgi._guard import contained, is_contained
from otel_sentry_asgi._received import Received, is_ours, received_in, with_received
from otel_sentry_asgi._scope import current_exchange
from otel_sentry_asgi._semconv import FULL_URL, first_text
from otel_sentry_asgi.sampler import SentrySampler
from otel_sentry_asgi.sampling import Decision, is_kept, rate_of

logger = logging.getLogger("otel_sentry_asgi")

SENTRY_TRACE = "sentry-trace"
BAGGAGE = "baggage"

_INJECT = contained("inject")
_NAME = itemgetter(0)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOTHING: tuple[str, Mapping[str, str]] = "", {}


class SentryPropagator(TextMapPropagator):
    """Continues traces from Sentry's SDKs, and lets them continue ours.

    `instrument()` adds it beside the propagator that is there. By hand it is one of
    `OTEL_PROPAGATORS=tracecontext,baggage,sentry_asgi`, the last, so that OTel's baggage propagator
    does not overwrite what it has added; if it does, the log says so. Without a Sentry client it
    does nothing. Never raises.

    *incoming_trace* is the setting of that name, by default that of `instrument()`.
    """

    def __init__(self, incoming_trace: str | None = None) -> None:
        self._incoming_trace = incoming_trace
        self._has_looked = False
        self.detached = False

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """The context, with the Sentry trace of the carrier if there is one to continue."""
        if context is None:
            context = Context()
        if self.detached:
            return context
        try:
            if _may_hold(carrier, SENTRY_TRACE):
                header = next(iter(getter.get(carrier, SENTRY_TRACE) or ()), None)
                incoming = parse_sentry_trace(header) if header else None
                if incoming is not None and sentry.is_ready():
                    members = parse_baggage(getter.get(carrier, BAGGAGE) or ())
                    return self._continue(incoming, members, context)
        except BaseException as error:
            if not is_contained("extract", error):
                raise
        return context

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the current span's `sentry-trace`, and merge its sampling into `baggage`. What came
        of Sentry's in that, and OTel passes on, goes."""
        if self.detached:
            return
        with _INJECT:
            span = trace.get_current_span(context)
            if not span.get_span_context().is_valid or not sentry.is_ready():
                return
            sent = outgoing(span.get_span_context(), context) if _is_target(span) else _NOTHING
            if sent is not None:
                header, members = sent
                if header:
                    _set(carrier, SENTRY_TRACE, header, setter)
                if members or any(str(key).startswith(PREFIX) for key in baggage.get_all(context)):
                    self._look_behind()
                    key, existing = _existing_baggage(carrier, context)
                    _set(carrier, key, merge_baggage(existing, members), setter)

    @property
    def fields(self) -> set[str]:
        """The names of the headers that `inject` writes."""
        return {SENTRY_TRACE, BAGGAGE}

    def _look_behind(self) -> None:
        """Say it if what is written here is overwritten: propagators do not know of each other."""
        if not self._has_looked:
            self._has_looked = True
            overwriting = overwriting_ours()
            if overwriting:
                logger.warning(
                    "%s comes behind SentryPropagator and overwrites its part of `baggage`: put "
                    "`sentry_asgi` last in OTEL_PROPAGATORS, or call instrument()",
                    overwriting,
                )

    def _continue(
        self, incoming: SentryTrace, members: dict[str, str], context: Context
    ) -> Context:
        if not is_ours(members):
            return context
        remote = trace.get_current_span(context).get_span_context()
        has_w3c = remote.is_valid and remote.is_remote
        if not has_w3c or (remote.trace_id != incoming.trace_id and self._prefers_sentry()):
            flags = _SAMPLED if _otel_samples(incoming) else TraceFlags(TraceFlags.DEFAULT)
            remote = SpanContext(incoming.trace_id, incoming.span_id, True, flags)
            context = trace.set_span_in_context(NonRecordingSpan(remote), context)
        if remote.trace_id != incoming.trace_id:
            return context
        if members.get("trace_id", "").lower() != f"{incoming.trace_id:032x}":
            members = {}
        received = Received(incoming.trace_id, incoming.sampled, members)
        return with_received(received, context)

    def _prefers_sentry(self) -> bool:
        bridge = active()
        chosen = self._incoming_trace
        if chosen is None and bridge is not None:
            chosen = bridge.settings.incoming_trace
        return chosen == "sentry"


def _may_hold(carrier: Any, name: str) -> bool:
    """Whether a getter may find the header *name*: False only for an ASGI scope whose names do not
    have it. OTel's getter decodes all of them, 8 us for ten headers where most requests have no
    Sentry trace."""
    is_scope = type(carrier) is dict and carrier.get("type") in ("http", "websocket")
    headers = carrier.get("headers") if is_scope else None
    if type(headers) is not list:
        return True
    try:
        return name.encode() in b"\n".join(map(_NAME, headers)).lower()
    except (TypeError, IndexError):  # Not what ASGI asks for: whoever reads it knows better.
        return True


def _otel_samples(incoming: SentryTrace) -> bool:
    """Whether OTel's sampler would keep a trace of this id that begins here: Sentry's flag is
    Sentry's decision, and a front end that sends 5 % to Sentry must not leave 5 % for OTel. Without
    a sampler to ask, the flag counts."""
    sampler = otel_sampler()
    if isinstance(sampler, SentrySampler):
        sampler = sampler.wrapped
    if sampler is None:
        return incoming.sampled is not False
    return is_kept(sampler.should_sample(Context(), incoming.trace_id, "", SpanKind.SERVER))


def _is_target(span: Span) -> bool:
    is_client = isinstance(span, ReadableSpan) and span.kind is SpanKind.CLIENT
    attributes = span.attributes if isinstance(span, ReadableSpan) and is_client else None
    return sentry.may_propagate(first_text(attributes or {}, FULL_URL))


def outgoing(
    span_context: SpanContext, context: Context | None
) -> tuple[str, Mapping[str, str]] | None:
    """`sentry-trace` and the members of `baggage` for a request that is sent below a span. None for
    a remote span of which Sentry's part is not known: it is not ours to speak of."""
    trace_id, received = span_context.trace_id, received_in(context, span_context.trace_id)
    if received is None and span_context.is_remote:
        return None
    bridge = active()
    decision = bridge.decisions.get(trace_id) if bridge is not None else None
    if decision is not None and decision.sample_rate is not None:
        sampled: bool | None = decision.sampled
    elif received is not None:
        sampled = received.sampled
    else:
        decision = _decision_without_span(span_context)
        sampled = None if decision.sample_rate is None else decision.sampled
    header = format_sentry_trace(SentryTrace(trace_id, span_context.span_id, sampled))
    frozen = bridge.decisions.frozen(trace_id) if bridge is not None else None
    if frozen is not None:
        return header, frozen
    if received is not None:
        return header, received.context
    members = sampling_context(trace_id, sentry.facts(), decision) or {}
    if members and bridge is not None:
        name = name_in(current_exchange.get(), trace_id, sentry.policy(bridge.settings))
        if name:
            members["transaction"] = name
        bridge.decisions.freeze(trace_id, members)
    return header, members


def _decision_without_span(span_context: SpanContext) -> Decision:
    """Of a trace that began before us, or that OTel leaves out: then Sentry has none of it, at the
    rate that both allow."""
    decision = decide_by_id(span_context.trace_id)
    if span_context.trace_flags.sampled or decision.sample_rate is None:
        return decision
    rate = min(decision.sample_rate, rate_of(otel_sampler()) or 0.0)
    return Decision(False, min(rate, decision.sample_rand), decision.sample_rand)


def _set(carrier: Any, key: str, value: str, setter: Setter[Any]) -> None:
    """Have a header with this value only, or none of an empty one: setters of lists append, and
    readers take the first."""
    before = _named(carrier, key) if isinstance(carrier, list) else []
    if value or not isinstance(carrier, (list, MutableMapping)):
        setter.set(carrier, key, value)
    elif isinstance(carrier, MutableMapping):
        carrier.pop(key, None)
    if before and (not value or len(_named(carrier, key)) > len(before)):
        carrier[:] = [item for item in carrier if all(item is not one for one in before)]


def _named(carrier: list[Any], key: str) -> list[Any]:
    return [item for item in carrier if _pair(item)[0].lower() == key.lower()]


def _existing_baggage(carrier: Any, context: Context | None) -> tuple[str, str]:
    """Name and value of the carrier's `baggage` so far. Of a carrier that does not let itself be
    read, or has it in a form of its own, what OTel's propagator has written."""
    pairs = carrier.items() if isinstance(carrier, Mapping) else carrier
    if isinstance(pairs, Iterable):
        found = [(key, value) for key, value in map(_pair, pairs) if key.lower() == BAGGAGE]
        if found:
            key = BAGGAGE if any(name == BAGGAGE for name, _ in found) else found[0][0]
            return key, ",".join(value for _, value in found)
    written: dict[str, str] = {}
    if baggage.get_all(context):
        for one in members_of(propagate.get_global_textmap()):
            if isinstance(one, W3CBaggagePropagator):
                one.inject(written, context)
    return BAGGAGE, written.get(BAGGAGE, "")


def _pair(item: Any) -> tuple[str, str]:
    """A header as text; what is none has no name."""
    if not isinstance(item, tuple) or len(item) != 2:
        return "", ""
    key, value = (part.decode("latin-1") if isinstance(part, bytes) else part for part in item)
    return (key, value) if isinstance(key, str) and isinstance(value, str) else ("", "")


def trace_propagation_meta() -> str:
    """`<meta>` tags for the head of a page, by which the browser's SDK continues the trace of the
    request that rendered it. Empty outside of a trace and without a Sentry client.

    In place of `sentry_sdk.trace_propagation_meta()`, which is empty next to OTel.
    """
    with contained("trace_propagation_meta"):
        span_context = trace.get_current_span().get_span_context()
        is_known = span_context.is_valid and sentry.is_ready()
        sent = outgoing(span_context, None) if is_known else None
        if sent is not None:
            header, members = sent
            contents = {SENTRY_TRACE: header, BAGGAGE: merge_baggage("", members)}
            return "".join(
                f'<meta name="{name}" content="{escape(content)}">'
                for name, content in contents.items()
                if content
            )
    return ""


def join(existing: TextMapPropagator) -> tuple[TextMapPropagator, SentryPropagator | None]:
    """*existing* with ours behind it, and ours; as it is where ours is the last already.

    sentry-sdk's own is left out. `OTEL_PROPAGATORS=...,sentry` may mean either of the two; that one
    lets its trace win over W3C's, and injects nothing without sentry-sdk's own span processor.
    """
    members = members_of(existing)
    kept = [one for one in members if not is_sdks(one)]
    if len(kept) == len(members):
        if members and isinstance(members[-1], SentryPropagator):
            return existing, None
        kept = [existing]
    ours = SentryPropagator()
    return CompositePropagator([*kept, ours]), ours


def members_of(propagator: Any) -> list[TextMapPropagator]:
    """The propagators that it is made of, in their order."""
    inner = getattr(propagator, "_propagators", None)
    return [propagator] if inner is None else [one for each in inner for one in members_of(each)]


def is_sdks(propagator: object) -> bool:
    """Whether it is the one that sentry-sdk calls `sentry`."""
    kind = type(propagator)
    return kind.__module__ == "sentry_sdk.integrations.opentelemetry.propagator"


def overwriting_ours() -> str | None:
    """The class of the global propagator that writes `baggage` behind the last of ours, if any."""
    found: str | None = None
    for one in reversed(members_of(propagate.get_global_textmap())):
        if isinstance(one, SentryPropagator) and not one.detached:
            return found
        if BAGGAGE in one.fields:
            found = type(one).__name__
    return None
