"""What may leave: payloads as a whole, and the policy that Sentry's options ask for."""

import dataclasses
import json
import time
import warnings
from copy import deepcopy
from typing import Any, cast

import pytest
import sentry_sdk

from otel_sentry_asgi._policy import (
    FILTERED,
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    KeyValueRule,
    Policy,
    to_policy,
)
from otel_sentry_asgi._policy._rules import (
    PERSONAL_HEADER_TERMS,
    SECRET_HEADER_TERMS,
    SECRET_HEADER_WORDS,
)
from tests.policies import COLLECTING, EMPTY, OPEN, POLICIES, PRIVATE, STRICT, STRICTEST

STATEMENT = "SELECT * FROM users WHERE name = 'bob'"
PLAIN = "SELECT * FROM users WHERE name = ?"
PRIVATE_ONES = pytest.mark.parametrize("policy", [PRIVATE, STRICTEST], ids=["private", "strictest"])
OPEN_ONES = pytest.mark.parametrize("policy", [OPEN, COLLECTING], ids=["open", "collecting"])


# -- the policy of Sentry's options ---------------------------------------------------------------


def test_the_default_is_the_most_private_of_send_default_pii() -> None:
    assert Policy() == PRIVATE == to_policy({"provided_by_user": False}, pii=False)


def test_a_policy_does_not_change_what_it_is() -> None:
    policy: Any = Policy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.user_info = True
    assert dataclasses.replace(policy, user_info=True) != policy == Policy()
    assert "hash_key" not in repr(dataclasses.replace(policy, hash_key="secret"))


def test_send_default_pii_opens_every_category() -> None:
    for field in dataclasses.fields(Policy):
        if field.type == "bool":
            assert getattr(OPEN, field.name) is True
    assert {OPEN.cookies, OPEN.headers, OPEN.query, OPEN.frame_variables} == {INSENSITIVE}


def test_an_empty_data_collection_opens_every_category() -> None:
    assert COLLECTING == OPEN


def test_a_data_collection_that_is_off_closes_every_category() -> None:
    for field in dataclasses.fields(Policy):
        if field.type == "bool":
            assert getattr(STRICTEST, field.name) is False
    rules = {STRICTEST.cookies, STRICTEST.headers, STRICTEST.query, STRICTEST.frame_variables}
    assert rules == {NOTHING}


def test_without_personal_data_there_are_no_cookies_and_no_personal_headers() -> None:
    assert PRIVATE.cookies == NOTHING
    assert PRIVATE.headers == PRIVATE.query == IMPERSONAL
    assert PRIVATE.frame_variables == INSENSITIVE


@pytest.mark.parametrize("pii", [True, False])
def test_the_option_for_local_variables_counts_without_a_data_collection(pii: bool) -> None:
    assert to_policy(None, pii=pii, local_variables=False).frame_variables == NOTHING
    assert to_policy(EMPTY, pii=pii, local_variables=False).frame_variables == INSENSITIVE


def test_rules_of_the_users_own_are_taken_over() -> None:
    collection = {
        **STRICT,
        "cookies": {"mode": "allowlist", "terms": ["Theme"]},
        "http_headers": {"request": {"mode": "denylist", "terms": ["X-Shop"]}},
        "url_query_params": {"mode": "allowlist"},
        "stack_frame_variables": {"mode": "denylist", "terms": ["card"]},
        "http_bodies": ["incoming_request"],
    }
    policy = to_policy(collection, pii=True, terms=("iban",))
    assert policy.cookies == KeyValueRule("allowlist", ("theme",))
    assert policy.headers == KeyValueRule("denylist", ("x-shop",))
    assert policy.query == KeyValueRule("allowlist")
    assert policy.frame_variables == KeyValueRule("denylist", ("card",))
    assert policy.bodies
    assert policy.terms == ("iban",)


