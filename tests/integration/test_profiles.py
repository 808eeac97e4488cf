"""Code profiles as they arrive: a real server, real receivers, sentry-sdk's own sampler.

The code that is to be found in a profile runs until the sampler has met it, so that nothing here
depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sentry_sdk
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.profiler import continuous_profiler, teardown_profiler

import otel_sentry_asgi
from tests.support.kent import Kent
from tests.support.scenario import scenario
from tests.support.server import serve

pytestmark = pytest.mark.filterwarnings("ignore:Transaction-based profiling:DeprecationWarning")

Init = Callable[..., None]


@pytest.fixture(autouse=True)
def _no_profiler_is_left() -> Iterator[None]:
    yield
    teardown_profiler()
    continuous_profiler.teardown_continuous_profiler()


def samples_here() -> int:
    """How many samples of the calling thread the request's profile has."""
    profile: Any = sentry_sdk.get_isolation_scope().profile
    here = str(threading.get_ident())
    return sum(sample["thread_id"] == here for sample in list(profile.samples))


def until_seen() -> None:
    """Compute until the request's profile has five samples of it."""
    deadline = time.monotonic() + 10
    while samples_here() < 5:
        sum(range(100))
        assert time.monotonic() < deadline


def until_in_a_chunk(function: str, wait: Callable[[], object]) -> None:
    """Wait until the continuous profiler, if one runs, has met the function."""
    scheduler: Any = continuous_profiler._scheduler
    deadline = time.monotonic() + 10
    while scheduler is not None and scheduler.running:
        wait()
        met = [frame["function"] for frame in list(scheduler.buffer.chunk.frames)]
        if any(name.endswith(function) for name in met):
            break
        assert time.monotonic() < deadline


def hot_in_a_thread() -> None:
    until_seen()


def hot_on_the_loop() -> None:
    secret = "c4nary"  # noqa: F841 - locals must not leave
    until_seen()


WHERE = {"": "uvicorn", "_in_a_thread": "AnyIO worker thread"}
"""Where a handler runs: the end of its path, and its thread."""


def compute() -> None:
    """Longer than the interpreter lets a thread run (5 ms): else the sampler would have its turn
    in between, when nobody is at work."""
    until = time.monotonic() + 0.02
    while time.monotonic() < until:
        sum(range(100))


def hot_profiled() -> None:
    compute()


def hot_unprofiled() -> None:
    compute()


