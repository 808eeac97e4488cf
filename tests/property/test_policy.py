"""The policy cleans once and for all, and nothing that it forbids is in the bytes that leave."""

from copy import deepcopy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otel_sentry_asgi._policy import ACTIONS, BODIES, KeyValueRule, Policy
from otel_sentry_asgi._policy._decide import is_free_text
from otel_sentry_asgi._policy._rules import clean_query, clean_url, without_credentials
from otel_sentry_asgi._policy._sql import without_literals
from otel_sentry_asgi._policy._values import text_cleaner
from otel_sentry_asgi._translate.attributes import to_json_values
from otel_sentry_asgi._translate.segment import RequestFacts, to_transaction
from otel_sentry_asgi.testing import span, span_context
from tests.payload import encoded
from tests.policies import POLICIES, PRIVATE, STRICTEST
from tests.property.strategies import ATTRIBUTES, SYSTEMS, TEXT, facts, requests, spans

MODES = st.sampled_from(["off", "denylist", "allowlist"])
TERMS = st.lists(st.sampled_from(["q", "a", "x-name", "bob", ""]), max_size=2).map(tuple)
RULES = st.builds(KeyValueRule, MODES, TERMS)
ANY_POLICY = st.one_of(
    st.sampled_from(list(POLICIES.values())),
    st.builds(
        Policy,
        cookies=RULES,
        headers=RULES,
        query=RULES,
        frame_variables=RULES,
        terms=TERMS,
        bodies=st.frozensets(st.sampled_from([*sorted(BODIES), "incoming_response"])),
        scrubbed=st.frozensets(st.sampled_from(["name", "q", "x-name"])),
        allowed=st.sampled_from([("*",), (), ("db.*", "nested")]),
        actions=st.lists(
            st.tuples(
                st.sampled_from(["url.*", "nested", "user.id", "q"]), st.sampled_from(ACTIONS)
            ),
            max_size=2,
        ).map(tuple),
        hash_key=st.just("k"),
        **{
            name: st.booleans()
            for name in (
                *("user_info", "database_query_data", "queues", "graphql_document"),
                *("graphql_variables", "gen_ai_inputs", "gen_ai_outputs"),
            )
        },
    ),
)

_NAMED = [f"http.request.header.{name}" for name in ("accept", "x-real-ip", "cookie", "referer")]

# -- once and for all -----------------------------------------------------------------------------


@given(policy=ANY_POLICY, root=spans(), child=spans(span_id=2, parent=1), known=facts())
def test_a_clean_transaction_is_clean(
    policy: Policy, root: ReadableSpan, child: ReadableSpan, known: RequestFacts
) -> None:
    dsc = {"public_key": "public"}
    transaction = to_transaction(
        root, [child], event_id="e" * 32, facts=known, sampling_context=dsc
    )
    once = deepcopy(policy.clean(transaction).payload)
    assert policy.clean(deepcopy(once)).payload == once
    encoded(once)


@st.composite
def errors(draw: st.DrawFn) -> Any:
    data = to_json_values(draw(ATTRIBUTES))
    values = st.one_of(TEXT, st.lists(TEXT, max_size=3), st.dictionaries(TEXT, TEXT, max_size=3))
    frame = {
        "in_app": draw(st.booleans()),
        "vars": draw(st.dictionaries(TEXT, values, max_size=3)),
    }
    return {
        "transaction": draw(TEXT),
        "request": draw(requests()),
        "contexts": {"trace": {"data": data}},
        "exception": {"values": [{"value": draw(TEXT), "stacktrace": {"frames": [frame]}}]},
        "logentry": {"message": draw(TEXT), "params": draw(st.lists(TEXT, max_size=2))},
        "breadcrumbs": {
            "values": [
                {
                    "category": draw(st.sampled_from(["query", "http"])),
                    "message": draw(TEXT),
                    "data": data,
                }
            ]
        },
    }


@given(policy=ANY_POLICY, event=errors(), request=requests())
def test_a_clean_error_is_clean(policy: Policy, event: Any, request: dict[str, Any]) -> None:
    secrets = policy.secrets_of(request)
    once = deepcopy(policy.clean_error(event, secrets).payload)
    assert policy.clean_error(deepcopy(once), secrets).payload == once


@given(policy=ANY_POLICY, request=requests())
def test_a_clean_request_is_clean(policy: Policy, request: dict[str, Any]) -> None:
    once = policy.request(request)
    assert policy.request(once) == once


@given(policy=ANY_POLICY, attributes=ATTRIBUTES)
def test_clean_attributes_are_clean(policy: Policy, attributes: dict[str, Any]) -> None:
    once = policy.attributes(to_json_values(attributes))
    assert policy.attributes(once) == once


