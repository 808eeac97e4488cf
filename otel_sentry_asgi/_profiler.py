"""The edge to sentry-sdk's profiler: the only module that knows how it is made.

It takes the samples, on a thread of its own, and makes the payloads. Relied upon (2.35.0 to
2.75.0, `profiler/transaction_profiler.py`, `profiler/continuous_profiler.py`):

* The client sets the profiler up in `init()`. `Profile.start` has its one thread started, which
  calls `write(time, sample)` on each profile that is active: the stack of every thread. `valid`
  counts a profile that is too short as lost, `to_json` makes the item, and the client takes an
  instance of `Profile` under the event's key `profile` (`client.py`).
* `try_profile_lifecycle_trace_start` starts the continuous profiler if its lifecycle is `trace`
  and the session is sampled, and gives what stops it; `get_profiler_id` tells while it runs.
* The continuous profiler of the process, `_scheduler`, gives its `capture_func` to each `buffer`
  that it begins, and that hands over an envelope with an item `profile_chunk` each minute and at
  the end. Both are set on the instance, and looked up when they are called.
* Integrations whose handlers run in a thread pool call `update_active_thread_id()` of the
  isolation scope's `profile`.

An import of this module fails where one of these is missing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from datetime import datetime, timezone
from types import FrameType
from typing import Any, Final, NamedTuple

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.profiler import continuous_profiler
from sentry_sdk.profiler.continuous_profiler import (
    get_profiler_id,
    try_profile_lifecycle_trace_start,
)
from sentry_sdk.profiler.transaction_profiler import Profile
from sentry_sdk.utils import format_timestamp, get_current_thread_meta

from otel_sentry_asgi._guard import contained
from otel_sentry_asgi._ids import trace_hex
from otel_sentry_asgi._model import Data
from otel_sentry_asgi._scope import Exchange, current_exchange
from otel_sentry_asgi._threads import Threads, frames_by_thread, stack_of

for _name in ("start", "stop", "write", "valid", "to_json", "update_active_thread_id"):
    if not callable(getattr(Profile, _name, None)):
        msg = f"sentry-sdk's Profile has no {_name}()"
        raise ImportError(msg)

Entry = tuple[str, Any]
"""A thread's id, and its stack as the SDK extracts it: an id, frame ids, frames; from the innermost
frame outwards."""

_IDLE: Final[Any] = ((0, hash(())), (), [])
"""The stack of a thread that works for somebody else, or not at all. Relay and Sentry know a stack
without frames as idle."""

_OURS: Final = ("otel_sentry_asgi", "otel_sentry_exporters")

_BEGIN_SPANS: Final = ("contextlib", "opentelemetry", *_OURS)

_BEGIN_THREADS: Final = ("threading", "sentry_sdk", "opentelemetry")
"""What may be outermost on the stack of a thread that another began: integrations wrap `run`."""


class Sorted(NamedTuple):
    """A sample, by whose it is."""

    by_exchange: dict[int, list[Entry]]
    """By the exchange's `id`: the last sample keeps no request alive."""
    untold: set[str]
    """Threads that have gone on since, so that it cannot be told."""


class Samples:
    """The sampler's last sample. It gives the same to every profile; it is sorted for the first."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self._time = -1
        self._sorted = Sorted({}, set())

    def sort(self, time: int, sample: Sequence[Entry]) -> Sorted:
        """The sample of *time*, sorted. Called by the sampler only."""
        if self._time != time:
            self._sorted = self._sort(sample)
            self._time = time
        return self._sorted

    def _sort(self, sample: Sequence[Entry]) -> Sorted:
        """The threads have gone on since the sample was taken. One counts if it was in the same
        place once more, with a base on its stack that was that exchange's before and after."""
        found = Sorted({}, set())
        before = self.threads.work()
        # Without the frame of this function, which would then hold itself.
        frames = {one: frame for one, frame in frames_by_thread().items() if one in before}
        after = self.threads.work()
        for entry in sample:
            thread = int(entry[0])
            work = before.get(thread)
            if work is None:
                continue
            stack = stack_of(frames.get(thread))
            if work.base not in stack:
                self.threads.over(thread, work)
                found.untold.add(entry[0])
            elif (own := _below(work.base, stack, entry)) and after.get(thread) == work:
                found.by_exchange.setdefault(id(work.exchange), []).append(own)
            else:
                found.untold.add(entry[0])
        return found


