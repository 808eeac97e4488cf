"""Requests, and what an application does in them, with markers in places that hypothesis chooses.

Each marker stands in one place, in one of the forms in which that place can hold it, and may leave
under some settings. Some are promised to arrive there, so that the search is known to find them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import quote

from hypothesis import strategies as st

from tests.integration.places import (
    ATTRIBUTES_MAY,
    HEADERS_MAY,
    NEVER,
    NOT_STRICT,
    RESOURCE_MAY,
    SETTINGS,
    WITH_PII,
)

Draw = st.DrawFn
ANY: Final = frozenset(SETTINGS)


@dataclass
class Plan:
    """One request, and what is done in it."""

    outcome: str = "ok"
    headers: list[tuple[str, str]] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    body: bytes = b""
    attributes: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    links: dict[str, Any] = field(default_factory=dict)
    events: dict[str, Any] = field(default_factory=dict)
    statements: list[tuple[str, str]] = field(default_factory=list)
    """Systems and statements."""
    names: list[str] = field(default_factory=list)
    """Of spans."""
    crumbs: list[dict[str, Any]] = field(default_factory=list)
    scope: list[tuple[str, Any]] = field(default_factory=list)
    """Methods of Sentry's scope, and the value that is set."""
    texts: list[str] = field(default_factory=list)
    """What the exception says."""
    variables: dict[str, Any] = field(default_factory=dict)
    """What one of its frames holds."""
    may_leave: dict[str, frozenset[str]] = field(default_factory=dict)
    """By marker."""
    promised: dict[str, frozenset[str]] = field(default_factory=dict)
    of_body: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    """Markers that are parts of values that nobody can take apart, or in another case."""
    echoed: set[str] = field(default_factory=set)
    """Markers that the application repeats where only the request tells of them."""


def _percent(text: str) -> str:
    return "".join(f"%{ord(one):02X}" for one in text)


def _in_text(text: str) -> str:
    return f"some {text}, more"


SECRET_NAMES: Final = (
    *("token", "api_key", "API-Key", "password", "pwd", "X-Amz-Signature", "sid", "oauth.token"),
    *("userSession", "csrfmiddlewaretoken", "jwt"),
)
PLAIN_NAMES: Final = ("q", "page", "Color", "note", "order[0]")
SYSTEMS: Final = ("postgresql", "mysql", "sqlite", "mssql", "oracle", "other_sql", "unheard-of")

_names = st.sampled_from([*SECRET_NAMES, *PLAIN_NAMES])


def _by_name(name: str) -> frozenset[str]:
    return NEVER if name in SECRET_NAMES else NOT_STRICT


# -- what comes with the request ------------------------------------------------------------------


