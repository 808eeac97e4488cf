"""What is promised, and what importing it costs."""

import importlib
import json
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import otel_sentry_asgi
import otel_sentry_exporters

FRAMEWORKS = {"django", "fastapi", "litestar", "quart", "rich", "starlette"}

PUBLIC_MODULES = {
    "cleaning",
    "export",
    "instrumentor",
    "logs",
    "middleware",
    "processor",
    "propagator",
    "sampler",
    "sampling",
    "sentry",
    "span_exporter",
    "testing",
}
"""A module without an underscore is a promise."""


def module(name: str) -> ModuleType:
    return importlib.import_module(f"otel_sentry_asgi{name and '.'}{name}")


def public_names(of: ModuleType) -> set[str]:
    """What is there for the taking: no modules, nothing with an underscore."""
    return {
        name
        for name, value in vars(of).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


@pytest.mark.parametrize("name", ["", "cleaning", "export", "testing"])
def test_all_is_sorted(name: str) -> None:
    names = module(name).__all__
    assert names == sorted(names, key=lambda one: (not one.isupper(), not one[0].isupper(), one))
    assert len(names) == len(set(names))


def test_all_is_what_the_package_has() -> None:
    assert public_names(otel_sentry_asgi) == set(otel_sentry_asgi.__all__)


@pytest.mark.parametrize("name", ["export", "testing"])
def test_all_can_be_had_from_a_public_module(name: str) -> None:
    assert set(module(name).__all__) <= public_names(module(name))


@pytest.mark.parametrize("name", ["testing"])
def test_what_a_module_defines_itself_is_in_all(name: str) -> None:
    own = {
        one
        for one, value in vars(module(name)).items()
        if getattr(value, "__module__", None) == f"otel_sentry_asgi.{name}"
        and not one.startswith("_")
    }
    assert own <= set(module(name).__all__)


@pytest.mark.parametrize("name", ["", "cleaning", "testing", "export"])
def test_every_public_name_says_what_it_is(name: str) -> None:
    for one in module(name).__all__:
        value = getattr(module(name), one)
        if callable(value):
            assert value.__doc__, one


def test_no_module_becomes_public_by_accident() -> None:
    found = {found.name for found in pkgutil.iter_modules(otel_sentry_asgi.__path__)}
    assert {name for name in found if not name.startswith("_")} == PUBLIC_MODULES


def test_the_version_is_a_version() -> None:
    assert otel_sentry_asgi.__version__.count(".") == 2


@pytest.mark.parametrize(
    "imported",
    [
        "otel_sentry_asgi",
        "otel_sentry_asgi.testing",
        "otel_sentry_exporters",
        "otel_sentry_exporters.sdk",
    ],
)
def test_importing_it_imports_no_framework(imported: str) -> None:
    code = f"import json, sys, {imported}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    modules = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert modules & FRAMEWORKS == set()


def test_the_exporters_have_a_package_of_their_own() -> None:
    assert otel_sentry_exporters.__doc__
