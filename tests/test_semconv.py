"""Our attribute names are those that OpenTelemetry and Sentry publish: a renamed one shows here."""

import importlib
import pkgutil
from collections.abc import Iterator
from itertools import chain

import opentelemetry.semconv._incubating.attributes
import opentelemetry.semconv.attributes
import pytest
from opentelemetry.semconv.trace import SpanAttributes
from sentry_conventions.attributes import ATTRIBUTE_METADATA

from otel_sentry_asgi import _semconv
from otel_sentry_asgi._policy._attributes import Category, category_of
from otel_sentry_asgi._semconv import RENAMED, RENAMED_ON_SERVERS
from otel_sentry_asgi._translate import resource

PUBLISHED_BY_NOBODY = {
    "asgi.event.type",  # opentelemetry-instrumentation-asgi
    "celery.task_name",  # opentelemetry-instrumentation-celery
    "host.name",  # a resource's, see OTEL below
    "http.response.header.content_type",  # Python's spelling of the next
    "http.response.header.content-type",
}
"""Names that stand in no list: of one instrumentation, or with a suffix of their own."""

OTEL_ONLY = {"db.sql.table", "http.host", "net.peer.name", "net.peer.port"}
"""Old names that OTel has replaced and Sentry leaves alone."""


def _otel() -> Iterator[str]:
    """Every attribute name in `opentelemetry-semantic-conventions`."""
    for package in (opentelemetry.semconv.attributes, opentelemetry.semconv._incubating.attributes):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            constants = vars(importlib.import_module(module.name)).items()
            yield from (name for key, name in constants if key.isupper() and isinstance(name, str))
    yield from (name for name in vars(SpanAttributes).values() if isinstance(name, str))


OTEL = frozenset(_otel())
SENTRY = ATTRIBUTE_METADATA
CONSTANTS = sorted(
    value for key, value in vars(_semconv).items() if key.isupper() and isinstance(value, str)
)


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_name_that_is_looked_up_is_published(name: str) -> None:
    assert name in OTEL or name in SENTRY or name in PUBLISHED_BY_NOBODY


@pytest.mark.parametrize("name", CONSTANTS)
def test_no_name_that_is_looked_up_has_been_replaced(name: str) -> None:
    """But for those that are read beside their successor."""
    deprecation = SENTRY[name].deprecation if name in SENTRY else None
    beside = {_semconv.OLD_TARGET, _semconv.RPC_GRPC_STATUS}
    assert deprecation is None or name in beside


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_every_old_name_has_the_successor_that_sentry_gives_it(old: str) -> None:
    assert old in OTEL or old in SENTRY
    deprecation = SENTRY[old].deprecation if old in SENTRY else None
    if old not in OTEL_ONLY:
        assert deprecation is not None
        assert deprecation.replacement == RENAMED[old]
    for new in (RENAMED[old], RENAMED_ON_SERVERS[old]):
        assert new in SENTRY or new in OTEL
        assert new not in RENAMED


def test_every_old_name_of_otel_that_sentry_would_rename_is_renamed_here() -> None:
    """Else Sentry stores both names, or remarks that one is deprecated."""
    renamed_there = {
        name
        for name, attribute in SENTRY.items()
        if attribute.is_in_otel and attribute.deprecation and attribute.deprecation.status
    }
    of_resources = {"resource.deployment.environment", "resource.deployment.environment.name"}
    assert renamed_there - of_resources <= RENAMED.keys()


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_the_policy_is_no_milder_with_the_new_name(old: str) -> None:
    """What it would have dropped or filtered under the old name."""
    mildest = {Category.KEEP, Category.TERMS}
    for new in (RENAMED[old], RENAMED_ON_SERVERS[old]):
        assert category_of(new) not in mildest or category_of(old) in mildest | {Category.PEER}


@pytest.mark.parametrize("key", sorted(resource._BY_KEY))
def test_the_resource_is_read_by_published_names(key: str) -> None:
    assert key in OTEL


@pytest.mark.parametrize("prefix", sorted(resource._BY_PREFIX))
def test_the_prefixes_of_resource_attributes_are_published(prefix: str) -> None:
    assert any(name.startswith(prefix) for name in chain(OTEL, SENTRY))
