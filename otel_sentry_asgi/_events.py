"""Our event processors: every event of the application with its trace and request, cleaned."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from opentelemetry.trace import SpanContext

from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi import sentry
from otel_sentry_asgi._breadcrumbs import to_breadcrumbs
from otel_sentry_asgi._deciding import context_of
from otel_sentry_asgi._errors import (
    is_error,
    is_framework_log,
    is_own_noise,
    is_server_text,
    response_status,
)
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex, trace_hex
from otel_sentry_asgi._issues import HINT, SWALLOWED, TASK, Issues, text_of
from otel_sentry_asgi._ledger import Ledger
from otel_sentry_asgi._logs import log_breadcrumbs
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._policy import Clean, Policy
from otel_sentry_asgi._policy._values import clean_strings
from otel_sentry_asgi._scope import Exchange, current_exchange, current_secrets
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._translate.op import to_op
from otel_sentry_asgi._translate.reading import Reading
from otel_sentry_asgi._translate.resource import facts_of
from otel_sentry_asgi._translate.segment import RequestFacts, transaction_name
from otel_sentry_asgi.export import REMARKS
from otel_sentry_asgi.sampling import Decisions

SERVER_LOGGERS = frozenset(
    {"uvicorn.error", "hypercorn.error", "gunicorn.error", "daphne.server", "_granian"}
)


class Events:
    """What an event goes through between the application (or `Issues`) and the client."""

    def __init__(
        self,
        settings: Settings,
        stats: Stats,
        ledger: Ledger,
        decisions: Decisions,
        issues: Issues,
    ) -> None:
        self._settings = settings
        self._stats = stats
        self._ledger = ledger
        self._decisions = decisions
        self._issues = issues
        self.finish = self._finish
        """The last event processor of a request, when bound to a weak reference to its exchange: by
        a bound method, made once, as `partial` is three objects more for each request."""

    def process(self, event: Any, hint: Data) -> Any:
        """The global event processor: one exception once in a request, every event linked to its
        trace.

        An event that cannot be cleaned is not sent.
        """
        if event.get("type"):
            return event
        error = (hint.get("exc_info") or (None, None, None))[1]
        with contained("event processor"):
            unretrieved = error if event.get("logger") == "asyncio" else None
            if unretrieved is not None and self._issues.unretrieved(unretrieved):
                return None
            record = hint.get("log_record")
            by_framework = record is not None and is_framework_log(record)
            by_integration = _is_by_integration(event)
            if by_integration and error is not None and not is_error(error):
                sentry.forget_last_error()
                return None
            status = None  # Of an answer that the application did not capture itself.
            if error is not None and (by_framework or by_integration):
                status = response_status(error)
            if status is not None and self._issues.is_no_issue(status, by_integration):
                sentry.forget_last_error()
                return None
            if HINT not in hint and self._is_known(event, error):
                self._stats.add("duplicate_errors")
                return None
            exchange = current_exchange.get()
            if error is not None and exchange is not None:
                exchange.tell(text_of(error))
            if status is not None:
                _say(event, handled=True)
            elif by_framework:
                _say(event, type=SWALLOWED, handled=False)
            elif unretrieved is not None:
                _say(event, type=TASK, handled=False)
            context = hint.get(HINT) or self._issues.span_of(error, exchange)
            if context is not None:
                self._link(event, context, exchange)
            if exchange is not None and exchange.root is not None:
                contexts, defaults = facts_of(exchange.root.resource)
                sentry.fill_defaults(event, defaults, sentry.options())
                _add_contexts(event, contexts)
            return event
        self._stats.add("lost.internal_sdk_error")
        return None

    def clean(self, event: Any, hint: Data) -> Any:
        """The event processor of the global scope, after those that integrations add globally.

        Also in a request: the event may be captured under scopes that are not the request's. An
        event that cannot be cleaned is not sent.
        """
        return self._cleaned(event, hint)

    def _cleaned(self, event: Any, hint: Data, *, is_last: bool = False) -> Any:
        """The event as the policy has it, without what only its exchange could tell."""
        kind = event.get("type")
        if kind not in (None, "", "error", "default", "transaction"):
            return event
        with contained("event processor"):
            is_last = is_last or not sentry.ends_with(self.finish)
            if kind == "transaction":
                if is_last:
                    self._policy().clean_scope_data(event)
                    if REMARKS not in hint:
                        sentry.annotate(event)
                return event
            policy = self._policy()
            sentry.add_threads(event)
            sentry.mark_in_app(event)
            exchange = current_exchange.get()
            if not is_last and exchange is not None:
                _add_request(event, exchange.request())
            clean = policy.clean_error(event, current_secrets(policy))
            if is_last:
                return self._shown(clean)
            hint[_OFFERED] = clean_strings(event.get("request") or {}, str)  # A copy.
            return event
        self._stats.add("lost.internal_sdk_error")
        return None

    def _shown(self, clean: Clean[Any]) -> Any:
        """What the application's own callback leaves of an event."""
        shown: Clean[Any] | None = clean
        if self._settings.on_payload is not None:
            shown = clean.shown_to(self._settings.on_payload)
        if shown is None:
            self._stats.add("lost.before_send")
            return None
        sentry.annotate(shown.payload)
        return shown.payload

    def _finish(self, of: weakref.ref[Exchange], event: Any, hint: Data) -> Any:
        """The request of an event, its name, and the policy. Held by the request's scope, which the
        exchange holds.

        An event that cannot be cleaned is not sent.
        """
        exchange = of()
        if exchange is None:  # The scope has outlived it: a thread may go on for long.
            return self._cleaned(event, hint, is_last=True)
        with contained("event processor"):
            policy: Policy = exchange.policy or self._policy()
            if event.get("type"):
                # A transaction was clean, but scopes and processors of integrations add to it.
                if event.get("request") and event["request"] != exchange.sent_request:
                    event["request"] = policy.request(event["request"])
                policy.clean_scope_data(event, _secrets(event, exchange, policy))
                if REMARKS not in hint:
                    sentry.annotate(event)
                return event
            _add_request(event, exchange.request(), hint.get(_OFFERED) or {})
            _name(event, exchange)
            with contained("breadcrumbs"):
                crumbs = to_breadcrumbs(exchange.trail or (), event, policy)
                crumbs += log_breadcrumbs(exchange.logs or (), policy)
                sentry.add_breadcrumbs(event, crumbs)
            sentry.mark_in_app(event)
            return self._shown(policy.clean_error(event, exchange.secrets(policy)))
        self._stats.add("lost.internal_sdk_error")
        return None

    def _policy(self) -> Policy:
        return sentry.policy(self._settings)

    def _link(self, event: Any, context: SpanContext, exchange: Exchange | None) -> None:
        linked: Data = {
            "trace_id": trace_hex(context.trace_id),
            "span_id": span_hex(context.span_id),
        }
        root = exchange.root if exchange is not None else None
        if root is not None and root.context.span_id == context.span_id:
            if root.parent is not None:
                linked["parent_span_id"] = span_hex(root.parent.span_id)
            linked["op"] = to_op(Reading(root)) or "function"
        dsc = context_of(self._decisions, context.trace_id, exchange, self._policy())
        if dsc is not None:
            linked["dynamic_sampling_context"] = dsc
        event.setdefault("contexts", {})["trace"] = linked

    def _is_known(self, event: Any, error: BaseException | None) -> bool:
        """Whether the event tells of an exception or a failed lifespan that has its own event."""
        logger, entry = event.get("logger"), event.get("logentry") or {}
        if is_own_noise(logger) or is_server_text(logger, entry.get("formatted")):
            return True
        if error is not None:
            exchange = _exchange_of(logger)
            return self._issues.is_ignored(error) or not self._ledger.claim(error, exchange)
        return self._issues.lifespan_failed and logger in SERVER_LOGGERS


