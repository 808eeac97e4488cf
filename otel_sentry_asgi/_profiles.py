"""Profiles of what local roots do: whether, from when to when, and which transaction refers to
them.

The client's options decide: `profiles_sample_rate` or `profiles_sampler` for one profile a
transaction, else `profile_session_sample_rate` for a continuous one, of which `profile_lifecycle`
says when it runs. The samples are sentry-sdk's to take.
"""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from otel_sentry_asgi import sentry
from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import span_hex
from otel_sentry_asgi._model import Data, Transaction
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._segment import Segment
from otel_sentry_asgi._stats import Stats
from otel_sentry_asgi._threads import Threads
from otel_sentry_asgi.export import Profile
from otel_sentry_asgi.sampling import to_rate

try:
    from otel_sentry_asgi import _profiler
except ImportError as error:
    _missing: str | None = str(error)
else:
    _missing = None

logger = logging.getLogger("otel_sentry_asgi")

_STAMP: Final = "_otel_sentry_stamp"
"""An attribute of an ended span: the thread and profiler it ran under."""

_NOT_PROFILED: Final = object()
"""The profile of an exchange for which it has been decided that there is none, or that has given
its away."""


class Profiles:
    """The profiles of the process. Does nothing while the client's options ask for none."""

    def __init__(self, stats: Stats, random: Callable[[], float] = random.random) -> None:
        self._stats = stats
        self._random = random
        self._warned: set[str] = set()
        self._parents: str | None = None
        """Of a forked child: the profiler that runs in its parent."""
        self.on = False
        """Looked at for every span; set where the first root starts that may have a profile."""
        self._begin()

    def _begin(self) -> None:
        self._threads = Threads()
        self._samples: Any = _profiler.Samples(self._threads) if _missing is None else None
        self._running: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def started(
        self,
        span: ReadableSpan,
        exchange: Exchange,
        sampling_context: Callable[[], Data],
        options: Mapping[str, Any],
    ) -> None:
        """A sampled local root has started on the calling thread. *options* are the client's."""
        if not (_wants_each(options) or options.get("profile_session_sample_rate")):
            return  # Others may have a client that wants them.
        if not exchange.is_root(span):
            return
        if _missing is not None:
            self._warn("there are no profiles with this version of sentry-sdk: %s", _missing)
            return
        self.on = True
        if exchange.profile is None:
            exchange.profile = self._start(exchange, options, sampling_context)

    def watch(self) -> None:
        """See to it that continuous profiles leave without what is ours."""
        if _missing is None:
            try:
                _profiler.take_over_chunks()
            except AttributeError as error:
                self._warn("continuous profiles hold frames of this package: %s", error)

    def span_ended(self, span: ReadableSpan, exchange: Exchange | None) -> None:
        """A span has ended on the calling thread: remember where, if the continuous profiler
        runs."""
        profiler_id = None
        if exchange is not None and type(exchange.profile) is _profiler.Session:
            profiler_id = exchange.profile.profiler_id
        profiler_id = profiler_id or _profiler.running_profiler()
        if profiler_id is not None and profiler_id != self._parents:
            setattr(span, _STAMP, {**_profiler.thread_here(), "profiler_id": profiler_id})

    def link(self, transaction: Transaction, segment: Segment) -> Profile | None:
        """Have the transaction refer to its profile; gives the profile if it is one to be sent
        with it. One that still runs is ended."""
        if not self.on:
            return None
        exchange, profile = segment.exchange, None
        if exchange is not None and not segment.late and exchange.is_root(segment.root):
            profile = exchange.profile
        _link_continuous(transaction, segment, getattr(profile, "thread", {}))
        if exchange is None or type(profile) is not _profiler.TransactionProfile:
            return None
        profile.stop()
        if not profile.valid():
            self._stats.add("lost_profiles.insufficient_data")
            _forget(exchange)
            return None
        transaction["contexts"]["profile"] = {"profile_id": profile.event_id}
        return profile

    def sent(self, exchange: Exchange | None, profile: Profile | None) -> None:
        """The transaction that refers to *profile* has gone, and the profile with it."""
        if exchange is not None and profile is not None:
            _forget(exchange)
            self._stats.add("profiles")

    def lost(self, root: ReadableSpan, exchange: Exchange | None, reason: str) -> None:
        """The transaction of *root* is not sent, nor is its profile, if it has one."""
        if not self.on or exchange is None or not exchange.is_root(root):
            return
        if type(exchange.profile) is _profiler.TransactionProfile:
            exchange.profile.stop()
            _forget(exchange)
            self._stats.add(f"lost_profiles.{reason}")
            with contained("client report"):
                sentry.record_lost(reason, "profile", 1)

    def stop_all(self) -> None:
        """End what runs, when nobody will tell of its end."""
        for reference in self._running.keyrefs():  # Taken at once: others start meanwhile.
            profile = reference()
            if profile is not None:
                profile.stop()
        if _missing is None:
            _profiler.leave_chunks()

    def begin_in_child(self) -> None:
        """After a fork: what runs is the parent's, and so is its profiler."""
        self.stop_all()
        self._begin()
        self._parents = _profiler.running_profiler() if _missing is None else None

    def _start(
        self, exchange: Exchange, options: Mapping[str, Any], sampling_context: Callable[[], Data]
    ) -> Any:
        profile: Any = _NOT_PROFILED
        with contained("profile"):
            if not _wants_each(options):
                profile = _profiler.Session()
                self.watch()
            elif self._is_chosen(options, sampling_context):
                profile = _profiler.TransactionProfile(exchange, self._samples)
            else:
                self._stats.add("lost_profiles.sample_rate")
                sentry.record_lost("sample_rate", "profile", 1)
                return profile
            self._running[profile] = None
            _profiler.tell_integrations(exchange.sentry_scope, profile)
        return profile

    def _is_chosen(self, options: Mapping[str, Any], sampling_context: Callable[[], Data]) -> bool:
        """The client's decision; what is no number in [0, 1] counts as 0, as in sentry-sdk."""
        name, given = "profiles_sample_rate", options.get("profiles_sample_rate")
        sampler = options.get("profiles_sampler")
        if sampler is not None:
            name, given = "profiles_sampler", 0.0
            with contained(name):
                given = sampler(sampling_context())
        rate = to_rate(given)
        if rate is None:
            self._warn("%s must give a number from 0 to 1, not %r", name, given)
        return self._random() < (rate or 0.0)

    def _warn(self, message: str, *args: object) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message, *args)