@given(
    policy=ANY_POLICY,
    attributes=st.dictionaries(
        st.sampled_from(sorted(["a", "b", "c", "d.token", "user.id", "url.full", *_NAMED])),
        st.one_of(TEXT, st.integers(), st.lists(TEXT, max_size=2), st.dictionaries(TEXT, TEXT)),
    ),
)
@example(policy=PRIVATE, attributes={"a": 1, "b": "x", "c": {"token": "t"}})
@example(policy=PRIVATE, attributes={"a": 1, "b": "x", "c": ["http://h/?token=t"]})
def test_attributes_are_cleaned_together_as_each_by_its_rule(
    policy: Policy, attributes: dict[str, Any]
) -> None:
    one_by_one: dict[str, Any] = {}
    for key, value in attributes.items():
        one_by_one |= policy.attributes({key: value}, attributes)
    assert policy.attributes(attributes) == one_by_one


@given(
    policy=ANY_POLICY,
    attributes=st.dictionaries(
        st.sampled_from(["a", "b", "c", "nested", "q", "n", "exception.message", *_NAMED]),
        st.sampled_from(["x", "opensesame", "?a=opensesame", 1, ["for opensesame", "y"]]),
    ),
)
@example(
    policy=Policy(actions=(("q", "keep"),)),
    attributes={"a": "x", "b": "x", "c": "x", "q": "opensesame"},
)
def test_no_free_text_holds_a_secret_of_the_request(
    policy: Policy, attributes: dict[str, Any]
) -> None:
    event: Any = {
        "request": {"headers": {"x-api-key": "opensesame"}},
        "contexts": {"trace": {"data": dict(attributes)}},
        "spans": [{"data": dict(attributes)}],
    }
    clean: Any = policy.clean(event).payload
    for data in (clean["contexts"]["trace"]["data"], clean["spans"][0]["data"]):
        free = {key: value for key, value in data.items() if is_free_text(key)}
        assert "opensesame" not in str(free)


@given(query=TEXT, rule=RULES)
@example(query="next=/?next=/?&", rule=KeyValueRule())
def test_a_clean_query_is_clean(query: str, rule: KeyValueRule) -> None:
    once = clean_query(query, rule)
    assert clean_query(once, rule) == once


@given(url=TEXT, rule=RULES)
@example(url="https://bob:p?w@h/p@", rule=KeyValueRule())
@example(url="bob:pw@h:x:/@", rule=KeyValueRule())
@example(url="@//A@", rule=KeyValueRule())
@example(url="@//" * 50, rule=KeyValueRule())
@example(url="http://http://u:\\/\\/'pw@", rule=KeyValueRule())
@example(url="https://a,https://u:pw@h/", rule=KeyValueRule())
def test_a_clean_url_is_clean(url: str, rule: KeyValueRule) -> None:
    once = clean_url(url, rule)
    assert clean_url(once, rule) == once
    assert without_credentials(without_credentials(url)) == without_credentials(url)


@given(text=TEXT)
@example(text="B==/?@//?@//?@/?@/;=")
@example(text="W:///x\n///M://E:x//\x03/@W")
@example(text="B:" + "//?@" * 50)
def test_a_clean_name_is_clean(text: str) -> None:
    once = PRIVATE.text(text)
    assert PRIVATE.text(once) == once


@given(statement=TEXT, system=SYSTEMS)
def test_a_clean_statement_is_clean(statement: str, system: str) -> None:
    once = without_literals(statement, system)
    assert without_literals(once, system) == once


@given(text=TEXT, secrets=st.frozensets(st.text("abFilt", min_size=4), max_size=3), rule=RULES)
def test_a_clean_text_is_clean_and_has_no_secret(
    text: str, secrets: frozenset[str], rule: KeyValueRule
) -> None:
    secrets = frozenset(secret for secret in secrets if secret not in "[Filtered]")
    clean = text_cleaner(secrets, rule, (), PRIVATE._told)
    once = clean(" ".join([text, *secrets]))
    assert clean(once) == once
    assert not any(secret in once for secret in secrets)


# -- canaries -------------------------------------------------------------------------------------

CANARY = "c4n4ry00"
"""Planted in every place that the policy closes. Not a word that could stand elsewhere."""

