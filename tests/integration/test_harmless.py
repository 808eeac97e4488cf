"""What a demanding application does to us, and what it must not notice."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind
from sentry_sdk.tracing_utils import record_sql_queries

import otel_sentry_asgi
from otel_sentry_asgi import _active
from tests.integration.conftest import ids, title
from tests.support.kent import Kent
from tests.support.scenario import scenario

Init = Callable[..., None]
HTTP = {"type": "http", "method": "GET", "path": "/a", "headers": [], "query_string": b""}


async def nothing(message: Any = None) -> Any:
    """A `receive` or `send` of no interest."""


class World:
    """An instrumented provider and what arrived."""

    def __init__(self, kent: Kent) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.tracer = self.provider.get_tracer("shop")
        self._kent = kent

    def wrap(self, handler: Any) -> Any:
        """An application that runs *handler(scope)* and answers 200."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            result = handler(scope)
            if asyncio.iscoroutine(result):
                await result
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return OpenTelemetryMiddleware(app, tracer_provider=self.provider)

    async def ask(self, handler: Any, **scope: Any) -> None:
        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            pass

        await self.wrap(handler)({**HTTP, **scope}, receive, send)

    def get(self, handler: Any, **scope: Any) -> None:
        asyncio.run(self.ask(handler, **scope))

    def flush(self) -> None:
        assert self.provider.force_flush()
        sentry_sdk.flush()

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [item.body for item in self._kent.errors()]

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return [item.body for item in self._kent.transactions()]


@pytest.fixture
def world(kent: Kent) -> World:
    return World(kent)


def start(world: World, init: Init, **options: Any) -> None:
    settings = {key: options.pop(key) for key in ("ignored_errors", "errors") if key in options}
    init(**options)
    otel_sentry_asgi.instrument(tracer_provider=world.provider, **settings)


def test_a_printed_scope_does_not_print_the_request_state(world: World, init: Init) -> None:
    """Frame locals are printed for each recorded exception: this would double with each."""
    start(world, init)

    def handler(scope: Any) -> None:
        for number in range(15):
            printed = repr(scope)
            with world.tracer.start_as_current_span("work") as span:
                span.record_exception(ValueError(number))
            assert len(printed) < 2_000

    world.get(handler)


