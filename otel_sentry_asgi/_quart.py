"""The edge to Quart, which leaves no route in the ASGI scope, and has left its own context when the
response begins: its signals tell that a request has been routed.

Relied upon (0.22.0): `request_started` and `websocket_started` of `quart.signals`, sent with
`quart.request` and `quart.websocket` in force; their `url_rule` and `scope`.
"""

from __future__ import annotations

import sys
from typing import Any

from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._lifespan import MARK
from otel_sentry_asgi._scope import current_exchange
from otel_sentry_asgi._translate.request import WHOLE_ROUTE, whole_route

SIGNALS = "quart.signals"


def listen(signals: Any) -> None:
    """Have Quart tell, from now on, by which rule it has routed a request. More than once is like
    once."""
    with contained("quart"):
        signals.request_started.connect(_request_started)
        signals.websocket_started.connect(_websocket_started)


def listen_if_imported() -> None:
    """`listen`, if the application has Quart."""
    signals = sys.modules.get(SIGNALS)
    if signals is not None:
        listen(signals)


def stop() -> None:
    """Undo `listen`."""
    signals = sys.modules.get(SIGNALS)
    if signals is not None:
        with contained("quart"):
            signals.request_started.disconnect(_request_started)
            signals.websocket_started.disconnect(_websocket_started)


async def _request_started(_app: Any, **_: Any) -> None:
    _note_rule("request")


async def _websocket_started(_app: Any, **_: Any) -> None:
    _note_rule("websocket")


def _note_rule(kind: str) -> None:
    """Keep the template where the exchange's request has it, unless this is another's: a service
    may call itself without leaving the process."""
    exchange = current_exchange.get()
    if exchange is None or exchange.asgi_scope is None:
        return
    with contained("quart"):
        request = getattr(sys.modules["quart"], kind)
        if request.url_rule is not None and MARK in request.scope:
            route = whole_route(request.scope, request.url_rule.rule)
            exchange.asgi_scope[WHOLE_ROUTE] = route
