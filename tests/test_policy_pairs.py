"""Values by key in texts: JSON, what Python prints, connection strings."""

import json
import time
from typing import Any

import pytest

from otel_sentry_asgi._policy import FILTERED
from tests.policies import OPEN, PRIVATE

LOGIN = {"user": "bob", "password": "hunter2", "n": 5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # JSON, as it is, in a sentence, in JSON, and cut.
        (json.dumps(LOGIN), json.dumps({**LOGIN, "password": FILTERED})),
        ('sent {"password":"a\\"b","a":1}', 'sent {"password":"[Filtered]","a":1}'),
        (
            json.dumps({"body": json.dumps(LOGIN)}),
            json.dumps({"body": json.dumps({**LOGIN, "password": FILTERED})}),
        ),
        (
            json.dumps({"body": json.dumps({"password": 'hunt"er2', "a": 1})}),
            json.dumps({"body": json.dumps({"password": FILTERED, "a": 1})}),
        ),
        (
            r'{"body": "{\"password\": \"hun", "a": 1}',
            r'{"body": "{\"password\": \"[Filtered]\", "a": 1}',
        ),
        ('{"a": [{"api_key": "hunt', '{"a": [{"api_key": "[Filtered]"'),
        ('{"pin": 1, "otp": 123456}', '{"pin": 1, "otp": "[Filtered]"}'),
        ('{"auth": {"user": ["b", {"c": "}"}]}, "a": 1}', '{"auth": "[Filtered]", "a": 1}'),
        ('{"tokens": ["a", "b"], "a": 1}', '{"tokens": "[Filtered]", "a": 1}'),
        ('{"session": {"a": {"b": ', '{"session": "[Filtered]"'),
        (
            '{"X-Api-Key": "x", "Cookie": "y"}',
            '{"X-Api-Key": "[Filtered]", "Cookie": "[Filtered]"}',
        ),
        # What Python prints.
        (repr(LOGIN), repr({**LOGIN, "password": FILTERED})),
        (
            "Login(user='bob', password='it\\'s', n=5)",
            "Login(user='bob', password='[Filtered]', n=5)",
        ),
        ("[(b'host', b'h'), (b'cookie', b'a=b')]", "[(b'host', b'h'), (b'cookie', '[Filtered]')]"),
        ("input_value={'token': 'x'}, a", "input_value={'token': '[Filtered]'}, a"),
        ("{'auth': <Auth bob>, 'a': 1}", "{'auth': '[Filtered]', 'a': 1}"),
        ("{'token': UUID('6f1e'), 'a': 1}", "{'token': '[Filtered]', 'a': 1}"),
        ("{'token': T(a=1, b={'c': 2}), 'a': 1}", "{'token': '[Filtered]', 'a': 1}"),
        ("{'session': <Session: <Key: 5k>>}", "{'session': '[Filtered]'}"),
        ("S(session_id=UUID('6f1e'), a=1)", "S(session_id=[Filtered], a=1)"),
        ("S(token=<Token: 6f1e>, a=1)", "S(token=[Filtered], a=1)"),
        ("User(password=SecretStr('x'), a=1)", "User(password=[Filtered], a=1)"),
        # Connection strings.
        ("host=h password=hunter2 user=u", "host=h password=[Filtered] user=u"),
        ("host=h password = 'a b' user=u", "host=h password = '[Filtered]' user=u"),
        ("password=h,unt&er2 host=h", "password=[Filtered] host=h"),
        (
            "Server=h,1433;Uid=sa;Pwd=a b,c;Database=d",
            "Server=h,1433;Uid=sa;Pwd=[Filtered];Database=d",
        ),
        ("Driver={X};Server=h;PWD={a;}}b};A=1", "Driver={X};Server=h;PWD=[Filtered];A=1"),
        ("User ID=u; Password=hunter2; Server=h", "User ID=u; Password=[Filtered]; Server=h"),
        ("h:6379,password=hunter2,ssl=True", "h:6379,password=[Filtered],ssl=True"),
        ("jdbc:sqlserver://h;user=u;password=x", "jdbc:sqlserver://h;user=u;password=[Filtered]"),
        ("AccountName=a;AccountKey=x+y==;A=b", "AccountName=a;AccountKey=[Filtered];A=b"),
        (
            "SharedAccessKeyName=n;SharedAccessKey=x=",
            "SharedAccessKeyName=n;SharedAccessKey=[Filtered]",
        ),
        ("(connect with password=hunter2).", "(connect with password=[Filtered])."),
        ("user=bob&password=hunter2&a=b", "user=bob&password=[Filtered]&a=b"),
        (
            '{"dsn": "host=h password=hunter2", "a": 1}',
            '{"dsn": "host=h password=[Filtered]", "a": 1}',
        ),
        ("aws_secret_access_key=hunter2", "aws_secret_access_key=[Filtered]"),
        ("run --password=hunter2 --n=1", "run --password=[Filtered] --n=1"),
        # Lines of headers, and tokens that say what they are.
        (
            "Illegal header value b'Bearer sk-hunter2 '",
            "Illegal header value b'Bearer [Filtered] '",
        ),
        ("-H 'authorization: Basic aHVudGVy' -v", "-H 'authorization: Basic [Filtered]' -v"),
        ("{'token': Bearer sk-hunter2}", "{'token': Bearer [Filtered]}"),
        ("A: 1\r\nCookie: a=b; c=d\r\nB: 2", "A: 1\r\nCookie: [Filtered]\r\nB: 2"),
        ("bad eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.hunter-2_x!", "bad [Filtered]!"),
    ],
)
def test_what_stands_by_a_sensitive_key_in_a_text_is_filtered(text: str, expected: str) -> None:
    for policy in (PRIVATE, OPEN):
        for given in (text, expected):
            assert policy.attributes({"note": given}) == {"note": expected}
            assert policy.free_text(given) == expected
            assert policy.body({"note": given}) == {"note": expected}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "bob", "a": [1, {"b": null}], "u": "http://h/x"}',
        '{"token": null, "password": true}',
        "sorted by key=price, session=5, token=IDENT",
        "if password == x or token: retry",
        "is the password: right?",
        "password=",
        "password=None",
        "Point(x=1, name='bob')",
        "connect(api_key=None)",
        "UPDATE u SET password=?, secret=%s WHERE password = %(password_1)s AND pwd=:pwd",
        "missing: ['password', 'email', 'name'], at ('token', 'id', 0)",
        "'session_id': Field required, 'token': expected str, got int",
        '{"prompt_tokens": 12, "total_tokens": 30}',
        "('a', 'b')",
        "a = 'b', c='d'",
        "it's 5 o'clock: 'tis",
        "text/html;q=0.9",
        "use Bearer authentication, the bearer of 2 tokens",
        "Authorization: none given; cookie: not set",
        "eyJ is how they begin",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert PRIVATE.attributes({"note": text}) == {"note": text}
    assert PRIVATE.free_text(text) == text


