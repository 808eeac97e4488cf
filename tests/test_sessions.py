"""Sessions are counted as sentry-sdk counts them."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import sentry_sdk
from hypothesis import given
from hypothesis import strategies as st
from sentry_sdk.session import Session

from otel_sentry_asgi import _guard, sentry
from otel_sentry_asgi import _sentry_scopes as sentry_scopes
from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._sessions import EVERY, Key, Sessions
from otel_sentry_asgi.testing import HandClock

KEY: Key = ("shop@1.0", "production", 29_000_000, None)

Status = Literal["ok", "crashed", "abnormal"]


@pytest.fixture
def sent() -> list[dict[Key, Any]]:
    return []


@pytest.fixture
def sessions(sent: list[dict[Key, Any]]) -> Sessions:
    return Sessions(HandClock(), sent.append)


class Envelopes:
    """A client whose envelopes are kept."""

    def __init__(self, **options: Any) -> None:
        self.payloads: list[Any] = []
        self.client = sentry_sdk.Client(
            dsn="https://public@sentry.example/1",
            transport=_Keeping(self.payloads),
            default_integrations=False,
            **options,
        )


class _Keeping(sentry_sdk.Transport):
    def __init__(self, payloads: list[Any]) -> None:
        super().__init__()
        self._payloads = payloads

    def capture_envelope(self, envelope: Any) -> None:
        self._payloads.extend(item.payload.json for item in envelope.items)


@pytest.fixture
def envelopes() -> Iterator[Envelopes]:
    kept = Envelopes(release="shop@1.0")
    with sentry_sdk.new_scope() as scope:
        scope.set_client(kept.client)
        yield kept


def test_nothing_is_sent_before_it_is_due(sessions: Sessions, sent: list[dict[Key, Any]]) -> None:
    assert sessions.flush(0.0) is None
    sessions.add(KEY, "exited")
    assert sessions.flush(EVERY - 1) == EVERY
    assert sent == []
    assert sessions.flush(EVERY) is None
    assert sent == [{KEY: {"exited": 1}}]


def test_a_flush_sends_everything_once(sessions: Sessions, sent: list[dict[Key, Any]]) -> None:
    sessions.add(KEY, "exited")
    sessions.add(KEY, "crashed")
    sessions.add(KEY, "exited")
    sessions.flush()
    sessions.flush()
    assert sent == [{KEY: {"exited": 2, "crashed": 1}}]


def test_somebody_is_told_once_that_something_waits(sessions: Sessions) -> None:
    told: list[None] = []
    sessions.on_first = lambda: told.append(None)
    sessions.add(KEY, "exited")
    sessions.add(KEY, "exited")
    assert len(told) == 1
    sessions.flush()
    sessions.add(KEY, "exited")
    assert len(told) == 2


def test_what_ends_while_others_are_sent_is_due_a_minute_later() -> None:
    clock, told = HandClock(), list[Key]()
    minutes: Sessions = Sessions(clock, lambda _: minutes.add(KEY, "exited"))
    minutes.on_first = lambda: told.append(KEY)
    minutes.add(KEY, "exited")
    assert minutes.flush() == clock() + EVERY
    assert told == [KEY, KEY]


def test_a_forked_child_counts_its_own(sessions: Sessions, sent: list[dict[Key, Any]]) -> None:
    sessions.add(KEY, "exited")
    sessions.clear()
    assert sessions.flush() is None
    assert sent == []


@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from(["ok", "crashed", "abnormal"]), st.integers(0, 2)), max_size=20
    ),
    environment=st.sampled_from(["production", "staging"]),
)
def test_the_counts_are_those_of_sentry_sdk(
    outcomes: list[tuple[Status, int]], environment: str
) -> None:
    theirs, ours = Envelopes(), Envelopes()
    sessions = Sessions(HandClock(), sentry_scopes.send_sessions)
    for status, errors in outcomes:
        session = sentry_scopes.RequestSession("shop@1.0", environment)
        session.update(status=status, errors=errors)
        sessions.add(session.key, session.how)
        other = Session(release="shop@1.0", environment=environment, session_mode="request")
        other.update(status=status, errors=errors)
        other.close()
        theirs.client.capture_session(other)

    theirs.client.session_flusher.flush()
    sentry_sdk.get_global_scope().set_client(ours.client)
    try:
        sessions.flush()
    finally:
        sentry_sdk.get_global_scope().set_client(None)

    assert _by_attributes(ours.payloads) == _by_attributes(theirs.payloads)


def _by_attributes(payloads: list[Any]) -> dict[Any, Any]:
    """Counts without the minute, of which a test may see two."""
    found: dict[Any, dict[str, int]] = {}
    for payload in payloads:
        counts = found.setdefault(tuple(sorted(payload["attrs"].items())), {})
        for aggregate in payload["aggregates"]:
            assert aggregate["started"].endswith(":00.000000Z")
            for how in aggregate.keys() - {"started"}:
                counts[how] = counts.get(how, 0) + aggregate[how]
    return found


def request_scopes(client: Any) -> sentry_scopes.RequestScopes:
    return sentry_scopes.RequestScopes(lambda event, _: event, weakref.ref(Exchange(None)), client)


def test_without_a_release_there_is_none(envelopes: Envelopes) -> None:
    envelopes.client.options["release"] = None
    scopes = request_scopes(envelopes.client)
    assert scopes.end() is None


def test_a_session_that_the_application_has_ended_is_not_counted_again(
    envelopes: Envelopes,
) -> None:
    scopes = request_scopes(envelopes.client)
    scopes.isolation.end_session()
    assert scopes.end() is None


def test_an_error_event_marks_the_session(envelopes: Envelopes) -> None:
    scopes = request_scopes(envelopes.client)
    sentry_sdk.capture_exception(ValueError())
    session = scopes.end()
    assert session is not None
    assert session.how == "errored"
    assert session.key[:2] == ("shop@1.0", "production")


def session_of(client: Any) -> sentry_scopes.RequestSession:
    with sentry_sdk.new_scope() as scope:
        scope.set_client(client)
        session = request_scopes(client).end()
    assert session is not None
    return session


def test_counts_go_to_the_client_whose_release_they_have() -> None:
    """The others' are sent, too, where one of them cannot."""
    failed: list[str] = []
    ours, theirs = Envelopes(release="shop@1.0"), Envelopes(release="tenant@2.0")
    broken = Envelopes(release="broken@3.0")
    sessions = Sessions(HandClock(), sentry_scopes.send_sessions)
    sentry_sdk.get_global_scope().set_client(ours.client)
    try:
        for kept in (broken, theirs, ours, theirs):
            session = session_of(kept.client)
            sessions.add(session.key, session.how)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_guard, "on_failure", lambda where, _: failed.append(where))
            patch.setattr(broken.client.transport, "capture_envelope", lambda: None)
            sessions.flush()
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    assert _by_attributes(ours.payloads) == {counted("shop@1.0"): {"exited": 1}}
    assert _by_attributes(theirs.payloads) == {counted("tenant@2.0"): {"exited": 2}}
    assert failed == ["sessions"]