class Turns:
    """Two handlers that wait for each other's beginning, and end when one has been seen."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._joined = 0

    def profiled(self) -> Iterator[None]:
        deadline = time.monotonic() + 10
        while self._joined == 0 or samples_here() < 10:
            assert time.monotonic() < deadline
            hot_profiled()
            yield
        self._over.set()

    def unprofiled(self) -> Iterator[None]:
        self._joined += 1
        while not self._over.is_set():
            hot_unprofiled()
            yield


def make_app() -> FastAPI:
    """Made after `sentry_sdk.init()`, whose integration wraps handlers as they are added."""
    app = FastAPI()

    @app.get("/loop")
    async def on_the_loop() -> None:
        hot_on_the_loop()

    @app.get("/thread")
    def in_a_thread() -> None:
        hot_in_a_thread()

    turns, in_threads = Turns(), Turns()

    @app.get("/turns/profiled")
    async def profiled() -> None:
        for _ in turns.profiled():
            await asyncio.sleep(0)

    @app.get("/turns/unprofiled")
    async def unprofiled() -> None:
        for _ in turns.unprofiled():
            await asyncio.sleep(0)

    @app.get("/turns/profiled_in_a_thread")
    def profiled_in_a_thread() -> None:
        for _ in in_threads.profiled():
            pass

    @app.get("/turns/unprofiled_in_a_thread")
    def unprofiled_in_a_thread() -> None:
        for _ in in_threads.unprofiled():
            pass

    @app.get("/computing")
    async def computing() -> None:
        until_in_a_chunk("compute", compute)

    @app.get("/fast")
    async def fast() -> None:
        pass

    @app.get("/napping")
    def napping() -> None:
        until_in_a_chunk("napping", lambda: time.sleep(0.01))

    return app


def drive(*paths: str | tuple[str, ...], server: Any = "uvicorn") -> dict[str, int]:
    """Ask for each, for those of a tuple at once; what the bridge counted."""
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sentry_asgi.instrument(tracer_provider=provider)
    app = OpenTelemetryMiddleware(make_app(), tracer_provider=provider)
    with serve(app, server=server) as url, ThreadPoolExecutor(2) as pool:
        for path in paths:
            together = [path] if isinstance(path, str) else path
            answers = pool.map(lambda one: httpx.get(url + one, timeout=20), together)
            assert [answer.status_code for answer in answers] == [200] * len(together)
    assert provider.force_flush()
    counted = otel_sentry_asgi.stats()
    sentry_sdk.flush()
    provider.shutdown()
    return counted


def by_name(kent: Kent) -> dict[str, tuple[dict[str, Any], dict[str, Any] | None]]:
    """Transactions and the profiles that came in their envelopes."""
    profiles = {one.envelope["event_id"]: one.body for one in kent.of_type("profile")}
    sent = [one.body for one in kent.transactions()]
    return {one["transaction"]: (one, profiles.get(one["event_id"])) for one in sent}


def without_ours(profile: dict[str, Any]) -> bool:
    """Whether it holds no frame of ours."""
    frames = profile["profile"]["frames"]
    modules = {str(frame["module"]).partition(".")[0] for frame in frames}
    return not modules & {"otel_sentry_asgi", "otel_sentry_exporters"}


def functions(profile: dict[str, Any], thread: str) -> set[str]:
    """What the samples of a thread name."""
    inner = profile["profile"]
    return {
        inner["frames"][number]["function"]
        for sample in inner["samples"]
        if sample["thread_id"] == thread
        for number in inner["stacks"][sample["stack_id"]]
    }


@pytest.mark.parametrize(
    ("server", "hot_paths"),
    [
        ("uvicorn", {"/loop": "hot_on_the_loop", "/thread": "hot_in_a_thread"}),
        ("hypercorn-trio", {"/thread": "hot_in_a_thread"}),
    ],
)
def test_the_active_thread_names_the_hot_function(
    kent: Kent, init: Init, server: str, hot_paths: dict[str, str]
) -> None:
    init(profiles_sample_rate=1.0)
    counted = drive("/fast", *hot_paths, server=server)

    assert counted["profiles"] >= len(hot_paths)
    sent = by_name(kent)
    for path, hot in hot_paths.items():
        transaction, profile = sent[f"GET {path}"]
        assert profile is not None
        assert transaction["contexts"]["profile"]["profile_id"] == profile["event_id"]
        (about,) = profile["transactions"]
        assert about["id"] == transaction["event_id"]
        assert about["trace_id"] == transaction["contexts"]["trace"]["trace_id"]
        assert hot in functions(profile, about["active_thread_id"])
        assert profile["timestamp"].endswith("Z")  # Relay takes nothing but text.
        frames = profile["profile"]["frames"]
        assert without_ours(profile)
        assert {key for frame in frames for key in frame} <= {
            *("abs_path", "filename", "function", "in_app", "lineno", "module"),
        }
        names = {one["name"] for one in profile["profile"]["thread_metadata"].values()}
        assert not any(name.startswith(("sentry.profiler", "otel-sentry")) for name in names)
    assert "c4nary" not in kent.raw()


def test_only_what_was_profiled_refers_to_a_profile(kent: Kent, init: Init) -> None:
    """Two requests in turns on one loop, and both in the thread pool: one each is profiled."""

    def sampler(context: dict[str, Any]) -> float:
        return float("unprofiled" not in context["transaction_context"]["name"])

    init(profiles_sampler=sampler)
    counted = drive(*[(f"/turns/profiled{where}", f"/turns/unprofiled{where}") for where in WHERE])

    sent = by_name(kent)
    for where, thread_name in WHERE.items():
        transaction, profile = sent[f"GET /turns/profiled{where}"]
        assert profile is not None
        assert transaction["contexts"]["profile"] == {"profile_id": profile["event_id"]}
        seen = {frame["function"] for frame in profile["profile"]["frames"]}
        assert "hot_profiled" in seen
        assert "hot_unprofiled" not in seen
        threads = profile["profile"]["thread_metadata"].values()
        assert any(thread["name"].startswith(thread_name) for thread in threads)
        transaction, profile = sent[f"GET /turns/unprofiled{where}"]
        assert profile is None
        assert "profile" not in transaction["contexts"]
    assert counted["profiles"] == 2
    assert counted["lost_profiles.sample_rate"] == 2


def test_a_profile_that_is_too_short_is_counted(kent: Kent, init: Init) -> None:
    init(profiles_sample_rate=1.0)
    drive("/loop")  # Modules are imported, the sampler runs.
    otel_sentry_asgi.uninstrument()
    kent.reset()
    counted = drive(*["/fast"] * 5)

    # Nearly always all of them; what did get two samples is sent.
    assert counted["lost_profiles.insufficient_data"] >= 1
    lost = counted["lost_profiles.insufficient_data"]
    assert lost + counted.get("profiles", 0) == 5
    referring = [one for one in kent.transactions() if "profile" in one.body["contexts"]]
    assert len(referring) == counted.get("profiles", 0)


def test_off_there_is_no_profiler(kent: Kent, init: Init) -> None:
    init()
    counted = drive("/fast", "/napping")
    assert not any("profile" in name for name in counted)
    assert not any("profiler" in one.name.lower() for one in threading.enumerate())
    assert kent.of_type("profile", "profile_chunk") == []


def test_the_continuous_profile_follows_local_roots(kent: Kent, init: Init) -> None:
    init(profile_session_sample_rate=1.0, profile_lifecycle="trace")
    drive("/napping")
    transaction, _ = by_name(kent)["GET /napping"]
    data = transaction["contexts"]["trace"]["data"]
    assert data["thread.name"] == "AnyIO worker thread"
    profiler_id = transaction["contexts"]["profile"]["profiler_id"]
    for span in transaction["spans"]:
        assert span["data"]["profiler_id"] == profiler_id
        assert span["data"]["thread.id"]
    chunks = kent.wait_for(lambda kent: kent.of_type("profile_chunk"))
    assert {chunk.body["profiler_id"] for chunk in chunks} == {profiler_id}
    named = functions(chunks[0].body, data["thread.id"])
    assert any(name.endswith("napping") for name in named)
    assert all(without_ours(chunk.body) for chunk in chunks)


def test_the_continuous_profile_by_hand(kent: Kent, init: Init) -> None:
    init(profile_session_sample_rate=1.0, profile_lifecycle="manual")
    drive("/fast")
    assert "profile" not in by_name(kent)["GET /fast"][0]["contexts"]
    otel_sentry_asgi.uninstrument()
    kent.reset()
    sentry_sdk.profiler.start_profiler()
    drive("/napping", "/computing")
    sentry_sdk.profiler.stop_profiler()
    sentry_sdk.flush()
    (chunk,) = kent.wait_for(lambda kent: kent.of_type("profile_chunk"))
    contexts = by_name(kent)["GET /napping"][0]["contexts"]
    assert contexts["profile"] == {"profiler_id": chunk.body["profiler_id"]}
    assert without_ours(chunk.body)
    assert "compute" in {frame["function"] for frame in chunk.body["profile"]["frames"]}


SERVICE = """
import os, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
log = Log()
provider = TracerProvider()
trace.set_tracer_provider(provider)

