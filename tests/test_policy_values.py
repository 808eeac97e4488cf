"""Private values where no key describes them: frame locals, messages, secrets that travel."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from otel_sentry_asgi._policy import FILTERED, IMPERSONAL, INSENSITIVE, NOTHING, KeyValueRule
from otel_sentry_asgi._policy._values import clean_strings, clean_vars, text_cleaner
from tests.policies import OPEN, PRIVATE, SECRET_KEYS, STRICTEST


def cleaned(variables: dict[str, Any], headers: KeyValueRule = IMPERSONAL) -> Any:
    return clean_vars(variables, lambda name: INSENSITIVE.allows(name), headers, ())


# -- frame locals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["'x'", 5, None, {"a": "b"}, ["a"], True])
def test_a_variable_with_a_sensitive_name_is_filtered_whatever_it_holds(value: Any) -> None:
    assert cleaned({"password": value, "my_token": value}) == {
        "password": FILTERED,
        "my_token": FILTERED,
    }


@pytest.mark.parametrize("value", ["'x'", 5, None, True, ["a", 1], {"a": {"b": ["c"]}}])
def test_other_variables_stay(value: Any) -> None:
    assert cleaned({"value": value}) == {"value": value}


def test_sensitive_keys_are_found_at_any_depth_with_the_quotes_of_their_repr() -> None:
    variables = {"form": {"'password'": "'x'", "rows": [{'"api_key"': "'x'", "'id'": "5"}]}}
    assert cleaned(variables) == {
        "form": {"'password'": FILTERED, "rows": [{'"api_key"': FILTERED, "'id'": "5"}]}
    }


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize("printed", [str, repr, lambda key: repr(key.encode())])
def test_keys_that_are_names_of_secret_headers_are_filtered_at_any_depth(
    key: str, printed: Callable[[str], str]
) -> None:
    variables = {"args": [{"headers": {printed(key): "'x'", "'Accept'": "'y'"}}]}
    assert cleaned(variables) == {
        "args": [{"headers": {printed(key): FILTERED, "'Accept'": "'y'"}}]
    }


def test_keys_that_no_header_has_are_no_names_of_headers() -> None:
    """`via` and the like are words, and a variable's name has no hyphens."""
    variables = {"trivia": "1", "is_user": "1", "d": {"'via'": "1", "'client_ip'": "1"}}
    assert cleaned(variables) == variables


@pytest.mark.parametrize("rule", [NOTHING, KeyValueRule("allowlist", ("accept",))])
def test_where_headers_are_off_other_keys_with_a_hyphen_stay(rule: KeyValueRule) -> None:
    values = {"en-US": "x", "Set-Cookie": "x", "X-Real-IP": "x"}
    assert cleaned({"d": values}, rule) == {
        "d": {"en-US": "x", "Set-Cookie": FILTERED, "X-Real-IP": FILTERED}
    }


@pytest.mark.parametrize(
    "value",
    [
        "Headers({'authorization': 'Bearer x'})",
        "MutableHeaders(raw=[(b'cookie', b'x')])",
        "<QueryParams('token=x')> QueryParams('token=x')",
        "URL('https://h/?token=x')",
        "Scope({'type': 'http'})",
    ],
)
def test_what_prints_as_request_data_is_filtered(value: str) -> None:
    assert cleaned({"value": value, "values": [value], "map": {"k": value}}) == {
        "value": FILTERED,
        "values": [FILTERED],
        "map": {"k": FILTERED},
    }


@pytest.mark.parametrize(
    "scope",
    [
        {"'type'": "'http'", "'headers'": "[...]", "'path'": "'/x'"},
        {"type": "http", "headers": []},
        {"'asgi'": "{...}", "'path'": "'/x'"},
    ],
)
def test_an_asgi_scope_is_filtered(scope: dict[str, Any]) -> None:
    assert cleaned({"scope": scope, "request": [scope]}) == {
        "scope": FILTERED,
        "request": [FILTERED],
    }


@pytest.mark.parametrize(
    "name", ["b'cookie'", "'authorization'", "b'x-forwarded-for'", "x_api_key"]
)
def test_a_pair_that_is_a_private_header_loses_its_value(name: str) -> None:
    assert cleaned({"raw": [[name, "b'x'"], ["b'accept'", "b'y'"]]}) == {
        "raw": [[name, FILTERED], ["b'accept'", "b'y'"]]
    }