def _below(base: FrameType, stack: Sequence[FrameType], entry: Entry) -> Entry | None:
    """Of a sample what *base* has called, and itself; None if the thread is not where the sample
    saw it: the same lines of the same files, all the way out. The SDK leaves out the innermost
    frames of very deep stacks."""
    thread, (_, frame_ids, frames) = entry
    now = [(frame.f_code.co_filename, frame.f_lineno) for frame in stack[-len(frame_ids) :]]
    depth = len(frame_ids) - (len(stack) - 1 - stack.index(base))
    if depth < 1 or now != [frame_id[:2] for frame_id in frame_ids]:
        return None
    own = frame_ids[:depth]
    return thread, ((depth, hash(own)), own, frames[:depth])


class TransactionProfile(Profile):
    """The profile of one exchange: what ran for it, on whatever threads, and nothing else."""

    def __init__(self, exchange: Exchange, samples: Samples) -> None:
        super().__init__(sampled=True, start_ns=0)
        self._exchange = exchange
        self._samples = samples
        samples.threads.note_loop()
        samples.threads.claim(exchange, _beginner(sys._getframe(1)))
        self._busy: Counter[str] = Counter()
        self._idle: set[str] = set()
        # The sampler's thread, if this starts it, inherits no scope of this request.
        Context().run(self.start)

    def update_active_thread_id(self) -> None:
        """The handler runs on the calling thread. Called by integrations of sentry-sdk."""
        if current_exchange.get() is self._exchange:  # Scopes are copied, with the profile.
            super().update_active_thread_id()
            wrapper = _wrapper(sys._getframe(1))
            if self.active and wrapper is not None:
                self._samples.threads.claim(self._exchange, wrapper)

    def stop(self) -> None:
        """Take no more samples."""
        super().stop()
        self._samples.threads.forget(self._exchange)

    def write(self, ts: int, sample: Any) -> None:
        """Keep of the sample what is this exchange's. Called by the sampler."""
        with contained("profile"):
            super().write(ts, self._own(ts, sample))

    def _own(self, time: int, sample: Any) -> list[Entry]:
        found = self._samples.sort(time, sample)
        own = found.by_exchange.get(id(self._exchange), [])
        working = {entry[0] for entry in own}
        # A sample counts until the thread's next one, so the first idle one is enough.
        resting = self._busy.keys() - working - self._idle - found.untold
        self._idle = (self._idle - working) | resting
        self._busy.update(working)
        return [*own, *((thread, _IDLE) for thread in resting)]

    def valid(self) -> bool:
        """Whether it has two samples of work on one thread at least; if not, it is counted as
        lost."""
        self.unique_samples = max(self._busy.values(), default=0)
        return bool(super().valid())

    def to_json(self, event_opt: Any, options: Any) -> dict[str, Any]:
        """The profile item for the event that is sent, whatever hooks have left of that."""
        assert self._exchange.root is not None
        trace_id = trace_hex(self._exchange.root.context.trace_id)
        event: Any = {
            "event_id": None,
            "transaction": "",
            "start_timestamp": None,
            **event_opt,
            "contexts": {"trace": {"trace_id": trace_id}},
        }
        item = super().to_json(event, options)
        item["profile"] = _without_ours(item["profile"])
        started = item["timestamp"]
        if isinstance(started, (int, float)):  # As text, Relay takes nothing else.
            item["timestamp"] = format_timestamp(datetime.fromtimestamp(started, timezone.utc))
        if self.active_thread_id is None and self._busy:
            ((busiest, _),) = self._busy.most_common(1)
            item["transactions"][0]["active_thread_id"] = busiest
        return {key: value for key, value in item.items() if value is not None}

    def to_item(self, event: Mapping[str, Any]) -> Data:
        """`to_json` with the options of the client that is active."""
        return self.to_json(event, sentry_sdk.get_client().options)


def _beginner(caller: FrameType) -> FrameType:
    """The function that began the span: the innermost that is neither ours nor OTel's."""
    while caller.f_back is not None and _package(caller.f_globals.get("__name__")) in _BEGIN_SPANS:
        caller = caller.f_back
    return caller


