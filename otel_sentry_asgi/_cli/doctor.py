"""`doctor`: what is set up in a process, what keeps things from arriving, and a test of it.

Run it the way the service is run: `opentelemetry-instrument python -m otel_sentry_asgi doctor` for
zero code; `... doctor --app main:app` imports the application first, so that its own set-up runs.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import distributions, version
from operator import attrgetter
from typing import Any, Final

import sentry_sdk
from opentelemetry import propagate, trace

import otel_sentry_asgi
from otel_sentry_asgi import _active, sentry
from otel_sentry_asgi._cli import links
from otel_sentry_asgi._settings import Settings, SettingsError
from otel_sentry_asgi.instrumentor import SentryInstrumentor
from otel_sentry_asgi.processor import SentrySpanProcessor
from otel_sentry_asgi.propagator import is_sdks, members_of, overwriting_ours

PACKAGES: Final = (
    *("otel-sentry-asgi", "sentry-sdk", "opentelemetry-api", "opentelemetry-sdk"),
    *("opentelemetry-distro", "opentelemetry-instrumentation-asgi"),
    *("opentelemetry-instrumentation-fastapi", "opentelemetry-instrumentation-starlette"),
    *("asgiref", "fastapi", "starlette", "litestar", "quart", "django", "falcon", "logfire"),
)

CLIENTS: Final = {
    "aiohttp": (("aiohttp_client", "AioHttpClientInstrumentor"),),
    "httpx": (("httpx", "HTTPXClientInstrumentor"),),
    "requests": (("requests", "RequestsInstrumentor"), ("urllib3", "URLLib3Instrumentor")),
}
"""HTTP clients, and OTel's instrumentations by which their requests carry trace headers: module and
class. urllib3 is not among the clients: sentry-sdk itself always has it."""

FILTERS: Final = ("before_send", "before_send_transaction", "ignore_errors")
"""Options of the client by which events get lost on purpose."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; *advice* says what to do if it is a problem."""

    what: str
    advice: str = ""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("doctor", help="explain why nothing arrives, and send a test")
    parser.add_argument("--app", metavar="MODULE:NAME", help="import this application first")
    parser.add_argument("--no-send", action="store_true", help="look only, send nothing")
    parser.set_defaults(func=run)


def run(given: argparse.Namespace) -> int:
    """Print what was found; 0 if nothing stands in the way, 2 if there is no such application, 1
    otherwise."""
    sys.path.insert(0, os.getcwd())
    wrong = _import(given.app) if given.app else ""
    if wrong:
        sys.stderr.write(f"--app {given.app}: {wrong}\n")
        return 2
    if _active.active() is None:
        _print([Finding("nothing has set up the bridge in this process: as zero code would now")])
        SentryInstrumentor().instrument()
    findings = list(examine(os.environ))
    _print(findings)
    if not given.no_send:
        SentryInstrumentor().join(is_request=True)  # As the first request would.
        sent = list(send_test())
        _print(sent)
        findings += sent
    problems = sum(bool(finding.advice) for finding in findings)
    _print([Finding(f"{problems} problems" if problems else "nothing stands in the way")])
    return 1 if problems else 0


