"""Settings are read once, checked at once, and a mistake names the setting and its value."""

import dataclasses
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from otel_sentry_asgi import Settings, SettingsError, instrument
from otel_sentry_asgi._arguments import Arguments, SettingsArguments
from otel_sentry_asgi.instrumentor import _NO_SETTINGS

WRONG: list[tuple[str, Any]] = [
    ("settle", -0.1),
    ("settle", math.inf),
    ("settle", math.nan),
    ("settle", True),
    ("settle", "1"),
    ("settle", None),
    ("linger", -1),
    ("linger", math.nan),
    ("linger", [1]),
    ("max_age", 0),
    ("max_age", -5),
    ("max_age", math.nan),
    ("max_age", 1j),
    ("max_spans", 0),
    ("max_spans", 1.5),
    ("max_spans", math.inf),
    ("max_spans", True),
    ("max_queue", -1),
    ("max_queue", "many"),
    ("max_buffered", 0),
    ("max_buffered", None),
    ("keep_asgi_spans", "no"),
    ("keep_asgi_spans", 1),
    ("keep_asgi_spans", None),
    ("errors", "everything"),
    ("errors", None),
    ("errors", ["all"]),
    ("failed_request_status_codes", 500),
    ("failed_request_status_codes", "500"),
    ("failed_request_status_codes", {99}),
    ("failed_request_status_codes", {600}),
    ("failed_request_status_codes", [True]),
    ("failed_request_status_codes", ["500"]),
    ("failed_request_status_codes", [[500]]),
    ("failed_request_status_codes", None),
    ("ignored_errors", ValueError),
    ("ignored_errors", ("ValueError",)),
    ("ignored_errors", "ValueError"),
    ("ignored_errors", None),
    ("sensitive_terms", "password"),
    ("sensitive_terms", None),
    ("sensitive_terms", 5),
    ("sensitive_terms", ("a", "")),
    ("sensitive_terms", ("a", " ")),
    ("sensitive_terms", (b"a",)),
    ("allowed_attributes", "app.*"),
    ("allowed_attributes", ("",)),
    ("attribute_actions", "user.id=hash"),
    ("attribute_actions", {"user.id": "erase"}),
    ("attribute_actions", ("user.id",)),
    ("attribute_actions", (("user.id", "drop", "now"),)),
    ("attribute_actions", (5,)),
    ("attribute_actions", {"": "drop"}),
    ("attribute_actions", 5),
    ("hash_key", 5),
    ("on_payload", "print"),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=repr)
def test_a_value_that_cannot_be_used_is_refused_with_its_name_and_itself(
    name: str, value: Any
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert str(caught.value).startswith(f"{name} must be ")
    assert str(caught.value).endswith(f", not {value!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settle", 0),
        ("linger", 0),
        ("linger", math.inf),
        ("max_age", 0.001),
        ("max_age", math.inf),
        ("max_spans", 1),
        ("max_queue", 1),
        ("max_buffered", 1),
        ("keep_asgi_spans", True),
        ("errors", "unhandled"),
        ("errors", "recorded"),
        ("errors", "all"),
        ("failed_request_status_codes", frozenset()),
        ("failed_request_status_codes", frozenset({100, 599})),
        ("ignored_errors", ()),
        ("ignored_errors", (ValueError, bool)),
        ("sensitive_terms", ()),
        ("allowed_attributes", ()),
        ("attribute_actions", ()),
        ("on_payload", dict),
    ],
)
def test_the_edges_of_what_can_be_used_are_accepted(name: str, value: Any) -> None:
    assert getattr(Settings(**{name: value}), name) == value


def test_a_settings_error_is_a_value_error() -> None:
    assert issubclass(SettingsError, ValueError)


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.linger = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "terms", [["Card", " IBAN "], ("Card", "IBAN"), (term for term in ("Card", "IBAN"))]
)
def test_terms_may_come_in_any_iterable_and_any_case(terms: Any) -> None:
    assert Settings(sensitive_terms=terms).sensitive_terms == ("card", "iban")