def test_any_other_pair_stays() -> None:
    pairs = {"values": [[1, 2], ["a b", "c"], ["accept", "d"], ("a", "b")]}
    assert cleaned(pairs) == {"values": [[1, 2], ["a b", "c"], ["accept", "d"], ["a", "b"]]}


def frames(**given: Any) -> Any:
    frame = {"vars": {"password": "x", "user": "bob"}, **given}
    return {"exception": {"values": [{"stacktrace": {"frames": [frame]}}]}}


def vars_of(event: Any) -> Any:
    return event["exception"]["values"][0]["stacktrace"]["frames"][0].get("vars")


def locals_of(policy: Any, **variables: Any) -> Any:
    event = frames(in_app=True, vars=variables)
    policy.clean_error(event)
    return vars_of(event)


@pytest.mark.parametrize("name", ["cookies", "request_cookies", "'cookies'"])
@pytest.mark.parametrize("printed", [str, repr])
def test_what_is_called_cookies_leaves_by_the_rule_of_cookies(
    name: str, printed: Callable[[str], str]
) -> None:
    theme, token = printed("theme"), printed("my_token")
    given = {theme: "'dark'", token: "'x'"}
    filtered = dict.fromkeys(given, FILTERED)
    for variables in ({name: given}, {"kwargs": {name: given}}, {"a": [{name: given}]}):
        told = json.dumps(variables)
        assert locals_of(PRIVATE, **variables) == json.loads(
            told.replace(json.dumps(given), json.dumps(filtered))
        )
        assert locals_of(OPEN, **variables) == json.loads(
            told.replace(json.dumps(given), json.dumps({**given, token: FILTERED}))
        )


def test_cookies_without_keys_to_judge_by_are_filtered() -> None:
    jar = "<RequestsCookieJar[<Cookie theme=dark for h/>]>"
    given = {"cookies": jar, "n": {"cookies": ["theme=dark", ["theme", "dark"]]}}
    for policy in (PRIVATE, OPEN):
        assert locals_of(policy, **given) == {
            "cookies": FILTERED,
            "n": {"cookies": FILTERED},
        }
    for harmless in ({"cookies": 3}, {"cookies": None}, {"accept_cookies": True}):
        assert locals_of(PRIVATE, **harmless) == harmless


@pytest.mark.parametrize("name", ["headers", "extra_headers", "'headers'"])
def test_what_is_called_headers_leaves_by_the_rule_of_headers(name: str) -> None:
    given = {"'accept'": "'y'", "DPoP": "'x'", "'from'": "'x'", "'via'": "'x'"}
    assert locals_of(PRIVATE, **{name: given}) == {
        name: {"'accept'": "'y'", "DPoP": FILTERED, "'from'": FILTERED, "'via'": FILTERED}
    }
    assert locals_of(OPEN, **{name: given}) == {name: {**given, "DPoP": FILTERED}}
    pairs = [["b'dpop'", "b'x'"], ["'accept'", "'y'"], "z"]
    assert locals_of(PRIVATE, **{name: pairs}) == {
        name: [["b'dpop'", FILTERED], ["'accept'", "'y'"], "z"]
    }


def test_frames_of_the_application_keep_their_locals_but_for_sensitive_names() -> None:
    event = PRIVATE.clean_error(frames(in_app=True)).payload
    assert vars_of(event) == {"password": FILTERED, "user": "bob"}


def test_frames_of_libraries_have_locals_only_with_personal_data() -> None:
    """Those of servers and frameworks hold the ASGI scope, raw headers and cookies."""
    assert vars_of(PRIVATE.clean_error(frames(in_app=False)).payload) is None
    assert vars_of(OPEN.clean_error(frames(in_app=False)).payload) == {
        "password": FILTERED,
        "user": "bob",
    }


def test_no_frame_has_locals_when_they_are_off() -> None:
    assert vars_of(STRICTEST.clean_error(frames(in_app=True)).payload) is None


@pytest.mark.parametrize("place", ["exception", "threads"])
@pytest.mark.parametrize("is_list", [True, False])
def test_frames_are_found_wherever_sentry_keeps_them(place: str, is_list: bool) -> None:
    frame: Any = {"in_app": True, "vars": {"password": "x"}}
    holders: list[Any] = [{"stacktrace": {"frames": [frame]}}, {"stacktrace": None}, {}]
    event: Any = {place: holders if is_list else {"values": holders}}
    PRIVATE.clean_error(event)
    assert frame["vars"] == {"password": FILTERED}


