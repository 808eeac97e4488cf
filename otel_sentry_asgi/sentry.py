"""The sentry-sdk edge: the only module of the bridge that talks to sentry-sdk.

Relied upon (2.75.0): `capture_event` sends an event of `type: transaction` as it is, in static
and stream mode and with tracing off, and moves `contexts.trace.dynamic_sampling_context` to the
envelope header (`client.py`); event processors run in the order global, global scope, isolation
scope, current scope (`scope.py`, `run_event_processors`);
`register_external_propagation_context` gives trace and span ids to events, logs and metrics and
leaves outgoing headers to OTel (`scope.py`).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import sentry_sdk
from sentry_sdk import scope as sdk_scope
from sentry_sdk._types import AnnotatedValue
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.transport import HttpTransport
from sentry_sdk.utils import (
    Dsn,
    current_stacktrace,
    event_from_exception,
    get_lines_from_file,
    handle_in_app,
    safe_str,
)

from otel_sentry_asgi._bodies import LIMITS
from otel_sentry_asgi._dsc import ClientFacts
from otel_sentry_asgi._model import Data, ErrorEvent
from otel_sentry_asgi._policy import Policy, to_policy
from otel_sentry_asgi._settings import Settings
from otel_sentry_asgi.sampling import TracesSampler

logger = logging.getLogger("otel_sentry_asgi")

_PORTS = {"http": 80, "https": 443}

EventProcessor = Callable[[Any, Any], Any]


active_client: Callable[[], Any] = sdk_scope.Scope.get_client
"""The client that is active now, for what belongs to a piece of work: one that does nothing if
there is none."""


def global_client() -> Any:
    """The client for what belongs to the process: backpressure, and sessions without a client of
    their own. Whichever work is under way in that moment may have another."""
    return sdk_scope.Scope.get_global_scope().client


def why_inert() -> str | None:
    """Why nothing can be sent, or None if it can."""
    client = active_client()
    if not client.is_active():
        return "sentry_sdk.init() has not been called"
    if ready_client() is None:
        return f"the Sentry client has {'been closed' if client.dsn else 'no DSN'}"
    return None


def ready_client() -> Any | None:
    """The client that is active now, if it sends."""
    client = active_client()
    sends = client.transport is not None or getattr(client, "spotlight", None)
    return client if sends else None


def is_ready() -> bool:
    """Whether there is a client that sends."""
    return ready_client() is not None


def have_scopes() -> None:
    """Have scopes in the running context: without them sentry-sdk takes 1.3 us instead of 0.2 to
    find the client, for each question to it."""
    sentry_sdk.get_isolation_scope()
    sentry_sdk.get_current_scope()


def options() -> Mapping[str, Any]:
    """The options of the client that is active now."""
    given: Mapping[str, Any] = active_client().options
    return given


def tracing() -> tuple[object, TracesSampler | None]:
    """`traces_sample_rate` and `traces_sampler`; two times None when tracing is off."""
    return _tracing(options())


def tracing_of(client: Any) -> tuple[object, TracesSampler | None, int]:
    """`tracing` under *client*, and how many times its monitor asks to halve the rate: 0 unless
    under backpressure.

    Reads the attribute: the property starts the monitor's thread under a lock, which is none of a
    request's business, and under gevent may never return.
    """
    return *_tracing(client.options), int(getattr(client.monitor, "_downsample_factor", 0))


def _tracing(given: Mapping[str, Any]) -> tuple[object, TracesSampler | None]:
    if given.get("enable_tracing") is False:
        return None, None
    rate = given.get("traces_sample_rate")
    if rate is None and given.get("enable_tracing"):
        rate = 1.0
    sampler = given.get("traces_sampler")
    return rate, sampler if callable(sampler) else None


def takes_logging() -> bool:
    """Whether sentry-sdk's own integration takes the records of Python's `logging`."""
    return active_client().get_integration("logging") is not None


def takes_logs() -> bool:
    """Whether the client is to send structured logs, and sentry-sdk has a way that takes their
    ids. Newer clients would send them unasked: they look at `enable_logs` in an integration."""
    client = active_client()
    given: Mapping[str, Any] = client.options
    if not (given.get("enable_logs") or (given.get("_experiments") or {}).get("enable_logs")):
        return False
    return getattr(client, "log_batcher", None) is not None and hasattr(
        sdk_scope.Scope, "_capture_log"
    )


def send_log(log: Data) -> None:
    """Give a structured log to the client. The public functions of `sentry_sdk.logger` take
    neither time nor ids."""
    sentry_sdk.get_current_scope()._capture_log(log)  # type: ignore[arg-type]


def ignored_spans() -> tuple[Any, ...]:
    """The client's own `ignore_spans`."""
    return tuple(options().get("ignore_spans") or ())


