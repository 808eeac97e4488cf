"""The one choke point: a payload leaves only as `Clean`, and only `Policy.clean` makes one."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Final, Generic, TypeVar, cast, final

from otel_sentry_asgi._model import Data, ErrorEvent, Shared, SpanPayload, Transaction
from otel_sentry_asgi._patterns import later
from otel_sentry_asgi._policy._body import clean_body
from otel_sentry_asgi._policy._collection import Collection
from otel_sentry_asgi._policy._decide import Rule, dropped, filtered, header_rule, rule_of
from otel_sentry_asgi._policy._memo import Memo, Shapes
from otel_sentry_asgi._policy._plan import Plan, joined
from otel_sentry_asgi._policy._remarks import mark, mark_all, removed
from otel_sentry_asgi._policy._request import clean_request
from otel_sentry_asgi._policy._rules import (
    FILTERED,
    MAPPING,
    MOST_PASSES,
    clean_path_parameters,
    hide_encoded_credentials,
    is_plain,
    term_in,
    without_credentials,
    without_encoded_query,
)
from otel_sentry_asgi._policy._sql import is_command, system_of, without_literals, without_values
from otel_sentry_asgi._policy._values import (
    COOKIES,
    HEADERS,
    MOST_SECRETS,
    all_filtered,
    clean_strings,
    clean_vars,
    found_in,
    long_ones,
    secrets_in,
    text_cleaner,
    texts_in,
)

P = TypeVar("P")

_NO_SECRETS: frozenset[str] = frozenset()

_OWN_CONTEXTS: Final = frozenset({"trace", "otel", "response"})
_OWN_RESPONSE: Final = frozenset({"status_code", "body_size"})

RESOURCE_CONTEXTS: Final = frozenset({"cloud_resource", "container", "kubernetes"})
"""Contexts whose keys are names of resource attributes."""


@final
class Clean(Generic[P]):
    """A payload that a policy has been over. Only `Policy` makes one."""

    __slots__ = ("payload",)

    def __init__(self, payload: P) -> None:
        self.payload: Final[P] = payload

    def shown_to(self, callback: Callable[[Any], Any]) -> Clean[P] | None:
        """What is left once the application's own *callback* has seen it; None for nothing.

        Raises:
            TypeError: It returned neither a mapping nor None.
        """
        payload = callback(self.payload)
        if payload is None:
            return None
        if not isinstance(payload, dict):
            msg = f"on_payload must return the payload or None, not {payload!r:.100}"
            raise TypeError(msg)
        return Clean(cast("P", payload))


@final
class Policy(Collection):
    """What may leave, resolved from the Sentry client's options; the default is the most private.

    `clean` is idempotent: what has been cleaned is not changed by cleaning it again. What is
    decided about a key is decided once, so a policy is made once for each set of options.
    """

    def __post_init__(self) -> None:
        self._rules: Memo[str, Rule] = Memo(lambda key: rule_of(key, self))
        self._header_rules: Memo[str, Rule] = Memo(lambda name: header_rule(name, self))
        self._plans = Shapes(lambda keys: Plan(keys, self._rules))
        self._header_plans = Shapes(lambda names: Plan(names, self._header_rules))
        self._text = text_cleaner(_NO_SECRETS, self.query, self.terms, self._told)
        # For the program's own and what the application chose: no values by key.
        self._chosen = text_cleaner(_NO_SECRETS, self.query, self.terms)

    def clean(self, transaction: Transaction) -> Clean[Transaction]:
        """The transaction without what the policy forbids. Changes the payload in place."""
        event, notes = cast("Data", transaction), _Notes()
        contexts = event.get("contexts", {})
        self._clean_trace(event, contexts, notes)
        self._clean_resource(contexts, notes)
        for index, span in enumerate(event.get("spans", ())):
            self._clean_span(span, notes, index)
        raw = event.get("request") or {}
        request = self._request(raw, notes)
        told = not _OF_SCOPES.isdisjoint(event)
        secrets = secrets_in(raw, request) if notes.free or told else _NO_SECRETS
        self._take_out(notes, secrets)
        if told or not _OWN_CONTEXTS.issuperset(contexts):
            self.clean_scope_data(event, secrets)
        self._finish(event, raw, request, notes)
        return Clean(transaction)

    def without(self, value: Any, secrets: frozenset[str]) -> Any:
        """*value* without *secrets*, credentials of URLs and forbidden parameters in its texts."""
        return clean_strings(value, self._cleaner(secrets, value))

    def _cleaner(
        self,
        secrets: frozenset[str],
        told: Any,
        without: Container[str] = (),
        *,
        chosen: bool = False,
    ) -> Callable[[str], str]:
        """What cleans the texts in *told*, but for those below keys *without*; *chosen* by the
        application."""
        found = found_in(texts_in(told, without), secrets) if secrets else ()
        if len(found) > MOST_SECRETS:
            return all_filtered
        if not found:
            return self._chosen if chosen else self._text
        return text_cleaner(found, self.query, self.terms, str if chosen else self._told)

    def _told(self, text: str) -> str:
        """A message without what is denied in it by key, and without values of statements."""
        text = self.hide(text)
        return text if self.database_query_data else without_values(text)

    def _take_out(self, notes: _Notes, secrets: frozenset[str]) -> None:
        """Take *secrets* out of what keys without a row hold, and of messages of exceptions. Names,
        statements and the like are left: a client could change them at will. Changes the attributes
        in place."""
        clean = self._cleaner(secrets, [text for _, _, text in notes.free])
        if clean is self._text:  # Nearly always.
            return
        for attributes, keys, _ in notes.free:
            for key in keys:
                if key in attributes:
                    attributes[key] = clean_strings(attributes[key], clean)

    def clean_error(
        self, event: ErrorEvent, secrets: frozenset[str] = _NO_SECRETS
    ) -> Clean[ErrorEvent]:
        """The error without what the policy forbids; *secrets* (from `secrets_of`) are taken out
        of every text in it, wherever they got to. Changes the event in place."""
        texts, notes = cast("Data", event), _Notes()
        contexts = texts.get("contexts", {})
        self._clean_trace(texts, contexts, notes)
        self._take_out(notes, secrets)
        for stacktrace in _stacktraces(event):
            for frame in stacktrace.get("frames") or ():
                self._clean_frame(frame)
        self._clean_resource(contexts, notes)
        told = [texts.get(key) for key in _TOLD]
        clean = self._cleaner(secrets, told, _OF_CODE)
        for key in ("exception", "threads"):
            if key in texts:
                texts[key] = _clean_told(texts[key], clean, self._chosen)
        for key in ("logentry", "message"):
            if key in texts:
                texts[key] = clean_strings(texts[key], clean)
        self.clean_scope_data(event, secrets)
        raw = texts.get("request") or {}
        self._finish(texts, raw, self._request(raw, notes), notes)
        return Clean(event)

    def clean_scope_data(self, event: Any, secrets: frozenset[str] = _NO_SECRETS) -> None:
        """What Sentry's scopes put on any event: breadcrumbs, tags, extra, user, contexts.

        The application's own data stays, but for keys that its own settings name, credentials of
        URLs, and *secrets*; of the latter only long ones but in breadcrumbs, and none in the user:
        that is whom the application says. Changes the event in place.
        """
        if event.get("breadcrumbs"):
            for crumb in _values(event["breadcrumbs"]):
                self.clean_crumb(crumb)
            event["breadcrumbs"] = self.without(event["breadcrumbs"], secrets)
        parts = [event.get(part) for part in ("tags", "extra", "contexts", "fingerprint")]
        clean = self._cleaner(long_ones(secrets), parts, chosen=True)
        for part, scrubbed, cleaner in (
            ("tags", _NO_SECRETS, clean),
            ("extra", self.scrubbed, clean),
            ("user", self.scrubbed, self._chosen),
        ):
            if part in event and isinstance(event[part], MAPPING):
                event[part] = self._by_own_keys(event[part], cleaner, scrubbed)
        if "user" in event and (event["user"] or {}).get("ip_address") == FILTERED:
            del event["user"]["ip_address"]  # Sentry takes nothing but an address.
        if "fingerprint" in event:
            event["fingerprint"] = clean_strings(event["fingerprint"], clean)
        contexts = event.get("contexts") or {}
        for name, context in contexts.items():
            if not isinstance(context, MAPPING):
                contexts[name] = clean_strings(context, clean)
            elif name == "response" and not _OWN_RESPONSE.issuperset(context):
                contexts[name] = self._clean_response(context, clean)
            elif name not in _OWN_CONTEXTS:
                contexts[name] = self._by_own_keys(context, clean)

    def request(self, request: Data) -> Data:
        """A cleaned copy of Sentry's request interface. What has not the form that our own has
        is left out."""
        return self._request(request, _Notes())

    def _request(self, request: Data, notes: _Notes) -> Data:
        return clean_request(request, self, self._header_plans, self.denies, self._text, notes.meta)

    def clean_span(self, span: SpanPayload) -> SpanPayload:
        """A span without what the policy forbids. Changes the payload in place."""
        self._clean_span(span, _Notes())
        return span

    def attributes(
        self, attributes: Mapping[str, Any], around: Mapping[str, Any] | None = None
    ) -> Data:
        """A cleaned copy of OTel attributes (of a span, a resource, a link). *around* says what
        they belong to (`sentry.kind`, `db.system`), where they do not say it themselves."""
        around = attributes if around is None else around
        return self._plans[tuple(attributes)].clean(attributes, around)[0]

    def text(self, text: str) -> str:
        """A name: no credentials, no query or fragment of a URL; of those whose marks are encoded,
        and of parameters in paths, what is forbidden."""
        text = clean_path_parameters(_plain_name(text), self.query, self.terms)
        if "%" not in text:
            return text
        return _WORD.sub(
            lambda match: without_encoded_query(match.group(), self.query, self.terms),
            hide_encoded_credentials(text),
        )

    def free_text(self, text: str) -> str:
        """A message: no credentials of URLs, no forbidden parameters."""
        return self._text(text)

    def body(self, body: Any) -> Any:
        """The body of a log record: a message, or values by key."""
        if isinstance(body, str):
            return self._text(body)
        return clean_body(body, self.denies, self._text)

    def label(self, text: str, attributes: Mapping[str, Any]) -> str:
        """The name or description of something with these *attributes* (uncleaned): like `text`,
        and no literals of a statement."""
        if _OF_DATABASES.isdisjoint(attributes):
            return self.text(text)
        for key in _STATEMENTS:
            statement = attributes.get(key)
            if statement and text and isinstance(statement, str) and statement.startswith(text):
                return text if self.database_query_data else _plain_statement(text, attributes)
        text = self.text(text)
        if self.database_query_data:
            return text
        system = system_of(attributes)
        return without_literals(text, system) if system and not is_command(system) else text

    def secrets_of(self, request: Data | None, cleaned: Data | None = None) -> frozenset[str]:
        """The values of *request* (uncleaned) that the policy forbids, to be searched for
        elsewhere. *cleaned* is what it has made of the request, if that is known."""
        if request is None:
            return _NO_SECRETS
        return secrets_in(request, self.request(request) if cleaned is None else cleaned)

    def _finish(self, event: Data, raw: Data, request: Data, notes: _Notes) -> None:
        """Put the cleaned request in place, and the remarks on all that was filtered."""
        meta = notes.meta
        if "request" in event:
            event["request"] = request
        for part in ("extra", "tags"):
            if part in event:
                mark_all(meta, event[part], part)
        if "body_removed" in raw and "incoming_request" in self.bodies:
            meta.setdefault("request", {})["data"] = removed(**raw["body_removed"])
        if meta:
            event["_meta"] = {**event.get("_meta", {}), **meta}

    def _clean_trace(self, event: Data, contexts: Data, notes: _Notes) -> None:
        """Name, trace context, and the name in the sampling context."""
        trace = contexts.get("trace") or {}
        raw = trace.get("data") or {}
        if event.get("transaction"):
            event["transaction"] = self.label(event["transaction"], raw)
        if sampling := trace.get("dynamic_sampling_context"):
            trace["dynamic_sampling_context"] = self._sampling_context(sampling, raw)
        if raw:
            trace["data"] = self._noted(raw, notes, "contexts", "trace", "data")
        if "links" in trace:
            self._clean_links(trace, notes)

    def _noted(self, attributes: Mapping[str, Any], notes: _Notes, *path: str) -> Data:
        """The same as `attributes`; *path*, where remarks on them are shown."""
        plan = self._plans[tuple(attributes)]
        cleaned, filtered, text = plan.clean(attributes, attributes)
        if path:
            mark(notes.meta, filtered, *path)
        if plan.free:
            notes.free.append((cleaned, plan.free, text))
        return cleaned

    def _sampling_context(self, sampling: Data, attributes: Mapping[str, Any]) -> Data:
        """The name cleaned, and texts that callers may have written; of what they add
        (`sentry-user_id` in their baggage) nothing."""
        kept = sampling.copy()
        if not self.user_info and not _SAMPLING.issuperset(kept):
            kept = {key: value for key, value in kept.items() if key in _SAMPLING}
        release, text = kept.get("release"), joined(kept.values())
        if text is not None and type(release) is str and "@" in release:  # As in `shop@1.0`.
            kept["release"] = self._chosen(release)
            text = text.replace(release, "")
        if text is None or not is_plain(text):
            others = {key: value for key, value in kept.items() if key != "transaction"}
            kept.update(clean_strings(others, self._chosen))
        if "transaction" in kept:
            kept["transaction"] = self.label(kept["transaction"], attributes)
        return kept

    def _clean_span(self, span: SpanPayload, notes: _Notes, index: int = 0) -> None:
        raw, text = span.get("data", {}), span.get("description", "")
        if type(raw) is Shared:
            known = getattr(raw, "cleaned", None)
            if known is None or known[0] is not self or known[1] != text:
                raw.cleaned = known = (self, text, *self._described(text, raw))
            _, _, span["description"], free, (shared, filtered, held) = known
            data = shared.copy()
        else:
            span["description"], free, (data, filtered, held) = self._described(text, raw)
        span["data"] = data
        if filtered:
            mark(notes.meta, filtered, "spans", str(index), "data")
        if free:
            notes.free.append((data, free, held))
        if "tags" in span:
            self._clean_tags(cast("Data", span))
        if "links" in span:
            self._clean_links(span, notes)

    def _described(
        self, text: str, raw: Mapping[str, Any]
    ) -> tuple[str, list[str], tuple[Data, list[str], str]]:
        """The description, the free keys, and what their plan makes of the attributes."""
        plan = self._plans[tuple(raw)]
        of_plan = plan.clean(raw, raw)
        statement = raw.get("db.query.text") or raw.get("db.statement")
        cleaned = of_plan[0].get("db.query.text") or of_plan[0].get("db.statement")
        # Most spans of databases are described by their statement, which is clean by now.
        is_clean = statement == text and isinstance(cleaned, str)
        return str(cleaned) if is_clean else self.label(text, raw), plan.free, of_plan

    def _clean_resource(self, contexts: Data, notes: _Notes) -> None:
        """The contexts that hold attributes of the resource."""
        for key in RESOURCE_CONTEXTS & contexts.keys():
            contexts[key] = self.attributes(_mapping(contexts[key]))
        if "otel" in contexts:
            raw = _mapping(_mapping(contexts["otel"]).get("resource"))
            resource, filtered, _ = self._plans[tuple(raw)].clean(raw, raw)
            contexts["otel"] = {"resource": resource}
            mark(notes.meta, filtered, "contexts", "otel", "resource")

    def _clean_tags(self, payload: Data) -> None:
        """Tags that came as attributes: the application chose them, but for its own terms and what
        is in URLs."""
        tags = payload.get("tags") or {}
        for key, value in tags.items():
            tags[key] = FILTERED if term_in(key, self.terms) else self._chosen(value)

    def _clean_response(self, response: Mapping[str, Any], clean: Callable[[str], str]) -> Data:
        """Sentry's response context as the application may set it."""
        cleaned: Data = {}
        for key, value in response.items():
            if key == "headers":
                headers = {str(name): one for name, one in _mapping(value).items()}
                cleaned[key] = self._header_plans[tuple(headers)].clean(headers, headers)[0]
            elif key == "cookies":
                cleaned[key] = self.cookies.clean(_mapping(value), self.terms)
            elif key == "data":
                if "outgoing_response" in self.bodies:
                    cleaned[key] = clean_body(value, self.denies, clean)
            elif self.denies(str(key)):
                cleaned[key] = FILTERED
            else:
                cleaned[key] = clean_strings(value, clean)
        return cleaned

    def clean_crumb(self, crumb: Data) -> Data:
        """A breadcrumb without what the policy forbids. Changes it in place."""
        raw = crumb.get("data")
        raw = raw if isinstance(raw, dict) else {}
        if raw:
            # The application may have put anything there.
            crumb["data"] = self.attributes({str(key): value for key, value in raw.items()})
        message = crumb.get("message")
        is_statement = crumb.get("category") == "query" and isinstance(message, str)
        if is_statement and not self.database_query_data:
            crumb["message"] = without_literals(str(message), system_of(raw))
        elif crumb.get("category") == "subprocess" and isinstance(message, str):
            # A command line: the program may leave, its arguments may hold anything.
            crumb["message"] = message.partition(" ")[0]
        elif crumb.get("category") == "event" and isinstance(message, str):
            crumb["message"] = self.text(message)
        return crumb

    def _clean_links(self, payload: Mapping[str, Any], notes: _Notes) -> None:
        for link in payload.get("links") or ():
            if "attributes" in link:
                link["attributes"] = self._noted(link["attributes"] or {}, notes)

    def _by_own_keys(
        self,
        items: Mapping[str, Any],
        clean: Callable[[str], str],
        scrubbed: frozenset[str] = frozenset(),
    ) -> Data:
        """The application's own data: sentry-sdk sends it as it is, so only what the application
        itself names is filtered (*scrubbed*: where sentry-sdk's scrubber looks). Of a command line
        (sentry-sdk's ArgvIntegration) the program stays."""
        terms = self.terms
        if not terms and scrubbed.isdisjoint(map(str.lower, map(str, items))):
            text = joined(items.values())
            if text is not None and clean(text) == text:
                return dict(items)
        cleaned: Data = {}
        for key, value in items.items():
            name = str(key)
            if (terms and term_in(name, terms)) or (scrubbed and name.lower() in scrubbed):
                cleaned[key] = FILTERED
            elif name == "sys.argv" and isinstance(value, (list, tuple)):
                cleaned[key] = [str(one) for one in value[:1]]
            else:
                cleaned[key] = clean(value) if type(value) is str else clean_strings(value, clean)
        return cleaned

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
            frame["vars"] = clean_vars(
                variables,
                self._allows_variable,
                self.headers,
                self.terms,
                raw=self.user_info,
                denied_in={COOKIES: self._denies_cookie, HEADERS: self._denies_header},
            )

    def _denies_cookie(self, name: str) -> bool:
        return not self.cookies.allows(name, self.terms)

    def _denies_header(self, name: str) -> bool:
        return self._header_rules[name].clean in (dropped, filtered)

    def _allows_variable(self, name: str) -> bool:
        return self.frame_variables.allows(name, self.terms)


