"""Own traffic: uploads of telemetry are no work of the application's.

Uploads through sentry-sdk's client and through OTel's exporters make no spans at all (they run
with instrumentation suppressed). This is for what others send: a tunnel that forwards a browser's
envelopes, a transport or an exporter of the application's own. Only client spans to the very
endpoints count; an application on the same host is none.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_sentry_asgi import sentry
from otel_sentry_asgi._semconv import FULL_URL, RPC_SERVICE, first_text
from otel_sentry_asgi._translate.attributes import plain

_OTLP_SERVICE = "opentelemetry.proto.collector."
"""The beginning of the names of OTLP's gRPC services."""

_SIGNALS = ("traces", "metrics", "logs")
_VARIABLE = "OTEL_EXPORTER_OTLP_"


class OwnTraffic:
    """Knows uploads by their client spans. *otlp* are the URLs that OTLP goes to by HTTP."""

    def __init__(self, otlp: frozenset[str] = frozenset()) -> None:
        self.otlp = otlp

    def holds(self, span: ReadableSpan) -> bool:
        """Whether the span is an upload."""
        if span.kind is not SpanKind.CLIENT:
            return False
        attributes = plain(span.attributes)
        url = first_text(attributes, FULL_URL)
        if url is None:
            return str(attributes.get(RPC_SERVICE)).startswith(_OTLP_SERVICE)
        prefix = sentry.upload_prefix()
        return url in self.otlp or bool(prefix and url.startswith(prefix))


def otlp_endpoints(environ: Mapping[str, str]) -> frozenset[str]:
    """The URLs that OTel's HTTP exporters send to, by the environment or by default."""
    base = environ.get(f"{_VARIABLE}ENDPOINT", "http://localhost:4318").rstrip("/")
    return frozenset(
        environ.get(f"{_VARIABLE}{signal.upper()}_ENDPOINT", f"{base}/v1/{signal}")
        for signal in _SIGNALS
    )
