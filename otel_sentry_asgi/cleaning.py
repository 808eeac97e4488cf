"""The policy for the other legs: wrappers for OTel exporters.

With them what the OTLP backend gets is cleaned like what Sentry gets:

    exporter = CleaningSpanExporter(OTLPSpanExporter())
    provider.add_span_processor(BatchSpanProcessor(exporter))

The application's spans and records are not touched: what is exported is a copy, so each leg sees
its own. The policy is that of the Sentry client that is active when they are exported; without a
client it is the most private one. `clean_log` does it for logs of sentry-sdk's own.

Relied upon: OTLP encoders read spans through `ReadableSpan`'s properties, and records as
`log_record` with `resource` beside it (1.45) or in it (1.30).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from otel_sentry_asgi import _active, sentry
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._logs import hides_body
from otel_sentry_asgi._policy import FILTERED, Policy
from otel_sentry_asgi._scope import current_secrets
from otel_sentry_asgi._semconv import KIND, STATUS_MESSAGE
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._translate.attributes import to_json_values

try:
    from opentelemetry.sdk._logs.export import LogRecordExporter
except ImportError:  # OTel 1.30
    from opentelemetry.sdk._logs.export import LogExporter as LogRecordExporter

__all__ = ["CleaningLogExporter", "CleaningSpanExporter", "clean_log"]

T = TypeVar("T")

_STACKTRACE: Final = "exception.stacktrace"
_INSTANCE: Final = "service.instance.id"


class CleaningSpanExporter(SpanExporter):
    """Gives cleaned copies of spans to another exporter.

    A span that cannot be cleaned is not exported; that is counted as `lost.cleaning`.
    """

    def __init__(self, exporter: SpanExporter, settings: Settings | None = None) -> None:
        """*settings*: by default those of `instrument()`."""
        self._exporter = exporter
        self._settings = settings

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export what the policy leaves of *spans*."""
        return self._exporter.export(_each(spans, clean_span, self._settings))

    def shutdown(self) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the other exporter."""
        return self._exporter.force_flush(timeout_millis)


class CleaningLogExporter(LogRecordExporter):
    """The same for log records: attributes, body, name of the event, resource."""

    def __init__(self, exporter: Any, settings: Settings | None = None) -> None:
        """*settings*: by default those of `instrument()`."""
        self._exporter = exporter
        self._settings = settings

    def export(self, batch: Sequence[Any]) -> Any:
        """Export what the policy leaves of the records."""
        return self._exporter.export(_each(batch, clean_record, self._settings))

    def shutdown(self) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the other exporter; older ones cannot be."""
        flush = getattr(self._exporter, "force_flush", None)
        return True if flush is None else bool(flush(timeout_millis))


def clean_log(log: Any, hint: Any) -> Any:
    """For `sentry_sdk.init(before_send_log=clean_log)`: a log of sentry-sdk's own without what the
    policy forbids, and without secrets of its request. Changes the log in place.

    In a callback of your own: `return clean_log(log, hint)`. A log that cannot be cleaned is not
    sent: None.
    """
    with contained("cleaning"):
        policy = sentry.policy(_settings(None))
        secrets = current_secrets(policy)
        attributes = policy.attributes(to_json_values(log.get("attributes") or {}))
        log["attributes"] = policy.without(attributes, secrets)
        log["body"] = policy.without(log.get("body"), secrets)
        return log
    return None


def _settings(given: Settings | None) -> Settings:
    bridge = _active.active()
    return given or (bridge.settings if bridge is not None else _DEFAULTS)


def _each(items: Sequence[T], clean: Callable[[T, Policy], T], given: Settings | None) -> list[T]:
    """What *clean* makes of each of *items*."""
    bridge = _active.active()
    policy = sentry.policy(_settings(given))
    cleaned: list[T] = []
    for item in items:
        with contained("cleaning"):
            cleaned.append(clean(item, policy))
            continue
        if bridge is not None:
            bridge.stats.add("lost.cleaning")
    return cleaned


_DEFAULTS: Final = Settings()


