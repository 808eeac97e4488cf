"""A FastAPI application with OpenTelemetry's instrumentation for it.

    pip install otel-sentry-asgi fastapi uvicorn opentelemetry-instrumentation-fastapi
    SENTRY_DSN=... uvicorn examples.fastapi_app:app

`GET /items/1` becomes the transaction `GET /items/{item_id}` with the tag `shelf`, `GET /items/2`
becomes one with an issue, and both have the same tag.
"""

import sentry_sdk
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel_sentry_asgi import instrument

resource = Resource.create({"service.name": "items", "service.version": "1.0"})
trace.set_tracer_provider(TracerProvider(resource=resource))
sentry_sdk.init(traces_sample_rate=1.0)  # takes the DSN from SENTRY_DSN
instrument()

app = FastAPI()
FastAPIInstrumentor.instrument_app(app)

NAMES = {1: "hammer"}


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, str]:
    sentry_sdk.set_tag("shelf", str(item_id))
    return {"name": NAMES[item_id]}
