"""The OTel edge for processes that have an exporter and no span processor of ours.

`OTEL_TRACES_EXPORTER=otlp,sentry` and OTel's configuration file know it as `sentry`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_sentry_asgi import sentry
from otel_sentry_asgi._active import active, obtain
from otel_sentry_asgi._coverage import coverage
from otel_sentry_asgi._environment import init_sentry
from otel_sentry_asgi._gathering import Gathering, Tree
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._provider import Flush
from otel_sentry_asgi._settings import Settings, SettingsError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_sentry_asgi._arguments import SettingsArguments

logger = logging.getLogger("otel_sentry_asgi")


class SentrySpanExporter(SpanExporter):
    """Sends ended spans to Sentry as transactions, behind OTel's batch processor.

    For processes without ASGI: workers, jobs, scripts. It knows of spans only when they have ended,
    so there are no Sentry scopes and no live exceptions; what was recorded on spans is reported
    from its text. Spans that a `SentrySpanProcessor` sees are left to that, so that both together
    send everything once.

    Takes the fields of `Settings` as keyword arguments, before those of the environment; makes a
    Sentry client from the environment if there is none. Raises `SettingsError` for arguments that
    cannot be used; without arguments it logs what is wrong in the environment and sends nothing.
    """

    def __init__(self, **settings: Unpack[SettingsArguments]) -> None:
        self._usable = True
        try:
            self._settings = Settings.from_env(os.environ, **settings)
            init_sentry(os.environ)
        except SettingsError as error:
            if settings:
                raise
            # OTel's set-up makes it, and would do without all the others because of this one.
            logger.error("nothing is sent to Sentry: %s", error)
            self._usable = False
            self._settings = Settings()
        self._begin()
        self._flush_at_exit()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._exports = False
        self._lock = threading.RLock()
        self._gathers = False
        self._came: deque[Sequence[ReadableSpan]] = deque()
        self._gathering = Gathering(
            max_held=self._settings.max_buffered, max_age=self._settings.max_age, lost=_lost
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the segments that are complete, within the client's `shutdown_timeout`: OTel's batch
        processor knows of no other flush. FAILURE if that took longer, or if there is no Sentry
        client that sends."""
        with contained("export of spans"):
            spans = [span for span in spans if not coverage.covers(span)]
            if not spans:
                return SpanExportResult.SUCCESS
            if not self._usable:
                return SpanExportResult.FAILURE
            bridge = obtain(self._settings)
            if not bridge.is_ready():
                return SpanExportResult.FAILURE
            if self._pid != os.getpid():
                self._begin()  # After a fork: what is held is the parent's to send.
            if not self._exports:
                self._exports = True
                self._flush_at_exit()
            self._came.append(spans)
            trees = self._gathered()
            for tree in trees:
                bridge.exported(tree)
            if not trees or bridge.pipeline.force_flush(sentry.shutdown_timeout()):
                return SpanExportResult.SUCCESS
        return SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send every segment whose root has ended; False if that took longer than
        *timeout_millis*."""
        bridge = active()
        if bridge is None:
            return True
        with contained("force_flush"):
            return bridge.pipeline.force_flush(timeout_millis / 1_000)
        return False

    def shutdown(self) -> None:
        """Send what has ended, within the client's `shutdown_timeout`. The Sentry client stays
        open."""
        bridge = active()
        if bridge is None:
            return
        with contained("shutdown"):
            if self._pid == os.getpid():
                for tree in self._gathered(everything=True):
                    bridge.exported(tree)
            bridge.close()
        atexit.unregister(self._exit)

    def _gathered(self, *, everything: bool = False) -> list[Tree]:
        """What is complete because of the spans that came. A finalizer or a signal handler may get
        here while its own thread gathers: then that goes on with what it brought."""
        trees: list[Tree] = []
        with self._lock:
            if self._gathers:
                return trees
            self._gathers = True
            try:
                now = time.monotonic()
                while self._came:
                    trees += self._gathering.add(self._came.popleft(), now)
                trees += self._gathering.flush() if everything else self._gathering.expired(now)
            finally:
                self._gathers = False
        return trees

    def _flush_at_exit(self) -> None:
        """The provider's exit handler is older than that of the client, so it would come too late:
        what waits in the batch processor has to leave before. Registered anew when spans come, for
        a client that the application has made meanwhile."""
        atexit.unregister(self._exit)
        atexit.register(self._exit)

    def _exit(self) -> None:
        if not coverage.is_in_force() and sentry.is_ready():
            Flush(None, time.monotonic() + sentry.shutdown_timeout()).wait()


def _lost(quantity: int) -> None:
    bridge = active()
    if bridge is not None:
        bridge.stats.add("lost.buffer_overflow", quantity)
    sentry.record_lost("buffer_overflow", "span", quantity)
