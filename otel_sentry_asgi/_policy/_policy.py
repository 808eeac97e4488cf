"""The one choke point: a payload leaves only as `Clean`, and only `Policy.clean` makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, final

from otel_sentry_asgi._model import Data, ErrorEvent, SpanPayload, Transaction
from otel_sentry_asgi._policy._attributes import PREFIXES, Category, category_of
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    SECRET_HEADERS,
    KeyValueRule,
    clean_query,
    clean_url,
    fold,
    is_sensitive,
    without_credentials,
)
from otel_sentry_asgi._policy._sql import without_literals
from otel_sentry_asgi._policy._values import clean_strings, clean_vars, secrets_in

P = TypeVar("P")

_DROP = object()
_NO_SECRETS: frozenset[str] = frozenset()


@final
@dataclass(frozen=True, slots=True)
class Clean(Generic[P]):
    """A payload that a policy has been over. Only `Policy` makes one."""

    payload: P


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may leave, resolved from the Sentry client's options; the default is the most private.

    `clean` is idempotent: what has been cleaned is not changed by cleaning it again.
    """

    user_info: bool = False
    cookies: KeyValueRule = NOTHING
    headers: KeyValueRule = IMPERSONAL
    query: KeyValueRule = IMPERSONAL
    database_query_data: bool = False
    queues: bool = False
    graphql_document: bool = False
    graphql_variables: bool = False
    gen_ai_inputs: bool = False
    gen_ai_outputs: bool = False
    bodies: bool = True
    frame_variables: KeyValueRule = INSENSITIVE
    terms: tuple[str, ...] = ()

    def clean(self, transaction: Transaction) -> Clean[Transaction]:
        """The transaction without what the policy forbids. Changes the payload in place."""
        contexts = transaction.get("contexts", {})
        trace = contexts.get("trace", {})
        if "data" in trace:
            trace["data"] = self.attributes(trace["data"])
        self._clean_links(trace)
        if "otel" in contexts:
            contexts["otel"] = {"resource": self.attributes(contexts["otel"].get("resource", {}))}
        for span in transaction.get("spans", ()):
            self._clean_span(span)
        if "request" in transaction:
            transaction["request"] = self.request(transaction["request"])
        if "transaction" in transaction:
            transaction["transaction"] = self.text(transaction["transaction"])
        return Clean(transaction)

    def clean_error(
        self, event: ErrorEvent, secrets: frozenset[str] = _NO_SECRETS
    ) -> Clean[ErrorEvent]:
        """The error without what the policy forbids; *secrets* (from `secrets_of`) are taken out
        of every text in it, wherever they got to. Changes the event in place."""
        if "request" in event:
            event["request"] = self.request(event["request"])
        trace = event.get("contexts", {}).get("trace", {})
        if trace.get("data"):
            trace["data"] = self.attributes(trace["data"])
        for stacktrace in _stacktraces(event):
            for frame in stacktrace.get("frames") or ():
                self._clean_frame(frame)
        for crumb in _values(event.get("breadcrumbs")):
            if isinstance(crumb.get("data"), dict):
                crumb["data"] = self.attributes(crumb["data"])
        texts = cast("Data", event)
        for key in ("exception", "logentry", "breadcrumbs", "extra", "message", "threads"):
            if key in texts:
                texts[key] = clean_strings(texts[key], secrets)
        return Clean(event)

    def request(self, request: Data) -> Data:
        """A cleaned copy of Sentry's request interface."""
        cleaned = dict(request)
        if isinstance(url := cleaned.get("url"), str):
            base, _, query = clean_url(url, self.query, self.terms).partition("?")
            cleaned["url"] = base
            if query and not cleaned.get("query_string"):
                cleaned["query_string"] = query
        if isinstance(query_string := cleaned.get("query_string"), str):
            cleaned["query_string"] = clean_query(query_string, self.query, self.terms)
        if isinstance(headers := cleaned.get("headers"), Mapping):
            cleaned["headers"] = self._request_headers(headers)
        if isinstance(cookies := cleaned.get("cookies"), Mapping):
            cleaned["cookies"] = self.cookies.clean(cookies, self.terms)
        if not self.user_info and isinstance(env := cleaned.get("env"), Mapping):
            cleaned["env"] = {key: env[key] for key in env if key != "REMOTE_ADDR"}
        if "data" in cleaned:
            cleaned["data"] = self._body(cleaned["data"]) if self.bodies else None
        return {key: value for key, value in cleaned.items() if value not in (None, "", {})}

    def clean_span(self, span: SpanPayload) -> SpanPayload:
        """A span without what the policy forbids. Changes the payload in place."""
        self._clean_span(span)
        return span

    def attributes(self, attributes: Mapping[str, Any]) -> Data:
        """A cleaned copy of OTel attributes (of a span, a resource, a link)."""
        cleaned: Data = {}
        for key, value in attributes.items():
            kept = self._attribute(key, value, attributes)
            if kept is not _DROP:
                cleaned[key] = kept
        return cleaned

    def text(self, text: str) -> str:
        """A name or description: no credentials, no query or fragment of a URL."""
        if "://" not in text and "?" not in text:
            return text
        return " ".join(self._word(word) for word in text.split(" "))

    def secrets_of(self, request: Data | None) -> frozenset[str]:
        """The values of *request* (uncleaned) that the policy forbids, to be searched for
        elsewhere."""
        if request is None:
            return _NO_SECRETS
        return secrets_in(request, self.request(request))

    def _word(self, word: str) -> str:
        if "://" in word or word.startswith("/"):
            return without_credentials(word.partition("?")[0].partition("#")[0])
        return word

    def _clean_span(self, span: SpanPayload) -> None:
        raw = span.get("data", {})
        cleaned = self.attributes(raw)
        description = span.get("description", "")
        for key in ("db.query.text", "db.statement"):
            if description and raw.get(key) == description and key in cleaned:
                description = str(cleaned[key])
                break
        else:
            if span.get("op") != "db":
                description = self.text(description)
        span["data"] = cleaned
        span["description"] = description
        self._clean_links(span)

    def _clean_links(self, payload: Mapping[str, Any]) -> None:
        for link in payload.get("links") or ():
            link["attributes"] = self.attributes(link.get("attributes") or {})

    def _request_headers(self, headers: Mapping[str, Any]) -> Data:
        cleaned = {}
        for name, value in headers.items():
            kept = self._header(name, value)
            if kept is not _DROP:
                cleaned[name] = kept
        return cleaned

    def _header(self, name: str, value: Any) -> Any:
        if self.headers.mode == "off":
            return _DROP
        folded = fold(name)
        if folded in SECRET_HEADERS or not self.headers.allows(folded, self.terms):
            return FILTERED
        if folded in ("referer", "location", "content-location", "origin"):
            return _each(value, lambda text: clean_url(text, self.query, self.terms))
        return value

    def _attribute(self, key: str, value: Any, attributes: Mapping[str, Any]) -> Any:
        category = category_of(key)
        if category is Category.KEEP:
            return value
        if category is Category.TERMS:
            lowered = key.lower()
            return FILTERED if is_sensitive(lowered, fold(key), self.terms) else value
        if category is Category.HEADER:
            return self._header(_after_prefix(key), value)
        if category is Category.STATEMENT:
            if self.database_query_data:
                return value
            system = attributes.get("db.system.name") or attributes.get("db.system")
            return _each(value, lambda text: without_literals(text, str(system or "")))
        if category is Category.PEER:
            kept = self.user_info or attributes.get("otel.kind") != "SERVER"
            return value if kept else _DROP
        if category is Category.SECRET:
            return FILTERED
        if category in _URL_CATEGORIES:
            return self._url_part(category, key, value)
        return value if self._switch(category) else _DROP

    def _url_part(self, category: Category, key: str, value: Any) -> Any:
        if category is Category.FRAGMENT:
            return value if self.user_info and self.query.mode != "off" else _DROP
        if category is Category.QUERY:
            if self.query.mode == "off":
                return _DROP
            if key.startswith("url.path.parameter."):
                allowed = self.query.allows(_after_prefix(key), self.terms)
                return value if allowed else FILTERED
            return _each(value, lambda text: clean_query(text, self.query, self.terms))
        return _each(value, lambda text: clean_url(text, self.query, self.terms))

    def _switch(self, category: Category) -> bool:
        return {
            Category.USER: self.user_info,
            Category.TEXT: self.user_info,
            Category.DATABASE: self.database_query_data,
            Category.QUEUE: self.queues,
            Category.GRAPHQL_DOCUMENT: self.graphql_document,
            Category.GRAPHQL_VARIABLES: self.graphql_variables,
            Category.GEN_AI_INPUT: self.gen_ai_inputs,
            Category.GEN_AI_OUTPUT: self.gen_ai_outputs,
            Category.BODY: self.bodies and self.user_info,
        }.get(category, False)

    def _clean_frame(self, frame: Data) -> None:
        variables = frame.get("vars")
        if not isinstance(variables, dict):
            return
        if self.frame_variables.mode == "off":
            del frame["vars"]
        elif not self.user_info and not frame.get("in_app", True):
            # Middleware and server frames hold the ASGI scope, raw headers and cookies.
            del frame["vars"]
        else:
            frame["vars"] = clean_vars(variables, self._allows_variable, self.headers, self.terms)

    def _allows_variable(self, name: str) -> bool:
        return self.frame_variables.allows(name, self.terms)

    def _body(self, body: Any) -> Any:
        if isinstance(body, Mapping):
            return {
                key: self._body(value)
                if not is_sensitive(str(key).lower(), fold(str(key)), self.terms)
                else FILTERED
                for key, value in body.items()
            }
        return [self._body(item) for item in body] if isinstance(body, list) else body


_URL_CATEGORIES = frozenset({Category.URL, Category.PATH, Category.QUERY, Category.FRAGMENT})


def _each(value: Any, clean: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_each(item, clean) for item in value]
    return value


def _after_prefix(key: str) -> str:
    for prefix, _ in PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


def _values(interface: Any) -> list[Data]:
    """The `values` of an interface that may come as a bare list."""
    values = interface.get("values") if isinstance(interface, Mapping) else interface
    return [value for value in values or () if isinstance(value, dict)]


def _stacktraces(event: ErrorEvent) -> list[Data]:
    holders = [*_values(event.get("exception")), *_values(cast("Data", event).get("threads"))]
    found = [holder["stacktrace"] for holder in holders if holder.get("stacktrace")]
    if stacktrace := cast("Data", event).get("stacktrace"):
        found.append(stacktrace)
    return found