def test_counts_of_the_global_client_go_there_whoever_sends_them() -> None:
    """The worker's thread, but at the end of the process whichever closes the bridge."""
    ours, theirs = Envelopes(release="shop@1.0"), Envelopes(release="tenant@2.0")
    sessions = Sessions(HandClock(), sentry_scopes.send_sessions)
    sentry_sdk.get_global_scope().set_client(ours.client)
    try:
        session = session_of(ours.client)
        sessions.add(session.key, session.how)
        with sentry_sdk.new_scope() as scope:
            scope.set_client(theirs.client)
            sessions.flush()
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    assert (len(ours.payloads), theirs.payloads) == (1, [])


def test_a_forked_child_has_new_transports_for_the_global_client_and_the_active_one() -> None:
    clients = [sentry_sdk.Client(dsn="http://public@127.0.0.1:9/1") for _ in range(2)]
    inherited = [client.transport for client in clients]
    sentry_sdk.get_global_scope().set_client(clients[0])
    try:
        with sentry_sdk.new_scope() as scope:
            scope.set_client(clients[1])
            sentry.begin_in_child()
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    assert [one.transport is was for one, was in zip(clients, inherited, strict=True)] == [
        False
    ] * 2
    for client in clients:
        client.close()


def counted(release: str) -> tuple[tuple[str, str], ...]:
    return ("environment", "production"), ("release", release)


def test_counts_of_a_client_that_is_gone_go_nowhere() -> None:
    ours = Envelopes(release="shop@1.0")
    sessions = Sessions(HandClock(), sentry_scopes.send_sessions)
    sentry_sdk.get_global_scope().set_client(ours.client)
    try:
        session = session_of(Envelopes(release="tenant@2.0").client)
        sessions.add(session.key, session.how)
        gc.collect()
        sessions.flush()
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    assert ours.payloads == []