def test_frames_of_a_message_are_found_too() -> None:
    frame: Any = {"in_app": True, "vars": {"password": "x"}}
    event: Any = {"stacktrace": {"frames": [frame, {"vars": None}, {}]}}
    PRIVATE.clean_error(event)
    assert frame["vars"] == {"password": FILTERED}


# -- secrets of a request -------------------------------------------------------------------------


def secrets_of(policy: Any = PRIVATE, **request: Any) -> frozenset[str]:
    return policy.secrets_of({"url": "https://h/", "headers": {}, **request})  # type: ignore[no-any-return]


def test_without_a_request_there_are_no_secrets() -> None:
    assert PRIVATE.secrets_of(None) == frozenset()
    assert secrets_of() == frozenset()


def test_what_is_kept_is_no_secret() -> None:
    request = {"headers": {"accept": "text/html"}, "query_string": "lang=german"}
    assert secrets_of(**request) == frozenset()


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("authorization", "Bearer sesame", {"Bearer sesame", "sesame"}),
        ("x-api-key", "sesame", {"sesame"}),
        ("x-forwarded-for", "192.0.2.7, 192.0.2.8", {"192.0.2.7", "192.0.2.8"}),
        ("x-real-ip", "192.0.2.7", {"192.0.2.7"}),
        (
            "forwarded",
            'for=192.0.2.7;by=192.0.2.8, For="192.0.2.9"',
            {"for=192.0.2.7", "by=192.0.2.8", "192.0.2.7", "192.0.2.9"},
        ),
        # Joined by what makes the request of a scope.
        ("x-api-key", "opensesame, opensesam2", {"opensesame", "opensesam2"}),
        ("authorization", "Bearer opensesame, Bearer opensesam2", {"opensesame", "opensesam2"}),
        ("baggage", "color=teal,token=opensesame", {"opensesame"}),
        ("referer", "https://u:opensesame@h/p?token=opensesam2", {"opensesame", "opensesam2"}),
        ("referer", "https://h/?next=https%3A%2F%2Fh%2F%3Ftoken%3Dopensesame", {"opensesame"}),
    ],
)
def test_a_filtered_header_is_a_secret_and_so_are_its_parts(
    name: str, value: str, secrets: set[str]
) -> None:
    assert secrets <= secrets_of(headers={name: value})


def test_a_header_that_is_left_out_is_taken_apart_all_the_same() -> None:
    found = secrets_of(STRICTEST, headers={"baggage": "color=turquoise,shop=1;token=opensesame"})
    assert found == {"turquoise", "opensesame"}
    found = secrets_of(STRICTEST, headers={"referer": "https://h/products?token=opensesame"})
    assert found == {"opensesame"}


def test_of_a_cookie_that_came_twice_both_values_are_secrets() -> None:
    headers = {"cookie": "sid=first; sid=second"}
    assert {"first", "second"} <= secrets_of(OPEN, headers=headers, cookies={"sid": "second"})


def test_the_keys_of_what_is_taken_out_are_no_secrets() -> None:
    """Else a later text would lose the key by which its value is judged."""
    found = secrets_of(query_string="next=%2Fp%3Fpassword%3Dopensesame%26quantity%3D1")
    assert "opensesame" in found
    assert not {"password", "quantity"} & found


def test_name_and_password_of_basic_authentication_are_secrets() -> None:
    """Frameworks decode them, so they turn up in plain."""
    value = f"Basic {b64encode(b'bob:sesame').decode()}"
    assert {value, "bob:sesame", "sesame"} <= secrets_of(headers={"authorization": value})
    assert secrets_of(headers={"authorization": "Basic !"}) == {"Basic !"}


def test_every_long_cookie_is_a_secret_while_cookies_are_off() -> None:
    """A short value without a telling name is a preference, and a word of the language."""
    headers = {"cookie": 'theme=dark; sid=abcd; name=b%20ob-the-1st; q="quoted-1"'}
    cookies = {"theme": "dark", "sid": "abcd", "name": "b%20ob-the-1st", "q": '"quoted-1"'}
    found = secrets_of(headers=headers, cookies=cookies)
    assert {"abcd", "b%20ob-the-1st", "b ob-the-1st", "quoted-1"} <= found
    assert "dark" not in found
    open_found = secrets_of(OPEN, headers=headers, cookies={**cookies, "token": "sesame"})
    assert "sesame" in open_found
    assert "b ob-the-1st" not in open_found