def header(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    name = draw(st.sampled_from(sorted(HEADERS_MAY)))
    template, may = HEADERS_MAY[name]
    case = draw(st.sampled_from([str.lower, str.title, str.upper]))
    repeated = any(name == other.lower() for other, _ in plan.headers)
    plan.headers.append((case(name), template.format(marker)))
    if may and name != "cookie" and not repeated:
        plan.promised[marker] = may
    return may


def basic(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    name = draw(st.sampled_from(["Authorization", "proxy-authorization"]))
    encoded = base64.b64encode(f"user:{marker}".encode()).decode()
    plan.headers.append((name, f"Basic {encoded}"))
    plan.may_leave[encoded.rstrip("=")] = NEVER
    return NEVER


def cookie(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    """Also in a `Cookie` header of its own, which HTTP/2 clients send."""
    name = draw(_names)
    value = draw(st.sampled_from([marker, f'"{marker}"', _percent(marker)]))
    pair = f"{name.replace('[', '_').replace(']', '_')}={value}"
    place = next((n for n, (key, _) in enumerate(plan.headers) if key == "Cookie"), None)
    if place is None or draw(st.booleans()):
        plan.headers.append(("Cookie", pair))
    else:
        plan.headers[place] = ("Cookie", f"{plan.headers[place][1]}; {pair}")
    return NEVER if name in SECRET_NAMES else WITH_PII


def baggage(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    entry, may = draw(
        st.sampled_from(
            [
                ("token={}", NEVER),
                ("color=teal;api_key={}", NEVER),
                ("sentry-user_id={}", WITH_PII),
                ("color={}", NOT_STRICT),
            ]
        )
    )
    plan.headers.append(("baggage", "shop=1," + entry.format(marker)))
    return may


def parameter(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    name = draw(_names)
    may = _by_name(name)
    key = draw(st.sampled_from([name, quote(name, safe=""), _percent(name), name.upper()]))
    forms = [marker, _percent(marker), quote(_in_text(marker)), marker.upper()]
    form = draw(st.sampled_from(forms))
    plan.query.append(f"{key}={form}")
    if may and form == marker:
        plan.promised[marker] = may
    if form == marker.upper():
        plan.opaque.add(marker)
    return may


def url_parameter(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    form = draw(st.sampled_from(URLS)).format(marker)
    plan.query.append(f"next={quote(form, safe='')}")
    return NEVER


def bare_word(_: Draw, plan: Plan, marker: str) -> frozenset[str]:
    plan.query.append(marker * 5)
    plan.opaque.add(marker)
    return NEVER


# -- what the application puts on its spans -------------------------------------------------------

URLS: Final = (
    "https://user:{}@h/p",
    "https://{}@h:80/p",
    "https://user:{}/b@h/p",
    "https://h/p?token={}",
    "https://h/p?q=1;api_key={}",
    "https://h/p?to%6Ben={}",
    "https://h/p?next=https%3A%2F%2Fu%3A{}%40h%2F",
    "https://h/p?next=%2Fp%3Fpassword%3D{}",
)
STATEMENTS: Final = (
    "SELECT * FROM t WHERE a = '{}'",
    "SELECT * FROM t WHERE a = 'it''s {}'",
    "SELECT * FROM t WHERE a IN ('x', '{}",
    "INSERT INTO t VALUES (1, '{}'), (2, 'b')",
    "SELECT 1 -- {}",
    "SELECT /* {} */ 1",
    "UPDATE t SET a = '{}' WHERE b = 1",
)


def attribute(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    key, may = draw(st.sampled_from(sorted(ATTRIBUTES_MAY.items(), key=str)))
    forms: list[Any] = [marker, [marker, "x"], _in_text(marker), marker.upper()]
    form = draw(st.sampled_from(forms))
    if may == ANY and form == marker and key not in plan.attributes:
        plan.promised[marker] = may
    plan.attributes.setdefault(key, form)
    return may


def secret_attribute(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    """On the span, one of its events, or a link."""
    holder = draw(st.sampled_from([plan.attributes, plan.events, plan.links]))
    key = draw(st.sampled_from([f"shop.{draw(st.sampled_from(SECRET_NAMES))}", "Http.Auth_Header"]))
    holder[key] = draw(st.sampled_from([marker, [marker], _in_text(marker)]))
    return NEVER


def url_attribute(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    url = draw(st.sampled_from(URLS)).format(marker)
    key = draw(st.sampled_from(["url.full", "http.url", "url", "shop.page", "http.target"]))
    plan.attributes[key] = url
    return NEVER


def json_attribute(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    key = draw(st.sampled_from(["http.request.body.data", "http.response.body.data"]))
    name = draw(st.sampled_from(SECRET_NAMES))
    plan.attributes[key] = json.dumps({"a": [{name: marker}]})
    return NEVER


def name_of_span(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    plan.names.append(f"GET {draw(st.sampled_from(URLS)).format(marker)}")
    return NEVER


def statement(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    text = draw(st.sampled_from(STATEMENTS)).format(marker)
    plan.statements.append((draw(st.sampled_from(SYSTEMS)), text))
    return WITH_PII


def resource(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    key, may = draw(st.sampled_from(sorted(RESOURCE_MAY.items(), key=str)))
    plan.resource[key] = marker
    return may


# -- what it tells Sentry -------------------------------------------------------------------------


def crumb(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    url = draw(st.sampled_from(URLS)).format(marker)
    name = draw(st.sampled_from(SECRET_NAMES))
    plan.crumbs.append(
        draw(
            st.sampled_from(
                [
                    {"category": "x", "message": f"at {url}"},
                    {"category": "http", "type": "http", "data": {"url": url}},
                    {"category": "x", "data": {name: marker}},
                    {"category": "x", "data": {"a": {"b": [{name: marker}]}}},
                    {"category": "subprocess", "message": f"ls {marker}"},
                ]
            )
        )
    )
    return NEVER


def on_scope(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    url = draw(st.sampled_from(URLS)).format(marker)
    plan.scope.append(
        draw(
            st.sampled_from(
                [
                    ("set_tag", url),
                    ("set_extra", {"deep": [url]}),
                    ("set_extra", _in_text(url)),
                    ("set_context", {"url": url}),
                ]
            )
        )
    )
    return NEVER


def text(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    plan.texts.append(f"cannot reach {draw(st.sampled_from(URLS)).format(marker)} today")
    return NEVER


def variable(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    name = draw(st.sampled_from([one for one in SECRET_NAMES if one.isidentifier()]))
    form = draw(st.sampled_from([marker, [marker], {"a": marker}]))
    plan.variables[draw(st.sampled_from([name, name.upper(), f"my_{name}"]))] = form
    return NEVER


def nested_variable(draw: Draw, plan: Plan, marker: str) -> frozenset[str]:
    name = draw(st.sampled_from(SECRET_NAMES))
    plan.variables["given"] = draw(
        st.sampled_from([{name: marker}, [{"a": {name: marker}}], [("Authorization", marker)]])
    )
    return NEVER


Plant = Callable[[Draw, Plan, str], frozenset[str]]
OF_REQUEST: Final[list[Plant]] = [
    *(header, header, basic, cookie, baggage, parameter, url_parameter, bare_word),
]
OF_APPLICATION: Final[list[Plant]] = [
    *(attribute, secret_attribute, url_attribute, json_attribute, name_of_span, statement),
    *(resource, crumb, on_scope, text, variable, nested_variable),
]


def _body(draw: Draw, plan: Plan, markers: Iterator[str]) -> None:
    kind = draw(st.sampled_from(["none", "json", "form", "text"]))
    if kind == "none":
        return
    planted = {name: next(markers) for name in draw(st.lists(_names, min_size=1, max_size=3))}
    plan.may_leave.update({marker: _by_name(name) for name, marker in planted.items()})
    plan.of_body.update(planted.values())
    if kind == "json":
        nested = draw(st.sampled_from([planted, {"a": [{"b": planted}]}, [planted]]))
        plan.body, media = json.dumps(nested).encode(), "application/json"
    elif kind == "form":
        pairs = [f"{quote(name)}={_percent(marker)}" for name, marker in planted.items()]
        plan.body, media = "&".join(pairs).encode(), "application/x-www-form-urlencoded"
    else:
        plan.body, media = " ".join(planted.values()).encode(), "text/plain"
        plan.may_leave.update(dict.fromkeys(planted.values(), NEVER))
        plan.opaque.update(planted.values())
        plan.headers.append(("Content-Type", media))
        return
    plan.headers.append(("Content-Type", media))
    plan.promised.update(
        {marker: NOT_STRICT for name, marker in planted.items() if name in PLAIN_NAMES}
    )


def _echo(draw: Draw, plan: Plan, of_request: list[str]) -> None:
    """What the application does with values that it got."""
    for marker in draw(st.lists(st.sampled_from(of_request), max_size=3, unique=True)):
        said = draw(st.sampled_from([marker, _in_text(marker), f"({marker})", f"x={marker}"]))
        how = draw(st.sampled_from(["text", "crumb", "tag", "extra", "variable", "context"]))
        plan.echoed.add(marker)
        if how == "text":
            plan.texts.append(said)
        elif how == "crumb":
            plan.crumbs.append({"category": "x", "message": said, "data": {"seen": [said]}})
        elif how == "variable":
            plan.variables["seen"] = draw(st.sampled_from([said, [said], {"a": said}]))
        else:
            plan.scope.append((f"set_{how}", {"seen": said} if how == "context" else said))


@st.composite
def plans(draw: Draw) -> Plan:
    plan = Plan(outcome=draw(st.sampled_from(["ok", "handled", "boom"])))
    markers = (f"c4n{number:03d}ry" for number in count())
    for plant in draw(st.lists(st.sampled_from(OF_REQUEST), max_size=5)):
        marker = next(markers)
        plan.may_leave[marker] = plant(draw, plan, marker)
    _body(draw, plan, markers)
    secret = sorted({one for one in plan.may_leave if one.startswith("c4n")} - plan.opaque)
    if secret:
        _echo(draw, plan, secret)
    for plant in draw(st.lists(st.sampled_from(OF_APPLICATION), max_size=6)):
        marker = next(markers)
        plan.may_leave[marker] = plant(draw, plan, marker)
    return plan