def test_statuses_and_ignored_errors_may_come_in_any_iterable() -> None:
    settings = Settings(
        failed_request_status_codes=range(500, 502),  # type: ignore[arg-type]
        ignored_errors=[ValueError],  # type: ignore[arg-type]
    )
    assert settings.failed_request_status_codes == {500, 501}
    assert settings.ignored_errors == (ValueError,)


@pytest.mark.parametrize(
    "actions",
    [
        {"user.id": "drop", " app.* ": "keep"},
        (("user.id", "drop"), ("app.*", "keep")),
        ["user.id=drop", "app.*=keep"],
    ],
)
def test_actions_may_come_as_mapping_pairs_or_texts(actions: Any) -> None:
    settings = Settings(attribute_actions=actions)
    assert settings.attribute_actions == (("user.id", "drop"), ("app.*", "keep"))


def test_a_hash_without_a_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="hash_key"):
        Settings(attribute_actions={"user.id": "hash"})


def test_the_key_of_hashes_is_not_printed() -> None:
    assert "pepper" not in repr(Settings(hash_key="pepper"))


def test_a_callback_cannot_come_from_the_environment() -> None:
    with pytest.raises(SettingsError, match="OTEL_SENTRY_ON_PAYLOAD can only be set in code"):
        Settings.from_env({"OTEL_SENTRY_ON_PAYLOAD": "print"})


def test_every_setting_can_come_from_the_environment() -> None:
    environ = {
        "OTEL_SENTRY_SETTLE": "0.5",
        "OTEL_SENTRY_LINGER": " 2 ",
        "OTEL_SENTRY_MAX_AGE": "1e3",
        "OTEL_SENTRY_MAX_SPANS": "10",
        "OTEL_SENTRY_MAX_QUEUE": "20",
        "OTEL_SENTRY_MAX_BUFFERED": "30",
        "OTEL_SENTRY_KEEP_ASGI_SPANS": "Yes",
        "OTEL_SENTRY_FLUSH_PROVIDER": "1",
        "OTEL_SENTRY_KEEP_FAILED": "true",
        "OTEL_SENTRY_PROPAGATE": "no",
        "OTEL_SENTRY_INCOMING_TRACE": "sentry",
        "OTEL_SENTRY_ERRORS": "all",
        "OTEL_SENTRY_SENSITIVE_TERMS": "card, IBAN ,",
        "OTEL_SENTRY_ALLOWED_ATTRIBUTES": "app.*,cart",
        "OTEL_SENTRY_ATTRIBUTE_ACTIONS": "user.id=hash",
        "OTEL_SENTRY_HASH_KEY": "pepper",
        "OTEL_SENTRY_FAILED_REQUEST_STATUS_CODES": "403, 500-502",
        "OTEL_SENTRY_IGNORE_SPANS": "poll",
        "OTEL_SENTRY_TRACE_IGNORE_STATUS_CODES": "404,300-302",
        "OTEL_SENTRY_IGNORED_METHODS": "trace",
        "OTEL_SENTRY_IGNORED_PATHS": "/up, /internal/*",
        "OTEL_SENTRY_IGNORE_ORPHAN_CLIENTS": "no",
        "OTEL_SENTRY_SEND_LOGS": "true",
    }
    in_code_only = {"ignored_errors", "on_payload"}
    names = {field.name for field in dataclasses.fields(Settings)} - in_code_only
    assert {f"OTEL_SENTRY_{name.upper()}" for name in names} == set(environ)
    assert Settings.from_env(environ) == Settings(
        settle=0.5,
        linger=2.0,
        max_age=1_000.0,
        failed_request_status_codes=frozenset({403, 500, 501, 502}),
        max_spans=10,
        max_queue=20,
        max_buffered=30,
        keep_asgi_spans=True,
        flush_provider=True,
        keep_failed=True,
        propagate=False,
        incoming_trace="sentry",
        errors="all",
        sensitive_terms=("card", "iban"),
        allowed_attributes=("app.*", "cart"),
        attribute_actions=(("user.id", "hash"),),
        hash_key="pepper",
        ignore_spans=("poll",),
        trace_ignore_status_codes=frozenset({300, 301, 302, 404}),
        ignored_methods=("TRACE",),
        ignored_paths=("/up", "/internal/*"),
        ignore_orphan_clients=False,
        send_logs=True,
    )


