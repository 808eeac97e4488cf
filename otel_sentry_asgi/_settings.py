"""Our own settings. What Sentry's client already decides (rates, PII, limits) is not repeated
here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from re import Pattern
from typing import TYPE_CHECKING, Any, Literal, get_args

from otel_sentry_asgi._policy import ACTIONS

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_sentry_asgi._arguments import SettingsArguments

OnPayload = Callable[[dict[str, Any]], dict[str, Any] | None]

SpanRule = str | Pattern[str] | Mapping[str, Any]
"""As in sentry-sdk's `ignore_spans`: a name, a pattern for it, or a mapping with `name` and
`attributes`, each a value or a pattern. Patterns match in full."""

IGNORED_PATHS = (
    *("*/health", "*/healthz", "*/livez", "*/readyz", "*/health/live", "*/health/ready"),
    *("/ping", "/metrics", "/favicon.ico", "/robots.txt"),
    *("*.css", "*.js", "*.map", "*.ico", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp"),
    *("*.avif", "*.woff", "*.woff2", "*.ttf"),
)
"""Health checks and static files, by the names that are in use for them."""

IgnoredError = type[BaseException] | Callable[[BaseException], bool]

ErrorMode = Literal["unhandled", "recorded", "all"]

IncomingTrace = Literal["w3c", "sentry"]

ERROR_MODES = get_args(ErrorMode)

TRACES = get_args(IncomingTrace)

FAILED_STATUSES = frozenset(range(500, 600))

_PREFIX = "OTEL_SENTRY_"


class SettingsError(ValueError):
    """A setting has a value that cannot be used. The message names both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the bridge behaves. All durations are in seconds, all sizes are counts of spans."""

    settle: float = 0.05
    """How long a segment is kept open after its root and its request have ended."""

    linger: float = 1.0
    """How long a segment is kept open at most after its root has ended while the request still
    runs (background tasks). What ends later is sent as a follow-up transaction of the same
    trace."""

    max_age: float = 300.0
    """After this time without an ended span, the finished children of a root that is still open
    are sent without it."""

    max_spans: int = 1_000
    """Child spans of one transaction. The earliest are kept, the rest is counted as lost
    (sentry-sdk's own limit, `max_spans`)."""

    max_queue: int = 10_000
    """Ended spans that wait for the worker, with some 7 kB of memory each. Beyond it they are
    counted as lost."""

    max_buffered: int = 100_000
    """Ended spans that wait for their root. Beyond it they are counted as lost."""

    keep_asgi_spans: bool = False
    """Send the `http send` and `http receive` spans of OTel's ASGI middleware, too."""

    keep_failed: bool = False
    """Send the segments in which something failed (a reported exception, a span with an error
    status) whatever `traces_sample_rate` says, with a rate of 1."""

    propagate: bool = True
    """Let `instrument()` add `SentryPropagator` beside the propagator that is there."""

    incoming_trace: IncomingTrace = "w3c"
    """Which trace is continued when a request brings `traceparent` and `sentry-trace` of two:
    `w3c` or `sentry`."""

    errors: ErrorMode = "recorded"
    """Which exceptions become issues: `unhandled` (left the application or the root span),
    `recorded` (also what the application recorded with `record_exception`), or `all` (also what
    left an inner span and was dealt with further up)."""

    failed_request_status_codes: frozenset[int] = FAILED_STATUSES
    """An `HTTPException` that a framework answers is an issue if its status is one of these. At
    this default, what sentry-sdk's integrations report by settings of their own is one, too."""

    ignored_errors: tuple[IgnoredError, ...] = ()
    """Exception classes, and predicates that are given the exception: no issues, beside the
    client's own `ignore_errors`."""

    flush_provider: bool = False
    """When the application's lifespan ends, flush the tracer provider as well, that is all its
    exporters, within the client's `shutdown_timeout`."""

    ignore_spans: tuple[SpanRule, ...] = ()
    """Spans that are not sent, beside the client's own `ignore_spans`: of a local root, the whole
    segment; of a child, itself alone, and what is below it hangs below its parent."""

    trace_ignore_status_codes: frozenset[int] = frozenset()
    """Requests answered with one of these are not sent, beside the client's own option."""

    ignored_methods: tuple[str, ...] = ("HEAD", "OPTIONS")
    """HTTP methods whose requests are not sent (those that sentry-sdk does not capture)."""

    ignored_paths: tuple[str | Pattern[str], ...] = IGNORED_PATHS
    """Paths or routes that are not sent: texts in which `*` stands for anything, and patterns.
    Where the route has parameters, it counts in place of the path."""

    ignore_orphan_clients: bool = True
    """Do not send outgoing calls with nothing above them, as of pools and exporters that work in
    the background."""

    send_logs: bool = False
    """Send OTel's log records as Sentry's structured logs, too. The client must have
    `enable_logs`. They are breadcrumbs of their request in any case."""

    sensitive_terms: tuple[str, ...] = ()
    """Further terms: a key that contains one, in any case, has its value replaced by
    `[Filtered]`."""

    allowed_attributes: tuple[str, ...] = ("*",)
    """Of the span, resource and link attributes that no row of the policy knows, those that are
    sent: names, and prefixes that end in `*`."""

    attribute_actions: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    """What happens to single attributes, whatever the policy says: `keep`, `drop`, `filter`, or
    `hash` (a keyed hash, the same for the same value). A mapping from names, or prefixes that end
    in `*`, to one of these; or texts like `user.id=hash`. The longest name that fits counts."""

    hash_key: str = field(default="", repr=False)
    """The key of the action `hash` (HMAC-SHA256). A secret: without it nobody can try values."""

    on_payload: OnPayload | None = None
    """Called with each cleaned payload (transactions and error events) before it goes to the
    exporter or client. It may change it, and returns it, or None to keep it in. If it raises, the
    payload is not sent. Called on the worker's thread and, for errors, where they happen (in code
    only)."""

    def __post_init__(self) -> None:
        self._require("settle", lambda value: 0 <= value < math.inf, "at least 0 seconds")
        self._require("linger", lambda value: value >= 0, "at least 0 seconds")
        self._require("max_age", lambda value: value > 0, "more than 0 seconds")
        for name in ("max_spans", "max_queue", "max_buffered"):
            self._require(name, lambda value: value >= 1, "a whole number, at least 1", int)
        for name in (
            *("keep_asgi_spans", "keep_failed", "propagate", "flush_provider"),
            *("ignore_orphan_clients", "send_logs"),
        ):
            self._require(name, lambda _: True, "True or False", bool)
        self._require("incoming_trace", TRACES.__contains__, f"one of {TRACES}", str)
        self._require("errors", ERROR_MODES.__contains__, f"one of {ERROR_MODES}", str)
        for name in ("failed_request_status_codes", "trace_ignore_status_codes"):
            codes = self._require_all(name, _is_status, "a set of HTTP statuses")
            object.__setattr__(self, name, frozenset(codes))
        for name, holds, expected in (
            ("ignore_spans", _is_span_rule, "a sequence of names, patterns and mappings"),
            ("ignored_methods", _is_term, "a sequence of HTTP methods"),
            ("ignored_paths", _is_path_rule, "a sequence of paths and patterns"),
        ):
            object.__setattr__(self, name, self._require_all(name, holds, expected))
        methods = tuple(method.strip().upper() for method in self.ignored_methods)
        object.__setattr__(self, "ignored_methods", methods)
        ignored = self._require_all("ignored_errors", callable, "classes or predicates")
        object.__setattr__(self, "ignored_errors", ignored)
        terms = self._require_all("sensitive_terms", _is_term, "a sequence of non-empty strings")
        lowered = tuple(term.strip().lower() for term in terms)
        object.__setattr__(self, "sensitive_terms", lowered)
        allowed = self._require_all("allowed_attributes", _is_term, "a sequence of attribute names")
        object.__setattr__(self, "allowed_attributes", tuple(name.strip() for name in allowed))
        object.__setattr__(self, "attribute_actions", self._actions())
        self._require("hash_key", lambda _: True, "a text", str)
        if not self.hash_key and "hash" in dict(self.attribute_actions).values():
            msg = "hash_key must be set for the action 'hash' in attribute_actions"
            raise SettingsError(msg)
        if self.on_payload is not None and not callable(self.on_payload):
            msg = f"on_payload must be a function, not {self.on_payload!r}"
            raise SettingsError(msg)

    def _actions(self) -> tuple[tuple[str, str], ...]:
        given: Any = self.attribute_actions
        items = given.items() if isinstance(given, Mapping) else given
        listed = isinstance(items, Iterable) and not isinstance(items, str)
        pairs = [
            one.split("=", 1) if isinstance(one, str) else one for one in (items if listed else ())
        ]
        if not listed or not all(map(_is_action, pairs)):
            msg = f"attribute_actions must be names with one of {ACTIONS}, not {given!r}"
            raise SettingsError(msg)
        return tuple((name.strip(), action) for name, action in pairs)

    def _require(
        self, name: str, holds: Callable[[Any], bool], expected: str, *kinds: type
    ) -> None:
        value: Any = getattr(self, name)
        fits = isinstance(value, kinds or (int, float))
        if not fits or (isinstance(value, bool) and bool not in kinds) or not holds(value):
            msg = f"{name} must be {expected}, not {value!r}"
            raise SettingsError(msg)

    def _require_all(
        self, name: str, holds: Callable[[Any], bool], expected: str
    ) -> tuple[Any, ...]:
        value: Any = getattr(self, name)
        items = tuple(value) if isinstance(value, Iterable) else ()
        if not isinstance(value, Iterable) or isinstance(value, str) or not all(map(holds, items)):
            msg = f"{name} must be {expected}, not {value!r}"
            raise SettingsError(msg)
        return items

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **given: Unpack[SettingsArguments]) -> Settings:
        """Settings from `OTEL_SENTRY_<NAME>` variables; what is *given* wins over them."""
        check_names(given)
        values: dict[str, Any] = dict(given)
        for one in fields(cls):
            variable = _PREFIX + one.name.upper()
            text = environ.get(variable, "").strip()
            if text and one.name not in given:
                values[one.name] = _parse(variable, text, type(one.default))
        return cls(**values)


