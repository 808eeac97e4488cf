"""`python -m otel_sentry_asgi policy` tells what the code does."""

import subprocess
import sys
from pathlib import Path

import pytest

from otel_sentry_asgi._policy._attributes import TABLE
from otel_sentry_asgi._policy._explain import outcomes
from tests.policies import POLICIES

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otel_sentry_asgi", "policy", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_page_of_the_documentation_is_what_the_code_does() -> None:
    done = run("--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "policy.md").read_text(), "make it anew: see its head"


def test_every_row_says_why_and_is_governed_under_every_setting() -> None:
    for row in TABLE:
        assert row.why
        assert all(outcomes(row, policy) for policy in POLICIES.values())


def test_the_table_is_printed_for_the_settings_of_the_environment() -> None:
    private = run().stdout
    assert "left out  (user_info)\n    http.client_ip" in private
    assert "left out" in run(OTEL_SENTRY_ALLOWED_ATTRIBUTES="none").stdout.splitlines()[-2]
    opened = run("--options", '{"send_default_pii": true}').stdout
    assert "kept  (user_info)\n    http.client_ip" in opened


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--explain", "http.url=https://u:p@h/?token=x"],
            "http.url: kept, without credentials and fragment, query by key\n"
            "because url_query_params is denylist\nleaves as 'https://h/?token=[Filtered]'\n",
        ),
        (
            ["--explain", "user.id=bob"],
            "user.id: left out\nbecause user_info is off\nleaves as nothing\n",
        ),
        (
            ["--options", '{"send_default_pii": true}', "--explain", "user.id=bob"],
            "user.id: kept\nbecause user_info is on\nleaves as 'bob'\n",
        ),
    ],
)
def test_one_attribute_is_explained(arguments: list[str], expected: str) -> None:
    assert run(*arguments).stdout == expected


def test_a_module_may_set_up_the_client(tmp_path: Path) -> None:
    (tmp_path / "shop_setup.py").write_text(
        "import otel_sentry_asgi, sentry_sdk, warnings\nwarnings.simplefilter('ignore')\n"
        "sentry_sdk.init(send_default_pii=True)\n"
        "otel_sentry_asgi.instrument(attribute_actions={'shop.id': 'drop'})\n"
    )
    path = f"{ROOT}:{tmp_path}"
    done = run("--import", "shop_setup", "--explain", "shop.id=5", PYTHONPATH=path)
    assert done.stdout == "shop.id: left out\nbecause attribute_actions\nleaves as nothing\n"
    assert "kept  (user_info)" in run("--import", "shop_setup", PYTHONPATH=path).stdout


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--explain", "user.id"], {}, "--explain wants KEY=VALUE, not 'user.id'"),
        (["--options", "[]"], {}, "not an object: []"),
        (["--options", '{"send_pii": 1}'], {}, "send_pii"),
        (["--import", "no_such_module"], {}, "no_such_module"),
        ([], {"OTEL_SENTRY_LINGER": "soon"}, "OTEL_SENTRY_LINGER must be a float, not 'soon'"),
    ],
)
def test_what_cannot_be_used_is_said(
    arguments: list[str], env: dict[str, str], message: str
) -> None:
    done = run(*arguments, **env)
    assert done.returncode == 2
    assert message in done.stderr
