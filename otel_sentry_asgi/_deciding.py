"""Decides for a trace when its first span starts here: what came with it, the client's options,
OTel's own rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanContext

from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi import sentry
from otel_sentry_asgi._dsc import continued, received_rand, sampling_context, to_number
from otel_sentry_asgi._guard import is_contained
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._received import Received
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._translate.request import path_in, root_path_in, route_in
from otel_sentry_asgi._translate.segment import MAX_NAME, RequestFacts, transaction_name
from otel_sentry_asgi._translate.text import to_text
from otel_sentry_asgi.sampling import Decision, Decisions, consistent, decide, rate_of, sample_rand


def decide_trace(
    decisions: Decisions,
    span_context: SpanContext,
    received: Received | None,
    facts: Callable[[], Mapping[str, Any]],
    client: Any,
) -> Decision:
    """Decide, and remember it together with the context that came with the trace.

    *received* is what came with it (`received_in`): nothing for a trace that begins here. *facts*
    is what `traces_sampler` gets beside the parent's decision, *client* the one that is active. A
    sampler that raises means not sampled.
    """
    trace_id = span_context.trace_id
    rate, sampler, factor = sentry.tracing_of(client)
    factor = max(factor, decisions.pressure.factor)
    by_otel = consistent(trace_id, span_context.trace_state)
    sampled = received.sampled if received is not None else None
    rand = received_rand(trace_id, received.context, sampled) if received is not None else None
    parent_rate = to_number(received.context.get("sample_rate")) if received is not None else None
    if rand is None and by_otel is not None:
        rand = by_otel[0]

    def asked() -> dict[str, Any]:
        given = dict(facts())
        if received is not None:
            if sampled is not None:
                given["parent_sampled"] = sampled
            given["parent_sample_rate"] = parent_rate
        return given

    try:
        decision = decide(
            trace_id,
            rate=rate,
            sampler=sampler,
            sampling_context=asked,
            parent_sampled=sampled,
            parent_rate=parent_rate,
            rand=rand,
            downsample=factor,
        )
    except BaseException as error:
        if not is_contained("traces_sampler", error):
            raise
        decision = Decision(False, 0.0, sample_rand(trace_id), "callback_error")
    if received is not None:
        changed = sampler is not None or (factor > 0 and sampled is not False)
        decisions.freeze(trace_id, continued(received.context, decision, changed=changed))
    elif decision.sampled:
        decision = _capped(decision, by_otel[1] if by_otel is not None else rate_of(otel_sampler()))
    decisions.add(trace_id, decision)
    return decision


def decide_by_id(trace_id: int) -> Decision:
    """The decision for a trace of which nothing else is known: a sampler is not asked."""
    rate, sampler = sentry.tracing()
    rate = 1.0 if sampler is not None else rate
    return decide(trace_id, rate=rate, sampler=None, sampling_context=dict)


def _capped(decision: Decision, otel_rate: float | None) -> Decision:
    """With the rate at which traces really arrive: the lower one. An OTel rate that the trace's
    number does not fit is not what let it through."""
    rate = decision.sample_rate
    if rate is None or otel_rate is None or not decision.sample_rand < otel_rate < rate:
        return decision
    return decision._replace(sample_rate=otel_rate)


def otel_sampler() -> Sampler | None:
    """The sampler of OTel's global provider."""
    sampler = getattr(trace.get_tracer_provider(), "sampler", None)
    return sampler if isinstance(sampler, Sampler) else None


def context_of(
    decisions: Decisions, trace_id: int, exchange: Exchange | None, policy: Policy
) -> dict[str, str] | None:
    """The dynamic sampling context of a trace as it is known now in *exchange*, with the name as
    *policy* leaves it; it may yet change."""
    frozen = decisions.frozen(trace_id)
    if frozen is not None:
        return dict(frozen) or None
    context = sampling_context(trace_id, sentry.facts(), decisions.get(trace_id))
    name = name_in(exchange, trace_id, policy) if context is not None else None
    return {**context, "transaction": name} if context is not None and name else context


def name_in(exchange: Exchange | None, trace_id: int, policy: Policy) -> str | None:
    """The name of the exchange's transaction, as far as it is known, unless it is a raw path or of
    another trace; cleaned as that of the transaction will be."""
    root = exchange.root if exchange is not None else None
    if exchange is None or root is None or root.context.trace_id != trace_id:
        return None
    name = sentry_scopes.name_set_by_hand(exchange.current_scope)
    if name is None:
        scope = exchange.asgi_scope or {}
        facts = RequestFacts(
            route=route_in(scope) or sentry_scopes.route_by_integration(exchange.current_scope),
            path=path_in(scope) or None,
            root_path=root_path_in(scope),
            websocket=scope.get("type") == "websocket",
        )
        name, source = transaction_name(root, facts=facts)
        if source == "url":
            return None
    return policy.label(to_text(name, MAX_NAME), root.attributes or {})