def ignored_statuses() -> Collection[int]:
    """The client's own `trace_ignore_status_codes`."""
    return options().get("trace_ignore_status_codes") or ()


def handles_backpressure() -> bool:
    """Whether the global client does (`enable_backpressure_handling`): it is for all requests. Sees
    to it that its monitor is at work."""
    monitor = global_client().monitor
    if monitor is None:
        return False
    monitor.is_healthy()
    return True


def continuation() -> tuple[str | None, bool]:
    """The client's organisation, and whether only its own traces are continued
    (`strict_trace_continuation`)."""
    known = facts()
    strict = bool(options().get("strict_trace_continuation", False))
    return known.org_id if known is not None else None, strict


def may_propagate(url: str | None) -> bool:
    """Whether requests to *url* (None: not known) carry Sentry's headers: if it matches
    `trace_propagation_targets` and is not Sentry itself."""
    targets = options().get("trace_propagation_targets", EVERYWHERE) or ()
    if url is None:
        return EVERYWHERE[0] in targets
    if _is_sentry(url):
        return False
    return any(re.search(target, url) for target in targets)


EVERYWHERE = (".*",)
"""The client's default for `trace_propagation_targets`."""


def _is_sentry(url: str) -> bool:
    """Whether the URL is on Sentry's host, and below the path of a DSN that has one: an application
    on the same host is not Sentry."""
    dsn = _dsn()
    if dsn is None:
        return False
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    return (parts.hostname, port) == (dsn.host, dsn.port) and parts.path.startswith(dsn.path)


def facts() -> ClientFacts | None:
    """What the client contributes to a dynamic sampling context; None without a DSN."""
    client = active_client()
    dsn = _dsn()
    if dsn is None:
        return None
    given = client.options
    return ClientFacts(
        public_key=dsn.public_key,
        release=given.get("release"),
        environment=given.get("environment"),
        org_id=_text(given.get("org_id")) or getattr(dsn, "org_id", None),
    )


def _text(value: object) -> str | None:
    return str(value) if value else None


def upload_prefix() -> str | None:
    """The beginning of the URLs that uploads to Sentry go to; None without a DSN."""
    dsn = _dsn()
    return None if dsn is None else f"{base_url(dsn)}api/{dsn.project_id}/"


def base_url(dsn: Dsn) -> str:
    """Where the server of a DSN is, up to a slash."""
    host = f"[{dsn.host}]" if ":" in dsn.host else dsn.host  # An IPv6 address.
    port = "" if dsn.port == _PORTS.get(dsn.scheme) else f":{dsn.port}"
    return f"{dsn.scheme}://{host}{port}{dsn.path or '/'}"


def _dsn() -> Dsn | None:
    """The client's DSN. A transport of the user's own may not have parsed it."""
    client = active_client()
    parsed = getattr(client, "parsed_dsn", None)
    if parsed is not None or not client.dsn:
        return parsed
    return Dsn(client.dsn)


def mark_in_app(event: Any) -> None:
    """Say of each frame whether it is the application's, as the client would a little later."""
    given = options()
    handle_in_app(
        event,
        given.get("in_app_exclude"),
        given.get("in_app_include"),
        given.get("project_root"),
    )


def add_source(event: Any) -> None:
    """Give the frames of an event the source lines around them, where the files are at hand."""
    if not options().get("include_source_context", True):
        return
    for value in event["exception"]["values"]:
        for frame in (value.get("stacktrace") or {}).get("frames", ()):
            before, line, after = get_lines_from_file(frame["abs_path"], frame["lineno"] - 1)
            if line is not None:
                frame.update(pre_context=before, context_line=line, post_context=after)


def add_breadcrumbs(event: Any, crumbs: list[Data]) -> None:
    """Put *crumbs* among those of the event, in the order of time, within the client's limit."""
    if not crumbs:
        return
    present = event.get("breadcrumbs") or {}
    values = present.get("values", []) if isinstance(present, Mapping) else present
    limit = options().get("max_breadcrumbs", 100)
    merged = sorted([*values, *crumbs], key=_time_of)
    event["breadcrumbs"] = {"values": merged[-limit:] if limit else []}


