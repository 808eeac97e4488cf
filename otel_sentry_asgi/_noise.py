"""Which segments and spans are noise: pure, from what the settings and the client say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from re import Pattern
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi._ids import span_hex
from otel_sentry_asgi._model import Data, SpanPayload
from otel_sentry_asgi._semconv import (
    HTTP_METHOD,
    HTTP_ROUTE,
    HTTP_STATUS,
    URL_TEMPLATE,
    number,
    text,
)
from otel_sentry_asgi._settings import SpanRule
from otel_sentry_asgi._translate.segment import RequestFacts, transaction_name
from otel_sentry_asgi._translate.span import is_local_root
from otel_sentry_asgi._translate.urls import path_of


class Noise(NamedTuple):
    """What is not sent."""

    spans: tuple[SpanRule, ...] = ()
    statuses: Collection[int] = ()
    methods: Collection[str] = ()
    paths: tuple[str | Pattern[str], ...] = ()
    orphan_clients: bool = False

    def has_segment(self, root: ReadableSpan, facts: RequestFacts, data: Data) -> bool:
        """Whether a segment with this local root is noise. *data*: its attributes under current
        names."""
        if self.orphan_clients and root.kind is SpanKind.CLIENT and is_local_root(root):
            return True
        if self.spans:
            names = (root.name, transaction_name(root, facts=facts)[0])
            if any(self._has(name, root.attributes or {}) for name in names):
                return True
        return root.kind is SpanKind.SERVER and self._has_request(facts, data)

    def _has_request(self, facts: RequestFacts, data: Data) -> bool:
        if text(data, HTTP_METHOD) in self.methods:
            return True
        if (facts.status_code or number(data, HTTP_STATUS)) in self.statuses:
            return True
        route = facts.route or text(data, HTTP_ROUTE) or text(data, URL_TEMPLATE)
        path = path_of(data)
        # `/files/{name}` is no static file, whatever is asked for.
        asked = (route,) if route and "{" in route else (path, route)
        pattern, others = _compiled(self.paths)
        return any(
            pattern.match(one) or any(rule.fullmatch(one) for rule in others)
            for one in asked
            if one
        )

    def _has(self, name: str, attributes: Mapping[str, Any]) -> bool:
        return any(_matches(rule, name, attributes) for rule in self.spans)

    def split(
        self, children: list[ReadableSpan]
    ) -> tuple[list[ReadableSpan], dict[str, str | None]]:
        """The *children* that are sent; and of the others the id, with that of the parent."""
        if not self.spans:
            return children, {}
        kept: list[ReadableSpan] = []
        ignored: dict[str, str | None] = {}
        for child in children:
            if self._has(child.name, child.attributes or {}):
                parent = child.parent
                above = span_hex(parent.span_id) if parent is not None else None
                ignored[span_hex(child.context.span_id)] = above
            else:
                kept.append(child)
        return kept, ignored


def adopt(spans: Iterable[SpanPayload], ignored: Mapping[str, str | None]) -> None:
    """Hang *spans* whose parent is *ignored* below the next above that is not."""
    for span in spans:
        parent, seen = span.get("parent_span_id"), set[str]()
        while parent is not None and parent in ignored and parent not in seen:
            seen.add(parent)
            parent = ignored[parent]
        if parent is not None:
            span["parent_span_id"] = parent


def _matches(rule: SpanRule, name: str, attributes: Mapping[str, Any]) -> bool:
    """As sentry-sdk matches its own `ignore_spans`: texts are equal, patterns match in full."""
    if not isinstance(rule, Mapping):
        return _equals(rule, name)
    wanted = rule.get("attributes") or {}
    return ("name" not in rule or _equals(rule["name"], name)) and all(
        key in attributes and _equals(value, attributes[key]) for key, value in wanted.items()
    )


def _equals(rule: Any, value: Any) -> bool:
    if isinstance(rule, Pattern):
        return isinstance(value, str) and rule.fullmatch(value) is not None
    return bool(rule == value)


@lru_cache(maxsize=8)
def _compiled(
    rules: tuple[str | Pattern[str], ...],
) -> tuple[Pattern[str], list[Pattern[str]]]:
    """The texts as one pattern, and the patterns. (`*` is what these texts have of globs.)"""
    texts = [re.escape(rule).replace(r"\*", ".*") for rule in rules if isinstance(rule, str)]
    text = "|".join(texts) if texts else "(?!)"
    return re.compile(rf"(?s:{text})\Z"), [rule for rule in rules if isinstance(rule, Pattern)]