class _CleanSpan(ReadableSpan):
    """A copy that counts as dropped what the original does."""

    def __init__(self, span: ReadableSpan, **parts: Any) -> None:
        super().__init__(
            context=span.context,
            parent=span.parent,
            kind=span.kind,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
            **parts,
        )
        self._dropped = (span.dropped_attributes, span.dropped_events, span.dropped_links)

    @property
    def dropped_attributes(self) -> int:
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        return self._dropped[2]


def clean_span(span: ReadableSpan, policy: Policy) -> ReadableSpan:
    """A copy of *span* without what the policy forbids."""
    raw = span.attributes or {}
    around = {**raw, KIND: span.kind.name.lower()}
    status = span.status
    if status.description:
        told = policy.attributes({STATUS_MESSAGE: status.description})
        status = Status(status.status_code, told.get(STATUS_MESSAGE))
    return _CleanSpan(
        span,
        name=policy.label(span.name, raw),
        attributes=_attributes(raw, policy, around),
        events=tuple(
            Event(policy.text(event.name), _attributes(event.attributes, policy), event.timestamp)
            for event in span.events
        ),
        links=tuple(
            Link(link.context, _attributes(link.attributes, policy)) for link in span.links
        ),
        status=status,
        resource=_resource(span.resource, policy),
    )


def clean_record(record: Any, policy: Policy) -> Any:
    """A copy of a log record, as exporters get it, without what the policy forbids."""
    inner = copy.copy(record.log_record)
    dropped = getattr(inner.attributes, "dropped", 0)
    inner.attributes = BoundedAttributes(
        attributes=_attributes(inner.attributes, policy), immutable=False
    )
    inner.attributes.dropped = dropped
    if hides_body(inner, policy):
        inner.body = FILTERED
    else:
        is_raw = isinstance(inner.body, bytes)
        inner.body = policy.body(inner.body if is_raw else _texts(inner.body))
    if isinstance(name := getattr(inner, "event_name", None), str):
        inner.event_name = policy.text(name)
    if getattr(inner, "exception", None) is not None:
        inner.exception = None  # Its text is among the attributes.
    if dataclasses.is_dataclass(record):
        resource = _resource(getattr(record, "resource", None), policy)
        return dataclasses.replace(record, log_record=inner, resource=resource)  # type: ignore[type-var]
    inner.resource = _resource(inner.resource, policy)
    return type(record)(inner, record.instrumentation_scope)


def _resource(resource: Resource | None, policy: Policy) -> Resource:
    """A random number names the instance: noise in an issue, needed by metrics and backends."""
    if resource is None:
        return Resource({})
    attributes = _attributes(resource.attributes, policy)
    if _INSTANCE in resource.attributes:
        attributes[_INSTANCE] = resource.attributes[_INSTANCE]
    return Resource(attributes, resource.schema_url)


def _attributes(
    raw: Mapping[str, Any] | None, policy: Policy, around: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Cleaned attributes. What is nested is judged by its keys joined by dots."""
    raw = raw or {}
    around = raw if around is None else around
    cleaned = {}
    for key, value in raw.items():
        for kept in _kept(key, value, policy, around):
            cleaned[key] = kept
    if policy.user_info and isinstance(text := raw.get(_STACKTRACE), str):
        # Sentry's errors have frames instead; here there is nothing else.
        cleaned[_STACKTRACE] = policy.free_text(text)
    return cleaned


def _kept(key: str, value: Any, policy: Policy, around: Mapping[str, Any]) -> Iterator[Any]:
    """What is left of a value: one value, or none."""
    if isinstance(value, Mapping):
        inner = {
            name: list(_kept(f"{key}.{name}", item, policy, around)) for name, item in value.items()
        }
        yield {name: kept[0] for name, kept in inner.items() if kept}
    elif isinstance(value, (list, tuple)) and any(
        isinstance(one, (Mapping, list, tuple)) for one in value
    ):
        yield [kept for one in value for kept in _kept(key, one, policy, around)]
    else:
        texts = _texts(value)
        for kept in policy.attributes({key: texts}, around).values():
            yield value if kept == texts else kept


def _texts(value: Any) -> Any:
    """*value* with texts for the bytes in it, which no rule is made for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {key: _texts(item) for key, item in value.items()}
    return type(value)(map(_texts, value)) if isinstance(value, (list, tuple)) else value