async def busy(scope, receive, send):
    profile = sentry_sdk.get_isolation_scope().profile
    deadline = time.monotonic() + 10
    while profile is not None and len(profile.samples) < 5 and time.monotonic() < deadline:
        sum(range(100))
    await hello(scope, receive, send)

app = OpenTelemetryMiddleware(busy)

def samplers():
    return sum("profiler" in one.name.lower() for one in threading.enumerate())
"""


def test_fork_and_another_instrument_leave_one_sampler() -> None:
    facts = scenario(
        SERVICE
        + """
init(profiles_sample_rate=1.0)
otel_sentry_asgi.instrument()
get(app, "/a")
otel_sentry_asgi.uninstrument()
otel_sentry_asgi.instrument()
get(app, "/b")
sent, again = names(), samplers()
read, write = os.pipe()
child = os.fork()
if child == 0:
    transport.envelopes.clear()
    get(app, "/child")
    os.write(write, json.dumps([samplers(), names(), len(payloads("profile"))]).encode())
    os._exit(0)
os.waitpid(child, 0)
report(sent=sent, again=again, profiles=len(payloads("profile")),
       child=json.loads(os.read(read, 1000)), log=log.messages)
"""
    )
    assert facts["sent"] == ["GET /a", "GET /b"]
    assert facts["again"] == 1
    assert facts["profiles"] == 2
    assert facts["child"] == [1, ["GET /child"], 1]
    assert facts["log"] == []


def test_without_the_entry_points_everything_else_goes_on() -> None:
    gone = """
import sentry_sdk.profiler.transaction_profiler as gone
del gone.Profile.write
for name in [name for name in sys.modules if name.startswith("otel_sentry_asgi")]:
    del sys.modules[name]
import otel_sentry_asgi
"""
    facts = scenario(
        gone
        + SERVICE
        + """
init(profiles_sample_rate=1.0)
otel_sentry_asgi.instrument()
get(app, "/a", "/b")
assert otel_sentry_asgi._active.active().pipeline.force_flush(5)
report(sent=names(), profiles=len(payloads("profile")), log=log.messages)
"""
    )
    assert facts["sent"] == ["GET /a", "GET /b"]
    assert facts["profiles"] == 0
    assert facts["log"] == [
        "there are no profiles with this version of sentry-sdk: sentry-sdk's Profile has no write()"
    ]
