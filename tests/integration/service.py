"""A service that calls the next one, for processes of their own: `NEXT` is its URL, `KIND` what it
is instrumented with, `RATIO` and `RATE` what OTel and Sentry keep."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import sentry_sdk
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

import otel_sentry_asgi

NEXT = os.environ.get("NEXT")
BRIDGED = os.environ["KIND"] == "bridged"

sentry_sdk.init(
    traces_sample_rate=float(os.environ["RATE"]),
    _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
)


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    yield
    sentry_sdk.flush()


app = FastAPI(lifespan=lifespan)


@app.get("/step/{number}")
async def step(number: int) -> dict[str, int]:
    if NEXT is not None:
        async with httpx.AsyncClient() as client:
            await client.get(f"{NEXT}/step/{number}")
    return {"step": number}


if BRIDGED:
    # Not ParentBased: each service decides for itself, and all alike.
    provider = TracerProvider(sampler=TraceIdRatioBased(float(os.environ["RATIO"])))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()
    FastAPIInstrumentor.instrument_app(app)
    otel_sentry_asgi.instrument()
