"""Set-up: `instrument()` adds the bridge to what the application has, `uninstrument()` takes it
away.

The instrumentor is the only thing in the package that wraps anything: OTel's ASGI middlewares and
FastAPI's own telemetry, so that applications need no edit, and sentry-sdk's own ASGI and WSGI
layers, in whose place ours runs. It does so with wrapt, through OTel's `BaseInstrumentor`.

`opentelemetry-instrument` and OTel's configuration file know it as `sentry_asgi`. There nobody has
set up anything yet, so it also makes a Sentry client from the environment, and, where the first
request finds no tracer provider at all, a provider.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry import propagate, trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import suppress_instrumentation, unwrap
from opentelemetry.sdk.trace import TracerProvider

from otel_sentry_asgi import _quart, sentry
from otel_sentry_asgi._active import active, obtain, release
from otel_sentry_asgi._environment import init_sentry
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._metrics import observe
from otel_sentry_asgi._provider import can_take, remove
from otel_sentry_asgi._scope import current_exchange
from otel_sentry_asgi._settings import Settings, SettingsError, check_names
from otel_sentry_asgi._traffic import otlp_endpoints
from otel_sentry_asgi.export import Exporter
from otel_sentry_asgi.middleware import App, Receive, Scope, Send, run
from otel_sentry_asgi.processor import SentrySpanProcessor
from otel_sentry_asgi.propagator import SentryPropagator, join

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_sentry_asgi._arguments import Arguments, InstrumentorArguments
    from otel_sentry_asgi.logs import SentryLogRecordProcessor

logger = logging.getLogger("otel_sentry_asgi")

_LAYERS = {
    "opentelemetry.instrumentation.asgi": "OpenTelemetryMiddleware",
    "starlette.middleware.opentelemetry": "OpenTelemetryMiddleware",
    "fastapi.applications": "FastAPI",
}
"""Modules, and the class in each, in which OTel's spans of a request begin."""

_NO_SETTINGS = (
    *("tracer_provider", "logger_provider", "meter_provider", "create_provider"),
    *("exporter", "settings"),
)
"""What `instrument()` takes beside the fields of `Settings`."""


class SentryInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """OTel's way to the same as `instrument()`; one for a process."""

    _processor: SentrySpanProcessor | None = None
    _left: tuple[SentrySpanProcessor, ...] = ()
    """Processors that their provider has shut down; spans that it had started may still end."""
    _log_processor: SentryLogRecordProcessor | None = None
    _provider: Any = None
    _logger_provider: Any = None
    _makes_provider = False
    _told = False
    _propagator: SentryPropagator | None = None
    _textmaps: tuple[Any, Any] = (None, None)
    """The global propagator before us, and with us."""
    _has_run = False
    _has_begun = False
    """A request has come."""
    _wrapped: list[tuple[Any, str, Any]]

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing beyond our own requirements."""
        return ()

    def instrument(self, **kwargs: Unpack[InstrumentorArguments]) -> None:
        """What `instrument()` does, for a process that nobody has set up.

        Makes a Sentry client if there is none and `SENTRY_DSN` is set, and at the first request a
        tracer provider if there is none. `opentelemetry-instrument` calls it without arguments;
        then settings of the environment that cannot be used are logged, and nothing is set up,
        because an exception would keep it from loading the instrumentations after this one.
        """
        of_otel = {"skip_dep_check", "raise_exception_on_conflict"}
        if self.is_instrumented_by_opentelemetry:
            return  # OTel's configuration file came before `opentelemetry-instrument`.
        try:
            super().instrument(**{"unattended": True, **kwargs})
        except SettingsError as error:
            if kwargs.keys() - of_otel:
                raise
            logger.error("nothing is sent to Sentry: %s", error)

    def _instrument(self, *, unattended: bool = False, **kwargs: Any) -> None:
        check_names(kwargs, _NO_SETTINGS)
        provider = kwargs.pop("tracer_provider", None)
        create_provider = kwargs.pop("create_provider", False)
        logger_provider = kwargs.pop("logger_provider", None)
        meter_provider = kwargs.pop("meter_provider", None)
        exporter: Exporter | None = kwargs.pop("exporter", None)
        given = kwargs.pop("settings", None)
        if given is not None and kwargs:
            msg = f"give either settings= or single settings, not both: {sorted(kwargs)}"
            raise SettingsError(msg)
        settings = given or Settings.from_env(os.environ, **kwargs)
        _check_exporter(exporter)
        _check_provider(provider)
        if unattended:
            init_sentry(os.environ)
        self._makes_provider = unattended
        bridge = obtain(settings, exporter)
        bridge.pipeline.traffic.otlp = otlp_endpoints(os.environ)
        self._processor = SentrySpanProcessor()
        self._wrapped = []
        if provider is None and create_provider and not can_take(trace.get_tracer_provider()):
            provider = TracerProvider()
            trace.set_tracer_provider(provider)
        self._attach(provider)
        self._attach_to_logs(logger_provider)
        self._has_run = self._has_begun = False
        self._join_propagation()
        self._wrap_all()
        with contained("metrics"):
            observe(meter_provider)

    def _uninstrument(self, **_kwargs: Any) -> None:
        for owner, name, wrapper in self._wrapped:
            # Somebody else may have wrapped it since: then ours stays below, and does nothing.
            if getattr(vars(owner).get(name), "_self_wrapper", None) == wrapper:
                unwrap(owner, name)
        self._wrapped = []
        for module in (*_LAYERS, _quart.SIGNALS):
            _forget_hook(module)
        _quart.stop()
        bridge = release()
        # Before the bridge retires: what comes later would start its worker again.
        processor, self._processor = self._processor, None
        for one in self._left:
            one.detach()
        self._left = ()
        log_processor, self._log_processor = self._log_processor, None
        if processor is not None:
            processor.detach()
            remove(self._provider, "_active_span_processor", "_span_processors", processor)
        if log_processor is not None:
            log_processor.detach()
            remove(
                self._logger_provider,
                "_multi_log_record_processor",
                "_log_record_processors",
                log_processor,
            )
        if bridge is not None:
            bridge.retire()
        self._provider = self._logger_provider = None
        self._makes_provider = self._told = False
        self._leave_propagation()

    @property
    def makes_provider(self) -> bool:
        """Whether the first request makes a tracer provider if there is none."""
        return self._makes_provider

    def wrapped_layers(self) -> list[str]:
        """What is wrapped now, as `module.Class`."""
        owners = [owner for owner, _, _ in getattr(self, "_wrapped", ())]
        classes = [owner for owner in owners if isinstance(owner, type)]
        return [f"{owner.__module__}.{owner.__qualname__}" for owner in classes]

    def join(self, *, is_request: bool) -> None:
        """Join what has come since. With the first request the application's start-up is over: what
        has not come by then does not."""
        self._attach()
        if not self._has_begun:
            self._attach_to_logs()
        self._has_begun = self._has_begun or is_request
        if self._provider is not None or not is_request or self._told:
            return
        found = trace.get_tracer_provider()
        if not isinstance(found, trace.ProxyTracerProvider):
            self._told = True
            wanted = isinstance(found, trace.NoOpTracerProvider)
            logger.log(
                logging.INFO if wanted else logging.WARNING,
                "no transactions are sent to Sentry: the tracer provider, %s, takes no span "
                "processors; one behind it can be given as instrument(tracer_provider=...)",
                type(found).__qualname__,
            )
        elif self._makes_provider:
            trace.set_tracer_provider(TracerProvider())
            self._attach()

    def _attach(self, provider: Any = None) -> None:
        """Join the tracer provider, as soon as there is one that takes span processors."""
        if self._provider is not None or self._processor is None:
            return
        provider = provider if provider is not None else trace.get_tracer_provider()
        if can_take(provider):
            self._provider = provider
            bridge = active()
            if bridge is not None:
                bridge.provider = provider
            self._processor.joins(provider)
            self._processor.on_shutdown = self._after_shutdown
            provider.add_span_processor(self._processor)

    def _after_shutdown(self) -> None:
        """What only stands for a provider may have another behind it by now (a second
        `logfire.configure()`): joined again with what comes next. By another processor of ours, of
        which a provider that is still the same minds no more than one."""
        if self._processor is not None and not isinstance(self._provider, TracerProvider):
            self._left = (*self._left, self._processor)
            self._processor, self._provider = SentrySpanProcessor(), None

    def _attach_to_logs(self, provider: Any = None) -> None:
        """Join the logger provider, as soon as there is one that takes processors. Only then is
        OTel's SDK for logs imported."""
        if self._logger_provider is not None or self._processor is None:
            return
        provider = provider if provider is not None else get_logger_provider()
        if callable(getattr(provider, "add_log_record_processor", None)):
            from otel_sentry_asgi.logs import SentryLogRecordProcessor

            self._logger_provider = provider
            self._log_processor = SentryLogRecordProcessor()
            provider.add_log_record_processor(self._log_processor)

    def _after_set(
        self, wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """The provider that comes is joined at once: work outside of requests has no first
        request."""
        wrapped(*args, **kwargs)
        with contained("instrument"):
            self._attach()

    def _join_propagation(self) -> None:
        """Put our propagator behind the one that is there: now, and once more when the first
        request comes, in case the application has set its own meanwhile."""
        bridge = active()
        if bridge is None or not bridge.settings.propagate:
            return
        before = propagate.get_global_textmap()
        joined, propagator = join(before)
        if propagator is not None:
            self._leave_propagation()
            self._propagator, self._textmaps = propagator, (before, joined)
            propagate.set_global_textmap(joined)

    def _leave_propagation(self) -> None:
        """Put back what was there, unless somebody has replaced it; ours does nothing then."""
        before, joined = self._textmaps
        if joined is not None and propagate.get_global_textmap() is joined:
            propagate.set_global_textmap(before)
        if self._propagator is not None:
            self._propagator.detached = True
        self._propagator, self._textmaps = None, (None, None)

    def _wrap_all(self) -> None:
        self._wrap(trace, "set_tracer_provider", self._after_set)
        for module in _LAYERS:
            _when_imported(module, self._wrap_otel)
        _when_imported(_quart.SIGNALS, _quart.listen)
        sdk = sentry.sdk_asgi_middleware()
        if sdk is None:
            logger.warning(
                "this version of sentry-sdk has another ASGI middleware than expected; "
                "disable its framework integrations, or each request has two transactions"
            )
        else:
            self._wrap(sdk, "_run_app", self._in_place_of_sdk)
        self._wrap(sentry.sdk_wsgi_middleware(), "__call__", _without_wsgi_layer)
        for transport, method in sentry.sdk_uploads():
            self._wrap(transport, method, _without_spans)

    def _wrap_otel(self, module: Any) -> None:
        self._wrap(getattr(module, _LAYERS[module.__name__]), "__call__", self._around_otel)

    def _wrap(self, owner: Any, name: str, wrapper: Any) -> None:
        if any(done[:2] == (owner, name) for done in self._wrapped):
            return
        wrapt.wrap_function_wrapper(owner, name, wrapper)
        self._wrapped.append((owner, name, wrapper))

    def _around_otel(
        self, wrapped: App, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[None]:
        return self._run(wrapped, *args, **kwargs)

    def _in_place_of_sdk(
        self, _wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[None]:
        """sentry-sdk's own layer is left out: it would add a transaction, an error and a scope."""
        version = kwargs.get("asgi_version", args[3] if len(args) > 3 else 3)
        app = instance.app if version == 3 else _single(instance.app)
        return self._run(app, *args[:3], **{k: kwargs[k] for k in kwargs if k in _NAMES})

    def _run(self, app: App, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine function: a wrong call must fail at once, by which servers tell
        factories from applications."""
        if self._provider is None or not self._has_begun:
            with contained("instrument"):
                self.join(is_request=scope["type"] != "lifespan")
        if not self._has_run:
            self._has_run = True
            with contained("instrument"):
                self._join_propagation()
        bridge = active()
        if bridge is None:
            return app(scope, receive, send)
        return run(bridge, app, scope, receive, send)


def _without_wsgi_layer(
    wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """sentry-sdk's own layer of a WSGI application that is part of a request of ours (a mounted
    Flask) is left out, too."""
    exchange = current_exchange.get()
    if exchange is None or not exchange.is_request or exchange.finished:
        return wrapped(*args, **kwargs)
    return instance.app(*args, **kwargs)


def _without_spans(
    wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """An upload to Sentry is no work of the application's: HTTP clients that OTel has instrumented
    make no span of it."""
    if inspect.iscoroutinefunction(wrapped):
        return _awaited_without_spans(wrapped, args, kwargs)
    with suppress_instrumentation():
        return wrapped(*args, **kwargs)


async def _awaited_without_spans(
    wrapped: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with suppress_instrumentation():
        return await wrapped(*args, **kwargs)


_NAMES = ("scope", "receive", "send")
_hooks: dict[str, Any] = {}


def _when_imported(module: str, hook: Callable[[Any], None]) -> None:
    """Call *hook* with the module: now, or when it is imported."""
    if module in sys.modules:
        hook(sys.modules[module])
    else:
        _hooks[module] = hook
        wrapt.register_post_import_hook(_import_hook, module)


def _import_hook(module: Any) -> None:
    hook = _hooks.get(module.__name__)
    if hook is not None:
        with contained("import hook"):
            hook(module)


def _forget_hook(module: str) -> None:
    """wrapt has no way to take a hook back; ours does nothing once it is forgotten."""
    _hooks.pop(module, None)


def _single(double: Any) -> App:
    """An ASGI 2 application as one of ASGI 3."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await double(scope)(receive, send)

    return app


def _check_provider(provider: Any) -> None:
    if provider is not None and not can_take(provider):
        msg = f"tracer_provider must have add_span_processor(), {provider!r} does not"
        raise SettingsError(msg)


def _check_exporter(exporter: Any) -> None:
    if exporter is not None and not isinstance(exporter, Exporter):
        msg = f"exporter must have export(), force_flush() and shutdown(), {exporter!r} does not"
        raise SettingsError(msg)


def instrument(**kwargs: Unpack[Arguments]) -> None:
    """Bridge this process's OpenTelemetry to its Sentry client.

    May be called before or after `sentry_sdk.init()`, before or after the tracer provider is set,
    and before or after applications are wrapped; a second call changes nothing. Nothing that is
    there is replaced. Without a tracer provider it joins the one that comes, no later than the
    first request.

    Args:
        tracer_provider: The provider to join, instead of the global one.
        logger_provider: Likewise for logs.
        meter_provider: Where our counters are offered as metrics, instead of the global one.
        create_provider: Make and set a global provider if there is none (default: False).
        exporter: Where transactions go (default: an `EnvelopeExporter`).
        settings: A `Settings`; or its fields as single keyword arguments, which win over
            `OTEL_SENTRY_<NAME>` environment variables.

    Raises:
        SettingsError: A setting has a value that cannot be used; the message names both.
    """
    instrumentor = SentryInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        level = logging.WARNING if kwargs else logging.DEBUG
        ignored = f", {', '.join(sorted(kwargs))} neither" if kwargs else ""
        logger.log(level, "instrument() has been called before; nothing changes%s", ignored)
        return
    instrumentor.instrument(unattended=False, **kwargs)


def uninstrument() -> None:
    """Send what has ended, then take away what `instrument()` added, and nothing else."""
    instrumentor = SentryInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
