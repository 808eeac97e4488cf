"""docs/configuration.md has the variables that the code reads, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import opentelemetry.sdk
import sentry_sdk

from otel_sentry_asgi._cli.doctor import examine
from otel_sentry_asgi._environment import to_options
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._traffic import otlp_endpoints

ROOT = Path(__file__).parents[2]
SOURCES = [
    *(ROOT / "otel_sentry_asgi").rglob("*.py"),
    *(ROOT / "exporters" / "otel_sentry_exporters").rglob("*.py"),
]
COMPUTED = {"_environment.py", "_settings.py", "_traffic.py", "doctor.py"}
"""Modules in which names are put together. `Recorder` hears what they read."""

BUILT = {"OTEL_PYTHON_EXCLUDED_URLS": ("OTEL_PYTHON_{}", "EXCLUDED_URLS")}
"""What a name is made of in `opentelemetry.util.http`."""


class Recorder(dict[str, str]):
    """An empty environment that knows what it has been asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked.add(key)
        return default


def literal_reads() -> Iterator[tuple[str, str | None]]:
    """Each `environ.get(...)` and `environ[...]` of the package: its file, and the name if it is
    one as it stands."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of, keys = node.func.value, node.args if node.func.attr in ("get", "pop") else []
            elif isinstance(node, ast.Subscript):
                of, keys = node.value, [node.slice]
            else:
                continue
            if keys and ast.unparse(of).endswith("environ"):
                key = keys[0]
                yield source.name, str(key.value) if isinstance(key, ast.Constant) else None


def read() -> set[str]:
    """What the code reads, settings as one."""
    recorder = Recorder()
    Settings.from_env(recorder)
    to_options(recorder)
    otlp_endpoints(recorder)
    list(examine(recorder))
    found = {name for _, name in literal_reads() if name}
    if any("getproxies(" in source.read_text() for source in SOURCES):
        found |= {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    names = found | recorder.asked
    return {re.sub("^OTEL_SENTRY_.+", "OTEL_SENTRY_<NAME>", name) for name in names}


def documented() -> dict[str, str]:
    """The variables of the table, and who reads them."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    table = text.split("## Variables")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {name: row[1] for row in rows for name in re.findall(r"`([A-Z<>_]{4,})`", row[0])}


def test_names_that_are_put_together_are_heard_of() -> None:
    assert {module for module, name in literal_reads() if name is None} <= COMPUTED


def test_what_is_read_is_in_the_table() -> None:
    assert read() - set(documented()) == set()


def test_what_is_in_the_table_is_read_by_those_it_names() -> None:
    ours, texts = read(), {"sentry-sdk": sources(sentry_sdk), "OTel": sources(opentelemetry.sdk)}
    for name, reader in documented().items():
        named = [text for package, text in texts.items() if package in reader]
        if "opentelemetry-instrument" in reader:
            named = [texts["OTel"]]
        if "zero code" in reader or "bridge" in reader:
            assert name in ours, f"{name} is not read by the bridge"
        else:
            assert named, f"{name}: who is {reader}?"
        parts = BUILT.get(name) or re.split("<[A-Z]+>", name)
        for text in named:
            assert all(part in text for part in parts), f"{name} is not read by {reader}"


def sources(package: object) -> str:
    """All of the distribution's code, of OTel's the whole namespace."""
    (where,) = [Path(one) for one in package.__path__]  # type: ignore[attr-defined]
    where = where.parent if where.name == "sdk" else where
    return "\n".join(source.read_text() for source in where.rglob("*.py"))