def test_of_a_data_collection_what_is_missing_is_off() -> None:
    assert to_policy({"provided_by_user": True}, pii=True) == STRICTEST


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PRIVATE),
        ({"send_default_pii": False}, PRIVATE),
        ({"send_default_pii": True}, OPEN),
        ({"data_collection": {}}, COLLECTING),
        (
            {"data_collection": {key: STRICT[key] for key in STRICT if key != "provided_by_user"}},
            STRICTEST,
        ),
        ({"send_default_pii": True, "data_collection": {"user_info": False}}, "no user"),
    ],
)
def test_it_is_what_a_real_client_resolves_its_options_to(
    options: dict[str, Any], expected: Policy | str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            client = sentry_sdk.Client(default_integrations=False, **options)
        except TypeError:
            pytest.skip("this version of sentry-sdk has no data_collection")
    policy = to_policy(client.options.get("data_collection"), pii=client.should_send_default_pii())
    client.close()
    if expected == "no user":
        expected = dataclasses.replace(COLLECTING, user_info=False)
    assert policy == expected


# -- the request ----------------------------------------------------------------------------------

REQUEST = {
    "method": "POST",
    "url": "https://h/p",
    "query_string": "q=1&token=x",
    "headers": {
        "accept": "*/*",
        "authorization": "Bearer x",
        "cookie": "theme=dark; sid=x",
        "x-forwarded-for": "192.0.2.7",
        "referer": "https://bob:pw@h/?token=x#top",
    },
    "cookies": {"theme": "dark", "sid": "x"},
    "env": {"REMOTE_ADDR": "192.0.2.7", "SERVER_NAME": "h"},
    "data": {"name": "bob", "password": "x", "cards": [{"secret": "x", "id": 5}]},
}
BODY = {"name": "bob", "password": FILTERED, "cards": [{"secret": FILTERED, "id": 5}]}


def test_a_request_without_personal_data() -> None:
    assert PRIVATE.request(REQUEST) == {
        "method": "POST",
        "url": "https://h/p",
        "query_string": "q=1&token=[Filtered]",
        "headers": {
            "accept": "*/*",
            "authorization": FILTERED,
            "cookie": FILTERED,
            "x-forwarded-for": FILTERED,
            "referer": "https://h/?token=[Filtered]",
        },
        "env": {"SERVER_NAME": "h"},
        "data": BODY,
    }


@OPEN_ONES
def test_a_request_with_personal_data_has_no_secrets_all_the_same(policy: Policy) -> None:
    assert policy.request(REQUEST) == {
        "method": "POST",
        "url": "https://h/p",
        "query_string": "q=1&token=[Filtered]",
        "headers": {
            "accept": "*/*",
            "authorization": FILTERED,
            "cookie": FILTERED,
            "x-forwarded-for": "192.0.2.7",
            "referer": "https://h/?token=[Filtered]",
        },
        "cookies": {"theme": "dark", "sid": FILTERED},
        "env": {"REMOTE_ADDR": "192.0.2.7", "SERVER_NAME": "h"},
        "data": BODY,
    }


def test_the_strictest_request_is_method_and_url() -> None:
    assert STRICTEST.request(REQUEST) == {
        "method": "POST",
        "url": "https://h/p",
        "env": {"SERVER_NAME": "h"},
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://bob:pw@h/p", {"url": "https://h/p"}),
        ("https://h/p?token=x#top", {"url": "https://h/p", "query_string": "token=[Filtered]"}),
        ("https://h/p#top", {"url": "https://h/p"}),
    ],
)
def test_the_url_of_a_request_is_cleaned_and_its_query_moved(url: str, expected: Any) -> None:
    assert PRIVATE.request({"url": url}) == expected


def test_a_query_of_its_own_wins_over_that_of_the_url() -> None:
    request = {"url": "https://h/p?a=1", "query_string": "b=2"}
    assert PRIVATE.request(request) == {"url": "https://h/p", "query_string": "b=2"}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(
    "request_",
    [
        {"cookies": "sid=secret"},
        {"cookies": [["sid", "secret"]]},
        {"headers": [["authorization", "secret"]]},
        {"query_string": {"token": "secret"}},
        {"query_string": [["token", "secret"]]},
        {"data": "password=secret"},
        {"data": b"secret"},
        {"env": "secret"},
        {"something_new": "secret"},
    ],
    ids=str,
)
def test_what_cannot_be_judged_is_left_out(policy: Policy, request_: dict[str, Any]) -> None:
    """Sentry takes requests in forms that hide the keys."""
    assert "secret" not in str(policy.request(request_))


def test_bodies_are_cleaned_at_any_depth_and_have_any_shape() -> None:
    for body, expected in [
        (
            [{"password": "x"}, None, {"a": [5, "b"]}],
            [{"password": FILTERED}, None, {"a": [5, "b"]}],
        ),
        ({"a": [[{"token": "x"}]]}, {"a": [[{"token": FILTERED}]]}),
        ({"token": {"a": 1}}, {"token": FILTERED}),
        (91827364, FILTERED),
        (True, FILTERED),
        (["secret", [0, {"a": 1}]], [FILTERED, [FILTERED, {"a": 1}]]),
    ]:
        assert PRIVATE.request({"data": body}) == {"data": expected}
        assert PRIVATE.request({"data": expected}) == {"data": expected}
        attributes = PRIVATE.attributes({"http.request.body.data": json.dumps(body)})
        kept = json.dumps(expected) if isinstance(expected, (dict, list)) else expected
        assert attributes == {"http.request.body.data": kept}


