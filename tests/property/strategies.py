"""What OTel allows on a span: text with surrogates, numbers of any size, nested values, and the
names and values that translation and policy look at."""

from typing import Any

from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from otel_sentry_asgi import _semconv
from otel_sentry_asgi._policy._attributes import EXACT, PREFIXES
from otel_sentry_asgi._translate.request import to_request
from otel_sentry_asgi._translate.segment import RequestFacts
from otel_sentry_asgi.testing import EPOCH, span, span_context

# Everything, lone surrogates included.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)

# What hides credentials, queries and literals, in all combinations.
PIECES = st.sampled_from(
    [
        *("http://", "//", "/", "?", "#", "@", ":", "&", ";", "=", " ", "\n", "%", "%2F", "+"),
        *("bob", "pw", "token", "h", "80", "[", "]", "::1", "q", "next=", "a=1", "[Filtered]"),
        *("'", '"', "`", "\\", "--", "/*", "*/", "$$", "$a$", "1", ".5", "SELECT", "q'"),
        *("GET", "POST ", "{id}", "^", "(?P<pk>", ")", "*"),
    ]
)
TRICKY_TEXT = st.lists(PIECES, max_size=10).map("".join)
TEXT = st.one_of(TRICKY_TEXT, ANY_TEXT)

NUMBERS = st.one_of(
    st.integers(),
    st.integers(0, 600),
    st.sampled_from([-1, 0, 1 << 63, 1 << 64, 10**400]),
    st.floats(),
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    TEXT, NUMBERS, st.booleans(), st.binary(max_size=20), st.none()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(SCALARS, st.lists(TEXT, max_size=3).map(tuple)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(min_size=1, max_size=10), inner, max_size=3),
    ),
    max_leaves=6,
)

_LOOKED_AT = sorted(
    {
        name
        for variable, names in vars(_semconv).items()
        if not variable.startswith("__")  # Files differ from one machine to the next.
        if isinstance(names, (str, tuple, dict))
        for name in ([names] if isinstance(names, str) else names)
        if "." in name and " " not in name
    }
    | {"sentry.op", "sentry.name", "sentry.description", "sentry.source", "sentry.origin"}
    | {"asgi.event.type", "sentry.tag.a", "sentry.measurement.a", "sentry.measurement.a.unit"}
)
KEYS = st.one_of(
    st.sampled_from(_LOOKED_AT),
    st.sampled_from(sorted(EXACT)),
    st.sampled_from([f"{prefix}x-name" for prefix, _ in PREFIXES]),
    ANY_TEXT.filter(bool),
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=6)

SYSTEMS = st.sampled_from(
    ["", "sqlite", "postgresql", "mysql", "oracle", "mssql", "informix", "redis", "new"]
)


@st.composite
def spans(draw: st.DrawFn, *, span_id: int = 1, parent: int | None = None) -> ReadableSpan:
    """A span with anything on it that OTel lets applications put there."""
    start = draw(st.sampled_from([0.0, 0.5, 1e6, -1e12, 1e15]))
    is_root = parent is None
    above: Any = (
        draw(st.sampled_from([None, span_context(9, is_remote=True)])) if is_root else parent
    )
    return span(
        draw(TEXT),
        span_id=span_id,
        parent=above,
        start=0.0 if is_root else start,
        end=(0.0 if is_root else start) + draw(st.sampled_from([-1.0, 0.0, 0.25, 2.0])),
        kind=draw(st.sampled_from(SpanKind)),
        attributes=draw(ATTRIBUTES),
        status=draw(statuses()),
        links=draw(st.lists(links(), max_size=2)),
        events=draw(st.lists(events(), max_size=2)),
        resource=Resource(draw(st.dictionaries(KEYS, SCALARS, max_size=3))),
        scope=draw(st.one_of(st.none(), scopes())),
    )


@st.composite
def statuses(draw: st.DrawFn) -> Status:
    code = draw(st.sampled_from(StatusCode))
    return Status(code, draw(TEXT) if code is StatusCode.ERROR else None)


@st.composite
def links(draw: st.DrawFn) -> Link:
    ids = st.integers(0, 3)
    return Link(SpanContext(draw(ids), draw(ids), is_remote=False), draw(ATTRIBUTES))


@st.composite
def events(draw: st.DrawFn) -> Event:
    attributes = draw(ATTRIBUTES)
    if draw(st.booleans()):
        attributes["sentry.measurement_value"] = draw(st.one_of(NUMBERS, SCALARS))
        attributes["sentry.measurement_unit"] = draw(st.one_of(st.just("second"), SCALARS))
    when = draw(st.sampled_from([0, EPOCH * 10**9, -1, 1 << 80]))
    return Event(draw(TEXT), attributes, when)


@st.composite
def scopes(draw: st.DrawFn) -> InstrumentationScope:
    prefix = draw(st.sampled_from(["", "opentelemetry.instrumentation."]))
    return InstrumentationScope(prefix + draw(ANY_TEXT), draw(st.one_of(st.none(), ANY_TEXT)))


HEADERS = st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=20)), max_size=5)
SCOPES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["http", "websocket"]),
        "method": st.sampled_from(["GET", "get", ""]),
        "scheme": st.sampled_from(["http", "https", "ws", "wss", ""]),
        "path": st.one_of(st.none(), TEXT),
        "root_path": st.one_of(st.none(), TEXT),
        "app_root_path": TEXT,
        "query_string": st.binary(max_size=20),
        "headers": st.one_of(st.none(), HEADERS),
        "client": st.one_of(st.none(), st.tuples(ANY_TEXT, st.integers())),
        "server": st.one_of(st.none(), st.tuples(ANY_TEXT, st.one_of(st.none(), st.integers()))),
        "path_template": st.one_of(st.none(), TEXT),
        "path_params": st.dictionaries(ANY_TEXT, st.one_of(ANY_TEXT, st.integers()), max_size=3),
        "fastapi": st.just({}),
    },
)


@st.composite
def facts(draw: st.DrawFn) -> RequestFacts:
    scope = draw(st.one_of(st.none(), SCOPES))
    return RequestFacts(
        request=None if scope is None else to_request(scope),
        route=draw(st.one_of(st.none(), TEXT)),
        websocket=draw(st.booleans()),
        status_code=draw(st.one_of(st.none(), st.integers(-1, 1_000))),
    )


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Sentry's request interface, as anybody may make it."""
    pairs = st.dictionaries(TEXT, TEXT, max_size=3)
    names = st.sampled_from(["cookie", "authorization", "referer", "x-real-ip", "accept"])
    parts: dict[str, st.SearchStrategy[Any]] = {
        "method": st.sampled_from(["GET", "POST"]),
        "url": TEXT,
        "query_string": TEXT,
        "headers": st.dictionaries(st.one_of(names, TEXT), TEXT, max_size=3),
        "cookies": pairs,
        "env": st.fixed_dictionaries({"REMOTE_ADDR": TEXT}),
        "data": st.one_of(TEXT, pairs, st.lists(pairs, max_size=2)),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(parts)), unique=True))
    return {name: draw(parts[name]) for name in chosen}
