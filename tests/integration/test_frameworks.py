"""Frameworks that swallow exceptions: one issue all the same, and it says unhandled."""

from __future__ import annotations

import sys

import httpx
import pytest

from tests.integration.conftest import ids, title
from tests.integration.frameworks import FRAMEWORKS
from tests.support.kent import Kent
from tests.support.server import serve_process


@pytest.mark.parametrize("integrations", ["on", "off"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_exception_that_the_framework_swallows(
    framework: str, integrations: str, kent: Kent
) -> None:
    """With sentry-sdk's integration for the framework and without it."""
    env = {"FRAMEWORK": framework, "INTEGRATIONS": integrations, "SENTRY_DSN": kent.dsn}
    views = ["boom", "sync"] if framework == "django" else ["boom"]

    with serve_process(
        "tests.integration.frameworks:create", arguments=["--factory"], env=env
    ) as server:
        for view in views:
            assert httpx.get(f"{server.url}/{view}/7").status_code == 500
        assert httpx.get(f"{server.url}/missing").status_code == 404

    errors = [item.body for item in kent.errors()]
    transactions = [item.body for item in kent.transactions()]
    routes = {"quart": "/boom/<int:number>"}
    if integrations == "on":
        routes["django"] = "/boom/{number}"
    if framework in routes:
        name, source = f"GET {routes[framework]}", {"source": "route"}
        for event in (errors[0], transactions[0]):
            assert (event["transaction"], event["transaction_info"]) == (name, source)
        for item in (kent.errors()[0], kent.transactions()[0]):
            assert item.envelope["trace"]["transaction"] == name
    assert [title(error) for error in errors] == ["ValueError: in the view"] * len(views)
    for view, error, transaction in zip(views, errors, transactions, strict=False):
        value = error["exception"]["values"][-1]
        assert value["mechanism"]["handled"] is False
        assert [frame["function"] for frame in value["stacktrace"]["frames"]][-1] == "fail"
        assert str(error["tags"]["number"]) == str(transaction["tags"]["number"]) == "7"
        assert error["request"]["url"] == f"{server.url}/{view}/7"
        assert ids(error)[0] == ids(transaction)[0]
        assert transaction["contexts"]["trace"]["status"] == "internal_error"
    assert len(transactions) == len(views) + 1
    assert kent.session_counts() == {"crashed": len(views), "exited": 1}


@pytest.mark.parametrize("integrations", ["on", "off"])
def test_litestars_errors_after_the_response_has_started(integrations: str, kent: Kent) -> None:
    """Litestar wraps them; the issue is the application's own exception."""
    env = {"FRAMEWORK": "litestar", "INTEGRATIONS": integrations, "SENTRY_DSN": kent.dsn}

    with (
        serve_process(
            "tests.integration.frameworks:create", arguments=["--factory"], env=env
        ) as server,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(f"{server.url}/stream")

    (error,) = [item.body for item in kent.errors()]
    (transaction,) = [item.body for item in kent.transactions()]
    types = [value["type"] for value in error["exception"]["values"]]
    assert types[-1] == "ExceptionGroup", "Litestar's task group, not its wrapper"
    if sys.version_info >= (3, 11):  # sentry-sdk knows only Python's own groups.
        assert types[:-1] == ["ValueError"]
        assert error["exception"]["values"][0]["value"] == "in the stream"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert ids(error)[0] == ids(transaction)[0]
