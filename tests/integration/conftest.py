"""A service, its two receivers, and what it takes to put them together and apart again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler

import otel_sentry_asgi
from otel_sentry_asgi import SentrySpanProcessor, _active, _guard
from tests.integration.apps import BY_HAND, INSTRUMENTED, App, Shop
from tests.support.kent import Kent
from tests.support.otlp import OtlpReceiver
from tests.support.server import serve


@pytest.fixture(scope="session")
def kent_server() -> Iterator[Kent]:
    with Kent() as kent:
        yield kent


@pytest.fixture
def kent(kent_server: Kent) -> Kent:
    kent_server.reset()
    return kent_server


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def failures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, BaseException]]]:
    """What the guard had to swallow: nothing, unless a test empties the list."""
    seen: list[tuple[str, BaseException]] = []
    monkeypatch.setattr(_guard, "on_failure", lambda where, error: seen.append((where, error)))
    yield seen
    assert seen == []


@pytest.fixture(autouse=True)
def clean_process() -> Iterator[None]:
    """Whatever a test set up is taken down, and Sentry's scopes are new for the next."""
    yield
    otel_sentry_asgi.uninstrument()
    bridge = _active.release()
    if bridge is not None:
        bridge.retire()
    sentry_sdk.get_client().close()
    scope = sentry_sdk.get_global_scope()
    scope.clear()
    scope.set_client(None)
    sentry_sdk.get_isolation_scope().clear()
    sentry_sdk.get_current_scope().clear()


@pytest.fixture
def init(kent: Kent) -> Callable[..., None]:
    """`sentry_sdk.init` at its defaults, but for where it sends."""

    def init(**options: Any) -> None:
        sentry_sdk.init(**{**kent.options, "traces_sample_rate": 1.0, **options})

    return init


class Service:
    """What both sides got from a service that has been stopped."""

    def __init__(self, kent: Kent, otlp: OtlpReceiver) -> None:
        self._kent = kent
        self._otlp = otlp

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return [item.body for item in self._kent.transactions()]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [item.body for item in self._kent.errors()]

    @property
    def otlp_ids(self) -> set[tuple[str, str]]:
        return {(span.trace_id, span.span_id) for span in self._otlp.spans()}

    def transaction(self, *, late: bool = False) -> dict[str, Any]:
        """The only transaction, or the only follow-up."""
        found = [one for one in self.transactions if is_late(one) is late]
        assert len(found) == 1, [one["transaction"] for one in self.transactions]
        return found[0]

    def error(self) -> dict[str, Any]:
        found = self.errors
        assert len(found) == 1, [title(one) for one in found]
        return found[0]


Run = Callable[..., AbstractContextManager[tuple[str, Service]]]


@pytest.fixture
def run(kent: Kent, otlp: OtlpReceiver) -> Run:
    """Run a stack under uvicorn, dual export on; what arrived is complete after the block."""

    @contextmanager
    def run(
        stack: str, *, sampler: Sampler = ALWAYS_ON, server: Any = "uvicorn", settings: Any = None
    ) -> Iterator[tuple[str, Service]]:
        provider = TracerProvider(sampler=ParentBased(sampler), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=otlp.traces_endpoint)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        shop = Shop(provider)
        if stack in INSTRUMENTED:
            otel_sentry_asgi.instrument(tracer_provider=provider, settings=settings)
            app: App = INSTRUMENTED[stack](shop)
        else:
            provider.add_span_processor(SentrySpanProcessor(settings))
            app = BY_HAND[stack](shop)
        with serve(app, server=server) as url:
            yield url, Service(kent, otlp)
        assert provider.force_flush()
        sentry_sdk.flush()
        provider.shutdown()

    return run


def is_late(transaction: dict[str, Any]) -> bool:
    return "sentry.parent_span_already_sent" in transaction["contexts"]["trace"].get("data", {})


def title(error: dict[str, Any]) -> str:
    values = (error.get("exception") or {}).get("values")
    if values:
        return f"{values[-1]['type']}: {values[-1]['value']}"
    entry = error.get("logentry") or {}
    return str(entry.get("formatted") or entry.get("message") or error.get("message"))


def ids(event: dict[str, Any]) -> tuple[str, str]:
    trace = event["contexts"]["trace"]
    return trace["trace_id"], trace["span_id"]