DOCUMENT = 'mutation { login(pin: "secret") { id } }'
FORM = {"extensions": '{"persistedQuery": {}}'}
PERSISTED = {"extensions": {"persistedQuery": {"sha256Hash": "abc"}}}


@pytest.mark.parametrize("document", [False, True])
@pytest.mark.parametrize("variables", [False, True])
def test_documents_and_variables_of_graphql_requests_stay_where_those_of_spans_do(
    document: bool, variables: bool
) -> None:
    policy = dataclasses.replace(PRIVATE, graphql_document=document, graphql_variables=variables)
    body = {"query": DOCUMENT, "variables": {"mail": "bob", "pin": 5}, "operationName": "login"}
    kept = {
        **body,
        **({} if document else {"query": FILTERED}),
        **({} if variables else {"variables": FILTERED}),
    }
    known = {"variables": kept["variables"], **PERSISTED}
    for given, expected in [
        (body, kept),
        ([body, [body]], [kept, [kept]]),
        ({"variables": body["variables"], **PERSISTED}, known),
        ({"variables": body["variables"], **FORM}, {"variables": kept["variables"], **FORM}),
    ]:
        assert policy.request({"data": given}) == {"data": expected}
        assert policy.request({"data": expected}) == {"data": expected}
        attributes = policy.attributes({"http.request.body.data": json.dumps(given)})
        assert attributes == {"http.request.body.data": json.dumps(expected)}


def test_the_code_of_an_oauth_exchange_is_filtered_in_bodies_and_other_codes_stay() -> None:
    code = "4/0AX4XfWh-012345678901"
    for company in ({"state": "x"}, {"grant_type": "authorization_code"}):
        assert PRIVATE.request({"data": {"code": code, **company}}) == {
            "data": {"code": FILTERED, **company}
        }
    for body in ({"code": "SPRING24", "state": "new"}, {"code": code, "a": 1}, {"code": 5}):
        assert PRIVATE.request({"data": body}) == {"data": body}


@pytest.mark.parametrize(
    "body",
    [
        {"query": "shoes", "variables": {"a": 1}},
        {"query": {"match": {"name": "shoes"}}},
        {"variables": [1], "extensions": None},
        {"data": [{"query": "{ a }"}]},
        {"query": DOCUMENT[:0], "variables": {}},
    ],
    ids=str,
)
def test_other_bodies_with_such_keys_stay(body: dict[str, Any]) -> None:
    assert PRIVATE.request({"data": body}) == {"data": body}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("query={a}&variables={b}&x=1", "query=[Filtered]&variables=[Filtered]&x=1"),
        ("x=1&query=%7Ba%7D", "x=1&query=[Filtered]"),
        (
            "extensions=%7B%22persistedQuery%22%3A1%7D&variables=b",
            "extensions=%7B%22persistedQuery%22%3A1%7D&variables=[Filtered]",
        ),
        ("query=shoes&variables=b", "query=shoes&variables=b"),
        ("q={a}&variables=b", "q={a}&variables=b"),
    ],
)
def test_graphql_in_a_query_string_is_filtered_like_that_of_a_body(
    query: str, expected: str
) -> None:
    for given in (query, expected):
        assert PRIVATE.request({"url": f"https://h/g?{given}"})["query_string"] == expected
        assert PRIVATE.request({"query_string": given}) == {"query_string": expected}
        assert PRIVATE.attributes({"url.query": given, "url.full": f"https://h/g?{given}"}) == {
            "url.query": expected,
            "url.full": f"https://h/g?{expected}",
        }
        assert OPEN.request({"query_string": query}) == {"query_string": query}


def test_the_body_of_a_log_record_is_a_message_and_may_be_a_list() -> None:
    assert PRIVATE.body(["a", 5, {"token": "x"}]) == ["a", 5, {"token": FILTERED}]


def test_the_request_that_is_given_is_not_changed() -> None:
    before = str(REQUEST)
    PRIVATE.request(REQUEST)
    assert str(REQUEST) == before


@pytest.mark.parametrize(
    "name",
    ["referer", "Location", "content-location", "origin", "x-original-url", "X-Original-URI"],
)
def test_urls_in_headers_are_cleaned(name: str) -> None:
    headers = {name: "https://bob:pw@h/p?token=x#top"}
    assert PRIVATE.request({"headers": headers}) == {
        "headers": {name: "https://h/p?token=[Filtered]"}
    }


