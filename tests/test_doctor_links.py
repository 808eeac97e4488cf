"""Links to what the doctor sent, from nothing but the DSN."""

from __future__ import annotations

import pytest

from otel_sentry_asgi._cli.links import to_error, to_trace

EVENT, TRACE = "9fceb02cb4e14d6c8a8d6e1a4a1ed6a1", "0af7651916cd43dd8448eb211c80319c"
SAAS = "https://sentry.io/orgredirect/organizations/:orgslug/"


@pytest.mark.parametrize(
    ("dsn", "organisation"),
    [
        ("https://k@o1.ingest.sentry.io/42", SAAS),
        ("https://k@o1.ingest.us.sentry.io/42", SAAS),
        ("https://k@o1.ingest.de.sentry.io/42", SAAS),
        ("https://k:secret@sentry.io/42", SAAS),
        (
            "https://k@shop.my.sentry.io/42",
            "https://shop.my.sentry.io/orgredirect/organizations/:orgslug/",
        ),
        (
            "https://k@notsentry.io/42",
            "https://notsentry.io/orgredirect/organizations/:orgslug/",
        ),
        (
            "https://k@sentry.example/42",
            "https://sentry.example/orgredirect/organizations/:orgslug/",
        ),
        (
            "http://k@sentry.example:9000/tools/sentry/42",
            "http://sentry.example:9000/tools/sentry/orgredirect/organizations/:orgslug/",
        ),
        (
            "http://k@[::1]:9000/42",
            "http://[::1]:9000/orgredirect/organizations/:orgslug/",
        ),
    ],
)
def test_a_dsn_tells_where_sentry_shows_things(dsn: str, organisation: str) -> None:
    assert to_error(dsn, EVENT) == f"{organisation}issues/?project=42&query={EVENT}"
    assert to_trace(dsn, TRACE) == f"{organisation}performance/trace/{TRACE}/"