def stop(exchange: Exchange) -> None:
    """The work of *exchange* is done."""
    if exchange.profile is not _NOT_PROFILED:
        with contained("profile"):
            exchange.profile.stop()


def _forget(exchange: Exchange) -> None:
    """The profile of *exchange* is large, and others keep the exchange."""
    exchange.profile = _NOT_PROFILED
    _profiler.tell_integrations(exchange.sentry_scope, None)


def _wants_each(options: Mapping[str, Any]) -> bool:
    """Whether transactions have profiles of their own: then there is no continuous one."""
    return options.get("profiles_sampler") is not None or bool(options.get("profiles_sample_rate"))


def _link_continuous(transaction: Transaction, segment: Segment, thread: Data) -> None:
    """Say of the root and of each span on which thread and under which profiler it ran. *thread*
    is where the handler ran, if that is known."""
    stamps = {
        span_hex(span.context.span_id): getattr(span, _STAMP)
        for span in (segment.root, *segment.children)
        if hasattr(span, _STAMP)
    }
    if not stamps:
        return
    for payload in transaction["spans"]:
        if stamp := stamps.get(payload["span_id"]):
            payload["data"] = {**payload["data"], **stamp}
    contexts = transaction["contexts"]
    stamp = stamps.get(contexts["trace"]["span_id"])
    if stamp is not None:
        contexts["trace"]["data"].update({**stamp, **thread})
        contexts["profile"] = {"profiler_id": stamp["profiler_id"]}