@pytest.mark.parametrize("policy", [PRIVATE, OPEN, COLLECTING])
@pytest.mark.parametrize("term", [*SECRET_HEADER_TERMS, *sorted(SECRET_HEADER_WORDS)])
def test_headers_of_proxies_that_prove_who_somebody_is_are_filtered(
    policy: Policy, term: str
) -> None:
    headers = {f"x-{term}-x": "bob"}
    assert policy.request({"headers": headers}) == {"headers": {f"x-{term}-x": FILTERED}}


@pytest.mark.parametrize(
    "name", ["x-ping", "x-concert-id", "x-hotpath", "client-dns", "sec-fetch-user"]
)
def test_headers_that_hold_such_words_by_chance_stay(name: str) -> None:
    assert PRIVATE.request({"headers": {name: "1"}}) == {"headers": {name: "1"}}


@pytest.mark.parametrize(
    "name", ["DPoP", "X-Otp", "x-client-cert", "X-Set-Cookie2", "x-hub-signature"]
)
def test_secret_headers_of_outgoing_requests_are_known_by_their_names_in_locals(name: str) -> None:
    folded = f"X-{name}" if "-" not in name else name
    frames = [{"in_app": True, "vars": {"headers": {folded: "bob", "x-forwarded-proto": "http"}}}]
    event: Any = {"exception": {"values": [{"stacktrace": {"frames": frames}}]}}
    PRIVATE.clean_error(event)
    assert frames[0]["vars"] == {"headers": {folded: FILTERED, "x-forwarded-proto": "http"}}


def test_pairs_of_texts_are_no_headers() -> None:
    frames = [{"in_app": True, "vars": {"colors": ["red", "blue"], "pair": ["token", "bob"]}}]
    event: Any = {"exception": {"values": [{"stacktrace": {"frames": frames}}]}}
    dataclasses.replace(STRICTEST, frame_variables=INSENSITIVE).clean_error(event)
    assert frames[0]["vars"] == {"colors": ["red", "blue"], "pair": ["token", FILTERED]}


@pytest.mark.parametrize("term", PERSONAL_HEADER_TERMS)
def test_headers_of_who_and_where_the_client_is_are_filtered_without_personal_data(
    term: str,
) -> None:
    headers = {f"x-{term}": "192.0.2.7"}
    assert PRIVATE.request({"headers": headers}) == {"headers": {f"x-{term}": FILTERED}}
    assert OPEN.request({"headers": headers}) == {"headers": headers}


# Names, and whether they stay without and with personal data.
HEADERS = [
    (
        """
        Sec-WebSocket-Protocol Cookie2 X-Set-Cookie X-Original-Cookie X-Pass X-PW X-Passphrase
        X-MFA-Code X-2FA-Code X-SSL-Client-DN SSL-Client-Serial X-Tls-Client-Dn X-Client-Dn
        X-Client-Cert
        """,
        (False, False),
    ),
    (
        """
        CloudFront-Viewer-Address X-Envoy-Downstream-Address X-Source-Address X-Peer-Address
        CloudFront-Viewer-Latitude CloudFront-Viewer-Longitude CloudFront-Viewer-City
        CloudFront-Viewer-Postal-Code X-AppEngine-CityLatLong X-AppEngine-City X-Akamai-Edgescape
        CF-IPCity CF-IPLatitude CF-IPLongitude CF-Postal-Code X-MS-CLIENT-PRINCIPAL
        X-MS-CLIENT-PRINCIPAL-NAME X-Pomerium-Claim-Groups X-Credential-Identifier
        X-Consumer-Custom-ID X-Consumer-Username From Email X-Email X-Login-Email
        """,
        (False, True),
    ),
    (
        """
        X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix Accept Host
        X-Velocity CloudFront-Viewer-Country X-Passthrough Platform-From
        """,
        (True, True),
    ),
]


@pytest.mark.parametrize(
    ("name", "stays"), [(name, stays) for names, stays in HEADERS for name in names.split()]
)
def test_each_header_of_the_table(name: str, stays: tuple[bool, bool]) -> None:
    for policy, kept in zip((PRIVATE, OPEN), stays, strict=True):
        cleaned = policy.request({"headers": {name: "bob"}})
        assert cleaned == {"headers": {name: "bob" if kept else FILTERED}}
        captured = f"http.request.header.{name.lower().replace('-', '_')}"
        assert policy.attributes({captured: ["bob"]})[captured] == (["bob"] if kept else FILTERED)


