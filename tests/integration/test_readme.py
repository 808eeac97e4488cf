"""What the README shows works as it says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from otel_sentry_asgi import Settings, _active, instrument
from otel_sentry_asgi._policy._rules import SENSITIVE_TERMS
from otel_sentry_asgi._settings import ERROR_MODES
from otel_sentry_asgi.instrumentor import _NO_SETTINGS
from tests.integration.conftest import ids, title
from tests.support.kent import Kent
from tests.support.server import serve_process

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def test_the_first_example(kent: Kent, tmp_path: Path) -> None:
    """Run as it stands, but for the DSN."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    options = f'dsn="{kent.dsn}", _experiments={{"transport_compression_algo": "gzip"}}'
    program = code.replace('dsn="https://public@sentry.example/1"', options)
    assert program != code
    (tmp_path / "readme_app.py").write_text(program)

    with serve_process("readme_app:app", cwd=tmp_path) as server:
        assert httpx.get(f"{server.url}/orders/0").status_code == 500

    (transaction,) = [item.body for item in kent.transactions()]
    (error,) = [item.body for item in kent.errors()]
    (price,) = [span for span in transaction["spans"] if span["description"] == "price"]
    trace = transaction["contexts"]["trace"]
    assert transaction["transaction"] == "GET /orders/{order_id}"
    assert (trace["op"], trace["status"]) == ("http.server", "internal_error")
    assert title(error).startswith("ZeroDivisionError")
    assert ids(error) == (price["trace_id"], price["span_id"])
    assert error["tags"]["shop"] == transaction["tags"]["shop"] == "north"


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_each_setting_is_there_with_its_default(field: str) -> None:
    lines = CONFIGURATION.splitlines()
    rows = [line for line in lines if line.startswith("|") and f"`{field}`" in line]
    assert rows, f"{field} is not in docs/configuration.md"
    default = getattr(Settings(), field)
    shown = f"{default:,}" if isinstance(default, int) and default > 999 else str(default)
    if isinstance(default, frozenset):
        shown = f"{min(default)}-{max(default)}" if default else "none"
    elif field == "ignored_paths":  # Too many for the table.
        assert [path for path in default if f"`{path}`" not in CONFIGURATION] == []
        shown = "health checks, static files"
    elif isinstance(default, tuple):
        shown = ", ".join(map(str, default)) or "none"
    assert shown.removesuffix(".0") in rows[0]


@pytest.mark.parametrize("argument", _NO_SETTINGS)
def test_each_other_argument_is_there(argument: str) -> None:
    assert f"\n| `{argument}` | " in CONFIGURATION


def test_the_default_exporter_is_named() -> None:
    default = type(_active.obtain().pipeline._exporter).__name__

    assert f"\n| `exporter` | `{default}()` | " in CONFIGURATION
    assert f"(default: an `{default}`)" in (instrument.__doc__ or "")


@pytest.mark.parametrize("mode", ERROR_MODES)
def test_each_mode_of_errors_is_explained(mode: str) -> None:
    assert f"`{mode}` (" in CONFIGURATION


def test_the_terms_are_those_of_the_code() -> None:
    assert " ".join(SENSITIVE_TERMS) in README