def _import(app: str) -> str:
    """Import what servers are given as `module:name`. Says what is wrong, if it is not that the
    module itself fails."""
    module, _, name = app.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        return "not MODULE:NAME"
    try:
        found = importlib.import_module(module)
    except (ImportError, SettingsError) as error:
        return str(error)
    try:
        if name:
            attrgetter(name)(found)
    except AttributeError as error:
        return str(error)
    return ""


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What this process has: versions, client, provider, settings."""
    yield Finding(", ".join([f"Python {sys.version.split()[0]}", *_versions()]))
    yield from _client()
    yield from _provider(environ)
    yield from _propagation()
    yield from _instrumentations(environ)
    yield from _settings(environ)
    counts = otel_sentry_asgi.stats()
    yield Finding(f"so far: {counts or 'nothing sent, nothing lost'}")


def _versions() -> list[str]:
    present = {name.lower() for one in distributions() if (name := one.metadata["Name"])}
    return [f"{name} {version(name)}" for name in PACKAGES if name in present]


def _client() -> Iterator[Finding]:
    why = sentry.why_inert()
    if why is not None:
        advice = "call sentry_sdk.init(dsn=...), or set SENTRY_DSN and start with "
        yield Finding(f"Sentry: {why}", f"{advice}opentelemetry-instrument")
        return
    options = sentry.options()
    where = sentry.upload_prefix() or "Spotlight"
    yield Finding(f"Sentry: {where}, environment {options.get('environment')}")
    yield from _sampling()
    filters = [name for name in FILTERS if options.get(name)]
    if filters:
        yield Finding(f"filtered by the application: {', '.join(filters)}")
    if float(options.get("sample_rate", 1.0)) < 1:
        yield Finding(f"errors: sample_rate={options['sample_rate']} drops the others")
    otlp: Any = sentry_sdk.get_client().integrations.get("otlp")
    if otlp is not None and getattr(otlp, "setup_otlp_traces_exporter", False):
        advice = "OTLPIntegration(setup_otlp_traces_exporter=False, setup_propagator=False)"
        yield Finding("OTLPIntegration sends every span to Sentry a second time", advice)


def _sampling() -> Iterator[Finding]:
    rate, sampler = sentry.tracing()
    if sampler is not None:
        yield Finding("sampled: traces_sampler decides, on top of OpenTelemetry's sampler")
    elif rate is None:
        yield Finding("sampled: tracing is off, errors only", "set traces_sample_rate")
    else:
        advice = "" if rate else "set traces_sample_rate to more than 0"
        yield Finding(f"sampled: traces_sample_rate={rate}, on top of OpenTelemetry's", advice)


def _provider(environ: Mapping[str, str]) -> Iterator[Finding]:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding("OpenTelemetry: off, errors only", "unset OTEL_SDK_DISABLED")
    provider = trace.get_tracer_provider()
    name = type(provider).__qualname__
    if isinstance(provider, trace.ProxyTracerProvider):
        if SentryInstrumentor().makes_provider:
            yield Finding("tracer provider: none yet; the first request will make one")
        else:
            advice = "trace.set_tracer_provider(TracerProvider()), or instrument("
            yield Finding("tracer provider: none", f"{advice}create_provider=True)")
        return
    if not callable(getattr(provider, "add_span_processor", None)):
        advice = "give the one behind it as instrument(tracer_provider=...)"
        yield Finding(f"tracer provider: {name}, which takes no span processors", advice)
        return
    sampler = getattr(provider, "sampler", None)
    described = sampler.get_description() if sampler is not None else "unknown"
    yield Finding(f"tracer provider: {name}, sampler {described}")
    multi = getattr(provider, "_active_span_processor", None)
    processors = getattr(multi, "_span_processors", None)
    if processors is not None:
        kinds = [type(one).__qualname__ for one in processors]
        ours = any(isinstance(one, SentrySpanProcessor) for one in processors)
        yield Finding(
            f"span processors: {', '.join(kinds) or 'none'}",
            "" if ours else "call otel_sentry_asgi.instrument()",
        )


def _propagation() -> Iterator[Finding]:
    members = members_of(propagate.get_global_textmap())
    names = ", ".join(type(one).__name__ for one in members)
    advice = ""
    if any(map(is_sdks, members)):
        advice = "`sentry` in OTEL_PROPAGATORS is sentry-sdk's own here: name `sentry_asgi`"
    elif overwriting_ours():
        advice = "put `sentry_asgi` last in OTEL_PROPAGATORS"
    yield Finding(f"propagators: {names or 'none'}", advice)
    clients = ", ".join(without_headers(sys.modules))
    if clients:
        why = "OpenTelemetry's instrumentation of them is not active"
        yield Finding(f"no trace headers in requests of {clients}: {why}")


def without_headers(modules: Mapping[str, Any]) -> list[str]:
    """The HTTP clients among the loaded *modules* of which no instrumentation is active."""
    return [
        client
        for client, instrumentations in CLIENTS.items()
        if client in modules
        and not any(_is_active(modules, module, name) for module, name in instrumentations)
    ]


def _is_active(modules: Mapping[str, Any], module: str, name: str) -> bool:
    kind = getattr(modules.get(f"opentelemetry.instrumentation.{module}"), name, None)
    return kind is not None and bool(kind().is_instrumented_by_opentelemetry)


def _instrumentations(environ: Mapping[str, str]) -> Iterator[Finding]:
    wrapped = SentryInstrumentor().wrapped_layers()
    yield Finding(f"bridged: {', '.join(wrapped) or 'by hand only'}")
    for name in sorted(environ):
        if name.startswith("OTEL_PYTHON_") and name.endswith("EXCLUDED_URLS") and environ[name]:
            yield Finding(f"{name}: requests to {environ[name]} have no transaction")
    disabled = environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    if disabled:
        yield Finding(f"instrumentations that are disabled: {disabled}")


def _settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    bridge = _active.active()
    known = {f"OTEL_SENTRY_{field.name.upper()}" for field in fields(Settings)}
    for name in sorted(environ):
        if name.startswith("OTEL_SENTRY_") and name not in known:
            yield Finding(f"{name} is no setting", "look it up in docs/configuration.md")
    if bridge is not None:
        default = Settings()
        changed = [
            f"{field.name}={getattr(bridge.settings, field.name)!r}" if field.repr else field.name
            for field in fields(Settings)
            if getattr(bridge.settings, field.name) != getattr(default, field.name)
        ]
        yield Finding(f"settings: {', '.join(changed) or 'all at their defaults'}")


class DoctorsTest(Exception):
    """What the test error is called in Sentry."""


class _Complaints(logging.Handler):
    """Keeps what sentry-sdk and we log about sending."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        self.messages.append(text)


