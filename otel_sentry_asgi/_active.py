"""The bridge of this process."""

from __future__ import annotations

import threading

from otel_sentry_asgi._bridge import Bridge
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi.export import Exporter

_lock = threading.Lock()
_bridge: Bridge | None = None


def obtain(settings: Settings | None = None, exporter: Exporter | None = None) -> Bridge:
    """The process's bridge, made with *settings* and *exporter* if there is none yet."""
    global _bridge
    with _lock:
        if _bridge is None:
            if exporter is None:
                from otel_sentry_exporters.sdk import SdkExporter

                exporter = SdkExporter()
            _bridge = Bridge(settings or Settings(), exporter)
            _bridge.links.add()
        return _bridge


def active() -> Bridge | None:
    """The process's bridge, if one has been made."""
    return _bridge


def release() -> Bridge | None:
    """Forget the process's bridge; the caller closes it."""
    global _bridge
    with _lock:
        bridge, _bridge = _bridge, None
        if bridge is not None:
            bridge.links.remove()
        return bridge
