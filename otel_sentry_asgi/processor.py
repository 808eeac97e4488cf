"""The OTel edge: a span processor that may be added to any tracer provider."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_sentry_asgi._active import obtain
from otel_sentry_asgi._coverage import coverage
from otel_sentry_asgi._guard import contained, is_contained
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi.export import Exporter


class _Recorder(partial[None]):
    """In place of a span's `record_exception`, when bound to the span; by its type it is known."""


class SentrySpanProcessor(SpanProcessor):
    """Sends the provider's spans to Sentry as transactions, and what is recorded on them as errors.

    Add it to a provider to see every part: `provider.add_span_processor(SentrySpanProcessor())`.
    `instrument()` does that for you. All processors of a process share one bridge; *settings* and
    *exporter* count for the first that is made. Two on one provider send everything once.

    Raises `SettingsError` for settings that cannot be used; never raises afterwards.
    """

    _are_several = False
    """Of the class: whether a provider may have two processors of ours. Until then spans are not
    marked."""

    def __init__(
        self, settings: Settings | None = None, *, exporter: Exporter | None = None
    ) -> None:
        self._bridge = obtain(settings, exporter)
        self._detached = False
        self._recorder = _Recorder(self._record)
        self._resource: object = None
        self.on_shutdown: Callable[[], None] | None = None
        """Called when the provider has shut the processor down."""

    def joins(self, provider: Any) -> None:
        """The processor is about to be added to *provider*: from now on `SentrySpanExporter` leaves
        its spans alone. A processor added by hand finds out from the first local root."""
        self._covers(getattr(provider, "resource", None))

    def _covers(self, resource: object) -> None:
        if resource is not None and resource is not self._resource:
            self._resource = resource
            coverage.add(self, resource)
            if coverage.is_shared():
                SentrySpanProcessor._are_several = True

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """For a local root: scope and sampling decision. For any span: hear of its exceptions."""
        if self._detached:
            return
        try:
            before = span.record_exception
            function = getattr(before, "__func__", None)
            # Set as an attribute: a look into `__dict__` makes the interpreter build that
            # dictionary, and every access to the span slower from then on (CPython 3.11).
            if function is type(span).record_exception:
                span.record_exception = MethodType(self._recorder, span)  # type: ignore[method-assign]
            elif type(function) is _Recorder:
                SentrySpanProcessor._are_several = True
                self._covers(span.resource)
                return
            else:
                recorder = _Recorder(self._record_too, before)
                span.record_exception = MethodType(recorder, span)  # type: ignore[method-assign]
            parent = span.parent
            if parent is None or parent.is_remote:
                marks, resource = self._are_several, span.resource
                if resource is not self._resource:
                    marks = True  # It may be the first of another, too, that runs beside us.
                    self._covers(resource)
                if not marks or _is_first(span, "_sentry_started"):
                    self._bridge.started(span, parent_context)
        except BaseException as error:
            if not is_contained("on_start", error):
                raise

    def _on_ending(self, span: Span) -> None:
        """The attribute refers to its span: taken away so that the span goes without the
        collector."""
        function = getattr(span.record_exception, "__func__", None)
        if type(function) is _Recorder:
            try:
                del span.record_exception
            except AttributeError:
                return  # Another one of ours, which runs beside this, has done it meanwhile.

    def on_end(self, span: ReadableSpan) -> None:
        """Hand the span to the worker."""
        if self._detached:
            return
        try:
            # All processors get the same object.
            if not self._are_several or _is_first(span, "_sentry_ended"):
                self._bridge.ended(span)
        except BaseException as error:
            if not is_contained("on_end", error):
                raise

    def shutdown(self) -> None:
        """Send what has ended, within the client's `shutdown_timeout`. The Sentry client stays
        open."""
        if not self._detached:
            with contained("shutdown"):
                self._bridge.close()
                if self.on_shutdown is not None:
                    self.on_shutdown()

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
        coverage.remove(self)
        SentrySpanProcessor._are_several = coverage.is_shared()

    def _record(self, span: Span, exception: BaseException, *args: Any, **kwargs: Any) -> None:
        """In place of the span's own `record_exception`: that, and the live exception for
        Sentry."""
        type(span).record_exception(span, exception, *args, **kwargs)
        self._hear(span, exception)

    def _record_too(
        self, before: Any, span: Span, exception: BaseException, *args: Any, **kwargs: Any
    ) -> None:
        """In place of what another library has put there."""
        before(exception, *args, **kwargs)
        self._hear(span, exception)

    def _hear(self, span: Span, exception: BaseException) -> None:
        if self._detached:
            return
        with contained("record_exception"):
            caller = str(sys._getframe(2).f_globals.get("__name__"))
            on_purpose = not caller.startswith("opentelemetry.")
            self._bridge.issues.recorded(span, exception, on_purpose=on_purpose)


def _is_first(span: ReadableSpan, mark: str) -> bool:
    """Whether the span had no such *mark* yet; it has now. Processors may ask at the same time."""
    mine = object()
    return vars(span).setdefault(mark, mine) is mine
