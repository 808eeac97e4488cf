"""What our own settings and the client's scrubber add, and what scopes put on events."""

import dataclasses
import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count, zip_longest
from typing import Any

import pytest
from sentry_relay.processing import convert_datascrubbing_config, pii_strip_event

from otel_sentry_asgi._policy import FILTERED, Policy
from otel_sentry_asgi._policy._memo import LONGEST_SHAPE, MAX_KEYS, MAX_SHAPES, Memo, Shapes
from otel_sentry_asgi._semconv import KIND
from tests.payload import encoded
from tests.policies import COLLECTING, OPEN, POLICIES, PRIVATE, SECRET_KEYS, STRICTEST


def with_(policy: Policy = PRIVATE, **own: Any) -> Policy:
    return dataclasses.replace(policy, **own)


# -- single attributes ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_an_action_wins_over_the_table(policy: Policy) -> None:
    actions = (("user.id", "keep"), ("cart.*", "drop"), ("cart.size", "filter"), ("n", "hash"))
    own = with_(policy, actions=actions, hash_key="pepper")
    given = {"user.id": "bob", "cart.a": 1, "cart.size": 2, "n": "bob", "other": 1}
    left = own.attributes(given)
    assert left["n"].startswith("hmac:")
    assert left == {"user.id": "bob", "cart.size": FILTERED, "n": left["n"], "other": 1}
    assert own.attributes(left) == left


def test_a_hash_is_the_same_for_the_same_value_and_key() -> None:
    def hashed(value: Any, key: str = "pepper") -> Any:
        return with_(actions=(("n", "hash"),), hash_key=key).attributes({"n": value})["n"]

    assert hashed("bob") == hashed("bob") != hashed("ann")
    assert hashed("bob") != hashed("bob", "salt")
    assert hashed(5) == hashed("5")
    assert hashed(["bob", "ann"]) == [hashed("bob"), hashed("ann")]


def test_an_allow_list_closes_the_row_of_unknown_keys_and_no_other() -> None:
    own = with_(OPEN, allowed=("cart.*", "token"))
    given = {"cart.size": 1, "cart.token": "x", "token": "x", "other": 1, "http.method": "GET"}
    left = {"cart.size": 1, "cart.token": FILTERED, "token": FILTERED, "http.method": "GET"}
    assert own.attributes(given) == left
    assert with_(allowed=()).attributes(given) == {"http.method": "GET"}


def test_what_the_event_scrubber_denies_is_denied_where_attributes_are() -> None:
    own = with_(OPEN, scrubbed=frozenset({"ssn", "shop.card"}))
    given = {"shop.SSN": "x", "shop.card": "x", "http.request.header.ssn": ["x"], "shop.note": "x"}
    filtered = dict.fromkeys(given, FILTERED)
    assert own.attributes(given) == {**filtered, "shop.note": "x"}
    assert own.request({"data": {"ssn": "x"}}) == {"data": {"ssn": FILTERED}}


def test_a_memo_is_bounded() -> None:
    memo = Memo(len)
    for number in range(MAX_KEYS + 10):
        assert memo[str(number)] == len(str(number))
    assert len(memo) <= MAX_KEYS


@pytest.mark.parametrize(
    "given",
    [
        lambda key: {"query_string": f"{key}=1"},
        lambda key: {"cookies": {key: "1"}, "headers": {"cookie": f"{key}=1"}},
        lambda key: {"headers": {key: "1"}},
        lambda key: {"data": {key: "1"}},
    ],
    ids=["query", "cookie", "header", "body"],
)
def test_long_keys_of_clients_are_not_remembered(given: Callable[[str], dict[str, Any]]) -> None:
    assert kept_after(lambda key: COLLECTING.request(given(key))) < 100_000


def test_long_keys_of_attributes_are_not_remembered() -> None:
    assert kept_after(lambda key: COLLECTING.attributes({key: "1"})) < 100_000


NUMBERS = count()


def kept_after(clean: Callable[[str], Any]) -> int:
    """Bytes that a hundred keys of 10,000 characters leave behind, which nobody has seen before;
    but for the first and the last."""

    def traced(keys: int) -> int:
        for _ in range(keys):
            clean(f"{next(NUMBERS)}" + "k" * 10_000)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = traced(1)
        return traced(100) - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("action", ["keep", "hash"])
