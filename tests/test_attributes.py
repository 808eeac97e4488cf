"""Attributes under their current names, whichever generation wrote them."""

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_sentry_asgi._semconv import RENAMED, RENAMED_ON_SERVERS
from otel_sentry_asgi._translate import attributes as module
from otel_sentry_asgi._translate.attributes import to_current


def current(attributes: Mapping[str, Any], *, on_server: bool = False) -> dict[str, Any]:
    return to_current(attributes, [], on_server=on_server)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_gives_way_to_the_current_one(old: str, new: str) -> None:
    assert current({old: "x"}) == {new: "x"}
    assert current({old: 5}) == {new: 5}
    for both in ({old: "x", new: "y"}, {new: "y", old: "x"}):
        assert current(both) == {new: "y"}


@pytest.mark.parametrize("name", ["net.peer.name", "net.peer.port"])
def test_the_peer_of_a_server_is_the_client(name: str) -> None:
    assert current({name: "x"}, on_server=True) == {RENAMED_ON_SERVERS[name]: "x"}
    assert current({name: "x"}) == {RENAMED[name]: "x"}


def test_an_empty_value_gives_way() -> None:
    assert current({"http.request.method": "", "http.method": "GET"}) == {
        "http.request.method": "GET"
    }


def test_the_first_of_two_old_names_counts() -> None:
    assert current({"http.host": "a", "http.server_name": "b"}) == {"server.address": "a"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a", {"url.path": "/a"}),
        ("/a?b=1#c", {"url.path": "/a", "url.query": "b=1"}),
        ("/a?b#c?d", {"url.path": "/a", "url.query": "b"}),
        ("http://bob:secret@h/a?b", {"url.path": "/a", "url.query": "b"}),
        ("http://bob:sec?ret@h/a", {}),
        ("http://[broken/a?b", {}),
        ("", {}),
        (5, {}),
    ],
)
def test_a_target_is_path_and_query(target: object, expected: dict[str, str]) -> None:
    assert current({"http.target": target}) == expected
    present = {"url.path": "/p", "url.query": "q"}
    assert current({**present, "http.target": target}) == present


@pytest.mark.parametrize(
    ("given", "address", "port"),
    [
        ({"http.host": "127.0.0.1:8391"}, "127.0.0.1", 8391),
        ({"http.host": "h:8391", "net.host.port": 8391}, "h", 8391),
        ({"http.host": "h:81", "net.host.port": 8391}, "h", 8391),
        ({"http.server_name": "shop.example:81"}, "shop.example", 81),
        ({"net.host.name": "h:81"}, "h", 81),
        ({"server.address": "h:81"}, "h", 81),
        ({"server.address": "[::1]:81"}, "::1", 81),
        ({"server.address": "[::1]"}, "::1", None),
        ({"server.address": "::1"}, "::1", None),
        ({"server.address": "::1:81", "server.port": 81}, "::1", 81),
        ({"server.address": "fe80::81", "server.port": 81}, "fe80::81", 81),
        ({"server.address": "h:81", "server.port": "81"}, "h", "81"),
        ({"server.address": "h:http"}, "h:http", None),
        ({"server.address": "bob:secret@h:81"}, "bob:secret@h:81", None),
        ({"server.address": ["h:81"]}, ["h:81"], None),
    ],
)
def test_an_address_is_a_host_without_its_port(
    given: dict[str, Any], address: object, port: object
) -> None:
    data = current(given, on_server=True)

    assert data.pop("server.address") == address
    assert data.pop("server.port", None) == port
    assert data == {}


def test_what_is_nested_keeps_its_name() -> None:
    assert current({"http": {"method": "GET"}, "k": [{"a": 1}]}) == {
        "http.method": "GET",
        "k.0.a": 1,
    }


def test_the_application_may_use_any_key_any_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The names that are remembered have a bound in number and length."""
    names = module._Names()
    monkeypatch.setattr(module, "_names", names)
    monkeypatch.setattr(module, "_MAX_KNOWN", 10)
    for number in range(100):
        key = f"key.{number}"
        assert current({key: number}) == {key: number}
    assert len(names) == 10
    names.clear()
    long = "k" * 10_000
    assert len(next(iter(current({long: 1})))) < 10_000
    assert len(names) == 0


def test_what_is_said_to_sentry_is_apart() -> None:
    own: list[tuple[str, Any]] = []
    data = to_current({"sentry.tag.a": "x", "k": 1}, own, on_server=False)
    assert (data, own) == ({"k": 1}, [("sentry.tag.a", "x")])


def test_the_spans_of_a_provider_are_left_as_they_are() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    span: Any = provider.get_tracer("shop").start_span("x", attributes={"http.method": "GET"})
    span.end()
    assert current(span.attributes) == {"http.request.method": "GET"}
    assert dict(span.attributes) == {"http.method": "GET"}
