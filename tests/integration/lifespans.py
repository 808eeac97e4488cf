"""Applications whose shutdown fails, for servers that run in processes of their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette

import otel_sentry_asgi

sentry_sdk.init(
    _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
)
trace.set_tracer_provider(TracerProvider())
otel_sentry_asgi.instrument()


@asynccontextmanager
async def fails(app: Starlette) -> AsyncIterator[None]:
    yield
    raise RuntimeError("not closed")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Does not tell of it."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise RuntimeError("not closed")


app = OpenTelemetryMiddleware(
    plain if os.environ["FRAMEWORK"] == "plain" else Starlette(lifespan=fails)
)