def test_the_worker_has_the_scopes_of_no_request() -> None:
    """sentry-sdk has a thread inherit the scopes of whoever starts it."""
    facts = scenario(
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
        from opentelemetry.trace import set_span_in_context

        async def app(scope, receive, send):
            sentry_sdk.set_user({"id": "ann"})
            sentry_sdk.set_tag("who", "ann")
            await hello(scope, receive, send)

        init()
        trace.set_tracer_provider(TracerProvider())
        otel_sentry_asgi.instrument()
        get(OpenTelemetryMiddleware(app), "/ann")
        names()
        local = NonRecordingSpan(SpanContext(5, 6, False, TraceFlags(1)))
        tracer = trace.get_tracer("other")
        with tracer.start_as_current_span("other work", context=set_span_in_context(local)) as span:
            span.add_event("exception", {"exception.type": "E", "exception.message": "told"})
        names()
        other = payloads("transaction")[-1]
        (error,) = payloads("event")
        report(name=other["transaction"], user=other.get("user"), tags=other.get("tags"),
               error_user=error.get("user"), error_request=error.get("request"))
        """
    )

    assert facts["name"] == "other work"
    assert facts["user"] is facts["error_user"] is facts["error_request"] is None
    assert facts["tags"] is None


def test_stream_mode_has_no_segments_of_sentrys_own(world: World, init: Init, kent: Kent) -> None:
    start(world, init, trace_lifecycle="stream")

    def handler(scope: Any) -> None:
        with record_sql_queries(None, "select 'hunter2'", None, None, executemany=False):
            pass
        sentry_sdk.capture_message("told")

    world.get(handler)
    world.flush()

    assert kent.of_type("span") == []
    (transaction,), (error,) = world.transactions, world.errors
    assert transaction["transaction"] == error["transaction"] == "GET /a"
    assert ids(error)[0] == ids(transaction)[0]


def test_a_request_is_let_go_when_it_is_over(world: World, init: Init) -> None:
    """Also without the cyclic garbage collector."""
    start(world, init)

    class Blob:
        pass

    blob = Blob()
    gone = weakref.ref(blob)
    gc.collect()
    gc.disable()
    try:
        world.get(lambda scope: None, state={"blob": blob})
        del blob
        world.flush()
        assert gone() is None
    finally:
        gc.enable()


def test_recorded_exceptions_do_not_pile_up(world: World, init: Init) -> None:
    """In a stream that goes on for hours they are sent on the way, and at the latest on closing."""
    start(world, init)
    seen = []

    async def handler(scope: Any) -> None:
        for number in range(30):
            world.tracer.start_span("work").record_exception(ValueError(number))
        sentry_sdk.flush()
        seen.append(len(world.errors))
        bridge = _active.active()
        assert bridge is not None
        bridge.close()
        seen.append(len(world.errors))

    world.get(handler)
    world.flush()

    assert seen == [10, 30]
    assert len(world.errors) == 30


def test_a_span_whose_name_is_no_text_harms_no_other(world: World, init: Init) -> None:
    start(world, init)

    def handler(scope: Any) -> None:
        world.tracer.start_span(None).end()  # type: ignore[arg-type]
        world.tracer.start_span("after").end()
        sentry_sdk.capture_message("told")

    world.get(handler)
    world.flush()

    (transaction,) = world.transactions
    assert [span["description"] for span in transaction["spans"]] == ["", "after"]
    assert title(world.errors[0]) == "told"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_exception_that_cannot_be_printed_is_an_issue(world: World, init: Init) -> None:
    start(world, init)

    def handler(scope: Any) -> None:
        raise Unprintable

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            handler(scope)

        # OTel's own middleware would raise for it.
        await otel_sentry_asgi.SentryMiddleware(app)(dict(HTTP), nothing, nothing)

    with pytest.raises(Unprintable):
        asyncio.run(main())
    world.flush()

    assert [error["exception"]["values"][-1]["type"] for error in world.errors] == ["Unprintable"]


def test_a_predicate_that_raises_ignores_nothing(
    world: World, init: Init, failures: list[tuple[str, BaseException]]
) -> None:
    start(world, init, ignored_errors=(lambda error: error.args[7],))

    def handler(scope: Any) -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        world.get(handler)
    world.flush()

    assert [title(error) for error in world.errors] == ["ValueError: boom"]
    assert {where for where, _ in failures} == {"ignored_errors"}
    failures.clear()


def test_a_transaction_of_the_applications_own_is_left_alone(world: World, init: Init) -> None:
    start(world, init)

    with sentry_sdk.start_transaction(name="my cron", op="task"):
        world.get(lambda scope: None)
    world.flush()

    names = sorted(one["transaction"] for one in world.transactions)
    assert names == ["GET /a", "my cron"]


def test_a_samplers_no_counts_wherever_spans_end(world: World, init: Init) -> None:
    """A thread that carries OTel's context has none of ours."""
    start(world, init, traces_sampler=lambda context: 0.0)

    def handler(scope: Any) -> None:
        inside = trace.set_span_in_context(trace.get_current_span())

        def work() -> None:
            world.tracer.start_span("in a thread", context=inside).end()

        thread = threading.Thread(target=lambda: Context().run(work))
        thread.start()
        thread.join()

    world.get(handler)
    world.flush()

    assert world.transactions == []


def test_messages_that_overlap_in_one_context_do_not_share_anything(
    world: World, init: Init
) -> None:
    start(world, init)
    spans = []

    for number in range(3):
        span = world.tracer.start_span(f"message {number}", kind=SpanKind.CONSUMER)
        sentry_sdk.set_tag(f"tag-{number}", "yes")
        span.record_exception(ValueError(number))
        spans.append(span)
    for span in spans:
        span.end()
    world.flush()

    assert "tag-2" not in sentry_sdk.get_isolation_scope()._tags
    assert len(world.errors) == 3


@pytest.mark.parametrize("kind", [SpanKind.CONSUMER, SpanKind.INTERNAL])
def test_work_that_ends_in_another_context_leaves_nothing_to_what_follows(
    world: World, init: Init, kind: SpanKind
) -> None:
    """A loop that starts the spans of messages, and callbacks or threads that end them."""
    start(world, init)

    for number in range(3):
        span = world.tracer.start_span(f"message {number}", kind=kind)
        sentry_sdk.set_tag(f"tag-{number}", "yes")
        if not number:
            sentry_sdk.set_user({"id": "first"})
        sentry_sdk.capture_message(f"from {number}")
        Context().run(span.end)
    world.flush()

    told = {one["transaction"]: one for one in world.transactions}
    assert [told[f"message {n}"]["tags"] for n in range(3)] == [
        {f"tag-{n}": "yes"} for n in range(3)
    ]
    assert ["user" in told[f"message {n}"] for n in range(3)] == [True, False, False]
    assert [one["tags"] for one in world.errors] == [{f"tag-{n}": "yes"} for n in range(3)]


def test_what_the_application_sends_is_its_own_affair(world: World, init: Init) -> None:
    """A status that is text, as some applications send it, passes as it is."""
    start(world, init)
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": "200", "headers": []})

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await otel_sentry_asgi.SentryMiddleware(app)(dict(HTTP), nothing, send)

    asyncio.run(main())

    assert sent == [{"type": "http.response.start", "status": "200", "headers": []}]


def test_a_request_that_ends_in_another_context_keeps_its_exception(
    world: World, init: Init
) -> None:
    start(world, init)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise AssertionError

    class Pause:
        def __await__(self) -> Any:
            yield

    async def receive() -> Any:
        await Pause()

    running: Any = otel_sentry_asgi.SentryMiddleware(app)(dict(HTTP), receive, nothing)
    Context().run(running.send, None)
    with pytest.raises(RuntimeError, match="own"):
        Context().run(running.throw, RuntimeError("the application's own"))


def test_others_may_wrap_what_we_wrapped() -> None:
    facts = scenario(
        """
        import wrapt
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        init()
        trace.set_tracer_provider(TracerProvider())
        otel_sentry_asgi.instrument()
        calls = []
        def theirs(wrapped, instance, args, kwargs):
            calls.append(1)
            return wrapped(*args, **kwargs)
        wrapt.wrap_function_wrapper(OpenTelemetryMiddleware, "__call__", theirs)
        app = OpenTelemetryMiddleware(hello)
        get(app, "/a")
        otel_sentry_asgi.uninstrument()
        codes = get(app, "/b")
        report(calls=len(calls), codes=codes)
        """
    )

    assert facts["calls"] == 2
    assert facts["codes"] == [200]


def test_others_may_set_record_exception_too(world: World, init: Init) -> None:
    theirs: list[BaseException] = []

    class Theirs(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if span.name == "special":
                span.record_exception = lambda error, **_: theirs.append(error)

    world.provider.add_span_processor(Theirs())
    start(world, init)

    def handler(scope: Any) -> None:
        world.tracer.start_span("normal").end()
        with world.tracer.start_as_current_span("special") as span:
            span.record_exception(ValueError("x"))

    world.get(handler)
    world.flush()

    (transaction,) = world.transactions
    assert [span["description"] for span in transaction["spans"]] == ["normal", "special"]
    assert len(theirs) == 1
    assert [title(error) for error in world.errors] == ["ValueError: x"]


# Not in one piece: source lines are sent, too.
NEEDLE = "-5" + "ecret"
SECRET = [
    (b"authorization", b"Bearer b3arer-5" + b"ecret"),
    (b"cookie", b"sid=c00kie-5" + b"ecret"),
]


def test_an_event_captured_under_another_scope_is_clean(
    world: World, init: Init, kent: Kent
) -> None:
    start(world, init)

    def handler(scope: Any) -> None:
        with sentry_sdk.scope.use_scope(sentry_sdk.Scope()):
            secrets = [value.decode().partition("=")[2] or value.decode() for _, value in SECRET]
            sentry_sdk.capture_message(" and ".join(secrets))

    world.get(handler, headers=SECRET)
    world.flush()

    assert title(world.errors[0]) in (
        "[Filtered] and [Filtered]",
        "Bearer [Filtered] and [Filtered]",
    )
    assert NEEDLE not in kent.raw()


def test_an_attached_stack_is_clean(world: World, init: Init, kent: Kent) -> None:
    start(world, init, attach_stacktrace=True)

    def handler(scope: Any) -> None:
        sentry_sdk.capture_message("with a stack")

    world.get(handler, headers=SECRET)
    world.flush()

    (error,) = world.errors
    assert error["threads"]["values"][0]["stacktrace"]["frames"]
    assert NEEDLE not in kent.raw()


def test_a_thread_that_fails_after_the_response_is_an_issue(world: World, init: Init) -> None:
    start(world, init)
    done = threading.Event()
    threads = []

    def handler(scope: Any) -> None:
        from contextvars import copy_context

        def work() -> None:
            done.wait()
            with world.tracer.start_as_current_span("job"):
                raise ValueError("in a thread")

        context = copy_context()

        def run() -> None:
            with pytest.raises(ValueError, match="thread"):
                context.run(work)

        threads.append(threading.Thread(target=run))
        threads[0].start()

    world.get(handler)
    done.set()
    threads[0].join()
    world.flush()

    (error,) = world.errors
    assert title(error) == "ValueError: in a thread"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False


def test_a_task_that_nobody_awaits_belongs_to_its_request(world: World, init: Init) -> None:
    """It fails while the request still runs; asyncio logs that, much later and elsewhere."""
    start(world, init)

    async def handler(scope: Any) -> None:
        sentry_sdk.set_tag("from", "request")

        async def work() -> None:
            with world.tracer.start_as_current_span("unobserved"):
                raise ValueError("unobserved")

        task = asyncio.create_task(work())
        await asyncio.wait([task])

    async def main() -> None:
        await world.ask(handler)
        gc.collect()

    asyncio.run(main())
    world.flush()

    (error,) = world.errors
    assert error["tags"]["from"] == "request"
    assert error["exception"]["values"][-1]["mechanism"]["handled"] is False
    (unobserved,) = world.transactions[0]["spans"]
    assert ids(error) == (unobserved["trace_id"], unobserved["span_id"])


def test_closing_takes_no_longer_than_it_may(world: World, init: Init) -> None:
    """An exporter that hangs holds the exit up once, not once for each thing that waits for it."""
    release = threading.Event()

    class Hanging:
        def export(self, transaction: Any, origin: Any) -> None:
            release.wait()

        def force_flush(self, timeout: float) -> bool:
            return True

        def shutdown(self) -> None:
            pass

    init()
    otel_sentry_asgi.instrument(tracer_provider=world.provider, exporter=Hanging())
    world.get(lambda scope: None)
    bridge = _active.active()
    assert bridge is not None

    began = time.monotonic()
    assert bridge.pipeline.shutdown(0.5) is False
    took = time.monotonic() - began

    release.set()
    assert took < 0.9
