"""The ASGI scope as Sentry's request, also where servers differ or leave things out."""

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Host, Mount

from otel_sentry_asgi._scope import Exchange
from otel_sentry_asgi._translate.request import (
    is_event_stream,
    merged_headers,
    parse_cookies,
    path_in,
    root_path_in,
    route_in,
    to_request,
)


def http(**given: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/items/5", **given}


def test_a_whole_request() -> None:
    scope = http(
        method="post",
        scheme="https",
        query_string=b"q=1&token=x",
        headers=[(b"Host", b"shop.example"), (b"X-Tag", b"a"), (b"cookie", b"sid=1; theme=dark")],
        client=("192.0.2.7", 5000),
        server=("10.0.0.1", 8000),
    )
    assert to_request(scope) == {
        "url": "https://shop.example/items/5",
        "method": "POST",
        "query_string": "q=1&token=x",
        "headers": {"host": "shop.example", "x-tag": "a", "cookie": "sid=1; theme=dark"},
        "cookies": {"sid": "1", "theme": "dark"},
        "env": {"REMOTE_ADDR": "192.0.2.7"},
    }


@pytest.mark.parametrize("scope", [{}, {"type": "http"}, {"headers": None, "client": None}])
def test_a_scope_may_lack_anything(scope: dict[str, Any]) -> None:
    assert to_request(scope) == {"url": "", "headers": {}}


def test_a_websocket_is_a_get_of_its_own_scheme() -> None:
    scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"h")]}
    assert to_request(scope) == {"url": "ws://h/ws", "method": "GET", "headers": {"host": "h"}}
    assert to_request({**scope, "scheme": "wss"})["url"] == "wss://h/ws"


# -- headers and cookies --------------------------------------------------------------------------


def test_repeated_headers_are_joined_and_names_are_lower_case() -> None:
    headers = [(b"X-Tag", b"a"), (b"accept", b"*/*"), (b"x-tag", b"b")]
    assert merged_headers(http(headers=headers)) == {"x-tag": "a, b", "accept": "*/*"}


def test_repeated_cookie_headers_are_one_list_of_cookies() -> None:
    """HTTP/2 clients may send each cookie in a header of its own."""
    request = to_request(http(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")]))
    assert request["headers"] == {"cookie": "a=1; b=2"}
    assert request["cookies"] == {"a": "1", "b": "2"}


def test_headers_are_latin_1_and_may_be_text_already() -> None:
    headers = [(b"x-name", b"caf\xe9"), ("X-Text", "caf\u00e9")]
    assert to_request(http(headers=headers))["headers"] == {
        "x-name": "caf\u00e9",
        "x-text": "caf\u00e9",
    }


def test_without_a_cookie_header_there_are_no_cookies() -> None:
    assert "cookies" not in to_request(http(headers=[(b"host", b"h")]))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("a=1", {"a": "1"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        (" a = 1 ; b=2 ", {"a": "1", "b": "2"}),
        ("a=1=2; b=", {"a": "1=2", "b": ""}),
        ('a="1 2"', {"a": '"1 2"'}),
        ("a=1; a=2", {"a": "2"}),
        ("junk; =x; ; a=1", {"a": "1"}),
        ("", {}),
    ],
)
def test_cookies_are_read_as_they_stand(header: str, expected: dict[str, str]) -> None:
    assert dict(parse_cookies(header)) == expected


# -- URL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/api/items", "/api", "/api/items"),
        ("/items", "/api", "/api/items"),
        ("/api", "/api", "/api"),
        ("/apiary", "/api", "/api/apiary"),
        ("/items", "/api/", "/api/items"),
        ("/items", "", "/items"),
        ("/items", "/", "/items"),
        ("/items", None, "/items"),
        (None, None, ""),
        ("", "/api", "/api"),
    ],
)
def test_the_path_is_whole_whether_or_not_the_server_puts_the_root_path_into_it(
    path: str | None, root_path: str | None, expected: str
) -> None:
    assert path_in({"path": path, "root_path": root_path}) == expected
    assert to_request({"path": path, "root_path": root_path})["url"] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"server": ("h", 8000)}, "http://h:8000/x"),
        ({"server": ("h", 80)}, "http://h/x"),
        ({"server": ("h", 443), "scheme": "https"}, "https://h/x"),
        ({"server": ("h", 80), "scheme": "https"}, "https://h:80/x"),
        ({"server": ("h", 80), "type": "websocket"}, "ws://h/x"),
        ({"server": ("::1", 8000)}, "http://[::1]:8000/x"),
        ({"server": ("2001:db8::1", 80)}, "http://[2001:db8::1]/x"),
        ({"server": ("/run/app.sock", None)}, "/x"),
        ({"server": None}, "/x"),
        ({"headers": [(b"host", b"[::1]:8000")], "server": ("a", 1)}, "http://[::1]:8000/x"),
        ({"headers": [(b"host", b"")], "server": ("h", 8000)}, "http://h:8000/x"),
    ],
)
def test_the_host_is_the_header_or_else_the_server(given: dict[str, Any], expected: str) -> None:
    assert to_request({"type": "http", "path": "/x", **given})["url"] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a b", "/a%20b"),
        ("/caf\u00e9", "/caf%C3%A9"),
        ("/what?now#here", "/what%3Fnow%23here"),
        ("/100%", "/100%"),
        ("/a\ud800", "/a%3F"),
        ("/~user/(a);b,c:d@e", "/~user/(a);b,c:d@e"),
    ],
)
def test_the_url_is_quoted_so_that_no_path_can_be_taken_for_a_query(
    path: str, expected: str
) -> None:
    assert to_request({"path": path})["url"] == expected