def test_secrets_are_taken_out_of_what_an_action_keeps_too(action: str) -> None:
    own = with_(actions=(("shop.note", action),), hash_key="k")
    event: Any = {
        "request": {"headers": {"x-api-key": "opensesame"}},
        "spans": [{"data": {"a": "1", "b": "2", "c": "3", "shop.note": "for opensesame"}}],
    }
    noted = own.clean(event).payload["spans"][0]["data"]["shop.note"]
    assert noted == "for [Filtered]" if action == "keep" else noted.startswith("hmac:")


def test_sets_of_keys_are_remembered_within_bounds() -> None:
    shapes = Shapes(len)
    for number in range(MAX_SHAPES + 10):
        assert shapes[str(number), "b"] == 2
    assert 0 < len(shapes) <= MAX_SHAPES
    shapes.clear()
    assert shapes["a" * LONGEST_SHAPE, "b"] == 2
    assert not shapes


# -- the callback ---------------------------------------------------------------------------------


def test_a_callback_may_change_a_payload_or_keep_it_in() -> None:
    clean = PRIVATE.clean({"transaction": "a"})
    changed = clean.shown_to(lambda payload: {**payload, "b": 1})
    assert changed is not None
    assert changed.payload == {"transaction": "a", "b": 1}
    assert clean.shown_to(lambda payload: None) is None
    with pytest.raises(TypeError, match="on_payload must return"):
        clean.shown_to(lambda payload: 5)


# -- what scopes put on events --------------------------------------------------------------------

URL = "https://bob:pw@h/?token=x"
PLAIN_URL = "https://[Filtered]@h/?token=[Filtered]"


def test_a_response_that_the_application_describes_is_cleaned_by_key() -> None:
    def cleaned(policy: Policy, response: Any) -> Any:
        event: Any = {"contexts": {"response": response}}
        policy.clean_error(event)
        return event["contexts"]["response"]

    response: Any = {
        "status_code": 200,
        "headers": {"Set-Cookie": "x", "X-Real-IP": "x", "Content-Type": "y"},
        "cookies": {"theme": "dark", "sid": "x"},
        "url": URL,
        "token": "x",
        "data": {"password": "x", "n": 1},
    }
    private = {
        "status_code": 200,
        "headers": {"Set-Cookie": FILTERED, "X-Real-IP": FILTERED, "Content-Type": "y"},
        "cookies": {},
        "url": PLAIN_URL,
        "token": FILTERED,
        "data": {"password": FILTERED, "n": 1},
    }
    assert cleaned(PRIVATE, dict(response)) == private
    assert cleaned(OPEN, dict(response))["cookies"] == {"theme": "dark", "sid": FILTERED}
    assert "data" not in cleaned(STRICTEST, dict(response))
    assert cleaned(PRIVATE, {"headers": [["cookie", "x"]], "status_code": 200}) == {
        "headers": {},
        "status_code": 200,
    }


def test_a_fingerprint_has_no_credentials_and_no_secrets_of_the_request() -> None:
    event: Any = {"fingerprint": ["{{ default }}", URL, "for opensesame"]}
    PRIVATE.clean_error(event, frozenset({"opensesame"}))
    assert event["fingerprint"] == ["{{ default }}", PLAIN_URL, "for [Filtered]"]


@pytest.mark.parametrize("name", ["otel", "cloud_resource", "response"])
@pytest.mark.parametrize("context", [URL, None, {"resource": URL}])
def test_a_context_of_another_form_does_not_keep_an_event_back(name: str, context: Any) -> None:
    event: Any = {"contexts": {name: context}}
    assert "pw" not in encoded(PRIVATE.clean_error(event).payload)


def test_tags_and_descriptions_of_spans_have_no_credentials() -> None:
    made: Any = {
        "description": "x",
        "tags": {"page": URL, "n": "1"},
        "data": {"sentry.description": f"GET {URL}", "sentry.name": f"GET {URL}"},
    }
    span = PRIVATE.clean_span(made)
    assert span["tags"] == {"page": PLAIN_URL, "n": "1"}
    assert span["data"] == {
        "sentry.description": f"GET {PLAIN_URL}",
        "sentry.name": f"GET {PLAIN_URL}",
    }
    data = {"db.system": "sqlite", "sentry.description": "SELECT 'bob'"}
    assert PRIVATE.attributes(data)["sentry.description"] == "SELECT ?"
    assert OPEN.attributes(data)["sentry.description"] == "SELECT 'bob'"


