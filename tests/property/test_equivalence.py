"""What `EnvelopeExporter` sends is what `SdkExporter` sends: for any segment, scope, options and
hooks the same payload key by key, the same envelope header, attachments and client reports.

Apart from `sent_at`, of course. Each side gets a copy of everything, as either may change it.
"""

import copy
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sentry_sdk
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from sentry_sdk import scope as sdk_scope
from sentry_sdk import serializer
from sentry_sdk._types import AnnotatedValue
from sentry_sdk.attachments import Attachment
from sentry_sdk.scope import Scope
from sentry_sdk.scrubber import EventScrubber
from sentry_sdk.tracing import TransactionSource
from sentry_sdk.transport import HttpTransport

from otel_sentry_asgi import sentry as bridge
from otel_sentry_asgi._translate.resource import resource_defaults
from otel_sentry_asgi._translate.segment import RequestFacts, to_transaction
from otel_sentry_asgi.export import REMARKS, Clean, Exporter, Origin, trim
from otel_sentry_asgi.testing import span as make_span
from otel_sentry_exporters.envelope import EnvelopeExporter
from otel_sentry_exporters.sdk import SdkExporter
from tests.policies import OPEN, PRIVATE
from tests.property.strategies import ANY_TEXT, facts, spans
from tests.support.by_hand import made_profile
from tests.support.sentry import parse_envelope, serve_sentry

# -- what is sent ---------------------------------------------------------------------------------

DSC = st.one_of(st.none(), st.just({"trace_id": "1" * 32, "public_key": "p", "sample_rate": "1.0"}))


@st.composite
def transactions(draw: st.DrawFn) -> Any:
    root = draw(spans())
    children: list[ReadableSpan] = draw(
        st.lists(st.integers(2, 9).flatmap(lambda i: spans(span_id=i, parent=1)), max_size=3)
    )
    known: RequestFacts = draw(facts())
    made = to_transaction(
        root,
        children,
        event_id="e" * 32,
        facts=known,
        sampling_context=draw(DSC),
        late=draw(st.booleans()),
        dropped=draw(st.sampled_from([0, 0, 3])),
    )
    cleaned: Any = draw(st.sampled_from([PRIVATE, OPEN])).clean(made).payload
    if draw(st.booleans()):
        cleaned.update(resource_defaults(root.resource))
    return cleaned


# -- what applications put on scopes --------------------------------------------------------------


class Weird:
    """No JSON has a form for it."""

    def __repr__(self) -> str:
        return "<weird>"


class Told:
    def __sentry_repr__(self) -> str:
        return "told"


def cycle() -> Any:
    made: dict[str, Any] = {"a": 1}
    made["self"] = [made]
    return made


def deep() -> Any:
    made: Any = "bottom"
    for _ in range(30):
        made = {"d": [made]}
    return made


