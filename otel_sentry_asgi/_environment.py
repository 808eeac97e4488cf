"""A Sentry client from the environment, for processes whose application sets none up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import sentry_sdk

from otel_sentry_asgi._settings import SettingsError

PREFIX: Final = "SENTRY_"

TRACES_SAMPLE_RATE: Final = 1.0
"""Where nobody says otherwise, everything that OTel samples is sent: the set-up has a sampler."""


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate <= 1:
        raise ValueError(text)
    return rate


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _boolean(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
        text.lower()
    ]


OPTIONS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "sample_rate": (_rate, "a number from 0 to 1"),
    "traces_sample_rate": (_rate, "a number from 0 to 1"),
    "send_default_pii": (_boolean, "true or false"),
    "shutdown_timeout": (_seconds, "a number of seconds"),
}
"""Options of the client that are read here, each from `SENTRY_<NAME>`. The DSN, release,
environment, `debug`, `keep_alive` and `spotlight` are read by sentry-sdk itself."""


def to_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """The client's options in *environ*. Raises `SettingsError` for a value that cannot be used."""
    options: dict[str, Any] = {"traces_sample_rate": TRACES_SAMPLE_RATE}
    for name, (parse, expected) in OPTIONS.items():
        variable = PREFIX + name.upper()
        text = environ.get(variable, "").strip()
        if text:
            try:
                options[name] = parse(text)
            except (KeyError, ValueError):
                msg = f"{variable} must be {expected}, not {text!r}"
                raise SettingsError(msg) from None
    return options


def init_sentry(environ: Mapping[str, str]) -> bool:
    """Make a Sentry client if there is none and the environment names where to send to; whether it
    did. A client that the application makes later takes its place.

    Raises `SettingsError` for a value that cannot be used, the DSN's included.
    """
    named = environ.get("SENTRY_DSN", "").strip() or environ.get("SENTRY_SPOTLIGHT", "").strip()
    if not named or sentry_sdk.is_initialized():
        return False
    options = to_options(environ)
    try:
        sentry_sdk.init(**options)
    except ValueError as error:
        # Not its value: a DSN that cannot be parsed may be anything, a password included.
        msg = f"SENTRY_DSN cannot be used: {type(error).__name__}: {error}"
        raise SettingsError(msg) from None
    return True