@pytest.mark.parametrize("key", [*SECRET_KEYS, "password", "ssn"])
def test_breadcrumbs_are_cleaned_by_key_at_any_depth(key: str) -> None:
    policy = with_(PRIVATE, scrubbed=frozenset({"ssn"}))
    crumb = policy.clean_crumb({"data": {key: "x", "headers": {key: "x", "Accept": "y"}}})
    assert crumb["data"] == {key: FILTERED, "headers": {key: FILTERED, "Accept": "y"}}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_data_of_the_application_stays_without_credentials_of_urls(policy: Policy) -> None:
    event: Any = {
        "tags": {"token": "mine", "page": URL},
        "extra": {"deep": [{"page": URL}], "sys.argv": ["shop", "--password", "x"]},
        "user": {"id": 5, "password": "mine"},
        "contexts": {"shop": {"page": URL, "secret": "mine"}},
        "breadcrumbs": {"values": [{"message": URL, "data": {"token": "x"}}]},
    }
    policy.clean_scope_data(event)
    page = event["tags"]["page"]
    assert "pw" not in str(event)
    assert "[Filtered]" in page
    assert event["extra"] == {"deep": [{"page": page}], "sys.argv": ["shop"]}
    assert event["user"] == {"id": 5, "password": "mine"}
    assert event["contexts"] == {"shop": {"page": page, "secret": "mine"}}
    assert event["breadcrumbs"] == {"values": [{"message": page, "data": {"token": FILTERED}}]}


def test_terms_of_ones_own_count_in_data_of_the_application() -> None:
    event: Any = {"tags": {"my.IBAN": "x", "a": 1}, "extra": {"iban": {"a": "x"}}}
    with_(OPEN, terms=("iban",)).clean_scope_data(event)
    assert event == {"tags": {"my.IBAN": FILTERED, "a": 1}, "extra": {"iban": FILTERED}}


def test_the_scrubber_counts_in_extra_and_user_as_in_sentry_sdk() -> None:
    own = with_(scrubbed=frozenset({"token", "ip_address"}))
    event: Any = {
        "tags": {"token": "mine"},
        "extra": {"token": "x"},
        "user": {"ip_address": "192.0.2.7", "id": 1},
    }
    own.clean_scope_data(event)
    assert event == {
        "tags": {"token": "mine"},
        "extra": {"token": FILTERED},
        "user": {"id": 1},
    }


def test_of_a_sampling_context_what_is_not_defined_stays_only_with_personal_data() -> None:
    context = {"public_key": "p", "user_id": "bob", "transaction": "GET https://u:p@h/?x"}
    for policy, kept in ((PRIVATE, {}), (OPEN, {"user_id": "bob"})):
        trace = {"dynamic_sampling_context": dict(context)}
        policy.clean({"contexts": {"trace": trace}})
        cleaned = {"public_key": "p", "transaction": "GET https://h/", **kept}
        assert trace["dynamic_sampling_context"] == cleaned


def test_texts_of_a_sampling_context_have_no_credentials() -> None:
    """A caller may have written them into its baggage."""
    context = {"trace_id": "a" * 32, "sample_rate": "1", "release": URL, "transaction": URL}
    trace = {"dynamic_sampling_context": context}
    PRIVATE.clean({"contexts": {"trace": trace}})
    assert trace["dynamic_sampling_context"] == {
        **context,
        "release": PLAIN_URL,
        "transaction": "https://h/",
    }


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_entries_of_baggage_are_judged_by_their_keys(policy: Policy) -> None:
    given = {"http.request.header.baggage": ["a=1, token=x;secret=y;b, c=2"]}
    kept = {"http.request.header.baggage": ["a=1, token=[Filtered];secret=[Filtered];b, c=2"]}
    assert policy.attributes(given) == (kept if policy.headers.mode != "off" else {})


def test_secrets_of_a_body_are_searched_for_in_texts() -> None:
    request = {"data": {"password": "hunter22", "deep": [{"token": ["t0k3n"]}], "note": "fine"}}
    assert PRIVATE.secrets_of(request) == {"hunter22", "t0k3n"}
    assert PRIVATE.secrets_of({"data": "cannot be parsed"}) == {"cannot be parsed"}


