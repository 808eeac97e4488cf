"""sentry-sdk's sampler by hand, and what its profiles hold."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import sentry_sdk
from sentry_sdk._lru_cache import LRUCache
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.starlette import _wrap_sync_handler
from sentry_sdk.profiler import continuous_profiler, transaction_profiler
from sentry_sdk.profiler.utils import extract_stack
from sentry_sdk.scope import Scope, ScopeType, use_isolation_scope
from sentry_sdk.transport import Transport

from otel_sentry_asgi._model import Transaction
from otel_sentry_asgi._profiler import Samples, TransactionProfile
from otel_sentry_asgi._profiles import Profiles
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._segment import Segment
from otel_sentry_asgi._threads import Threads
from otel_sentry_asgi.testing import span


class _Nowhere(Transport):
    def capture_envelope(self, envelope: Any) -> None:
        raise AssertionError("nothing is sent here")


class ByHand(transaction_profiler.ThreadScheduler):
    """sentry-sdk's scheduler without its thread: the test calls its sampler."""

    def ensure_running(self) -> None:
        pass


def begin_by_hand() -> ByHand:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sentry_sdk.init(
            dsn="http://public@127.0.0.1:9/1",
            transport=_Nowhere,
            profiles_sample_rate=0.5,
            default_integrations=False,
            auto_enabling_integrations=False,
        )
    scheduler = ByHand(101)
    transaction_profiler._scheduler = scheduler
    return scheduler


class Chunks(continuous_profiler.ThreadContinuousScheduler):
    """sentry-sdk's continuous profiler without its thread, in the place of the client's own."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        options = {**sentry_sdk.get_client().options, "profile_session_sample_rate": 1.0}
        sdk: Any = {"name": "sentry.python", "version": "2", "packages": []}
        super().__init__(101, options, sdk, self._capture)
        continuous_profiler._scheduler = self

    def _capture(self, envelope: Envelope) -> None:
        self.sent += [item.payload.json for item in envelope.items if item.payload.json]

    def flush(self) -> dict[str, Any]:
        """End the session; its chunk."""
        assert self.buffer is not None
        self.buffer.flush()
        return self.sent[-1]


def end_by_hand() -> None:
    transaction_profiler._scheduler = continuous_profiler._scheduler = None
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def handler(exchange: Exchange, function: Callable[..., None]) -> Callable[..., None]:
    """As sentry-sdk's integrations wrap handlers that run in a thread pool."""
    sentry_scope = Scope(ty=ScopeType.ISOLATION)
    if isinstance(exchange.profile, transaction_profiler.Profile):
        sentry_scope.profile = exchange.profile
    wrapped = _wrap_sync_handler(function)

    def in_scope(*args: Any) -> None:
        with use_isolation_scope(sentry_scope):
            wrapped(*args)

    return in_scope


def made_profile() -> Any:
    """One that is over, with two samples of the caller."""
    before, transaction_profiler._scheduler = transaction_profiler._scheduler, ByHand(101)
    profile = TransactionProfile(Exchange(None, root=span()), Samples(Threads()))
    transaction_profiler._scheduler = before
    stack = extract_stack(sys._getframe(1), LRUCache(10), "/srv")
    for elapsed in (1_000, 2_000):
        transaction_profiler.Profile.write(profile, profile.start_ns + elapsed, [("1", stack)])
    profile.stop()
    return profile


EVENT = {
    "event_id": "0" * 32,
    "transaction": "GET /",
    "start_timestamp": 0.0,
    "contexts": {"trace": {"trace_id": "0" * 32}},
}


def profile_of(profiles: Profiles, exchange: Exchange) -> Counter[str] | None:
    """`seen_in` of the profile that its transaction refers to."""
    assert exchange.root is not None
    transaction: Transaction = {"contexts": {"trace": {"span_id": "", "data": {}}}, "spans": []}
    profile: Any = profiles.link(transaction, Segment(exchange.root, [], exchange))
    if profile is None:
        assert "profile" not in transaction["contexts"]
        return None
    assert transaction["contexts"]["profile"] == {"profile_id": profile.event_id}
    return seen_in(profile.to_item(EVENT))


def seen_in(item: dict[str, Any]) -> Counter[str]:
    """How many samples hold which of the functions that the test made."""
    profile = item["profile"]
    functions = [frame["function"].rpartition(".")[2] for frame in profile["frames"]]
    stacks = [{functions[n] for n in stack} for stack in profile["stacks"]]
    return Counter(
        name
        for sample in profile["samples"]
        for name in stacks[sample["stack_id"]]
        if name.startswith("work_")
    )