def test_the_clients_own_terms_may_name_what_is_excepted_from_those_of_sentry_sdk() -> None:
    policy = dataclasses.replace(PRIVATE, headers=KeyValueRule("denylist", ("forwarded",)))
    headers = {"x-forwarded-proto": "https"}
    assert policy.request({"headers": headers}) == {"headers": {"x-forwarded-proto": FILTERED}}
    assert PRIVATE.request({"headers": headers}) == {"headers": headers}


USERS = "user.id enduser.id user.email userId enduser_email client.address network.peer.address"


@pytest.mark.parametrize("key", USERS.split())
def test_baggage_of_a_caller_has_no_user_without_personal_data(key: str) -> None:
    baggage = f"shop=north,{key}=bob;level=1, {key} = bob"
    cleaned = f"shop=north,{key}={FILTERED};level=1, {key} ={FILTERED}"
    for headers in ({"baggage": baggage}, {"baggage": cleaned}):
        assert PRIVATE.request({"headers": headers}) == {"headers": {"baggage": cleaned}}
    assert OPEN.request({"headers": {"baggage": baggage}}) == {"headers": {"baggage": baggage}}


def test_hostile_keys_of_baggage_take_no_more_than_their_length() -> None:
    began = time.perf_counter()
    for key in ("a." * 100_000, "a" * 200_000):
        assert PRIVATE.attributes({"http.request.header.baggage": f"{key}=x"}) == {
            "http.request.header.baggage": f"{key}={FILTERED}"
        }
    assert time.perf_counter() - began < 1


def test_baggage_follows_the_settings_of_attributes_of_its_names() -> None:
    actions = (("shop", "drop"), ("user.id", "keep"), ("n", "hash"))
    policy = dataclasses.replace(PRIVATE, actions=actions, hash_key="k")
    assert policy.request({"headers": {"baggage": "shop=x,user.id=y,n=z,session.id=x,a=b"}}) == {
        "headers": {"baggage": f"shop={FILTERED},user.id=y,n={FILTERED},session.id={FILTERED},a=b"}
    }


def test_an_allow_list_keeps_the_names_of_all_headers_and_the_values_of_its_own() -> None:
    policy = dataclasses.replace(OPEN, headers=KeyValueRule("allowlist", ("accept", "auth")))
    assert policy.request({"headers": REQUEST["headers"]})["headers"] == {
        "accept": "*/*",
        "authorization": FILTERED,
        "cookie": FILTERED,
        "x-forwarded-for": FILTERED,
        "referer": FILTERED,
    }


# -- names and descriptions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET /p", "GET /p"),
        ("GET /p?token=x", "GET /p"),
        ("GET /p#top", "GET /p"),
        ("GET https://bob:pw@h/p?token=x#top", "GET https://h/p"),
        ("GET http://bob:pw@h", "GET http://h"),
        ("from http://a/?x, to http://bob:pw@b/?x", "from http://a/ to http://b/"),
        ("http://a/,http://bob:pw@b/", "http://a/,http://b/"),
        ("(http://bob:pw@h/?x)", "(http://h/"),
        ("1http://bob:pw@h/", "1http://h/"),
        ("\u00fc://bob:pw@h/", "\u00fc://h/"),
        ("GET\thttp://bob:pw@h/?x\nand more", "GET\thttp://h/\nand more"),
        ("GET //bob:pw@h/p", "GET //h/p"),
        ("GET /a;jsessionid=AB12/b", "GET /a;jsessionid=[Filtered]/b"),
        ("GET /cars;color=red", "GET /cars;color=red"),
        ("GET /a%3Ftoken=x", "GET /a%3F[Filtered]"),
        ("GET /a%253Ftoken=x", "GET /a%253F[Filtered]"),
        ("GET /a%25253ftoken%3Dx now", "GET /a%25253f[Filtered] now"),
        ("GET /a%23access_token=x", "GET /a%23[Filtered]"),
        (
            "GET /to/https%253A%252F%252Fbob%253Apw%2540h",
            "GET /to/https%253A%252F%252F%255BFiltered%255D%2540h",
        ),
        ("GET /tags/c%23/new", "GET /tags/c%23/new"),
        ("GET /to/https%3A%2F%2Fh%3Ftoken%3Dx%26q%3D1", "GET /to/https%3A%2F%2Fh%3F[Filtered]"),
        ("GET /what%3F.txt?q=1", "GET /what%3F.txt"),
        ("GET /100%25/a%20b", "GET /100%25/a%20b"),
        ("is this #1?", "is this #1?"),
        ("C# or F#", "C# or F#"),
        ("mail to bob@h", "mail to bob@h"),
        ("", ""),
    ],
)
def test_a_name_has_no_credentials_and_no_query_of_a_url(text: str, expected: str) -> None:
    assert PRIVATE.text(text) == expected
    assert PRIVATE.text(expected) == expected