def _exchange_of(logger: object) -> Exchange | None:
    """Whose work an event is of. What asyncio logs comes whenever an object is freed, and a server
    may log in what is left of the context of a request before."""
    exchange = current_exchange.get()
    if exchange is None or logger == "asyncio":
        return None
    return None if exchange.finished and logger in SERVER_LOGGERS else exchange


def _secrets(event: Any, exchange: Exchange, policy: Policy) -> frozenset[str]:
    """What must not be in the data that scopes have added to a transaction, if they have."""
    # sentry-sdk's own integration adds `sys.argv`, which is older than the request.
    of_scopes = event.keys() & _OF_SCOPES
    is_bare = not of_scopes or (of_scopes == {"extra"} and list(event["extra"]) == ["sys.argv"])
    if is_bare and event["contexts"].keys() <= _OF_BRIDGE:
        return frozenset()
    return policy.secrets_of(exchange.request(), exchange.sent_request)


_OF_SCOPES = frozenset({"tags", "extra", "user", "breadcrumbs"})
_OF_BRIDGE = frozenset(
    {
        *("trace", "otel", "response", "profile", "runtime", "os"),
        *("cloud_resource", "container", "kubernetes"),
    }
)


_OFFERED = "otel_sentry_asgi.offered"
"""In a hint: what of the request the processors of the application's scopes have been shown."""


