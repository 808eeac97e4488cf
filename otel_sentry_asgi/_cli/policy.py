"""`policy`: what leaves the process under the current settings."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any

from otel_sentry_asgi import _active, sentry
from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi._policy._explain import explain, markdown, table
from otel_sentry_asgi._settings import Settings, SettingsError

_OFF: dict[str, Any] = {"mode": "off"}
_SETTINGS: dict[str, dict[str, Any]] = {
    "`send_default_pii=False` (default)": {},
    "`send_default_pii=True`": {"send_default_pii": True},
    "`data_collection={}`": {"data_collection": {}},
    "all of it off": {
        "data_collection": {
            **dict.fromkeys(("user_info", "database_query_data", "queues"), False),
            **dict.fromkeys(("cookies", "url_query_params"), _OFF),
            "http_headers": {"request": _OFF},
            "http_bodies": [],
            "graphql": {"document": False, "variables": False},
            "gen_ai": {"inputs": False, "outputs": False},
            "stack_frame_variables": False,
        }
    },
}


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of all."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "policy",
        help="print what happens to each attribute",
        description="Print what happens to each attribute, under the options of the Sentry client "
        "that --import sets up or --options gives, and our own from OTEL_SENTRY_* variables.",
    )
    parser.add_argument("--import", dest="module", help="a module that calls sentry_sdk.init()")
    parser.add_argument("--options", type=_json, help="options of a client, as JSON")
    parser.add_argument("--explain", metavar="KEY=VALUE", help="what happens to one attribute")
    parser.add_argument("--markdown", action="store_true", help="the page of the documentation")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for; 2 for what cannot be used."""
    if arguments.markdown:
        own = Settings()
        policies = {name: sentry.policy_for(options, own) for name, options in _SETTINGS.items()}
        sys.stdout.write(markdown(policies))
        return 0
    try:
        policy = _policy(arguments)
    except (SettingsError, TypeError, ValueError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.explain is None:
        for names, governed, done in table({"": policy}):
            sys.stdout.write(f"{done}  ({governed})\n    {names}\n")
        return 0
    key, equals, value = arguments.explain.partition("=")
    if not equals or not key:
        sys.stderr.write(f"--explain wants KEY=VALUE, not {arguments.explain!r}\n")
        return 2
    rule, left = explain(key, value, policy)
    shown = repr(left[key]) if key in left else "nothing"
    sys.stdout.write(f"{key}: {rule.does}\nbecause {rule.because}\nleaves as {shown}\n")
    return 0


def _policy(arguments: argparse.Namespace) -> Policy:
    if arguments.module:
        sys.path.insert(0, "")  # As `python -m` finds modules.
        importlib.import_module(arguments.module)
    bridge = _active.active()
    settings = bridge.settings if bridge is not None else Settings.from_env(os.environ)
    if arguments.options is not None:
        return sentry.policy_for(arguments.options, settings)
    return sentry.policy(settings)


def _json(text: str) -> dict[str, Any]:
    options = json.loads(text)
    if not isinstance(options, dict):
        msg = f"not an object: {text}"
        raise argparse.ArgumentTypeError(msg)
    return options
