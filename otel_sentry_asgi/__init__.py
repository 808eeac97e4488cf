"""Sentry for ASGI services that OpenTelemetry instruments."""

from otel_sentry_asgi import _active
from otel_sentry_asgi._settings import Settings, SettingsError
from otel_sentry_asgi.instrumentor import SentryInstrumentor, instrument, uninstrument
from otel_sentry_asgi.middleware import SentryMiddleware
from otel_sentry_asgi.processor import SentrySpanProcessor
from otel_sentry_asgi.propagator import SentryPropagator, trace_propagation_meta
from otel_sentry_asgi.sampler import SentrySampler

__all__ = [
    "SentryInstrumentor",
    "SentryMiddleware",
    "SentryPropagator",
    "SentrySampler",
    "SentrySpanProcessor",
    "Settings",
    "SettingsError",
    "instrument",
    "stats",
    "trace_propagation_meta",
    "uninstrument",
]

__version__ = "0.1.0"


def stats() -> dict[str, int]:
    """What has been sent and lost so far in this process, by name; empty before `instrument()`."""
    bridge = _active.active()
    return bridge.counts() if bridge is not None else {}
