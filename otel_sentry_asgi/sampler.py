"""An OTel sampler by which Sentry decides for OTel as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from otel_sentry_asgi._active import active
from otel_sentry_asgi._bridge import Bridge, start_facts
from otel_sentry_asgi._deciding import decide_trace
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._received import received_in
from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._settings import SettingsError
from otel_sentry_asgi.sampling import is_kept

_SHOULD_SAMPLE = contained("sampler")


class SentrySampler(Sampler):
    """Samples what *wrapped* samples and Sentry's client keeps, so that both backends have the same
    traces: `TracerProvider(sampler=SentrySampler())`, or `OTEL_TRACES_SAMPLER=sentry`.

    `traces_sampler` or `traces_sample_rate` is asked once for each trace that begins here or comes
    from elsewhere; what is left out is counted in the client report. The children follow. Without a
    client, with tracing off, or before `instrument()`, *wrapped* decides alone. Never raises.
    """

    def __init__(self, wrapped: Sampler = DEFAULT_ON) -> None:
        self.wrapped = wrapped

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The wrapped sampler's result, or `DROP` where Sentry does not keep the trace."""
        result = self.wrapped.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        if not is_kept(result):
            return result
        with _SHOULD_SAMPLE:
            parent = trace.get_current_span(parent_context).get_span_context()
            if parent.is_valid and not parent.is_remote:
                kept = parent.trace_flags.sampled
            else:
                context = SpanContext(
                    trace_id, 0, False, TraceFlags(TraceFlags.SAMPLED), result.trace_state
                )
                facts = partial(
                    start_facts,
                    context,
                    parent,
                    name,
                    kind or SpanKind.INTERNAL,
                    attributes or {},
                    _request(kind),
                )
                kept = _keeps(active(), context, parent_context, facts)
            if not kept:
                return SamplingResult(Decision.DROP, trace_state=result.trace_state)
        return result

    def get_description(self) -> str:
        """Names the wrapped sampler."""
        return f"SentrySampler{{{self.wrapped.get_description()}}}"


def _request(kind: SpanKind | None) -> Exchange | None:
    """The request that a server span belongs to."""
    exchange = current_exchange.get()
    is_its = exchange is not None and exchange.is_request and not exchange.finished
    return exchange if is_its and kind is SpanKind.SERVER else None


def _keeps(
    bridge: Bridge | None,
    context: SpanContext,
    parent_context: Context | None,
    facts: Callable[[], dict[str, Any]],
) -> bool:
    client = bridge.client() if bridge is not None else None
    if bridge is None or client is None:
        return True
    decision = bridge.decisions.get(context.trace_id)
    if decision is None:
        received = received_in(parent_context, context.trace_id)
        decision = decide_trace(bridge.decisions, context, received, facts, client)
    if decision.sampled or decision.sample_rate is None:
        return True
    if decision.reason is not None:
        bridge.pipeline.dropped(decision.reason)
    return False


_KNOWN: dict[str, Callable[[str], Sampler]] = {
    "": lambda _: DEFAULT_ON,
    "always_on": lambda _: ALWAYS_ON,
    "always_off": lambda _: ALWAYS_OFF,
    "parentbased_always_on": lambda _: DEFAULT_ON,
    "parentbased_always_off": lambda _: DEFAULT_OFF,
    "traceidratio": lambda ratio: TraceIdRatioBased(float(ratio or 1)),
    "parentbased_traceidratio": lambda ratio: ParentBasedTraceIdRatio(float(ratio or 1)),
}


def from_argument(argument: str) -> SentrySampler:
    """What `OTEL_TRACES_SAMPLER=sentry` makes of `OTEL_TRACES_SAMPLER_ARG`: the sampler to wrap and
    its own argument, as in `parentbased_traceidratio=0.25`; without one, `parentbased_always_on`.

    Raises `SettingsError` for anything else; OTel then logs it and samples as without.
    """
    name, _, value = argument.partition("=")
    try:
        return SentrySampler(_KNOWN[name.strip().lower()](value.strip()))
    except (KeyError, ValueError):
        names = ", ".join(name for name in _KNOWN if name)
        msg = f"OTEL_TRACES_SAMPLER_ARG must be one of {names}[=ratio], not {argument!r}"
        raise SettingsError(msg) from None