_FORBIDDEN = """
    http.client_ip client.address user.id user.name user.email user.full_name user.hash user.roles
    user.ip_address enduser.id enduser.role enduser.scope enduser.pseudo.id session.id
    session.previous_id db.user db.connection_string db.params db.sql.bindings db.redis.parameters
    db.redis.key cache.key db.query.parameter.name db.operation.parameter.0
    db.elasticsearch.path_parts.id messaging.kafka.message.key messaging.rocketmq.message.keys
    messaging.message.conversation_id messaging.message.body messaging.header.x graphql.document
    graphql.variables gen_ai.input.messages gen_ai.prompt gen_ai.system_instructions
    gen_ai.output.messages gen_ai.completion gen_ai.tool.call.arguments gen_ai.tool.call.result
    gen_ai.retrieval.query.text gen_ai.retrieval.documents exception.message exception.stacktrace
    process.command_args process.command_line process.environment_variable.HOME process.owner
    host.ip host.mac log.record.original url.fragment http.fragment http.request.body.data
    my.password oauth_token X-Secret basket.api_key sessionid order.auth
    url.path.parameter.token db.statement.parameters input.value output.value process.title
    process.user.name client.socket.address user.geo.region feature_flag.context.id
    tls.client.subject http.request.cookies sentry.user.email gen_ai.event.content
"""
_HEADERS = """
    authorization proxy-authorization cookie x-api-key x-forwarded-for forwarded x-real-ip
    true-client-ip remote-addr via x-csrf-token x-session-id x-auth-token x-user-name
    set-cookie x-secret sec-websocket-protocol x-ssl-client-dn cloudfront-viewer-address from
    cookie2 x-email
"""
FORBIDDEN, HEADERS = _FORBIDDEN.split(), _HEADERS.split()
CAPTURED = [
    f"{prefix}.{name}"
    for prefix in (
        "http.request.header",
        "http.response.header",
        "rpc.request.metadata",
        "rpc.grpc.request.metadata",
        "rpc.response.metadata",
    )
    for header in HEADERS
    for name in (header, header.replace("-", "_"), header.title())
]
SPANS_OWN = ["net.peer.ip", "net.peer.name", "net.sock.peer.addr", "network.peer.address"]
URLS = [
    f"https://bob:{CANARY}@h/p",
    f"https://{CANARY}@h:80/p",
    f"https://bob:a{CANARY}?b@h/p",
    f"https://bob:a#{CANARY}@h/p",
    f"https://h/p?token={CANARY}",
    f"https://h/p?q=1&x-real-ip={CANARY}",
    f"https://h/p?q=1;api_key={CANARY}",
    f"https://h/p?to%6Ben={CANARY}",
    f"https://h/p?next=https%3A%2F%2Fbob%3A{CANARY}%40h%2F",
    f"https://h/p?next=%2Fp%3Fpassword%3D{CANARY}",
    f"https://h/p#{CANARY}",
    f"https://h/p?{CANARY * 4}",
]
STATEMENTS = [
    f"SELECT * FROM t WHERE a = '{CANARY}'",
    f"SELECT * FROM t WHERE a = 'it''s {CANARY}'",
    f"SELECT * FROM t WHERE a = 'it\\'s {CANARY}'",
    f"SELECT * FROM t WHERE a IN ('x', '{CANARY}",
    f"SELECT 1 -- {CANARY}",
    f"/* {CANARY} */ SELECT 1",
]
URL_KEYS = ["http.url", "url.full", "url", "http.request.header.referer"]
STATEMENT_KEYS = ["db.statement", "db.query.text"]

VALUE = st.sampled_from(
    [CANARY, [CANARY], {"a": CANARY}, {"a": [{"b": CANARY}]}, f"a {CANARY} b", (CANARY, 1)]
)
PLANTED = st.one_of(
    st.tuples(st.sampled_from([*FORBIDDEN, *CAPTURED]), VALUE),
    st.tuples(st.sampled_from(URL_KEYS), st.sampled_from(URLS)),
    st.tuples(st.sampled_from(STATEMENT_KEYS), st.sampled_from(STATEMENTS)),
    st.tuples(st.just("url.query"), st.sampled_from(URLS[4:10]).map(lambda u: u.partition("?")[2])),
    st.tuples(st.just("http.target"), st.sampled_from(URLS)),
    st.tuples(
        st.just("http.target"), st.sampled_from(URLS[4:]).map(lambda u: u[len("https://h") :])
    ),
    st.tuples(
        st.just("nested"), st.just({"my": {"password": CANARY}, "list": [{"token": CANARY}]})
    ),
)
PLANTS = st.lists(PLANTED, max_size=8).map(dict)
NAMES = st.one_of(
    st.just("name"),
    st.sampled_from(URLS).map(lambda url: f"GET {url}"),
    st.sampled_from(URLS[4:11]).map(lambda url: f"GET {url.removeprefix('https://h')}"),
)