ODD: list[Callable[[], Any]] = [
    *(Weird, Told, cycle, deep),
    *(lambda: float("nan"), lambda: float("-inf"), lambda: 1 << 70, lambda: Decimal("1.5")),
    *(lambda: {1: "a", None: "b"}, lambda: {1, 2}, lambda: (1, [2]), lambda: b"\xff\0"),
    lambda: datetime(2026, 1, 1, tzinfo=timezone.utc),
    lambda: UUID(int=1),
    lambda: "x" * 300,
    lambda: list(range(30)),
    lambda: {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}},
    lambda: {"password": "p", "n": {"token": "t", "l": [{"secret": "s"}]}},
    lambda: AnnotatedValue("kept", {"len": 9}),
    lambda: "lone \ud800",
]
ODDITIES = st.sampled_from(ODD).map(lambda make: make())
PLAIN = st.one_of(ANY_TEXT, st.integers(), st.floats(), st.booleans(), st.none())
ANYTHING = st.recursive(
    st.one_of(PLAIN, ODDITIES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = st.one_of(
    st.sampled_from(["password", "Token", "x-y", "ip_address", "data", "AUTH"]), ANY_TEXT
)
BAG = st.dictionaries(NAMES, ANYTHING, max_size=3)
CONTEXTS = st.one_of(st.sampled_from(["response", "otel", "app", "data", "trace"]), NAMES)

SCOPE = st.fixed_dictionaries(
    {},
    optional={
        "tags": BAG,
        "user": st.one_of(BAG, st.fixed_dictionaries({"id": PLAIN, "ip_address": ANY_TEXT})),
        "extra": BAG,
        "contexts": st.dictionaries(CONTEXTS, BAG, max_size=3),
        "level": st.sampled_from(["info", "error"]),
        "fingerprint": st.lists(ANY_TEXT, max_size=2),
        "attachments": st.lists(st.booleans(), max_size=2),
        "crumbs": st.sampled_from([0, 2, 5]),
        "name": ANY_TEXT,
    },
)


def to_scope(content: dict[str, Any], processors: list[Any]) -> Scope:
    scope = Scope()
    for key, value in content.get("tags", {}).items():
        scope.set_tag(key, value)
    if "user" in content:
        scope.set_user(content["user"])
    for key, value in content.get("extra", {}).items():
        scope.set_extra(key, value)
    for key, value in content.get("contexts", {}).items():
        scope.set_context(key, value)
    if "level" in content:
        scope.set_level(content["level"])
    if "fingerprint" in content:
        scope.fingerprint = content["fingerprint"]
    for number, added in enumerate(content.get("attachments", ())):
        scope.add_attachment(b"\0" * number, f"{number}.bin", add_to_transactions=added)
    for number in range(content.get("crumbs", 0)):
        scope.add_breadcrumb({"message": str(number)})
    if "name" in content:
        scope.set_transaction_name(content["name"])
    for processor in processors:
        scope.add_event_processor(processor)
    return scope


# -- hooks ----------------------------------------------------------------------------------------


def changes_everything(event: Any, _hint: Any) -> Any:
    event["tags"] = {**event.get("tags", {}), "weird": Weird()}
    event["modules"] = {"a": (1, 2)}
    event["contexts"]["trace"]["data"]["password"] = {"token": Weird()}
    for span in event["spans"]:
        span["data"]["token"] = "t"
        span["data"]["odd"] = [Weird(), float("nan"), b"x", {"secret": 1}]
        span["description"] = Weird()
    return event


def drops_a_span(event: Any, _hint: Any) -> Any:
    event["spans"] = event["spans"][1:]
    return event


def adds_a_span(event: Any, _hint: Any) -> Any:
    event["spans"].append({"span_id": "a" * 16, "data": {"cookie": "c"}})
    return event


def takes_away(event: Any, _hint: Any) -> Any:
    for key in ("request", "platform", "transaction_info", "environment"):
        event.pop(key, None)
    return event


def takes_the_spans(event: Any, _hint: Any) -> Any:
    del event["spans"]
    return event


def adds_a_stack(event: Any, _hint: Any) -> Any:
    frames = [{"module": "shop", "vars": {"password": "p", "n": Weird()}}]
    event["exception"] = {"values": [{"type": "E", "stacktrace": {"frames": frames}}]}
    event["stacktrace"] = {"frames": [{"module": "json"}]}
    return event


def adds_a_body(event: Any, _hint: Any) -> Any:
    body = {"password": "p", "list": list(range(20)), "deep": deep()}
    event.setdefault("request", {}).update(data=body, other=Weird(), cookies={"session": "s"})
    return event


def adds_crumbs(event: Any, _hint: Any) -> Any:
    event["breadcrumbs"] = {"values": [{"data": {"token": "t", "l": list(range(20))}}]}
    return event


def adds_an_attachment(event: Any, hint: Any) -> Any:
    hint["attachments"] = [*hint["attachments"], Attachment(b"abc", "more.txt")]
    return event


def removes_the_body(event: Any, _hint: Any) -> Any:
    """As integrations of sentry-sdk do it."""
    removed = AnnotatedValue.removed_because_over_size_limit()
    event.setdefault("request", {}).update(
        data=removed,
        headers={"a": "b", "Cookie": AnnotatedValue.substituted_because_contains_sensitive_data()},
    )
    event["transaction_info"] = {"source": TransactionSource.ROUTE}
    event["extra"] = {**event.get("extra", {}), "sys.argv": ["a"] * 20}
    return event


def as_sdk(hook: Callable[..., Any], name: str) -> Callable[..., Any]:
    """*hook* as if it were sentry-sdk's own, which is trusted to leave spans and trace alone."""

    @functools.wraps(hook)
    def wrapper(*arguments: Any) -> Any:
        return hook(*arguments)

    wrapper.__module__ = f"sentry_sdk.integrations.{name}"
    return wrapper


def drops(_event: Any, _hint: Any) -> None:
    return None


def raises(_event: Any, _hint: Any) -> Any:
    raise RuntimeError("a hook of the application's own")


OWN = [
    *(changes_everything, drops_a_span, adds_a_span, takes_away, takes_the_spans, adds_a_stack),
    *(adds_a_body, adds_crumbs, adds_an_attachment, raises),
]
TRUSTED = [as_sdk(hook, "x") for hook in (adds_a_body, adds_crumbs, adds_a_stack, removes_the_body)]
DROPPING = [drops, as_sdk(drops, "x")]
PROCESSORS = st.one_of(
    st.just([]),
    st.lists(st.sampled_from(TRUSTED), max_size=2),
    st.lists(st.sampled_from([*OWN, *TRUSTED, *DROPPING]), max_size=2),
)
BEFORE_SEND: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.none(),
    st.sampled_from([drops_a_span, adds_a_span, takes_away, adds_crumbs, drops, raises]),
)


def repr_processor(value: Any, _hint: Any) -> Any:
    return "<by a processor>" if isinstance(value, Weird) else NotImplemented


def custom_repr(value: Any) -> str | None:
    return "<custom>" if isinstance(value, Weird) else None


class Subclass(EventScrubber):
    def scrub_request(self, event: Any) -> None:
        event.setdefault("request", {})["method"] = "scrubbed"


SCRUBBERS: list[Callable[[], Any]] = [
    *(lambda: None, lambda: None, lambda: False),
    lambda: EventScrubber(denylist=["x-y", "host", "Http.Method"]),
    lambda: EventScrubber(recursive=True),
    lambda: EventScrubber(send_default_pii=True),
    Subclass,
]
OPTIONS = st.fixed_dictionaries(
    {"scrubber": st.sampled_from(SCRUBBERS), "before_send_transaction": BEFORE_SEND},
    optional={
        "send_default_pii": st.booleans(),
        "max_value_length": st.sampled_from([20, 60]),
        "custom_repr": st.just(custom_repr),
        "release": st.sampled_from([" shop@1.0 ", "x"]),
        "environment": st.sampled_from(["staging", " s "]),
        "dist": st.just("7"),
        "server_name": st.just("web-1"),
        "max_request_body_size": st.sampled_from(["always", "never"]),
        "max_breadcrumbs": st.just(3),
        "send_client_reports": st.booleans(),
    },
)

# -- both sides -----------------------------------------------------------------------------------


class Sent:
    """What has come from one of the two: envelopes, and what was reported as lost."""

    def __init__(self, raw: list[bytes]) -> None:
        self.reports: Counter[tuple[str, str]] = Counter()
        self.envelopes: list[Any] = []
        for body in raw:
            header, items = parse_envelope(body)
            kept = []
            for item in items:
                if item.type == "client_report":
                    for one in item.json["discarded_events"]:
                        self.reports[one["category"], one["reason"]] += one["quantity"]
                else:
                    kept.append([item.type, item.meaning, item.header.get("filename")])
            header.pop("sent_at", None)
            kept.sort(key=lambda one: str(one[0]) == "profile")  # sentry-sdk's comes first.
            if kept:
                self.envelopes.append([header, kept])


@pytest.fixture(scope="module")
def sentry() -> Iterator[Any]:
    with serve_sentry() as running:
        yield running


@pytest.fixture(scope="module")
def profile() -> Any:
    return made_profile()


def annotates(event: Any, hint: Any) -> Any:
    """What the bridge's last processor does to a transaction's remarks."""
    if REMARKS not in hint:
        bridge.annotate(event)
    return event


annotates.__module__ = "otel_sentry_asgi._events"  # Else it would be a hook of the application's.


@contextmanager
def processors(hooks: list[Any], reprs: bool) -> Iterator[None]:
    """Global hooks, for as long as the block."""
    sdk_scope.global_event_processors.extend(hooks)
    if reprs:
        serializer.global_repr_processors.append(repr_processor)
    try:
        yield
    finally:
        if hooks:
            del sdk_scope.global_event_processors[-len(hooks) :]
        if reprs:
            serializer.global_repr_processors.remove(repr_processor)


def send(
    sentry: Any, exporter: Exporter, options: dict[str, Any], transaction: Any, origin: Origin
) -> Sent:
    """What *exporter* sends with a client of its own."""
    given = dict(options)
    given["event_scrubber"] = given.pop("scrubber")()
    off: dict[str, Any] = {"default_integrations": False, "auto_enabling_integrations": False}
    given["_experiments"] = {"transport_compression_algo": "gzip"}
    client: Any = sentry_sdk.Client(dsn=sentry.dsn, **off, **given)
    global_scope = sentry_sdk.get_global_scope()
    before = global_scope.client
    global_scope.set_client(client)
    try:
        assert type(client.transport) is HttpTransport
        if not getattr(exporter, "trims", False):
            trim(transaction)  # As the bridge does it.
        exporter.export(Clean(transaction), origin)
        assert exporter.force_flush(10.0)
        client.flush(timeout=10.0)
    finally:
        global_scope.set_client(before)
        exporter.shutdown()
        client.close(timeout=0)
    return Sent(sentry.take())


def both(
    sentry: Any,
    transaction: Any,
    isolation: dict[str, Any],
    current: dict[str, Any],
    options: dict[str, Any],
    hooks: list[list[Any]],
    reprs: bool,
    profile: Any,
) -> tuple[Sent, Sent]:
    sent = []
    max_breadcrumbs = options.get("max_breadcrumbs")
    for make in (EnvelopeExporter, SdkExporter):
        with processors(hooks[0], reprs):
            scopes = []
            for content, own in ((isolation, hooks[1]), (current, [*hooks[2], annotates])):
                scope = to_scope(copy.deepcopy(content), own)
                if max_breadcrumbs and len(scope._breadcrumbs) > max_breadcrumbs:
                    # As in a request, where the client's limit applies while they are added.
                    scope._n_breadcrumbs_truncated = len(scope._breadcrumbs) - max_breadcrumbs
                scopes.append(scope)
            exporter: Any = make()
            payload = copy.deepcopy(transaction)
            sent.append(
                send(sentry, exporter, options, payload, Origin(scopes[0], scopes[1], profile))
            )
    return sent[0], sent[1]


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            nothing = "<nothing>"
            yield from differences(
                ours.get(key, nothing), theirs.get(key, nothing), f"{path}.{key}"
            )
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(*pair, f"{path}.{index}")
    elif (type(ours), _bare(ours)) != (type(theirs), _bare(theirs)):
        yield path, ours, theirs


def _bare(value: Any) -> Any:
    """Without the addresses in the `repr` of what is too deep to be sent."""
    return re.sub(r"\bat 0x[0-9a-f]+", "at 0x", value) if isinstance(value, str) else value


def compare(ours: Sent, theirs: Sent, *, profiled: bool = False) -> None:
    assert list(differences(ours.envelopes, theirs.envelopes)) == []
    counted = Counter({key: n for key, n in ours.reports.items() if key[0] != "profile"})
    assert counted == theirs.reports
    profiles = sum(ours.reports.values()) - sum(counted.values())
    assert profiles == (profiled and not ours.envelopes)  # The client does not count those.


@pytest.mark.filterwarnings("ignore:The .* option is deprecated:DeprecationWarning")
@given(
    transaction=transactions(),
    isolation=SCOPE,
    current=SCOPE,
    options=OPTIONS,
    hooks=st.tuples(PROCESSORS, PROCESSORS, PROCESSORS).map(list),
    reprs=st.sampled_from([False, False, False, True]),
    profiled=st.booleans(),
)
@limits(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_both_exporters_send_the_same(
    sentry: Any,
    transaction: Any,
    isolation: dict[str, Any],
    current: dict[str, Any],
    options: dict[str, Any],
    hooks: list[list[Any]],
    reprs: bool,
    profiled: bool,
    profile: Any,
) -> None:
    given = profile if profiled else None
    sent = both(sentry, transaction, isolation, current, options, hooks, reprs, given)
    # Reports may be off.
    compare(*sent, profiled=profiled and options.get("send_client_reports", True))


def large(children: int, **attributes: Any) -> Any:
    made = [
        make_span(f"child {i}", span_id=2 + i, parent=1, start=i, attributes=attributes)
        for i in range(children)
    ]
    root, known = make_span(attributes=attributes), RequestFacts(request={"url": "/"})
    transaction = to_transaction(root, made, event_id="e" * 32, facts=known, dropped=3)
    return OPEN.clean(transaction).payload


LARGE: dict[str, Callable[[], Any]] = {
    "texts": lambda: large(150, text="a" * 8_000),
    "attributes": lambda: large(2, **{f"field {number}": "v" * 1_000 for number in range(1_000)}),
    "children": lambda: large(1_000, **{f"field {number}": "v" * 100 for number in range(20)}),
    "all": lambda: large(60, **{f"field {number}": "v" * 900 for number in range(150)}),
}
HOOKS: dict[str, list[Any]] = {"none": [], "sdk": [TRUSTED[1]], "own": [adds_crumbs]}


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS.keys())
@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE.keys())
def test_both_exporters_leave_the_same_of_what_is_too_large(
    sentry: Any, make: Callable[[], Any], hooks: list[Any]
) -> None:
    """The bridge trims for the one, the other sees to it when it encodes."""
    content = {"tags": {"shop": "north"}, "extra": {"n": ["x"] * 9}, "contexts": {"app": {"a": 1}}}
    options: dict[str, Any] = {"scrubber": lambda: None, "release": "shop@1"}
    ours, theirs = both(sentry, make(), content, {}, options, [[], hooks, []], False, None)
    compare(ours, theirs)
    assert ours.reports["span", "buffer_overflow"] >= 3
    ((_, [(_, payload, _)]),) = ours.envelopes
    assert "_meta" in payload