def _time_of(crumb: Mapping[str, Any]) -> float:
    time = crumb.get("timestamp")
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
    return float(time) if isinstance(time, (int, float)) else 0.0


def fill_defaults(event: Any, defaults: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Set what the client's options (*given*) leave open. sentry-sdk's own default environment is
    such a gap."""
    for key, value in defaults.items():
        chosen = given.get(key)
        if chosen is None or (key == "environment" and chosen == "production"):
            event.setdefault(key, value)


MAX_POLICIES = 8
"""Policies that are remembered."""

_policies: tuple[tuple[Any, Settings, Policy], ...] = ()


def policy(settings: Settings) -> Policy:
    """The policy that the client's options and ours ask for. The latest are remembered: clients of
    several requests may take turns."""
    global _policies
    given = _deciding(active_client())
    for known in _policies:
        if known[0] == given and known[1] is settings:
            return known[2]
    made = _made(given, settings)
    # A copy: the options are the application's to change.
    _policies = ((deepcopy(given), settings, made), *_policies[: MAX_POLICIES - 1])
    return made


def policy_for(given: Mapping[str, Any], settings: Settings) -> Policy:
    """The policy under a client with other options, as sentry-sdk resolves them.

    Raises:
        TypeError, ValueError: sentry-sdk does not take the options.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = sentry_sdk.Client(**{"default_integrations": False, "dsn": "", **given})
    return _made(_deciding(client), settings)


def _deciding(client: Any) -> tuple[Any, bool, bool, Any]:
    """The options that decide what leaves."""
    given = client.options
    return (
        given.get("data_collection"),
        client.should_send_default_pii(),
        bool(given.get("include_local_variables", True)),
        getattr(given.get("event_scrubber"), "denylist", None),
    )


def _made(given: tuple[Any, bool, bool, Any], settings: Settings) -> Policy:
    collection, pii, local_variables, denied = given
    return to_policy(
        collection,
        pii=pii,
        local_variables=local_variables,
        scrubbed=frozenset(str(one).lower() for one in denied or ()),
        terms=settings.sensitive_terms,
        allowed=settings.allowed_attributes,
        actions=tuple(dict(settings.attribute_actions).items()),
        hash_key=settings.hash_key,
    )


def body_limit(settings: Settings) -> int:
    """Bytes of a request's body that the client's options let be kept."""
    if "incoming_request" not in policy(settings).bodies:
        return 0
    return LIMITS.get(options().get("max_request_body_size", "medium"), LIMITS["medium"])


def annotate(event: Any) -> None:
    """Hand our remarks in `_meta` to the client, which writes that itself."""
    _attach(event, event.pop("_meta", {}))


def _attach(value: Any, meta: Mapping[str, Any]) -> None:
    """What is not there any more (a hook took it) has no remark, but for what we left out."""
    for key, below in meta.items():
        if not key:
            continue
        at: Any = int(key) if isinstance(value, list) else key
        is_there = at < len(value) if isinstance(value, list) else at in value
        if is_there and isinstance(value[at], (dict, list)):
            _attach(value[at], below)
        if "" in below:
            left_out = below[""].get("rem", [["", ""]])[0][1] == "x"
            if is_there or (left_out and isinstance(value, dict)):
                value[at] = AnnotatedValue(value[at] if is_there else "", below[""])


def text_of(error: BaseException) -> str:
    """`str(error)`, also where that raises."""
    return str(safe_str(error))


def add_threads(event: Any) -> None:
    """With `attach_stacktrace`: add the current stack as the client would after the event
    processors, where nobody could clean it."""
    given = options()
    if given.get("attach_stacktrace") and not {"exception", "threads", "stacktrace"} & set(event):
        with_locals = bool(given.get("include_local_variables", True))
        stack = current_stacktrace(include_local_variables=with_locals)
        while stack["frames"] and _is_own(stack["frames"][-1]):
            stack["frames"].pop()  # Its locals hold the event.
        event["threads"] = {"values": [{"stacktrace": stack, "crashed": False, "current": True}]}


def _is_own(frame: Mapping[str, Any]) -> bool:
    return (frame.get("module") or "").partition(".")[0] in ("otel_sentry_asgi", "sentry_sdk")


def to_error(error: BaseException, *, mechanism: str, handled: bool) -> tuple[ErrorEvent, Data]:
    """The event of a live exception, as sentry-sdk builds it: frames, locals, chain, groups."""
    event, hint = event_from_exception(
        error,
        client_options=dict(options()),
        mechanism={"type": mechanism, "handled": handled},
    )
    return event, hint  # type: ignore[return-value]


def capture(event: Any, hint: Data) -> None:
    """Give an event of ours to the client. What one piece of work has reported is no duplicate in
    the next, though both run in one context."""
    forget_last_error()
    sentry_sdk.capture_event(event, hint=hint)


def forget_last_error() -> None:
    """Have sentry-sdk not take the exception that it saw last for a duplicate."""
    DedupeIntegration.reset_last_seen()


def record_lost(reason: str, category: str, quantity: int) -> None:
    """Put a loss into the client's next client report."""
    transport = active_client().transport
    if transport is not None and quantity > 0:
        transport.record_lost_event(reason, data_category=category, quantity=quantity)


def lose(reason: str, counts: Sequence[tuple[str, int]]) -> None:
    """The same for several categories, each with a quantity."""
    for category, quantity in counts:
        record_lost(reason, category, quantity)


def shutdown_timeout() -> float:
    """Seconds that the client waits for its queue at exit."""
    return float(options().get("shutdown_timeout", 2))


def ends_with(processor: Callable[..., Any]) -> bool:
    """Whether *processor* is among the last to see an event that is captured now."""
    current = getattr(sentry_sdk.get_current_scope(), "_event_processors", ())
    return processor in [getattr(one, "__func__", None) for one in current]


def begin_in_child() -> None:
    """After a fork: give the clients transports of their own, if they are sentry-sdk's plain ones.
    The inherited ones would send what their parent has queued a second time, over its
    connections, and wait for locks that nobody in this process holds."""
    for client in {global_client(), active_client()}:
        if type(client.transport) is HttpTransport:
            client.transport = HttpTransport(client.options)


def shorten_exit(waited: float) -> None:
    """The process ends and *waited* seconds for Sentry in vain: so much less is left for the
    client's exit handler, which comes next and would begin anew."""
    given = active_client().options
    if "shutdown_timeout" in given:
        given["shutdown_timeout"] = max(0.0, shutdown_timeout() - waited)


class Links:
    """What gives the application's own events their trace, and cleans them: added and taken away
    again."""

    def __init__(
        self,
        processor: EventProcessor,
        cleaner: EventProcessor,
        current_ids: Callable[[], tuple[str, str] | None],
    ) -> None:
        """*processor* sees events first; *cleaner* after all that integrations add globally."""
        self._processor = processor
        self._cleaner = cleaner
        self._current_ids = current_ids
        self._registered = False
        self._added = False

    def add(self) -> None:
        """Join sentry-sdk's processing of events. The one slot for foreign ids is left if taken."""
        if not self._added:
            sdk_scope.add_global_event_processor(self._processor)
            sentry_sdk.get_global_scope().add_event_processor(self._cleaner)
            self._added = True
        taken = getattr(sdk_scope, "has_external_propagation_context", lambda: True)
        if not self._registered and not taken():
            sdk_scope.register_external_propagation_context(self._current_ids)
            self._registered = True

    def remove(self) -> None:
        """Take away what `add` added, and nothing else."""
        if self._added:
            of_scope = getattr(sentry_sdk.get_global_scope(), "_event_processors", [])
            for processors, one in (
                (sdk_scope.global_event_processors, self._processor),
                (of_scope, self._cleaner),
            ):
                if one in processors:
                    processors.remove(one)
            self._added = False
        if self._registered:
            if getattr(sdk_scope, "_external_propagation_context_fn", None) == self._current_ids:
                sdk_scope.remove_external_propagation_context()
            self._registered = False


def sdk_asgi_middleware() -> type | None:
    """sentry-sdk's own ASGI middleware, if its `_run_app` is where 2.x has it."""
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    return SentryAsgiMiddleware if hasattr(SentryAsgiMiddleware, "_run_app") else None


def sdk_wsgi_middleware() -> type:
    """sentry-sdk's own WSGI middleware, which its integrations put around what they know."""
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

    return SentryWsgiMiddleware


def sdk_uploads() -> list[tuple[type, str]]:
    """The methods of sentry-sdk's that make an upload, as class and name, where 2.x has them."""
    from sentry_sdk import spotlight, transport

    methods = (
        (transport, "BaseHttpTransport", "_send_request"),
        (transport, "AsyncHttpTransport", "_send_request"),
        (spotlight, "SpotlightClient", "capture_envelope"),
    )
    found = ((getattr(module, kind, None), method) for module, kind, method in methods)
    return [(one, method) for one, method in found if one is not None and method in vars(one)]