def test_the_query_is_apart_from_the_url() -> None:
    request = to_request(http(query_string=b"a=%20&b=caf\xe9"))
    assert request["url"] == "/items/5"
    assert request["query_string"] == "a=%20&b=caf\u00e9"
    assert "query_string" not in to_request(http(query_string=b""))
    assert to_request(http(query_string="a=1"))["query_string"] == "a=1"


# -- peer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [None, (), []])
def test_a_client_that_is_not_known_has_no_address(client: Any) -> None:
    assert "env" not in to_request(http(client=client))


@pytest.mark.parametrize("client", [("::1", 5000), ["::1", 5000]])
def test_the_address_of_the_client(client: Any) -> None:
    assert to_request(http(client=client))["env"] == {"REMOTE_ADDR": "::1"}


# -- route ----------------------------------------------------------------------------------------


def starlette(template: str, **given: Any) -> dict[str, Any]:
    return http(route=SimpleNamespace(path_format=template), **given)


def test_without_a_framework_there_is_no_route() -> None:
    assert route_in(http()) is None
    assert route_in({}) is None
    assert route_in(http(route=object())) is None
    assert route_in(starlette("")) is None


def test_fastapi_writes_the_whole_template() -> None:
    effective = SimpleNamespace(path_format="/api/items/{id}")
    scope = starlette("/items/{id}", fastapi={"effective_route_context": effective})
    assert route_in(scope) == "/api/items/{id}"
    assert route_in({**scope, "root_path": "/sub"}) == "/sub/api/items/{id}"
    assert route_in(http(fastapi={})) is None


def test_litestar_writes_the_whole_template() -> None:
    assert route_in(http(path_template="/items/{id:int}")) == "/items/{id:int}"


def test_starlette_leaves_the_matched_route() -> None:
    assert route_in(starlette("/items/{id}")) == "/items/{id}"


def test_below_a_mount_the_prefix_is_put_before_the_route() -> None:
    assert route_in(starlette("/items/{id}", root_path="/v1")) == "/v1/items/{id}"


def test_the_prefix_of_a_mount_with_parameters_becomes_a_template_again() -> None:
    scope = starlette("/items/{id}", root_path="/shops/7", path_params={"shop": 7, "id": "5"})
    assert route_in(scope) == "/shops/{shop}/items/{id}"


def test_the_root_path_of_the_deployment_is_part_of_the_route() -> None:
    """OTel: `http.route` should include the application root; and so does the request's URL."""
    scope = starlette("/items/{id}", root_path="/proxy/v1", app_root_path="/proxy")
    assert route_in(scope) == "/proxy/v1/items/{id}"
    assert root_path_in(scope) == "/proxy"
    assert route_in(starlette("/items/{id}", root_path="/proxy/")) == "/proxy/items/{id}"
    assert root_path_in({"root_path": "/proxy/"}) == "/proxy"
    assert root_path_in({"root_path": None}) == root_path_in({}) == ""


def test_where_a_mount_is_all_that_matched_its_prefix_is_there_once() -> None:
    app = Starlette()
    scope = http(root_path="/shops/7/raw", app_root_path="", path_params={"shop": 7})
    assert route_in({**scope, "route": Mount("/raw", app)}) == "/shops/{shop}/raw/{path}"
    assert route_in(http(route=Host("{shop}.example", app))) is None


@pytest.mark.parametrize("root_path", ["", "/shop", "/shop/"])
def test_a_mount_of_everything_is_no_template(root_path: str) -> None:
    """All requests would be called the same (Connexion)."""
    scope = http(root_path=root_path, app_root_path=root_path, route=Mount("/", Starlette()))
    assert route_in(scope) is None


def test_a_mount_that_is_called_like_a_parameter_of_the_route_stays() -> None:
    scope = starlette("/items/{id}", root_path="/7", path_params={"id": 7})
    assert route_in(scope) == "/7/items/{id}"


def test_the_route_outlives_the_rest_of_the_scope() -> None:
    exchange = Exchange(None, asgi_scope=starlette("/items/{id}", root_path="/sub"))
    exchange.freeze()
    exchange.freeze()
    assert exchange.asgi_scope is not None
    assert "route" not in exchange.asgi_scope
    assert exchange.facts().route == "/sub/items/{id}"


def test_the_route_is_there_whenever_the_worker_looks() -> None:
    """It may between any two steps of the request's end."""
    routes: list[str | None] = []

    class Watched(Exchange):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "asgi_scope":
                routes.append(route_in(value))

    exchange = Watched(None, asgi_scope=starlette("/items/{id}"))
    exchange.freeze()
    assert routes == ["/items/{id}"] * 2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"x", b"y"), (b"Content-Type", b"Text/Event-Stream; charset=utf-8")], True),
        (((b"content-type", b"text/event-stream"),), True),
        ([(b"content-type", b"text/html")], False),
        ([(b"content-typo", b"text/event-stream")], False),
        ([], False),
        (None, False),
    ],
)
def test_server_sent_events_are_known_by_their_type(headers: Any, expected: bool) -> None:
    assert is_event_stream({"headers": headers}) is expected


def test_headers_that_can_be_gone_over_only_once_are_left_to_the_server() -> None:
    """ASGI allows any iterable. They may be those of a stream, but nobody looks."""
    headers = iter([(b"content-type", b"text/event-stream")])
    assert not is_event_stream({"headers": headers})
    assert list(headers) == [(b"content-type", b"text/event-stream")]


def test_an_empty_parameter_does_not_spoil_the_prefix() -> None:
    scope = starlette("/x", root_path="/shops/7", path_params={"shop": "7", "rest": ""})
    assert route_in(scope) == "/shops/{shop}/x"
