"""The OTel edge: a span processor that may be added to any tracer provider."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_sentry_asgi._active import obtain
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi._translate.span import is_local_root
from otel_sentry_asgi.export import Exporter

_RECORD = "record_exception"

# Guards hold no state, so those on the path of every span are made once.
_ON_START = contained("on_start")
_ON_END = contained("on_end")


class _Recorder(partial[None]):
    """Tells our attribute on a span from somebody else's."""


class SentrySpanProcessor(SpanProcessor):
    """Sends the provider's spans to Sentry as transactions, and what is recorded on them as errors.

    Add it to a provider to see every part: `provider.add_span_processor(SentrySpanProcessor())`.
    `instrument()` does that for you. All processors of a process share one bridge; *settings* and
    *exporter* count for the first that is made. Two on one provider send everything once.

    Raises `SettingsError` for settings that cannot be used; never raises afterwards.
    """

    def __init__(
        self, settings: Settings | None = None, *, exporter: Exporter | None = None
    ) -> None:
        self._bridge = obtain(settings, exporter)
        self._detached = False
        self._shadowed = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """For a local root: scope and sampling decision. For any span: hear of its exceptions."""
        if self._detached:
            return
        with _ON_START:
            recorder = span.__dict__.get(_RECORD)
            # There is one of ours when another of our processors has seen the span before.
            self._shadowed = type(recorder) is _Recorder
            if self._shadowed:
                return
            span.__dict__[_RECORD] = _Recorder(self._record, span, recorder)
            if is_local_root(span):
                self._bridge.started(span)

    def _on_ending(self, span: Span) -> None:
        """The attribute refers to its span: taken away so that the span goes without the
        collector."""
        recorder = span.__dict__.get(_RECORD)
        if type(recorder) is _Recorder and not self._shadowed:
            del span.__dict__[_RECORD]

    def on_end(self, span: ReadableSpan) -> None:
        """Hand the span to the worker."""
        if self._detached or self._shadowed:
            return
        with _ON_END:
            self._bridge.ended(span)

    def shutdown(self) -> None:
        """Send what has ended, within the client's `shutdown_timeout`. The Sentry client stays
        open."""
        if not self._detached:
            with contained("shutdown"):
                self._bridge.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send every segment whose root has ended; False if that took longer than
        *timeout_millis*."""
        if self._detached:
            return True
        with contained("force_flush"):
            return self._bridge.pipeline.force_flush(timeout_millis / 1_000)
        return False

    def detach(self) -> None:
        """From now on do nothing, for providers that do not let a processor go."""
        self._detached = True

    def _record(
        self, span: Span, before: Any, exception: BaseException, *args: Any, **kwargs: Any
    ) -> None:
        """In place of the span's own `record_exception`, or of what stood *before* it: that, and
        the live exception for Sentry."""
        if before is None:
            type(span).record_exception(span, exception, *args, **kwargs)
        else:
            before(exception, *args, **kwargs)
        if self._detached:
            return
        with contained("record_exception"):
            caller = str(sys._getframe(1).f_globals.get("__name__"))
            on_purpose = not caller.startswith("opentelemetry.")
            self._bridge.issues.recorded(span, exception, on_purpose=on_purpose)
