"""The policy where it meets the client: callback, remarks, bodies, what comes last."""

from tests.support.scenario import scenario

SET_UP = """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())

async def post(app, path, **given):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return (await client.post(path, **given)).status_code

async def reading(scope, receive, send):
    await receive()
    await hello(scope, receive, send)
"""


def test_a_callback_sees_every_payload_once_and_may_keep_it_in() -> None:
    facts = scenario(
        SET_UP
        + """
seen = []
def look(payload):
    seen.append(payload.get("type") or "error")
    if payload["transaction"] == "GET /kept-in":
        return None
    payload["tags"] = {"looked": "yes"}
    return payload
init()
otel_sentry_asgi.instrument(on_payload=look)
get(OpenTelemetryMiddleware(hello), "/boom", "/kept-in")
names()
sentry_sdk.capture_event({"message": "outside", "transaction": "job"})
report(seen=sorted(seen), names=names(), tags=[one["tags"] for one in
       payloads("transaction") + payloads("event")], stats=otel_sentry_asgi.stats())
"""
    )
    assert facts["seen"] == ["error", "error", "transaction", "transaction"]
    assert facts["names"] == ["GET /boom"]
    assert facts["tags"] == [{"looked": "yes"}] * 3
    assert facts["stats"]["lost.before_send"] == 1


def test_of_a_callback_that_raises_nothing_leaves() -> None:
    facts = scenario(
        SET_UP
        + """
from otel_sentry_asgi import _guard
failures = []
_guard.on_failure = lambda where, error: failures.append(where)
init()
otel_sentry_asgi.instrument(on_payload=lambda payload: 1 / 0)
get(OpenTelemetryMiddleware(hello), "/boom")
report(names=names(), errors=payloads("event"), failures=sorted(failures))
"""
    )
    assert (facts["names"], facts["errors"]) == ([], [])
    assert facts["failures"] == ["event processor", "export"]


def test_sys_argv_is_cut_also_outside_of_requests_and_when_the_client_comes_later() -> None:
    facts = scenario(
        SET_UP
        + """
sys.argv = ["shop", "--password", "hunter2"]
otel_sentry_asgi.instrument()
init()
sentry_sdk.capture_message("outside")
otel_sentry_asgi.uninstrument()
sentry_sdk.capture_message("as before")
report(argv=[one["extra"]["sys.argv"] for one in payloads("event")])
"""
    )
    assert facts["argv"] == [["shop"], ["shop", "--password", "hunter2"]]


def test_bodies_and_remarks_arrive_with_transaction_and_error() -> None:
    facts = scenario(
        SET_UP
        + """
init(default_integrations=False)
otel_sentry_asgi.instrument()
app = OpenTelemetryMiddleware(reading)
body = {"password": "hunter22", "note": "fine"}
asyncio.run(post(app, "/boom", json=body, headers={"authorization": "Bearer x"}))
asyncio.run(post(app, "/form", data=body))
asyncio.run(post(app, "/raw", content=b"x" * 50, headers={"content-type": "text/plain"}))
names()
report(bodies={kind: [(one["request"].get("data") or "", one["_meta"]["request"].get("data"))
               for one in payloads(kind)] for kind in ("transaction", "event")},
       headers=[one["_meta"]["request"]["headers"] for one in payloads("event")],
       raw=json.dumps(payloads("event") + payloads("transaction")))
"""
    )
    body = {"password": "[Filtered]", "note": "fine"}
    remark = {"": {"rem": [["!config", "s"]]}}
    known = [body, {"password": remark}]
    raw = {"": {"rem": [["!raw", "x"]], "len": 50}}
    assert facts["bodies"]["event"] == [known]
    assert facts["bodies"]["transaction"] == [known, known, ["", raw]]
    assert facts["headers"] == [{"authorization": remark}]
    assert "hunter22" not in facts["raw"]


def test_without_bodies_receive_is_the_servers_own() -> None:
    """Also for a GET, whatever the settings."""
    facts = scenario(
        SET_UP
        + """
seen = []
async def noting(scope, receive, send):
    seen.append(receive.__qualname__)
    await receive()
    await hello(scope, receive, send)
otel_sentry_asgi.instrument()
for options in ({}, {"max_request_body_size": "never"}, {"data_collection": {"http_bodies": []}}):
    init(**options)
    asyncio.run(post(otel_sentry_asgi.SentryMiddleware(noting), "/a", json={}))
init()
get(otel_sentry_asgi.SentryMiddleware(noting), "/a")
report(ours=["noting_receive" in name for name in seen])
"""
    )
    assert facts["ours"] == [True, False, False, False]