def _add_request(
    event: Any, request: Data | None, offered: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Put our request in place of what others have, but for what they were *offered* and have taken
    out or written over."""
    if request is None:
        return
    given = event.get("request") or {}
    event["request"] = {**given, **_merged(request, given, offered)}


def _merged(ours: Data, given: Data, offered: Mapping[str, Any]) -> Data:
    kept: Data = {}
    for key, value in ours.items():
        if key not in offered:
            kept[key] = value
        elif key in given:
            left, seen = given[key], offered[key]
            if isinstance(value, dict) and isinstance(left, dict) and isinstance(seen, dict):
                kept[key] = _merged(value, left, seen)
            else:
                kept[key] = left if isinstance(left, (str, list)) and left != seen else value
    return kept


def _add_contexts(event: Any, contexts: dict[str, Data]) -> None:
    """Add what the resource says to an event, as its transaction has it."""
    present = event.setdefault("contexts", {})
    for key, context in contexts.items():
        present.setdefault(key, dict(context))


def _is_by_integration(event: Any) -> bool:
    """Whether one of sentry-sdk's integrations reports what its framework answers. Litestar's says
    `handled: false` of that, too; of the others, it is what leaves the application."""
    values = (event.get("exception") or {}).get("values")
    mechanism = (values[-1].get("mechanism") if values else None) or {}
    kind = mechanism.get("type")
    return kind == "litestar" or (
        kind in ("starlette", "fastapi") and bool(mechanism.get("handled"))
    )


def _say(event: Any, **mechanism: object) -> None:
    """Put it into the mechanisms of the exceptions."""
    for value in (event.get("exception") or {}).get("values") or ():
        value["mechanism"] = {**(value.get("mechanism") or {}), **mechanism}


def _name(event: Any, exchange: Exchange) -> None:
    """The name that the request's transaction has, unless the application set one."""
    by_hand = sentry_scopes.name_set_by_hand(exchange.current_scope)
    if by_hand is not None:
        event["transaction"] = by_hand
        return
    facts = sentry_scopes.facts_of(exchange)
    if exchange.root is not None:
        name, source = transaction_name(exchange.root, facts=facts)
    else:
        name, source = _name_of_request(exchange, facts)
    event["transaction"], event["transaction_info"] = name, {"source": source}


def _name_of_request(exchange: Exchange, facts: RequestFacts) -> tuple[str, str]:
    """The name of a request that OTel does not sample, as its transaction would have had it."""
    request = exchange.request() or {}
    method = "" if facts.websocket else f"{request.get('method', 'HTTP')} "
    if facts.route:
        return f"{method}{facts.route}", "route"
    path = str((exchange.asgi_scope or {}).get("path") or "/")
    return f"{method}{path}", "url"
