"""A plain ASGI application behind OpenTelemetry's ASGI middleware.

    pip install otel-sentry-asgi uvicorn
    SENTRY_DSN=... uvicorn examples.plain_asgi:app

`GET /hello` becomes a transaction with a span, `GET /broken` one with an issue.
"""

from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

from otel_sentry_asgi import instrument

trace.set_tracer_provider(TracerProvider())
sentry_sdk.init(traces_sample_rate=1.0)  # takes the DSN from SENTRY_DSN
instrument()

tracer = trace.get_tracer(__name__)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    with tracer.start_as_current_span("greet"):
        if scope["path"] == "/broken":
            msg = "nobody to greet"
            raise LookupError(msg)
        body = b"Hello!\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"7")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = OpenTelemetryMiddleware(hello)
