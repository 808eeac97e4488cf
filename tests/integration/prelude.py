"""For tests in a process of their own: a client that keeps what it would send, and small apps."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import httpx
import sentry_sdk
from opentelemetry import trace
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

import otel_sentry_asgi

DSN = "http://public@127.0.0.1:9/1"


class Kept(Transport):
    """A transport that sends nothing and keeps everything."""

    def __init__(self) -> None:
        super().__init__({"dsn": DSN})
        self.envelopes: list[Envelope] = []
        self.lost: list[tuple[str, str | None, int]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    def record_lost_event(
        self,
        reason: str,
        data_category: Any = None,
        item: Any = None,
        *,
        quantity: int = 1,
    ) -> None:
        self.lost.append((reason, data_category, quantity))


transport = Kept()


def init(**options: Any) -> None:
    sentry_sdk.init(**{"dsn": DSN, "transport": transport, "traces_sample_rate": 1.0, **options})


def payloads(kind: str) -> list[dict[str, Any]]:
    return [
        item.payload.json
        for envelope in transport.envelopes
        for item in envelope.items
        if item.type == kind and item.payload.json is not None
    ]


def names() -> list[str]:
    """Of the transactions, after a flush."""
    bridge = otel_sentry_asgi._active.active()
    if bridge is not None:
        assert bridge.pipeline.force_flush(5)
    return [one["transaction"] for one in payloads("transaction")]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """A plain application: `/boom` raises, everything else answers 200."""
    assert scope["type"] == "http"
    if scope["path"] == "/boom":
        raise ValueError("boom")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def get_async(app: Any, *paths: str, **options: Any) -> list[int]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return [(await client.get(path, **options)).status_code for path in paths]


def get(app: Any, *paths: str, **options: Any) -> list[int]:
    return asyncio.run(get_async(app, *paths, **options))


def processors(provider: Any = None) -> list[str]:
    """The classes of the provider's span processors."""
    provider = provider or trace.get_tracer_provider()
    return [type(one).__name__ for one in provider._active_span_processor._span_processors]


class Log(logging.Handler):
    """Keeps the messages of our own logger."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        logging.getLogger("otel_sentry_asgi").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def report(**facts: Any) -> None:
    """Tell the test."""
    sys.stdout.write("\n" + json.dumps(facts) + "\n")