@contextmanager
def _listening(complaints: logging.Handler) -> Iterator[None]:
    """In debug mode alone sentry-sdk lets its complaints through; not to the terminal."""
    loggers = [logging.getLogger(name) for name in ("sentry_sdk.errors", "otel_sentry_asgi")]
    options: Any = sentry.options()
    before = [logger.handlers for logger in loggers]
    debug, options["debug"] = options.get("debug"), True
    try:
        for logger in loggers:
            logger.handlers = [complaints]
        yield
    finally:
        options["debug"] = debug
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers = handlers


def send_test() -> Iterator[Finding]:
    """Send a transaction with an error, and say by which ids and links they are found."""
    bridge = _active.active()
    if bridge is None or not bridge.is_ready():
        yield Finding("test: nothing sent", "see above")
        return
    complaints = _Complaints()
    before = otel_sentry_asgi.stats()
    with _listening(complaints):
        yield from _send()
        flushed = bridge.pipeline.force_flush(10.0)
    after = otel_sentry_asgi.stats()
    for message in dict.fromkeys(complaints.messages):
        yield Finding(f"sending failed: {message}", "check the DSN and the way to it")
    if not flushed:
        yield Finding("sending took longer than 10 s", "check the way to Sentry")
    if after.get("transactions", 0) == before.get("transactions", 0):
        yield Finding("the test transaction was not sent", "see provider and sampling above")
    lost = {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if name.startswith("lost.") and count > before.get(name, 0)
    }
    if lost:
        yield Finding(f"lost: {lost}", "the reason is in the name")


def _send() -> Iterator[Finding]:
    with trace.get_tracer("otel_sentry_asgi.doctor").start_as_current_span("doctor") as span:
        context = span.get_span_context()
        event_id = sentry_sdk.capture_exception(DoctorsTest("this is a test"))
    dsn = sentry_sdk.get_client().dsn
    if context.is_valid:
        trace_id = f"{context.trace_id:032x}"
        sampled = "" if context.trace_flags.sampled else ", which OpenTelemetry does not sample"
        yield Finding(f"test transaction `doctor`: trace {trace_id}{sampled}")
        if dsn:
            yield Finding(f"  {links.to_trace(dsn, trace_id)}")
    yield Finding(f"test error DoctorsTest: event {event_id}; search for it, or for the trace")
    if dsn and event_id:
        yield Finding(f"  {links.to_error(dsn, event_id)}")


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        mark = "!!" if finding.advice else "  "
        advice = f"\n     -> {finding.advice}" if finding.advice else ""
        sys.stdout.write(f"{mark} {finding.what}{advice}\n")
    sys.stdout.flush()
