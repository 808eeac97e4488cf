"""Where Sentry shows what has been sent, as far as a DSN tells.

A DSN does not name the organisation. `/orgredirect/` puts the slug of whoever follows the link in
place of `:orgslug`: on sentry.io, which sends people on to the host of their region, and on
self-hosted servers since the end of 2025.
"""

from __future__ import annotations

import re
from typing import Final

from sentry_sdk.utils import Dsn

from otel_sentry_asgi.sentry import base_url

_SAAS: Final = re.compile(r"(?:.+\.ingest(?:\.[a-z0-9-]+)?\.)?sentry\.io")
"""Hosts in the DSNs of sentry.io, of all its regions. Others are where their own pages are."""


def to_error(dsn: str, event_id: str) -> str:
    """Sentry's search goes straight to the event of an id."""
    return f"{_organisation(dsn)}issues/?project={Dsn(dsn).project_id}&query={event_id}"


def to_trace(dsn: str, trace_id: str) -> str:
    """The waterfall, under the path that old and new versions know."""
    return f"{_organisation(dsn)}performance/trace/{trace_id}/"


def _organisation(dsn: str) -> str:
    parsed = Dsn(dsn)
    base = "https://sentry.io/" if _SAAS.fullmatch(parsed.host) else base_url(parsed)
    return f"{base}orgredirect/organizations/:orgslug/"