def test_a_number_in_a_body_is_a_secret() -> None:
    assert secrets_of(data={"password": 77665544, "n": 12345678}) == {"77665544"}


def test_what_of_a_secret_may_stand_alone_is_one() -> None:
    assert "0p3nsesame" in secrets_of(headers={"authorization": 'Token token="0p3nsesame"'})
    found = secrets_of(headers={"x-forwarded-for": "203.0.113.55:50000, [2001:db8::1]:443"})
    assert {"203.0.113.55", "2001:db8::1"} <= found


def test_the_scheme_of_a_url_is_no_secret() -> None:
    assert secrets_of(headers={"x-forwarded-port": "https", "via": "http"}) == frozenset()


@pytest.mark.parametrize("secret", ["sesame\\9", "it's\"sesame", "p\u00e4sesame", "a'sesame"])
@pytest.mark.parametrize("in_text", [str, repr, json.dumps, lambda text: repr({"it's": text})])
def test_a_secret_is_found_as_python_and_json_print_it(
    secret: str, in_text: Callable[[str], str]
) -> None:
    event: Any = {"exception": {"values": [{"value": f"no {in_text(secret)}"}]}}
    PRIVATE.clean_error(event, secrets_of(data={"password": secret}))
    assert "sesame" not in str(event)


def test_a_filtered_parameter_is_a_secret_as_it_stands_and_decoded() -> None:
    found = secrets_of(query_string="lang=german&token=a%2Fbcd&code=x;secret=sesame")
    assert {"a%2Fbcd", "a/bcd", "sesame"} <= found
    assert "german" not in found
    assert "token=a%2Fbcd" not in found
    assert "lang=german&token=a%2Fbcd&code=x;secret=sesame" in found


def test_a_token_without_a_name_is_a_secret() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.e30.x"
    assert token in secrets_of(query_string=token)


def test_the_address_of_the_client_is_a_secret_while_personal_data_is_off() -> None:
    env = {"REMOTE_ADDR": "192.0.2.7"}
    assert "192.0.2.7" in secrets_of(env=env)
    assert "192.0.2.7" not in secrets_of(OPEN, env=env)


def test_what_is_short_is_found_everywhere_and_so_no_secret() -> None:
    found = secrets_of(headers={"x-api-key": "no"}, cookies={"a": "1"}, query_string="token=abc")
    assert found == {"token=abc"}


def test_a_part_of_the_mark_is_no_secret() -> None:
    """Else the marks themselves would be filtered."""
    assert secrets_of(headers={"x-api-key": "Filtered"}) == frozenset()


def test_depth_of_a_body_does_not_keep_an_event_back() -> None:
    """From Python 3.12 on `json` takes deeper ones than Python functions go."""
    body: Any = "opensesame"
    for _ in range(5_000):
        body = [body]
    assert "opensesame" in secrets_of(data=body)


def test_thousands_of_secrets_are_looked_for_in_no_time() -> None:
    """A caller may send as many cookies as the server takes, on the event loop of everybody."""
    many = {f"c{n}": f"value{n:06d}" for n in range(7_500)}
    frames = [{"vars": {f"v{n}": f"x value{n + m:06d} y" for n in range(50)}} for m in range(80)]
    event: Any = {"exception": {"values": [{"value": "x", "stacktrace": {"frames": frames}}]}}
    secrets = secrets_of(cookies=many)
    before = time.process_time()
    PRIVATE.clean_error(event, secrets)
    assert time.process_time() - before < 0.5
    assert "value0" not in str(event)


def test_of_very_many_secrets_only_texts_that_hold_more_than_can_be_taken_out_are_filtered() -> (
    None
):
    many = frozenset(f"value{n:06d}" for n in range(2_000))
    event: Any = {
        "exception": {"values": [{"type": "E", "value": "is value000007"}]},
        "extra": {"all": " ".join(sorted(many)), "n": "nothing", "k": 1},
    }
    PRIVATE.clean_error(event, many)
    assert event["exception"]["values"] == [{"type": "E", "value": "is [Filtered]"}]
    assert event["extra"] == {"all": "[Filtered]", "n": "[Filtered]", "k": 1}


# -- secrets elsewhere ----------------------------------------------------------------------------