class _Notes:
    """What cleaning the parts of an event finds out: remarks for `_meta`; and of attributes that
    may hold any text the keys, and that text."""

    __slots__ = ("free", "meta")

    def __init__(self) -> None:
        self.meta: Data = {}
        self.free: list[tuple[Data, list[str], str]] = []


_OF_SCOPES: Final = frozenset({"breadcrumbs", "tags", "extra", "user"})


_SAMPLING: Final = frozenset(
    {
        *("trace_id", "public_key", "org_id", "release", "environment", "transaction"),
        *("sample_rate", "sample_rand", "sampled", "replay_id", "profile_id"),
    }
)
"""What Sentry's trace propagation defines of a dynamic sampling context, but for the user."""

_STATEMENTS: Final = ("db.statement", "db.query.text")
_OF_DATABASES: Final = frozenset({*_STATEMENTS, "db.system", "db.system.name"})


def _plain_statement(statement: str, attributes: Mapping[str, Any]) -> str:
    return without_literals(statement, system_of(attributes))


# A URL with its scheme, or a path with a query or fragment.
_URL_IN_NAME: Final = later(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://\S*|(?<!\S)/[^\s?#]*[?#]\S*")
_CREDENTIALS: Final = later(r"//[^/\s]*@")
_SIGNS: Final = later(r"//|[?#]")
_WORD: Final = later(r"\S+")


def _plain_name(text: str) -> str:
    for _ in range(MOST_PASSES):
        if "//" not in text and "?" not in text and "#" not in text:
            return text
        plain = _URL_IN_NAME.sub(lambda match: _plain_url(match.group()), text)
        plain = _CREDENTIALS.sub("//", plain)
        if plain == text:
            return text
        text = plain  # Once more: what stands around may be a URL now.
    return _SIGNS.sub(" ", text)


def _plain_url(url: str) -> str:
    return without_credentials(url).partition("?")[0].partition("#")[0]


def _mapping(value: Any) -> Mapping[str, Any]:
    """An application may set a context to anything."""
    return value if isinstance(value, MAPPING) else {}


def _values(interface: Any) -> list[Data]:
    """The `values` of an interface that may come as a bare list."""
    values = interface.get("values") if isinstance(interface, Mapping) else interface
    return [value for value in values or () if isinstance(value, dict)]


def _clean_told(value: Any, clean: Callable[[str], str], of_code: Callable[[str], str]) -> Any:
    """Exceptions or threads with *clean* applied to all texts but the program's own, which are for
    *of_code*: callers could choose how errors are grouped, by a parameter that is part of a
    function's name."""
    if isinstance(value, Mapping):
        told: Data = {}
        for key, item in value.items():
            if key in _OF_CODE:
                told[key] = clean_strings(item, of_code)
            elif key in _BAGS:
                told[key] = clean_strings(item, clean)
            else:
                told[key] = _clean_told(item, clean, of_code)
        return told
    if isinstance(value, (list, tuple)):
        return [_clean_told(item, clean, of_code) for item in value]
    return clean(value) if isinstance(value, str) else value


_OF_CODE: Final = frozenset(
    {
        *("type", "module", "function", "raw_function", "package"),
        *("filename", "abs_path", "pre_context", "context_line", "post_context"),
    }
)
_BAGS: Final = frozenset({"vars", "data"})
_TOLD: Final = ("exception", "threads", "logentry", "message")


def _stacktraces(event: ErrorEvent) -> list[Data]:
    holders = [*_values(event.get("exception")), *_values(cast("Data", event).get("threads"))]
    found = [holder["stacktrace"] for holder in holders if holder.get("stacktrace")]
    if stacktrace := cast("Data", event).get("stacktrace"):
        found.append(stacktrace)
    return found
