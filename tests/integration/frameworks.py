"""A shop in each framework that answers 500 by itself and lets no exception out.

Run by uvicorn in a process of its own, with `FRAMEWORK`, `SENTRY_DSN` and `INTEGRATIONS` set.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

import otel_sentry_asgi


def fail(number: int) -> None:
    sentry_sdk.set_tag("number", number)
    raise ValueError("in the view")


def django() -> Any:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import Http404, HttpRequest, HttpResponse
    from django.urls import path

    async def boom(request: HttpRequest, number: int) -> HttpResponse:
        fail(number)
        return HttpResponse()

    def sync_boom(request: HttpRequest, number: int) -> HttpResponse:
        fail(number)
        return HttpResponse()

    async def missing(request: HttpRequest) -> HttpResponse:
        raise Http404

    async def ready(request: HttpRequest, number: int) -> HttpResponse:
        return HttpResponse()

    class Urls:
        urlpatterns = (
            path("boom/<int:number>", boom),
            path("sync/<int:number>", sync_boom),
            path("missing", missing),
            path("r<int:number>", ready),
        )

    settings.configure(ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    return get_asgi_application()


def quart() -> Any:
    from quart import Quart, abort

    app = Quart("shop")

    @app.get("/boom/<int:number>")
    async def boom(number: int) -> str:
        fail(number)
        return ""

    @app.get("/missing")
    async def missing() -> str:
        abort(404)

    return app


def litestar() -> Any:
    from litestar import Litestar, get
    from litestar.exceptions import NotFoundException
    from litestar.response import Stream

    @get("/boom/{number:int}")
    async def boom(number: int) -> str:
        fail(number)
        return ""

    @get("/missing")
    async def missing() -> str:
        raise NotFoundException

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("in the stream")

    # Annotations are text here, and Litestar reads them in the module.
    async def stream() -> Any:
        return Stream(chunks())

    return Litestar([boom, missing, get("/stream")(stream)])


def falcon() -> Any:
    import falcon as framework
    import falcon.asgi

    class Boom:
        async def on_get(self, request: Any, response: Any, number: int) -> None:
            fail(number)

    class Missing:
        async def on_get(self, request: Any, response: Any) -> None:
            raise framework.HTTPNotFound

    app = falcon.asgi.App()
    app.add_route("/boom/{number:int}", Boom())
    app.add_route("/missing", Missing())
    return app


FRAMEWORKS = {build.__name__: build for build in (django, quart, litestar, falcon)}


def create() -> Any:
    """The application that the environment names."""
    sentry_sdk.init(
        traces_sample_rate=1.0,
        release="shop@1",
        auto_enabling_integrations=os.environ["INTEGRATIONS"] == "on",
        _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
    )
    trace.set_tracer_provider(TracerProvider())
    otel_sentry_asgi.instrument()
    framework = FRAMEWORKS[os.environ["FRAMEWORK"]]
    return OpenTelemetryMiddleware(framework())
