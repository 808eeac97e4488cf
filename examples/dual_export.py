"""A Starlette application whose spans go to an OTLP backend and to Sentry, under one trace id.

    pip install otel-sentry-asgi starlette uvicorn opentelemetry-exporter-otlp-proto-http
    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 SENTRY_DSN=... \\
        uvicorn examples.dual_export:app

The OTLP export stays as it is: other processors, exporters and samplers are not touched.
`GET /quote/EUR` is a plain request, `GET /quote/XXX` one with an exception that is dealt with.
"""

import sentry_sdk
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from otel_sentry_asgi import instrument

# What the service has already ...
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

# ... and what is new.
sentry_sdk.init(traces_sample_rate=1.0)  # takes the DSN from SENTRY_DSN
instrument()

RATES = {"EUR": 1.08, "GBP": 1.27}
tracer = trace.get_tracer(__name__)


async def quote(request: Request) -> JSONResponse:
    currency = request.path_params["currency"]
    with tracer.start_as_current_span("look up rate") as span:
        try:
            rate = RATES[currency]
        except KeyError as error:
            span.record_exception(error)  # an issue in Sentry, an event on the span in OTLP
            return JSONResponse({"error": "unknown currency"}, status_code=404)
    return JSONResponse({"rate": rate})


app = OpenTelemetryMiddleware(Starlette(routes=[Route("/quote/{currency}", quote)]))
