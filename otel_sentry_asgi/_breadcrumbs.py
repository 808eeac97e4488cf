"""What OTel saw before an error, as breadcrumbs: ended spans and their events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from otel_sentry_asgi._ids import trace_hex
from otel_sentry_asgi._model import Data, SpanPayload
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._translate.error import MESSAGE, TYPE
from otel_sentry_asgi._translate.events import to_crumb
from otel_sentry_asgi._translate.span import is_asgi_event, seconds, to_span


def to_breadcrumbs(trail: Iterable[ReadableSpan], error: Any, policy: Policy) -> list[Data]:
    """One crumb for each ended span of the trace of *error* and for each event on it, cleaned.

    Exceptions are among them (one that left an inner span and was dealt with is no issue), but not
    the one that *error* tells of; nor requests of which sentry-sdk tells, with their status.
    """
    trace_id = ((error.get("contexts") or {}).get("trace") or {}).get("trace_id")
    own = {
        (value.get("type"), value.get("value"))
        for value in (error.get("exception") or {}).get("values") or ()
    }
    told = Counter(_requests(error))
    crumbs: list[Data] = []
    for span in list(trail):
        if trace_hex(span.context.trace_id) != trace_id or is_asgi_event(span):
            continue
        crumbs.extend(_events(span, own, policy))
        if span.parent is not None and not span.parent.is_remote:
            payload = to_span(span)
            if told[payload["description"]] > 0:
                told[payload["description"]] -= 1
            else:
                crumbs.append(_span(span, payload, policy))
    return crumbs


def _requests(error: Any) -> Iterator[str]:
    """The requests of which sentry-sdk's integrations have left a breadcrumb, in the words that
    describe the spans of them."""
    present = error.get("breadcrumbs") or {}
    for crumb in present.get("values", ()) if isinstance(present, Mapping) else present:
        if crumb.get("category") == "httplib" and isinstance(data := crumb.get("data"), Mapping):
            yield f"{data.get('http.method')} {data.get('url')}"


def _span(span: ReadableSpan, payload: SpanPayload, policy: Policy) -> Data:
    payload = policy.clean_span(payload)
    failed = span.status.status_code is StatusCode.ERROR
    return {
        "type": "default",
        "category": payload.get("op", "span"),
        "level": "error" if failed else "info",
        "message": payload["description"],
        "timestamp": payload["timestamp"],
        "data": {"span_id": payload["span_id"], "status": payload["status"]},
    }


def _events(span: ReadableSpan, own: set[tuple[Any, Any]], policy: Policy) -> Iterator[Data]:
    for event in span.events:
        if event.name == "exception":
            attributes = event.attributes or {}
            kind, message = str(attributes.get(TYPE, "")), str(attributes.get(MESSAGE, ""))
            if (kind.rpartition(".")[2], message) in own:
                continue
            yield {
                "type": "default",
                "timestamp": seconds(event.timestamp),
                "category": "exception",
                "level": "error",
                "message": f"{kind}: {message}",
            }
        else:
            yield policy.clean_crumb(to_crumb(event))