def test_it_goes_for_messages_of_exceptions_and_breadcrumbs_too() -> None:
    text = "no login for {'password': 'hunter2'}"
    event: Any = {
        "exception": {"values": [{"value": text}]},
        "logentry": {"message": text, "formatted": text},
        "breadcrumbs": {"values": [{"message": text}]},
    }
    PRIVATE.clean_error(event)
    assert "hunter2" not in str(event)


def test_source_lines_and_what_the_application_puts_on_its_scopes_stay() -> None:
    """Lines of code hold names, and scopes what the application has chosen."""
    line = 'login(password="hunter2")'
    event: Any = {
        "exception": {"values": [{"stacktrace": {"frames": [{"context_line": line}]}}]},
        "extra": {"a": line},
        "tags": {"a": line},
        "contexts": {"o": {"a": line}},
    }
    expected = str(event)
    PRIVATE.clean_error(event)
    assert str(event) == expected


@pytest.mark.parametrize(
    "piece",
    [
        *('"', "'", '"password":', '"password":"', "'token': {", '{"a":', "password=", "a=", "a "),
        *(
            "pwd={",
            ";pwd=",
            '\\"',
            '\\"token\\":\\"',
            "(b'",
            "('token', '",
            "[",
            "\\",
            "aaaa",
            "a.a",
        ),
        *(
            "bearer ",
            "Bearer a",
            "authorization: basic ",
            "cookie: a",
            "eyJ",
            "eyJaaaaaaaa.",
            "eyJ-",
            "--",
        ),
        *("'token': <", "'token': <a<b>", "token=A('", "token=<A: ", '\\"token\\":\\"\\\\\\"'),
        *("auth=' ", '"auth":[', "= ", ",pwd=a", "passwordpassword"),
    ],
)
def test_hostile_texts_take_no_more_than_their_length(piece: str) -> None:
    """200 000 characters; whatever is quadratic would take minutes."""
    began = time.perf_counter()
    for start in ("", '"token": ', "password="):
        PRIVATE.free_text(start + piece * (200_000 // len(piece)))
    assert time.perf_counter() - began < 5