def transaction(**given: Any) -> Any:
    return {"contexts": {"trace": {"data": given.pop("data", {})}}, "spans": [], **given}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_name_of_a_transaction_is_cleaned_and_so_is_the_one_in_the_sampling_context(
    policy: Policy,
) -> None:
    name = "GET https://bob:pw@h/p?token=x"
    made = transaction(transaction=name)
    made["contexts"]["trace"]["dynamic_sampling_context"] = {"transaction": name, "release": "1"}
    policy.clean(made)
    assert made["transaction"] == "GET https://h/p"
    assert made["contexts"]["trace"]["dynamic_sampling_context"] == {
        "transaction": "GET https://h/p",
        "release": "1",
    }


@PRIVATE_ONES
@pytest.mark.parametrize("name", [STATEMENT, STATEMENT[:36], "SELECT 'bob'"])
def test_a_statement_in_a_name_loses_its_literals(policy: Policy, name: str) -> None:
    data = {"db.system": "sqlite", "db.statement": STATEMENT}
    cleaned = policy.clean(transaction(transaction=name, data=data)).payload
    assert "bob" not in str(cleaned)


def described(policy: Policy, description: str, data: dict[str, Any], op: str = "db") -> Any:
    span = {"op": op, "description": description, "data": dict(data)}
    policy.clean(transaction(spans=[span]))
    return span["description"]


@pytest.mark.parametrize("key", ["db.statement", "db.query.text"])
@pytest.mark.parametrize("op", ["db", "db.query", "function"])
def test_a_description_that_is_the_statement_is_cleaned_like_it(key: str, op: str) -> None:
    for policy in (PRIVATE, STRICTEST):
        assert described(policy, STATEMENT, {"db.system": "sqlite", key: STATEMENT}, op) == PLAIN
        assert described(policy, STATEMENT, {key: STATEMENT}, op) == PLAIN
    for policy in (OPEN, COLLECTING):
        assert described(policy, STATEMENT, {"db.system": "sqlite", key: STATEMENT}, op) == (
            STATEMENT
        )


@PRIVATE_ONES
def test_a_description_with_literals_is_cleaned_though_no_attribute_says_so(
    policy: Policy,
) -> None:
    """Some instrumentations put the statement into the span's name only."""
    assert described(policy, STATEMENT, {"db.system": "sqlite"}) == PLAIN


@PRIVATE_ONES
def test_a_command_is_cut_in_the_description_too_and_a_name_is_not(policy: Policy) -> None:
    data = {"db.system": "redis", "db.statement": "SET name bob"}
    assert described(policy, "SET name bob", data) == "SET ?"
    assert described(policy, "SET", data) == "SET"
    assert described(policy, "find orders", {"db.system": "mongodb"}) == "find orders"


def test_a_span_without_a_statement_is_described_without_credentials_and_query() -> None:
    assert described(OPEN, "GET https://bob:pw@h/p?q=1", {}, "http.client") == "GET https://h/p"


# -- whole payloads -------------------------------------------------------------------------------


def test_every_part_of_a_transaction_is_cleaned() -> None:
    private = {"user.id": "bob", "kept": 1}
    made = transaction(data=dict(private), request={"env": {"REMOTE_ADDR": "bob"}})
    made["contexts"]["trace"]["links"] = [{"attributes": dict(private)}, {"attributes": None}, {}]
    made["contexts"]["otel"] = {"resource": {"process.command_args": "bob", "kept": 1}}
    made["spans"] = [{"data": dict(private), "links": [{"attributes": dict(private)}]}]
    cleaned: Any = PRIVATE.clean(made).payload
    assert "bob" not in str(cleaned)
    trace = cleaned["contexts"]["trace"]
    assert trace["data"] == {"kept": 1}
    assert trace["links"] == [{"attributes": {"kept": 1}}, {"attributes": {}}, {}]
    assert cleaned["contexts"]["otel"] == {"resource": {"kept": 1}}
    assert cleaned["spans"][0]["data"] == {"kept": 1}
    assert cleaned["spans"][0]["links"] == [{"attributes": {"kept": 1}}]