def clean(text: str, *secrets: str, query: KeyValueRule = IMPERSONAL) -> str:
    cleaner = text_cleaner(frozenset(secrets), query, ())
    once = cleaner(text)
    assert cleaner(once) == once
    return once


def test_a_password_with_a_slash_is_one() -> None:
    assert clean("at https://user:pass/word@h/p now") == f"at https://{FILTERED}@h/p now"
    assert clean("https://user:pass/word@h", "user") == f"https://{FILTERED}@h"
    for harmless in ("see https://h/@bob", "see https://h:80/@bob"):
        assert clean(harmless) == harmless


def test_secrets_are_replaced_wherever_they_stand() -> None:
    assert clean("sesame, not sesame2", "sesame") == "[Filtered], not [Filtered]2"


def test_a_secret_that_begins_like_another_leaves_nothing_of_it() -> None:
    for secrets in (("open", "opensesame"), ("opensesame", "open"), ("sesame", "opensesame")):
        assert clean("opensesame", *secrets) == FILTERED


def test_a_secret_is_a_text_and_no_pattern() -> None:
    assert clean("a.*b aXXb", "a.*b") == "[Filtered] aXXb"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no postgresql://bob:pw@db/shop", "no postgresql://[Filtered]@db/shop"),
        ("at https://bob:p@w@h/x", "at https://[Filtered]@h/x"),
        ("at https://bob:it's@h/x", "at https://[Filtered]@h/x"),
        ("at https://bob:p[w@h/x", "at https://[Filtered]@h/x"),
        ("at https://bob:p//w@h/x", "at https://[Filtered]@h/x"),
        (f"at https://aws:{'e' * 4_096}@h/x", "at https://[Filtered]@h/x"),
        (f"at https://aws:{'e/' * 4_096}@h/x", "at https://[Filtered]@h/x"),
        ("at //bob:pw@h/x", "at //[Filtered]@h/x"),
        (r'{"u": "https:\/\/bob:pw@h"}', r'{"u": "https:\/\/[Filtered]@h"}'),
        ("u=https%3A%2F%2Fbob%3Ap%252Fw%40h", "u=https%3A%2F%2F%5BFiltered%5D%40h"),
        ("u=https%253A%252F%252Fbob%2540h", "u=https%253A%252F%252F%255BFiltered%255D%2540h"),
        (r"https://h/?a=1\u0026token=abc", r"https://h/?a=1\u0026token=[Filtered]"),
        ("'postgres://h/db' or 'x@y'", "'postgres://h/db' or 'x@y'"),
        ("['http://h:80','x@y','https://h']", "['http://h:80','x@y','https://h']"),
        ('{"a":"https://h","b":"x@y"}', '{"a":"https://h","b":"x@y"}'),
        ("u=https%3A%2F%2Fh%3Fm%3Dbob%40h", "u=https%3A%2F%2Fh%3Fm%3Dbob%40h"),
        ("// to do: ask bob@example.org", "// to do: ask bob@example.org"),
        ("at https://h/x?token=abc failed", "at https://h/x?token=[Filtered] failed"),
        ("url: /x?a=1&token=abc (Caused by ...)", "url: /x?a=1&token=[Filtered] (Caused by ...)"),
        ("GET '/x?token=abc'", "GET '/x?token=[Filtered]'"),
        ('"GET /x?a=1 HTTP/1.1" 200', '"GET /x?a=1 HTTP/1.1" 200'),
        ("no /cb?code=abc123&state=x", "no /cb?code=[Filtered]&state=x"),
        ("at /a;jsessionid=AB12 now", "at /a;jsessionid=[Filtered] now"),
        ("text/html;charset=utf-8;q=0.9", "text/html;charset=utf-8;q=0.9"),
        ("is a = b? yes", "is a = b? yes"),
        ("bob@example.org", "bob@example.org"),
    ],
)
def test_urls_in_texts_lose_credentials_and_sensitive_parameters(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_urls_in_texts_lose_their_query_when_it_is_not_wanted() -> None:
    assert clean("at /x?a=1 failed", query=NOTHING) == "at /x? failed"


def test_texts_are_found_at_any_depth() -> None:
    value = {"a": ["sesame", ("sesame", 5)], "b": None, "sesame": True}
    assert clean_strings(value, lambda text: text.upper()) == {
        "a": ["SESAME", ["SESAME", 5]],
        "b": None,
        "sesame": True,
    }
