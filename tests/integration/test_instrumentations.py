"""Spans that real instrumentations write, under each generation of names, read well in Sentry.

Each of `instrumentations.py` runs once a generation, against real servers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.integration.instrumentations import RUNS, SECRET
from tests.payload import names, stored
from tests.support.relay import relay_check

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GENERATIONS = {"old": "", "stable": "http,database", "both": "http/dup,database/dup"}

Payload = dict[str, Any]
Row = tuple[str, str, str, str]


@cache
def ran(generation: str) -> Mapping[str, Mapping[str, list[Payload]]]:
    """What each instrumentation came to, in a process that writes this generation of names."""
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.instrumentations"],
        cwd=ROOT,
        env={**inherited, "OTEL_SEMCONV_STABILITY_OPT_IN": GENERATIONS[generation]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, dict[str, list[Payload]]] = json.loads(done.stdout.splitlines()[-1])
    return report


def row(payload: Mapping[str, Any], shown: str) -> Row:
    """Op, what is shown, status and origin, with ports left out."""
    shown = re.sub(r"127\.0\.0\.1:\d+", "upstream", shown)
    return payload["op"], shown, payload["status"], payload["origin"]


def rows(transactions: list[Payload]) -> list[list[Row]]:
    """A list for each transaction, itself first."""
    return sorted(
        [
            row(one["contexts"]["trace"], one["transaction"]),
            *(row(span, span["description"]) for span in one["spans"]),
        ]
        for one in transactions
    )


JOB = ("function", "job", "ok", "manual")


def calls(origin: str) -> list[list[Row]]:
    return [
        [
            JOB,
            ("http.client", "GET http://upstream/rates/200", "ok", origin),
            ("http.client", "GET http://upstream/rates/503", "unavailable", origin),
        ]
    ]


def requests(origin: str, *shown: tuple[str, str]) -> list[list[Row]]:
    return [[("http.server", name, status, origin)] for name, status in shown]


SQLITE, REDIS = "auto.db.otel.sqlite3", "auto.db.otel.redis"
GRPC, CELERY = "auto.grpc.otel.grpc", "auto.queue.otel.celery"

EXPECTED: dict[str, list[list[Row]]] = {
    "httpx": calls("auto.http.otel.httpx"),
    "aiohttp_client": calls("auto.http.otel.aiohttp_client"),
    "urllib3": calls("auto.http.otel.urllib3"),
    "requests": calls("auto.http.otel.requests"),
    "sqlite": [
        [
            JOB,
            ("db", "CREATE TABLE orders (id INTEGER, owner TEXT)", "ok", SQLITE),
            ("db", "SELECT * FROM orders WHERE owner = ? AND id = ?", "ok", SQLITE),
            ("db", "SELECT * FROM nothing", "internal_error", SQLITE),
        ]
    ],
    "redis": [
        [
            JOB,
            ("db.redis", "SET ?", "ok", REDIS),
            ("db.redis", "GET ?", "ok", REDIS),
            ("db.redis", "INCRBY EXPIRE", "ok", REDIS),
            ("db.redis", "INCRBY ?", "internal_error", REDIS),
        ]
    ],
    "grpc": [
        [
            JOB,
            ("grpc.client", "shop.Shop/Buy", "ok", GRPC),
            ("grpc.client", "shop.Shop/Buy", "not_found", GRPC),
        ],
        [("grpc.server", "shop.Shop/Buy", "not_found", GRPC)],
        [("grpc.server", "shop.Shop/Buy", "ok", GRPC)],
    ],
    "celery": [
        [
            JOB,
            ("queue.publish", "shop.add", "ok", CELERY),
            ("queue.publish", "shop.fail", "ok", CELERY),
        ],
        [("queue.process", "shop.add", "ok", CELERY)],
        [("queue.process", "shop.fail", "internal_error", CELERY)],
    ],
    "fastapi": requests(
        "auto.http.otel.fastapi",
        ("GET /items/{item_id}", "invalid_argument"),
        ("GET /items/{item_id}", "ok"),
    ),
    "starlette": requests(
        "auto.http.otel.starlette",
        ("GET /items/{item}", "ok"),
        ("GET /shops/{shop}/items/{item}", "ok"),
    ),
    "django": requests(
        "auto.http.otel.django",
        ("GET /items/<int:item>/", "ok"),
        ("GET /none/5", "not_found"),
    ),
}


@pytest.fixture(params=EXPECTED)
def instrumentation(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in RUNS:
        pytest.skip("not installable on this Python")
    return name


@pytest.fixture(params=GENERATIONS)
def transactions(request: pytest.FixtureRequest, instrumentation: str) -> list[Payload]:
    return list(ran(request.param)[instrumentation]["transaction"])


def test_what_they_write_reads_well(instrumentation: str, transactions: list[Payload]) -> None:
    assert rows(transactions) == EXPECTED[instrumentation]


def test_sentry_takes_it_as_it_is(transactions: list[Payload]) -> None:
    """No remark, and no name that it would write otherwise."""
    now = datetime.now(timezone.utc).isoformat()
    for one in transactions:
        is_path = one["transaction_info"]["source"] == "url"
        remarks = relay_check(one, received_at=now, normalize_spans=True)
        assert [each for each in remarks if not (is_path and each.path == "transaction")] == []
        if not is_path:  # Sentry masks the ids in it.
            assert names(stored(one, received_at=now)) == names(one)


def test_nothing_private_leaves(transactions: list[Payload]) -> None:
    assert SECRET not in json.dumps(transactions)


def test_every_generation_comes_to_the_same_names(instrumentation: str) -> None:
    """What the old generation says is said under the same names in the stable one, and both
    together say no more."""
    said = [
        {
            key
            for one in ran(generation)[instrumentation]["transaction"]
            for span in (one["contexts"]["trace"], *one["spans"])
            for key in span["data"]
        }
        for generation in GENERATIONS
    ]
    old, stable, both = said
    assert both == old | stable
    assert old - stable <= {"url.full", "db.redis.database_index", "net.transport"}


@pytest.mark.parametrize(
    ("instrumentation", "mechanism"), [("celery", "auto.queue.otel.celery"), ("sqlite", None)]
)
def test_an_exception_names_the_instrumentation_whose_span_it_left(
    instrumentation: str, mechanism: str | None
) -> None:
    """What the job itself has dealt with is no issue."""
    values = [one["exception"]["values"][-1] for one in ran("old")[instrumentation]["event"]]
    assert [value["mechanism"]["type"] for value in values] == [mechanism] * bool(mechanism)
