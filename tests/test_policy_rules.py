"""Rules by key, and what they make of query strings and URLs."""

import time
from typing import Any

import pytest

from otel_sentry_asgi._policy._rules import (
    FILTERED,
    IMPERSONAL,
    INSENSITIVE,
    NOTHING,
    PERSONAL_TERMS,
    SENSITIVE_TERMS,
    KeyValueRule,
    clean_query,
    clean_url,
    fold,
    is_sensitive,
    without_credentials,
)

ITEMS = {"lang": "en", "theme": "dark", "token": "x"}


# -- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", SENSITIVE_TERMS)
def test_a_key_with_a_built_in_term_is_sensitive_in_any_case_anywhere(term: str) -> None:
    for key in (term, term.upper(), f"x-{term}", f"my_{term}_2", f"user[{term}]"):
        assert is_sensitive(key)
        assert not INSENSITIVE.allows(key)
        assert not KeyValueRule("allowlist", (term,)).allows(key)


@pytest.mark.parametrize("key", ["sig", "Signature", "X-Amz-Signature", "x_goog_signature"])
def test_a_key_that_signs_a_url_is_sensitive(key: str) -> None:
    assert is_sensitive(key)


@pytest.mark.parametrize(
    "key",
    [
        *("otp", "user.otp_code", "passcode", "X-Amz-Credential", "X-Goog-Credential"),
        *("code_verifier", "client_assertion", "oobCode", "pgtIou", "hmac"),
    ],
)
def test_a_key_that_is_the_name_of_a_credential_is_sensitive(key: str) -> None:
    assert is_sensitive(key)


@pytest.mark.parametrize(
    "key",
    [
        *("", "lang", "design", "page", "q", "user", "email"),
        *("code", "ticket", "pass", "status.code", "otp.version", "method_signature"),
    ],
)
def test_other_keys_are_not(key: str) -> None:
    assert not is_sensitive(key)


@pytest.mark.parametrize("term", PERSONAL_TERMS)
def test_a_key_with_a_personal_term_is_not_allowed_while_personal_data_is_off(term: str) -> None:
    for key in (f"x{term}x", f"X{term}X".upper(), f"x{term}x".replace("-", "_")):
        assert not IMPERSONAL.allows(key)


def test_underscores_and_hyphens_are_the_same_on_both_sides() -> None:
    assert fold("X_Real-IP") == "x-real-ip"
    for term in ("real_ip", "real-ip", "REAL_IP"):
        for key in ("x_real_ip", "x-real-ip", "X-Real-IP"):
            assert not KeyValueRule("denylist", (term,)).allows(key)
            assert not INSENSITIVE.allows(key, (term,))


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (NOTHING, {}),
        (INSENSITIVE, {"lang": "en", "theme": "dark", "token": FILTERED}),
        (KeyValueRule("denylist", ("LANG",)), {**ITEMS, "lang": FILTERED, "token": FILTERED}),
        (KeyValueRule("denylist", ("",)), {"lang": "en", "theme": "dark", "token": FILTERED}),
        (
            KeyValueRule("allowlist", ("lang", "token")),
            {**dict.fromkeys(ITEMS, FILTERED), "lang": "en"},
        ),
        (KeyValueRule("allowlist"), dict.fromkeys(ITEMS, FILTERED)),
        (KeyValueRule("allowlist", ("",)), dict.fromkeys(ITEMS, FILTERED)),
    ],
)
def test_a_rule_keeps_every_key_or_none(rule: KeyValueRule, expected: dict[str, Any]) -> None:
    assert rule.clean(ITEMS) == expected


def test_further_terms_count_like_built_in_ones() -> None:
    assert INSENSITIVE.clean({"iban": "x", "lang": "en"}, ("iban",)) == {
        "iban": FILTERED,
        "lang": "en",
    }
    assert not KeyValueRule("allowlist", ("iban",)).allows("iban", ("iban",))