# -- remarks --------------------------------------------------------------------------------------

REMARK = {"": {"rem": [["!config", "s"]]}}


def test_what_was_filtered_is_marked_where_it_was() -> None:
    made: Any = {
        "contexts": {"trace": {"data": {"a.token": "x", "b": 1}}, "otel": {"resource": {}}},
        "spans": [{"data": {"b": 1}}, {"data": {"my.secret": "x"}}],
        "request": {
            "headers": {"authorization": "x", "accept": "y"},
            "data": {"rows": [1, {"pwd": "x"}]},
        },
    }
    once = json.loads(encoded(PRIVATE.clean(made).payload))
    assert once["_meta"] == {
        "contexts": {"trace": {"data": {"a.token": REMARK}}},
        "spans": {"1": {"data": {"my.secret": REMARK}}},
        "request": {
            "headers": {"authorization": REMARK},
            "data": {"rows": {"1": {"pwd": REMARK}}},
        },
    }
    assert PRIVATE.clean(json.loads(json.dumps(once))).payload == once


def test_why_there_is_no_body_is_marked() -> None:
    made: Any = {"request": {"method": "POST", "body_removed": {"rule": "!raw", "size": 12}}}
    cleaned: Any = PRIVATE.clean(made).payload
    assert cleaned["request"] == {"method": "POST"}
    assert cleaned["_meta"] == {"request": {"data": {"": {"rem": [["!raw", "x"]], "len": 12}}}}


def test_where_nothing_was_filtered_there_is_no_remark() -> None:
    assert "_meta" not in PRIVATE.clean({"contexts": {"trace": {"data": {"a": 1}}}}).payload
    bare: Any = {"request": {"headers": {"accept": "*/*"}}, "spans": [{"data": {"a": 1}}]}
    assert "_meta" not in PRIVATE.clean(bare).payload


# -- the server's own scrubber --------------------------------------------------------------------


def test_relay_finds_nothing_left_to_remove() -> None:
    """Its default rules, as Sentry gives them to every project."""
    rules = convert_datascrubbing_config(
        {"scrubData": True, "scrubDefaults": True, "scrubIpAddresses": True}
    )
    private: Any = {
        "a.password": "x",
        "http.client_ip": "192.0.2.7",
        "net.peer.ip": "192.0.2.7",
        KIND: "server",
        "http.url": URL,
        "url.query": "token=x&q=1",
        "http.request.header.authorization": ["Bearer x"],
        "http.request.header.x_forwarded_for": ["192.0.2.7"],
        "db.statement": "SELECT '4111111111111111'",
        "enduser.id": "bob",
        "kept": "note",
    }
    made: Any = {
        "type": "transaction",
        "transaction": "GET /",
        "contexts": {"trace": {"trace_id": "a" * 32, "span_id": "b" * 16, "data": dict(private)}},
        "spans": [{"span_id": "c" * 16, "trace_id": "a" * 32, "data": dict(private)}],
        "request": {
            "url": URL,
            "query_string": "token=x&q=1",
            "headers": {"authorization": "Bearer x", "cookie": "sid=x", "x-real-ip": "192.0.2.7"},
            "cookies": {"sid": "x"},
            "env": {"REMOTE_ADDR": "192.0.2.7"},
            "data": {"password": "x", "deep": [{"api_key": "x"}]},
        },
    }
    assert pii_strip_event(rules, made) != pii_strip_event(NO_RULES, made)
    cleaned = json.loads(encoded(PRIVATE.clean(made).payload))
    stripped, untouched = (pii_strip_event(one, cleaned) for one in (rules, NO_RULES))
    changed = list(_changed(stripped, untouched))
    # It takes a whole text where a parameter is called `token`, also when its value has gone.
    assert [value for value in changed if "token=[Filtered]" not in value] == []


NO_RULES: Any = {"applications": {}}


def _changed(stripped: Any, untouched: Any) -> Iterator[str]:
    """The values that the rules have changed."""
    if isinstance(untouched, dict):
        for key, value in untouched.items():
            if key != "_meta":
                yield from _changed(stripped.get(key), value)
    elif isinstance(untouched, list):
        for one, other in zip_longest(stripped or (), untouched):
            yield from _changed(one, other)
    elif stripped != untouched:
        yield str(untouched)