@st.composite
def planted_spans(draw: st.DrawFn, *, span_id: int, parent: Any = None) -> ReadableSpan:
    kind = draw(st.sampled_from(SpanKind))
    attributes: dict[str, Any] = dict(draw(PLANTS))
    method = draw(st.sampled_from([{}, {"http.method": "GET"}, {"http.request.method": "GET"}]))
    database = {"db.system": draw(st.sampled_from(["sqlite", "postgresql", "new", "redis"]))}
    is_database = any(key in attributes for key in STATEMENT_KEYS)
    attributes = {**attributes, **method, **(database if is_database else {})}
    if kind is SpanKind.SERVER:
        attributes.update(dict.fromkeys(draw(st.lists(st.sampled_from(SPANS_OWN))), CANARY))
    name = (
        draw(st.sampled_from(STATEMENTS))
        if is_database and database["db.system"] != "redis"
        else draw(NAMES)
    )
    return span(
        name,
        span_id=span_id,
        parent=parent,
        kind=kind,
        attributes=attributes,
        status=Status(StatusCode.ERROR, f"ValueError: {CANARY}"),
        links=[Link(span_context(8, 8), dict(draw(PLANTS)))],
        resource=Resource(dict.fromkeys(draw(st.lists(st.sampled_from(FORBIDDEN))), CANARY)),
    )


@st.composite
def planted_requests(draw: st.DrawFn) -> dict[str, Any]:
    """Our own request, and what integrations of sentry-sdk add."""
    return {
        "url": draw(st.sampled_from(URLS)),
        "query_string": draw(st.sampled_from(URLS[4:10])).partition("?")[2],
        "headers": {
            **dict.fromkeys(draw(st.lists(st.sampled_from(HEADERS))), CANARY),
            "referer": draw(st.sampled_from(URLS)),
        },
        "cookies": draw(st.sampled_from([{"theme": CANARY}, f"theme={CANARY}", [["a", CANARY]]])),
        "env": {"REMOTE_ADDR": CANARY},
        "data": draw(
            st.sampled_from([{"password": CANARY}, [{"a": {"token": CANARY}}], f"a={CANARY}"])
        ),
    }


@given(
    policy=st.sampled_from([PRIVATE, STRICTEST]),
    root=planted_spans(span_id=1),
    child=planted_spans(span_id=2, parent=1),
    request=planted_requests(),
    late=st.booleans(),
)
def test_nothing_that_was_planted_leaves_in_a_transaction(
    policy: Policy, root: ReadableSpan, child: ReadableSpan, request: dict[str, Any], late: bool
) -> None:
    transaction = to_transaction(
        root,
        [child],
        event_id="e" * 32,
        facts=RequestFacts(request=request),
        sampling_context={"public_key": "public"},
        late=late,
    )
    assert CANARY in encoded(transaction)
    assert CANARY not in encoded(policy.clean(transaction).payload)


@given(policy=st.sampled_from([PRIVATE, STRICTEST]), plants=PLANTS, request=planted_requests())
def test_nothing_that_was_planted_leaves_in_an_error(
    policy: Policy, plants: dict[str, Any], request: dict[str, Any]
) -> None:
    """Neither from where it was planted, nor from where it travels with the exception."""
    raw = {
        "headers": {"authorization": f"Bearer {CANARY}"},
        "cookies": {"theme": CANARY},
        "query_string": f"token={CANARY}",
        "env": {"REMOTE_ADDR": CANARY},
    }
    attributes = to_json_values(plants)
    text = f"failed for {CANARY}"
    event: Any = {
        "transaction": f"GET {URLS[0]}",
        "request": request,
        "contexts": {"trace": {"data": dict(attributes)}},
        "exception": {
            "values": [
                {
                    "value": text,
                    "stacktrace": {
                        "frames": [
                            {"in_app": True, "vars": {"password": CANARY, "text": repr(text)}},
                            {"in_app": False, "vars": {"scope": {"raw": [["x", CANARY]]}}},
                        ]
                    },
                }
            ]
        },
        "logentry": {"message": text, "formatted": text, "params": [text]},
        "message": text,
        "extra": {"deep": [{"text": text}]},
        "breadcrumbs": {
            "values": [
                {"message": text, "data": dict(attributes)},
                {"category": "query", "message": STATEMENTS[0]},
                {"category": "http", "message": f"GET {URLS[4]}"},
            ]
        },
    }
    cleaned = policy.clean_error(event, policy.secrets_of(raw)).payload
    assert CANARY not in encoded(cleaned)


@given(url=st.sampled_from(URLS))
def test_credentials_and_tokens_of_urls_in_texts_leave_in_no_error(url: str) -> None:
    """Those of the application's own, which no request tells of."""
    if not url.endswith(f"#{CANARY}"):
        event: Any = {"exception": {"values": [{"value": f"cannot connect to {url} today"}]}}
        assert CANARY not in encoded(PRIVATE.clean_error(event).payload)
