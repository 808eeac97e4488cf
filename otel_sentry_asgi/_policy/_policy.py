"""The one choke point: a payload leaves only as `Clean`, and only `Policy.clean` makes one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast, final

from otel_sentry_asgi._model import Data, ErrorEvent, SpanPayload, Transaction
from otel_sentry_asgi._policy._attributes import PREFIXES, Category, category_of
from otel_sentry_asgi._policy._rules import (
    ADDRESS_HEADER_TERMS,
    FILTERED,
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    SECRET_HEADER_TERMS,
    SECRET_HEADERS,
    URL_HEADERS,
    KeyValueRule,
    clean_query,
    clean_url,
    fold,
    holds_term,
    is_sensitive,
    without_credentials,
)
from otel_sentry_asgi._policy._sql import is_command, without_literals
from otel_sentry_asgi._policy._values import clean_strings, clean_vars, secrets_in, text_cleaner
from otel_sentry_asgi._semconv import KIND

P = TypeVar("P")

RESOURCE_CONTEXTS: Final = ("cloud_resource", "container", "kubernetes")
"""Contexts whose keys are names of resource attributes."""

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
        raw = trace.get("data", {})
        if "transaction" in transaction:
            transaction["transaction"] = self._label(transaction["transaction"], raw)
        self._clean_sampling_context(trace, raw)
        if "data" in trace:
            trace["data"] = self.attributes(raw)
        self._clean_links(trace)
        self._clean_resource(contexts)
        self._clean_tags(cast("Data", transaction))
        for crumb in _values(transaction.get("breadcrumbs")):
            self.clean_crumb(crumb)
        for span in transaction.get("spans", ()):
            self._clean_span(span)
        if "request" in transaction:
            transaction["request"] = self.request(transaction["request"])
        return Clean(transaction)

    def clean_error(
        self, event: ErrorEvent, secrets: frozenset[str] = _NO_SECRETS
    ) -> Clean[ErrorEvent]:
        """The error without what the policy forbids; *secrets* (from `secrets_of`) are taken out
        of every text in it, wherever they got to. Changes the event in place."""
        if "request" in event:
            event["request"] = self.request(event["request"])
        trace = event.get("contexts", {}).get("trace", {})
        raw = trace.get("data") or {}
        if event.get("transaction"):
            event["transaction"] = self._label(event["transaction"], raw)
        self._clean_sampling_context(trace, raw)
        if raw:
            trace["data"] = self.attributes(raw)
        for stacktrace in _stacktraces(event):
            for frame in stacktrace.get("frames") or ():
                self._clean_frame(frame)
        self._clean_resource(event.get("contexts", {}))
        for crumb in _values(event.get("breadcrumbs")):
            self.clean_crumb(crumb)
        texts = cast("Data", event)
        clean = text_cleaner(secrets, self.query, self.terms)
        for key in ("exception", "logentry", "breadcrumbs", "extra", "message", "threads"):
            if key in texts:
                texts[key] = clean_strings(texts[key], clean)
        return Clean(event)

    def request(self, request: Data) -> Data:
        """A cleaned copy of Sentry's request interface. What has not the form that our own has
        is left out."""
        cleaned = {key: request[key] for key in request if key in ("method", "url")}
        query = request.get("query_string")
        if isinstance(url := cleaned.get("url"), str):
            cleaned["url"], _, own = clean_url(url, self.query, self.terms).partition("?")
            query = query or own
        if isinstance(query, str):
            cleaned["query_string"] = clean_query(query, self.query, self.terms)
        if isinstance(headers := request.get("headers"), Mapping):
            cleaned["headers"] = self._request_headers(headers)
        if isinstance(cookies := request.get("cookies"), Mapping):
            cleaned["cookies"] = self.cookies.clean(cookies, self.terms)
        if isinstance(env := request.get("env"), Mapping):
            kept = (key for key in env if self.user_info or key != "REMOTE_ADDR")
            cleaned["env"] = {key: env[key] for key in kept}
        if self.bodies:
            cleaned["data"] = self._body(request.get("data"))
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
        if not any(sign in text for sign in ("//", "?", "#")):
            return text
        plain = _URL_IN_NAME.sub(lambda match: _plain_url(match.group()), text)
        return _CREDENTIALS.sub("//", plain)

    def secrets_of(self, request: Data | None) -> frozenset[str]:
        """The values of *request* (uncleaned) that the policy forbids, to be searched for
        elsewhere."""
        if request is None:
            return _NO_SECRETS
        return secrets_in(request, self.request(request))

    def _label(self, text: str, attributes: Mapping[str, Any]) -> str:
        """The name or description of something with these *attributes* (uncleaned): like `text`,
        and no literals of a statement."""
        system = _system_of(attributes)
        statements = [attributes.get(key) for key in ("db.query.text", "db.statement")]
        if text and any(isinstance(one, str) and one.startswith(text) for one in statements):
            return text if self.database_query_data else without_literals(text, system)
        text = self.text(text)
        if self.database_query_data or not system or is_command(system):
            return text
        return without_literals(text, system)

    def _clean_sampling_context(
        self, trace: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        context = trace.get("dynamic_sampling_context")
        if context and "transaction" in context:
            context["transaction"] = self._label(context["transaction"], attributes)

    def _clean_span(self, span: SpanPayload) -> None:
        raw = span.get("data", {})
        span["description"] = self._label(span.get("description", ""), raw)
        span["data"] = self.attributes(raw)
        self._clean_links(span)
        self._clean_tags(cast("Data", span))

    def _clean_resource(self, contexts: Data) -> None:
        """The contexts that hold attributes of the resource."""
        for key in RESOURCE_CONTEXTS:
            if key in contexts:
                contexts[key] = self.attributes(contexts[key])
        if "otel" in contexts:
            contexts["otel"] = {"resource": self.attributes(contexts["otel"].get("resource", {}))}

    def _clean_tags(self, payload: Data) -> None:
        """Tags that came as attributes: the application chose them, but for its own terms."""
        for key in payload.get("tags") or ():
            if holds_term(key, self.terms):
                payload["tags"][key] = FILTERED

    def clean_crumb(self, crumb: Data) -> Data:
        """A breadcrumb without what the policy forbids. Changes it in place."""
        raw = crumb.get("data")
        raw = raw if isinstance(raw, dict) else {}
        if raw:
            crumb["data"] = self.attributes(raw)
        message = crumb.get("message")
        is_statement = crumb.get("category") == "query" and isinstance(message, str)
        if is_statement and not self.database_query_data:
            crumb["message"] = without_literals(str(message), _system_of(raw))
        elif crumb.get("category") == "subprocess" and isinstance(message, str):
            # A command line: the program may leave, its arguments may hold anything.
            crumb["message"] = message.partition(" ")[0]
        elif crumb.get("category") == "event" and isinstance(message, str):
            crumb["message"] = self.text(message)
        return crumb

    def _clean_links(self, payload: Mapping[str, Any]) -> None:
        for link in payload.get("links") or ():
            if "attributes" in link:
                link["attributes"] = self.attributes(link["attributes"] or {})

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
        # Also the single cookies of `http.request.header.cookie.<name>`.
        if folded.partition(".")[0] in SECRET_HEADERS or not self.headers.allows(
            folded, self.terms
        ):
            return FILTERED
        if any(term in folded for term in SECRET_HEADER_TERMS):
            return FILTERED
        if not self.user_info and any(term in folded for term in ADDRESS_HEADER_TERMS):
            return FILTERED
        if folded in URL_HEADERS:
            return _each(value, lambda text: clean_url(text, self.query, self.terms))
        return self._urls_in(value)

    def _urls_in(self, value: Any) -> Any:
        """The value of a key that says nothing, with the URLs in its text cleaned."""
        return _each(value, text_cleaner(_NO_SECRETS, self.query, self.terms))

    def _attribute(self, key: str, value: Any, attributes: Mapping[str, Any]) -> Any:
        category = category_of(key)
        if category is not Category.DROP and holds_term(key, self.terms):
            return FILTERED
        if category is Category.KEEP:
            return value
        if category is Category.TERMS:
            return FILTERED if is_sensitive(key) else self._urls_in(value)
        if category is Category.AGENT:
            return self._header("user-agent", value)
        if category is Category.HEADER:
            return self._header(_after_prefix(key), value)
        if category is Category.STATEMENT:
            if self.database_query_data:
                return value
            system = _system_of(attributes)
            return _each(value, lambda text: without_literals(text, system))
        if category is Category.PEER:
            kept = self.user_info or attributes.get(KIND) != "server"
            return value if kept else _DROP
        if category is Category.SECRET:
            return FILTERED
        if category in _URL_CATEGORIES:
            return self._url_part(category, key, value)
        if not self._switch(category):
            return _DROP
        name = _after_prefix(key)
        return FILTERED if name != key and is_sensitive(name) else value

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
        """A parsed body without the values of sensitive keys; a text has no keys to judge by."""
        if isinstance(body, Mapping):
            return {
                key: FILTERED if is_sensitive(str(key), self.terms) else self._body_item(value)
                for key, value in body.items()
            }
        if isinstance(body, (str, bytes)):
            return FILTERED if body else None
        return self._body_item(body)

    def _body_item(self, item: Any) -> Any:
        if isinstance(item, Mapping):
            return self._body(item)
        return [self._body_item(one) for one in item] if isinstance(item, (list, tuple)) else item


_URL_CATEGORIES = frozenset({Category.URL, Category.PATH, Category.QUERY, Category.FRAGMENT})


# A URL with its scheme, or a path with a query or fragment.
_URL_IN_NAME: Final = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://\S*|(?<!\S)/[^\s?#]*[?#]\S*"
)
_CREDENTIALS: Final = re.compile(r"//[^/\s]*@")


def _plain_url(url: str) -> str:
    return without_credentials(url).partition("?")[0].partition("#")[0]


def _system_of(attributes: Mapping[str, Any] | None) -> str:
    attributes = attributes or {}
    return str(attributes.get("db.system.name") or attributes.get("db.system") or "")


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