def _wrapper(caller: FrameType) -> FrameType | None:
    """The function of an integration that calls the handler. Its own helper may have been what
    called us; their modules enter no context, so whatever is of one module is in one context."""
    module = caller.f_globals
    if not str(module.get("__name__")).startswith("sentry_sdk."):
        return None
    while caller.f_back is not None and caller.f_back.f_globals is module:
        caller = caller.f_back
    return caller


def _without_ours(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The profile without frames of this package, and without threads that are not in it.

    The sampler may still be writing: frames first, then stacks, then samples. Read the other way
    round, what is there refers to what is there.
    """
    samples, stacks, frames = (list(profile[part]) for part in ("samples", "stacks", "frames"))
    kept = [n for n, frame in enumerate(frames) if _package(frame["module"]) not in _OURS]
    index = {before: after for after, before in enumerate(kept)}
    threads = {sample["thread_id"] for sample in samples}
    return {
        "samples": samples,
        "stacks": [[index[n] for n in stack if n in index] for stack in stacks],
        "frames": [frames[n] for n in kept],
        "thread_metadata": {
            thread: told for thread, told in profile["thread_metadata"].items() if thread in threads
        },
    }


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def take_over_chunks() -> None:
    """Have the chunks of the continuous profile leave without what is ours. There may be another
    profiler with each client, and another buffer with each of its sessions.

    Raises:
        AttributeError: this sentry-sdk has no place for it.
    """
    scheduler = continuous_profiler._scheduler
    if scheduler is None or not scheduler.sampled:
        return
    for one in (scheduler, scheduler.buffer):
        if one is not None and type(one.capture_func) is not _Chunks:
            one.capture_func = _Chunks(one.capture_func)


def leave_chunks() -> None:
    """Undo `take_over_chunks`, but for the session that goes on: it has met us."""
    scheduler = getattr(continuous_profiler, "_scheduler", None)
    capture = getattr(scheduler, "capture_func", None)
    if scheduler is not None and type(capture) is _Chunks:
        scheduler.capture_func = capture.capture


class _Chunks:
    """Between the continuous profiler and its client."""

    def __init__(self, capture: Callable[[Envelope], None]) -> None:
        self.capture = capture

    def __call__(self, envelope: Envelope) -> None:
        with contained("profile"):
            for item in envelope.items:
                chunk = item.payload.json
                if item.type == "profile_chunk" and chunk is not None:
                    chunk["profile"] = _without_ours(_without_our_threads(chunk["profile"]))
        self.capture(envelope)


def _without_our_threads(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The profile without samples of threads that work for us alone: worker and uploads."""
    packages = [_package(frame["module"]) for frame in profile["frames"]]
    begun_by = [
        next((packages[n] for n in reversed(stack) if packages[n] not in _BEGIN_THREADS), None)
        for stack in profile["stacks"]
    ]
    samples = [one for one in profile["samples"] if begun_by[one["stack_id"]] not in _OURS]
    return {**profile, "samples": samples}


class Session:
    """An exchange's part in the continuous profile."""

    def __init__(self) -> None:
        # Whatever thread this starts inherits no scope of this request.
        self._started = Context().run(try_profile_lifecycle_trace_start)
        self.profiler_id = running_profiler()
        self.thread: Data = {}
        """Where the handler runs, if an integration has told."""

    def update_active_thread_id(self) -> None:
        """The handler runs on the calling thread."""
        self.thread = thread_here()

    def stop(self) -> None:
        """The profiler may end, if nothing else wants it."""
        if self._started is not None:
            self._started.stop()

    __del__ = stop  # Of an exchange that was forgotten.


def tell_integrations(scope: Any, profile: TransactionProfile | Session | None) -> None:
    """Have the integrations of sentry-sdk call the profile of the isolation scope that is in
    force."""
    if scope is not None:
        scope.profile = profile


def running_profiler() -> str | None:
    """The id of the continuous profiler, while it runs."""
    return get_profiler_id()


def thread_here() -> Data:
    """The calling thread, as Sentry's span data has it."""
    thread, name = get_current_thread_meta()
    return {"thread.id": str(thread), "thread.name": str(name)}