def test_what_is_missing_or_empty_in_the_environment_is_the_default() -> None:
    assert Settings.from_env({"OTEL_SENTRY_LINGER": "", "OTEL_SENTRY_MAX_AGE": " "}) == Settings()


def test_what_is_given_wins_over_the_environment_even_when_that_cannot_be_read() -> None:
    environ = {"OTEL_SENTRY_LINGER": "soon", "OTEL_SENTRY_SETTLE": "0.5"}
    assert Settings.from_env(environ, linger=3.0) == Settings(linger=3.0, settle=0.5)


@pytest.mark.parametrize("text", ["5xx", "500-", "-", "500,", "500-a"])
def test_statuses_that_cannot_be_read_are_refused(text: str) -> None:
    if text == "500-":
        codes = Settings.from_env({"OTEL_SENTRY_FAILED_REQUEST_STATUS_CODES": text})
        assert codes.failed_request_status_codes == {500}
    else:
        with pytest.raises(SettingsError, match="OTEL_SENTRY_FAILED_REQUEST_STATUS_CODES"):
            Settings.from_env({"OTEL_SENTRY_FAILED_REQUEST_STATUS_CODES": text})


@pytest.mark.parametrize(
    ("variable", "text", "kind"),
    [
        ("OTEL_SENTRY_LINGER", "soon", "float"),
        ("OTEL_SENTRY_MAX_SPANS", "1.5", "int"),
        ("OTEL_SENTRY_KEEP_ASGI_SPANS", "maybe", "bool"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_variable_and_itself(
    variable: str, text: str, kind: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable} must be a {kind}, not '{text}'$"):
        Settings.from_env({variable: text})


def test_a_value_of_the_environment_that_is_out_of_range_is_refused_with_its_name() -> None:
    with pytest.raises(SettingsError, match=r"^max_spans must be .*, not 0$"):
        Settings.from_env({"OTEL_SENTRY_MAX_SPANS": "0"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("false", False), ("No", False)],
)
def test_the_words_for_yes_and_no(text: str, value: bool) -> None:
    assert Settings.from_env({"OTEL_SENTRY_KEEP_ASGI_SPANS": text}).keep_asgi_spans is value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lingr", "no such setting: lingr; did you mean linger?"),
        ("colour", "no such setting: colour"),
    ],
)
def test_an_unknown_setting_is_named_and_so_is_the_nearest(name: str, message: str) -> None:
    unknown: Any = {name: 1}
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        Settings.from_env({}, **unknown)


def as_given(kept: Any) -> Any:
    """The type that a setting may be given as: what is kept as a collection, as any iterable."""
    is_collection = get_origin(kept) in (tuple, frozenset)
    return Iterable[get_args(kept)[0]] if is_collection else kept  # type: ignore[misc]


def test_type_checkers_know_each_setting_as_it_is() -> None:
    expected = {name: as_given(kept) for name, kept in get_type_hints(Settings).items()}
    expected["attribute_actions"] = Mapping[str, str] | Iterable[str | tuple[str, str]]

    assert get_type_hints(SettingsArguments) == expected


def test_type_checkers_know_each_argument_that_the_docstring_names() -> None:
    text = inspect.cleandoc(instrument.__doc__ or "").partition("Raises:")[0]
    described = re.findall(r"^ {4}(\w+): ", text, re.M)

    assert sorted(described) == sorted(_NO_SETTINGS)
    assert set(described) == get_type_hints(Arguments).keys() - get_type_hints(Settings).keys()