def test_a_single_span_is_cleaned_like_one_of_a_transaction() -> None:
    span: Any = {"description": "GET /p?q=1", "data": {"user.id": "bob"}}
    assert PRIVATE.clean_span(span) == {"description": "GET /p", "data": {}}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_nearly_empty_payloads_are_taken(policy: Policy) -> None:
    empty: Any
    for empty in ({}, {"contexts": {}}, {"contexts": {"trace": {}}, "spans": []}):
        assert policy.clean(deepcopy(empty)).payload == empty
        assert policy.clean_error(deepcopy(empty)).payload == empty


def test_every_part_of_an_error_is_cleaned() -> None:
    data = {"user.id": "bob", "kept": 1}
    event: Any = {
        "transaction": "GET https://bob:pw@h/p?q=bob",
        "request": {"env": {"REMOTE_ADDR": "bob"}},
        "contexts": {
            "trace": {"data": dict(data), "dynamic_sampling_context": {"transaction": "/p?q=bob"}}
        },
        "exception": {"values": [{"value": "for bobby-tables", "stacktrace": {"frames": []}}]},
        "logentry": {
            "message": "for %s",
            "params": ["bobby-tables"],
            "formatted": "for bobby-tables",
        },
        "message": "for bobby-tables",
        "breadcrumbs": {
            "values": [{"message": "for bobby-tables", "data": dict(data)}, {"data": None}]
        },
        "extra": {"text": "for bobby-tables"},
        "threads": {"values": [{"name": "bobby-tables"}]},
    }
    cleaned: Any = PRIVATE.clean_error(event, frozenset({"bobby-tables"})).payload
    assert "bob" not in str(cleaned)
    assert cleaned["transaction"] == "GET https://h/p"
    assert cleaned["contexts"]["trace"]["data"] == {"kept": 1}
    assert cleaned["breadcrumbs"]["values"][0] == {
        "message": "for [Filtered]",
        "data": {"kept": 1},
    }


def test_what_the_program_is_called_is_left_by_secrets_of_the_request() -> None:
    """Else callers could choose how errors are grouped, and hide them."""
    names = {
        "type": "opensesameError",
        "module": "opensesame",
        "function": "opensesame",
        "filename": "opensesame.py",
        "abs_path": "/opensesame.py",
        "context_line": "opensesame()",
        "pre_context": ["opensesame"],
        "post_context": ["opensesame"],
    }
    told = {"vars": {"a": "opensesame", "type": "opensesame"}}
    mechanism = {"type": "auto.opensesame", "data": {"type": "opensesame"}}
    value = {**names, "value": "opensesame", "stacktrace": {"frames": [{**names, **told}]}}
    event: Any = {"exception": {"values": [{**value, "mechanism": mechanism}]}}
    PRIVATE.clean_error(event, frozenset({"opensesame"}))
    [cleaned] = event["exception"]["values"]
    [frame] = cleaned["stacktrace"]["frames"]
    assert {key: cleaned[key] for key in names} == {key: frame[key] for key in names} == names
    assert frame["vars"] == {"a": "[Filtered]", "type": "[Filtered]"}
    assert cleaned["value"] == "[Filtered]"
    assert cleaned["mechanism"] == {"type": "auto.opensesame", "data": {"type": "[Filtered]"}}


def test_whom_the_application_calls_its_user_is_left_by_secrets_of_the_request() -> None:
    """Also short ones in tags and the like: words of the language."""
    event: Any = {
        "user": {"id": "user-10001", "email": "https://u:pw@h"},
        "tags": {"plan": "dark-mode", "seen": "user-10001"},
        "contexts": {"o": {"plan": "dark"}},
    }
    PRIVATE.clean_scope_data(event, frozenset({"user-10001", "dark"}))
    assert event["user"] == {"id": "user-10001", "email": "https://[Filtered]@h"}
    assert event["tags"] == {"plan": "dark-mode", "seen": "[Filtered]"}
    assert event["contexts"] == {"o": {"plan": "dark"}}


@pytest.mark.parametrize("secret", ["https", "postgresql", "access_token", "db/shop?a", "://bob"])
def test_a_secret_does_not_hide_the_credentials_of_a_url(secret: str) -> None:
    """`X-Forwarded-Proto: https`, or a cookie of that value, comes with each request."""
    text = "POST https://bob:pwpw@db/shop?access_token=sesame, postgresql://bob:pwpw@db/shop"
    event: Any = {"exception": {"values": [{"value": text}]}, "extra": {"text": text}}
    PRIVATE.clean_error(event, frozenset({secret}))
    assert "pwpw" not in str(event)
    assert "sesame" not in str(event)


def test_credentials_of_urls_go_from_every_text_of_an_error() -> None:
    event: Any = {"exception": [{"value": "no postgresql://bob:pw@db/shop"}]}
    PRIVATE.clean_error(event)
    assert event["exception"] == [{"value": "no postgresql://[Filtered]@db/shop"}]


