"""The bridge of this process."""

from __future__ import annotations

import codecs
import os
import threading

from otel_sentry_asgi._bridge import Bridge
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi.export import Exporter

_lock = threading.RLock()
_bridge: Bridge | None = None


def _begin_in_child() -> None:
    """A forked child may have inherited a lock that nobody holds, and what its parent will send."""
    global _lock
    _lock = threading.RLock()
    if _bridge is not None:
        _bridge.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)

# Sockets import this when they first look a host up: for uploads, on a thread. A child that was
# forked meanwhile waited for the lock of that import, or never found the codec.
codecs.lookup("idna")


def obtain(settings: Settings | None = None, exporter: Exporter | None = None) -> Bridge:
    """The process's bridge, made with *settings* and *exporter* if there is none yet."""
    global _bridge
    with _lock:
        if _bridge is None:
            if exporter is None:
                from otel_sentry_exporters.envelope import EnvelopeExporter

                exporter = EnvelopeExporter()
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