# -- query strings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("q=1", "q=1"),
        ("q=1&token=x&p=2", "q=1&token=[Filtered]&p=2"),
        ("token=x;q=1", "token=[Filtered];q=1"),
        ("q=1;token=x", "q=1;token=[Filtered]"),
        ("token=", "token="),
        ("token=a=b", "token=[Filtered]"),
        ("TOKEN=x", "TOKEN=[Filtered]"),
        ("to%6Ben=x", "to%6Ben=[Filtered]"),
        ("my+token=x", "my+token=[Filtered]"),
        ("user%5Bpassword%5D=x", "user%5Bpassword%5D=[Filtered]"),
        ("debug", "debug"),
        ("eyJhbGciOiJIUzI1NiJ9.e30.x", "[Filtered]"),
        ("q=a%20b+c", "q=a%20b+c"),
        ("&&q=1&", "&&q=1&"),
        ("q=1&q=2", "q=1&q=2"),
        ("next=/a", "next=/a"),
        ("next=%2Fa%3Fq%3D1", "next=%2Fa%3Fq%3D1"),
        ("next=/a?token=x", "next=%2Fa%3Ftoken%3D%5BFiltered%5D"),
        (
            "next=https%3A%2F%2Fbob%3Apw%40h%2Fa%3Ftoken%3Dx%26q%3D1",
            "next=https%3A%2F%2Fh%2Fa%3Ftoken%3D%5BFiltered%5D%26q%3D1",
        ),
        (
            "next=https%3A%2F%2Fh%2F%3Fnext%3Dhttps%253A%252F%252Fh%252F%253Ftoken%253Dx",
            "next=https%3A%2F%2Fh%2F%3Fnext%3D%5BFiltered%5D",
        ),
        ("mail=bob@h", "mail=bob@h"),
        ("q=what?", "q=what?"),
        ("next=cb?token=x", "next=cb%3Ftoken%3D%5BFiltered%5D"),
        ("next=%3Ftoken%3Dx", "next=%3Ftoken%3D%5BFiltered%5D"),
        ("url=example.com%2F%3Ftoken=x", "url=example.com%2F%3Ftoken%3D%5BFiltered%5D"),
        ("state=a%26token%3Dx", "state=a%26token%3D%5BFiltered%5D"),
        ("text=see+https://bob:pw@h", "text=see%20https%3A%2F%2F%5BFiltered%5D%40h"),
        ("next=%252Fcb%253Ftoken%253Dx", "next=%252Fcb%253Ftoken%253D%255BFiltered%255D"),
        ("next=%2Fcb%3Ftoken%3Da%2526x", "next=%2Fcb%3Ftoken%3D%5BFiltered%5D"),
        (
            "u=https://a,https://bob:pw@h/",
            "u=https%3A%2F%2Fa%2Chttps%3A%2F%2F%5BFiltered%5D%40h%2F",
        ),
        ("q=a=b=c=d=e=f=g", "q=a%3D%5BFiltered%5D"),
        ("cursor=YWtleUpj%3D%3D", "cursor=YWtleUpj%3D%3D"),
        ("q=a%3Db%26c%3Dd&r=100%25", "q=a%3Db%26c%3Dd&r=100%25"),
        ("user=bob&pass=x&pw=y", "user=bob&pass=[Filtered]&pw=[Filtered]"),
        ("user_code=WDJB-MJHT", "user_code=[Filtered]"),
        # OAuth's code, by what is beside it or by its length.
        ("code=abc123&state=xyz", "code=[Filtered]&state=xyz"),
        ("state=xyz&code=abc123&scope=a", "state=xyz&code=[Filtered]&scope=a"),
        ("client_id=shop&code=4/0AX4", "client_id=shop&code=[Filtered]"),
        ("code=4%2F0AX4XfWh-0123456789", "code=[Filtered]"),
        (
            "next=%2Fcb%3Fcode%3Dabc123%26state%3Dxyz",
            "next=%2Fcb%3Fcode%3D%5BFiltered%5D%26state%3Dxyz",
        ),
        ("code=DE&state=BY", "code=DE&state=BY"),
        ("code=SPRING24", "code=SPRING24"),
        ("country_code=Deutschland&state=BY", "country_code=Deutschland&state=BY"),
        ("code=SPRING24&estate=1", "code=SPRING24&estate=1"),
        # A ticket of CAS, and one of a help desk.
        ("ticket=ST-1-abc", "ticket=[Filtered]"),
        ("ticket=aA5Yuvrxzpv8Tau1cYQ7", "ticket=[Filtered]"),
        ("ticket=4711&q=1", "ticket=4711&q=1"),
        ("ticket=ST-12", "ticket=ST-12"),
    ],
)
def test_of_a_query_the_values_of_sensitive_parameters_are_filtered(
    query: str, expected: str
) -> None:
    cleaned = clean_query(query, INSENSITIVE)
    assert cleaned == expected
    assert clean_query(cleaned, INSENSITIVE) == cleaned


@pytest.mark.parametrize(
    ("signed", "kept"),
    [
        (
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=x&X-Amz-Date=20130524T000000Z"
            "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Security-Token=x"
            "&X-Amz-Signature=x",
            ["20130524T000000Z", "86400", "host"],
        ),
        ("AWSAccessKeyId=x&Signature=x&Expires=1175139620", ["1175139620"]),
        (
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=x&X-Goog-Expires=900"
            "&X-Goog-Signature=x",
            ["GOOG4-RSA-SHA256", "900"],
        ),
        ("sv=2022-11-02&sr=b&se=2024-01-01&sp=r&sig=x", ["2022-11-02", "2024-01-01", "sp=r"]),
        ("Expires=1&Signature=x&Key-Pair-Id=x", ["Expires=1"]),
        ("x-oss-credential=x&x-oss-expires=60&x-oss-signature=x", ["x-oss-expires=60"]),
    ],
)
def test_of_a_signed_url_what_signs_it_is_filtered_and_the_rest_stays(
    signed: str, kept: list[str]
) -> None:
    cleaned = clean_query(signed, IMPERSONAL)
    assert "=x" not in cleaned
    assert all(one in cleaned for one in kept)