@PRIVATE_ONES
def test_a_statement_in_a_breadcrumb_loses_its_literals(policy: Policy) -> None:
    crumb = {"category": "query", "message": STATEMENT, "data": {"db.params": ["bob"]}}
    event: Any = {"breadcrumbs": [crumb]}
    policy.clean_error(event)
    assert event["breadcrumbs"] == [{"category": "query", "message": PLAIN, "data": {}}]


@OPEN_ONES
def test_with_database_data_a_statement_in_a_breadcrumb_stays(policy: Policy) -> None:
    event: Any = {"breadcrumbs": [{"category": "query", "message": STATEMENT}]}
    policy.clean_error(event)
    assert event["breadcrumbs"] == [{"category": "query", "message": STATEMENT}]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_of_a_command_line_in_a_breadcrumb_the_program_stays(policy: Policy) -> None:
    event: Any = {"breadcrumbs": [{"category": "subprocess", "message": "psql --password bob"}]}
    policy.clean_error(event)
    assert event["breadcrumbs"] == [{"category": "subprocess", "message": "psql"}]


@pytest.mark.parametrize("data", [None, "text", ["a"]])
def test_a_breadcrumb_may_have_data_of_any_form(data: Any) -> None:
    event: Any = {"breadcrumbs": [{"category": "query", "message": "SELECT 1", "data": data}]}
    PRIVATE.clean_error(event)
    assert event["breadcrumbs"][0]["message"] == "SELECT ?"


def test_a_secret_of_the_request_is_taken_out_of_free_texts_and_of_nothing_else() -> None:
    """A client could change names, statements and the like at will."""
    data = {
        "shop.note": "for sesame-1",
        "shop.notes": ["a", "sesame-1"],
        "http.route": "/sesame-1",
        "db.collection.name": "sesame-1",
    }
    link = {"attributes": {"shop.note": "sesame-1"}}
    made: Any = {
        "transaction": "GET /sesame-1",
        "request": {"url": "https://h/", "headers": {"x-api-key": "sesame-1"}},
        "contexts": {"trace": {"data": dict(data), "links": [link]}},
        "spans": [{"description": "sesame-1", "data": dict(data)}],
        "tags": {"seen": "sesame-1"},
    }
    cleaned: Any = PRIVATE.clean(made).payload
    trace, (span,) = cleaned["contexts"]["trace"], cleaned["spans"]
    for attributes in (trace["data"], span["data"]):
        assert attributes == {
            **data,
            "shop.note": "for [Filtered]",
            "shop.notes": ["a", "[Filtered]"],
        }
    assert trace["links"] == [{"attributes": {"shop.note": "[Filtered]"}}]
    assert cleaned["tags"] == {"seen": "[Filtered]"}
    assert (cleaned["transaction"], span["description"]) == ("GET /sesame-1", "sesame-1")


def test_data_of_a_breadcrumb_may_have_keys_of_any_kind() -> None:
    crumb = {"category": "x", "data": {1: "https://bob:sesame@h/", None: 2}}
    assert PRIVATE.clean_crumb(crumb)["data"] == {"1": "https://[Filtered]@h/", "None": 2}


def test_a_secret_of_the_request_is_taken_out_of_breadcrumbs_of_any_transaction() -> None:
    event = {
        "request": {"headers": {"authorization": "Bearer opensesame"}},
        "breadcrumbs": {"values": [{"message": "sent opensesame"}]},
    }
    clean: Any = PRIVATE.clean(cast("Any", event)).payload
    assert clean["breadcrumbs"]["values"] == [{"message": "sent [Filtered]"}]


def test_a_secret_of_the_request_is_taken_out_of_attributes_of_an_error() -> None:
    event = {"contexts": {"trace": {"data": {"note": ["sent opensesame"]}}}}
    clean: Any = PRIVATE.clean_error(cast("Any", event), frozenset({"opensesame"})).payload
    assert clean["contexts"]["trace"]["data"] == {"note": ["sent [Filtered]"]}


def test_data_of_a_breadcrumb_is_cleaned_by_the_keys_in_it() -> None:
    crumb = {"category": "x", "data": {"a": {"b": [{"pwd": "sesame", "n": 1}]}, "l": [{"pwd": 1}]}}
    assert PRIVATE.clean_crumb(crumb)["data"] == {
        "a": {"b": [{"pwd": "[Filtered]", "n": 1}]},
        "l": [{"pwd": "[Filtered]"}],
    }