def check_names(given: Iterable[str], others: tuple[str, ...] = ()) -> None:
    """Raise `SettingsError` for a name that is no setting and none of *others*."""
    known = [*(one.name for one in fields(Settings)), *others]
    for name in given:
        if name not in known:
            import difflib  # Only a mistake needs it.

            near = difflib.get_close_matches(name, known, 1)
            msg = f"no such setting: {name}" + (f"; did you mean {near[0]}?" if near else "")
            raise SettingsError(msg)


def _is_status(code: Any) -> bool:
    return type(code) is int and 100 <= code <= 599


def _is_term(term: Any) -> bool:
    return isinstance(term, str) and bool(term.strip())


def _is_action(pair: Any) -> bool:
    two = isinstance(pair, (list, tuple)) and len(pair) == 2
    return two and _is_term(pair[0]) and pair[1] in ACTIONS


def _is_path_rule(rule: Any) -> bool:
    return _is_term(rule) or isinstance(rule, Pattern)


def _is_span_rule(rule: Any) -> bool:
    if isinstance(rule, Mapping):
        known = rule.keys() <= {"name", "attributes"} and bool(rule)
        return known and isinstance(rule.get("attributes", {}), Mapping)
    return _is_path_rule(rule)


_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _parse(variable: str, text: str, kind: type) -> Any:
    if kind is type(None):
        msg = f"{variable} can only be set in code, not to {text!r}"
        raise SettingsError(msg)
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        if kind is tuple:
            return tuple(term.strip() for term in text.split(",") if term.strip())
        if kind is frozenset:
            return frozenset(code for part in text.split(",") for code in _codes(part))
        return kind(text)
    except (KeyError, ValueError):
        expected = "list of statuses, as in 500-599,403" if kind is frozenset else kind.__name__
        msg = f"{variable} must be a {expected}, not {text!r}"
        raise SettingsError(msg) from None


def _codes(part: str) -> Iterable[int]:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)