def test_a_query_that_is_not_wanted_is_none() -> None:
    assert clean_query("q=1", NOTHING) == ""


# -- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p", "https://h/p"),
        ("https://bob:pw@h:81/p", "https://h:81/p"),
        ("https://bob@h/p", "https://h/p"),
        ("https://bob:p@w@h/p", "https://h/p"),
        ("//bob:pw@h/p", "//h/p"),
        ("bob:pw@h:80", "h:80"),
        ("bob:pw@h/p", "h/p"),
        ("postgresql://bob:pw@[::1]:5432/shop", "postgresql://[::1]:5432/shop"),
        ("https://[::1]:80/@bob", "https://[::1]:80/@bob"),
        ("/users/bob@h", "/users/bob@h"),
        ("/@bob", "/@bob"),
        ("https://h/@bob", "https://h/@bob"),
        ("https://h?mail=bob@h", "https://h?mail=bob@h"),
        ("https://h:80#bob@h", "https://h:80#bob@h"),
        ("https://bob:p?w@h/p", "https://h/p"),
        ("https://bob:p#w@h/p", "https://h/p"),
        ("https://bob:p/w@h/p", "https://h/p"),
        ("", ""),
        ("@", ""),
    ],
)
def test_a_url_loses_its_credentials_and_nothing_else(url: str, expected: str) -> None:
    assert without_credentials(url) == expected
    assert without_credentials(expected) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://bob:pw@h/p?q=1&token=x#top", "https://h/p?q=1&token=[Filtered]"),
        ("/p?token=x", "/p?token=[Filtered]"),
        ("/p#top", "/p"),
        ("/p?", "/p"),
        ("/p?q=1?2", "/p?q=1?2"),
        ("/p#a?token=x", "/p"),
        ("", ""),
        # Others than the first, which may stand anywhere.
        ("https://h/to/https://bob:pw@h2/x", "https://h/to/https://[Filtered]@h2/x"),
        (
            "https://h/to/https%3A%2F%2Fbob%3Apw%40h2",
            "https://h/to/https%3A%2F%2F%5BFiltered%5D%40h2",
        ),
        ("https://h//bob:pw@h2/x", "https://h//[Filtered]@h2/x"),
        (" https://bob:pw@h/", " https://[Filtered]@h/"),
        ("see https://bob:pw@h", "see https://[Filtered]@h"),
        ("https://a/,https://bob:pw@h/", "https://a/,https://[Filtered]@h/"),
        ("5; url=https://bob:pw@h/", "5; url=https://[Filtered]@h/"),
        ("/a%3Ftoken=x", "/a%3F[Filtered]"),
        ("/a%253Ftoken%253Dx", "/a%253F[Filtered]"),
        ("/what%3F.txt", "/what%3F.txt"),
        ("/a%3Fq=1", "/a%3Fq=1"),
        ("/a%2523access_token=x", "/a%2523[Filtered]"),
        ("/tags/c%23/new", "/tags/c%23/new"),
        ("/shop;jsessionid=AB12!34", "/shop;jsessionid=[Filtered]"),
        ("https://h/a;JSESSIONID=x.n1/b?q=1", "https://h/a;JSESSIONID=[Filtered]/b?q=1"),
        ("/a;v=1;token=x;w=2", "/a;v=1;token=[Filtered];w=2"),
        ("/cars;color=red/2024;doors=4", "/cars;color=red/2024;doors=4"),
    ],
)
def test_a_url_is_cleaned_in_all_its_parts(url: str, expected: str) -> None:
    assert clean_url(url, INSENSITIVE) == expected
    assert clean_url(expected, INSENSITIVE) == expected


def test_without_a_wanted_query_the_url_has_none() -> None:
    assert clean_url("https://bob:pw@h/p?q=1#top", NOTHING) == "https://h/p"
    assert clean_url("https://h/p%3Fq=1", NOTHING) == "https://h/p"
    assert clean_url("https://h/c%23/p%3Fq=1", NOTHING) == "https://h/c%23/p"
    assert clean_url("/cars;color=red;sid=x", NOTHING) == "/cars;color=red;sid=[Filtered]"


@pytest.mark.parametrize(
    "hostile",
    [
        "a=b&" * 50_000,
        ";" * 200_000,
        "next=https://" * 15_000,
        "next=" + "https://h/?next=" * 12_000,
        "a=" * 100_000,
        "%253F" * 40_000,
        "https://" + "a:" * 100_000 + "@",
        "@" * 200_000,
        "?" * 200_000,
        "a" * 200_000,
        "%" * 200_000,
        ";a" * 100_000,
        ";aa=" * 50_000,
        "code=" * 40_000,
        "&state=" + "code=" * 40_000,
    ],
    ids=lambda text: text[:20],
)
def test_hostile_queries_take_no_more_than_their_length(hostile: str) -> None:
    """200 000 characters; whatever is quadratic would take minutes."""
    began = time.perf_counter()
    clean_url(f"https://h/?{hostile}", INSENSITIVE)
    clean_url(hostile, INSENSITIVE)
    assert time.perf_counter() - began < 5
