"""The connection, against real sockets and whatever servers and proxies say."""

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from otel_sentry_exporters._http import (
    MAX_BODY,
    MAX_HEAD,
    Connection,
    NotConnected,
    Response,
    Target,
)
from tests.support.raw import PATIENCE, Handle, RawServer, read_request, reset

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Request = tuple[str, dict[str, str], bytes]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def connections() -> Iterator[Callable[..., Connection]]:
    """Makes connections that are closed after the test."""
    with ExitStack() as stack:

        def make(port: int, **changes: Any) -> Connection:
            connection = Connection(to_target(port, **changes))
            stack.callback(connection.close)
            return connection

        yield make


def to_target(port: int, **changes: Any) -> Target:
    given: dict[str, Any] = {
        "scheme": "http",
        "host": "127.0.0.1",
        "port": port,
        "path": "/api/1/envelope/",
        "headers": {"X-Sentry-Auth": "Sentry sentry_key=public"},
        "timeout": 5.0,
    }
    return Target(**{**given, **changes})


def answers(*texts: bytes, seen: list[Request] | None = None) -> Handle:
    """Each connection answers its requests with *texts*, then hangs up."""

    def handle(connected: socket.socket) -> None:
        for text in texts:
            request = read_request(connected)
            if seen is not None:
                seen.append(request)
            connected.sendall(text)

    return handle


def always(text: bytes, seen: list[Request] | None = None) -> Handle:
    def handle(connected: socket.socket) -> None:
        while True:
            answers(text, seen=seen)(connected)

    return handle


Connections = Callable[..., Connection]


# -- what is sent ---------------------------------------------------------------------------------


def test_the_request_is_complete(connections: Connections) -> None:
    seen: list[Request] = []
    with RawServer(always(OK, seen)) as server:
        connection = connections(server.port)
        assert connection.post(b"first").status == 200
        assert connection.post(b"\0second", encoding="gzip").status == 200
    host = f"127.0.0.1:{server.port}"
    auth = "Sentry sentry_key=public"
    line = "POST /api/1/envelope/ HTTP/1.1"
    assert seen == [
        (line, {"host": host, "x-sentry-auth": auth, "content-length": "5"}, b"first"),
        (
            line,
            {
                "host": host,
                "x-sentry-auth": auth,
                "content-encoding": "gzip",
                "content-length": "7",
            },
            b"\0second",
        ),
    ]


@pytest.mark.parametrize(
    ("scheme", "host", "port", "authority"),
    [
        ("http", "sentry.example", 80, "sentry.example"),
        ("https", "sentry.example", 443, "sentry.example"),
        ("https", "sentry.example", 80, "sentry.example:80"),
        ("http", "::1", 9000, "[::1]:9000"),
    ],
)
def test_the_default_port_is_not_in_the_host_header(
    scheme: str, host: str, port: int, authority: str
) -> None:
    from otel_sentry_exporters._http import _head_of

    head = _head_of(to_target(port, scheme=scheme, host=host))
    assert f"\r\nHost: {authority}\r\n".encode() in head


def test_a_header_that_http_has_no_form_for_is_an_error_of_the_upload(
    connections: Connections,
) -> None:
    with pytest.raises(ValueError, match="latin-1"):
        connections(1, headers={"X": "\u20ac"}).post(b"")


# -- the same connection again --------------------------------------------------------------------

REUSED = {
    "content-length": OK,
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"4\r\nWiki\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK,
    "an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nOops",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
}
NOT_REUSED = {
    "close": b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}",
    "one of several": b"HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 0\r\n\r\n",
    "http/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "up to the end": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "too much": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
    "too much after nothing": b"HTTP/1.1 204 No Content\r\n\r\n{}",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
    "no number": b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n{}",
    "not a number": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "long": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    "absurd": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    "chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunk of less": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "long chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFF\r\n"
    + b"x" * (MAX_BODY + 2),
}


@pytest.mark.parametrize("answer", REUSED.values(), ids=REUSED.keys())
def test_a_connection_is_used_again(connections: Connections, answer: bytes) -> None:
    with RawServer(always(answer)) as server:
        connection = connections(server.port)
        statuses = {connection.post(b"x").status for _ in range(3)}
    assert server.connections == 1
    assert len(statuses) == 1


@pytest.mark.parametrize("answer", NOT_REUSED.values(), ids=NOT_REUSED.keys())
def test_where_an_answer_does_not_end_for_sure_there_is_a_new_connection(
    connections: Connections, answer: bytes
) -> None:
    with RawServer(always(answer)) as server:
        connection = connections(server.port)
        responses = [connection.post(b"x") for _ in range(2)]
    assert server.connections == 2
    assert [response.status // 100 for response in responses] == [2, 2]
    assert not any(response.persists for response in responses)


def test_an_answer_counts_although_its_body_breaks_off(connections: Connections) -> None:
    with RawServer(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")) as server:
        assert connections(server.port).post(b"x").status == 200


@pytest.mark.parametrize("step", [1, 7])
def test_answers_may_come_in_pieces(connections: Connections, step: int) -> None:
    def handle(connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            read_request(connected)
            text = REUSED["chunked"]
            for start in range(0, len(text), step):
                connected.sendall(text[start : start + step])

    with RawServer(handle) as server:
        connection = connections(server.port)
        assert [connection.post(b"x").status for _ in range(2)] == [200, 200]
    assert server.connections == 1


def test_headers_have_lower_case_names_and_repeated_ones_are_joined(
    connections: Connections,
) -> None:
    answer = (
        b"HTTP/1.1 429 No\r\nX-Sentry-Rate-Limits: 1:a\r\nRetry-After:  7 \r\n"
        b"x-sentry-rate-limits: 2:b\r\nContent-Length: 0\r\n\r\n"
    )
    with RawServer(answers(answer)) as server:
        response = connections(server.port).post(b"x")
    assert response == Response(
        429,
        {"x-sentry-rate-limits": "1:a, 2:b", "retry-after": "7", "content-length": "0"},
        persists=True,
    )


# -- servers that hang up -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["orderly", "reset", "with 408"])
def test_a_stale_connection_is_made_anew_once(connections: Connections, how: str) -> None:
    seen: list[Request] = []
    hang_up = threading.Event()

    def handle(connected: socket.socket) -> None:
        answers(OK, seen=seen)(connected)
        if server.connections > 1:
            return
        hang_up.wait(PATIENCE)
        if how == "with 408":
            connected.sendall(b"HTTP/1.1 408 Timeout\r\nConnection: close\r\n\r\n")
        if how == "reset":
            reset(connected)

    with RawServer(handle) as server:
        connection = connections(server.port)
        connection.post(b"1")
        hang_up.set()
        for thread in server._threads[1:]:
            thread.join(PATIENCE)
        assert connection.post(b"2" * 500_000).status == 200
        assert server.connections == 2
    assert [body[:1] for *_, body in seen] == [b"1", b"2"]


def test_a_new_connection_that_breaks_off_is_no_reason_to_try_again(
    connections: Connections,
) -> None:
    with RawServer(lambda _: None) as server:
        with pytest.raises(OSError, match=r"closed|reset|[Pp]ipe") as caught:
            connections(server.port).post(b"x")
        assert not isinstance(caught.value, NotConnected)
    assert server.connections == 1


def test_after_a_failure_the_next_upload_connects_anew(connections: Connections) -> None:
    def handle(connected: socket.socket) -> None:
        if server.connections == 1:
            read_request(connected)
            return reset(connected)
        return answers(OK)(connected)

    with RawServer(handle) as server:
        connection = connections(server.port)
        with pytest.raises(ConnectionResetError):
            connection.post(b"x")
        assert connection.post(b"x").status == 200


def test_where_nobody_listens_there_is_no_connection(connections: Connections) -> None:
    with RawServer(always(OK)) as server:
        pass
    with pytest.raises(NotConnected, match="refused"):
        connections(server.port).post(b"x")


def test_the_server_may_go_between_two_uploads(connections: Connections) -> None:
    with RawServer(always(OK)) as server:
        connection = connections(server.port)
        connection.post(b"x")
    with pytest.raises(NotConnected):
        connection.post(b"x")


def test_a_name_that_does_not_resolve_is_no_connection(connections: Connections) -> None:
    with pytest.raises(NotConnected):
        connections(1, host="nowhere.invalid").post(b"x")


TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n"


@pytest.mark.parametrize("close", [b"\r\n", b"Connection: close\r\n\r\n"], ids=["keep", "close"])
@pytest.mark.parametrize("again", [False, True], ids=["new", "reused"])
def test_an_answer_that_comes_before_the_body_has_left_is_the_answer(
    connections: Connections, close: bytes, again: bool
) -> None:
    """nginx and Relay answer 413 to the head, and reset what still comes."""

    def handle(connected: socket.socket) -> None:
        if again and server.connections == 1:
            answers(OK)(connected)
        while b"\r\n\r\n" not in connected.recv(65_536):
            pass
        connected.sendall(TOO_LARGE + close)

    with RawServer(handle) as server:
        connection = connections(server.port)
        if again:
            connection.post(b"x")
        response = connection.post(b"x" * 50_000_000)
        assert response.status == 413
        assert not response.persists


def test_a_server_that_answers_and_takes_no_more_is_not_waited_for_for_ever(
    connections: Connections,
) -> None:
    done = threading.Event()

    def handle(connected: socket.socket) -> None:
        connected.recv(1_000)
        connected.sendall(TOO_LARGE + b"\r\n")
        done.wait(PATIENCE)

    with RawServer(handle) as server:
        assert connections(server.port, timeout=0.2).post(b"x" * 50_000_000).status == 413
        done.set()


# -- servers that say nothing, too much, or something else ----------------------------------------

GARBAGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "http/2": b"\0\0\x12\x04\0\0\0\0\0\r\n\r\n",
    "http/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "half a status": b"HTTP/1.1 20\r\n\r\n",
    "superscript status": b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n",
    "breaks off": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEAD // 3),
    "only 100": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_no_answer_is_an_error(connections: Connections, answer: bytes) -> None:
    with RawServer(answers(answer)) as server:
        connection = connections(server.port)
        with pytest.raises(OSError, match=r"closed|no HTTP|no end|reset") as caught:
            connection.post(b"x")
        assert not isinstance(caught.value, NotConnected)
        assert connection._socket is None


def test_an_answer_has_to_come_within_the_time(connections: Connections) -> None:
    done = threading.Event()
    with RawServer(lambda _: assert_set(done)) as server:
        connection = connections(server.port, timeout=0.1)
        with pytest.raises(TimeoutError):
            connection.post(b"x")
        assert connection._socket is None
        done.set()


def test_the_caller_may_have_less_time(connections: Connections) -> None:
    done = threading.Event()
    with RawServer(lambda _: assert_set(done)) as server:
        with pytest.raises(TimeoutError):
            connections(server.port, timeout=PATIENCE * 10).post(b"x", timeout=0.1)
        done.set()


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


def test_an_answer_that_drips_is_not_waited_for_for_ever(connections: Connections) -> None:
    def handle(connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not done.wait(0.02):
            connected.sendall(b"x")

    done = threading.Event()
    with RawServer(handle) as server:
        with pytest.raises(TimeoutError):
            connections(server.port, timeout=0.2).post(b"x")
        done.set()


def test_a_body_that_drips_does_not_undo_the_answer(connections: Connections) -> None:
    def handle(connected: socket.socket) -> None:
        read_request(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        while not done.wait(0.02):
            connected.sendall(b"x")

    done = threading.Event()
    with RawServer(handle) as server:
        response = connections(server.port, timeout=0.2).post(b"x")
        done.set()
    assert (response.status, response.persists) == (200, False)


# -- the ways to a server -------------------------------------------------------------------------


def test_ipv6(connections: Connections) -> None:
    seen: list[Request] = []
    with RawServer(always(OK, seen), host="::1") as server:
        assert connections(server.port, host="::1").post(b"x").status == 200
    assert seen[0][1]["host"] == f"[::1]:{server.port}"


def test_socket_options_are_set(connections: Connections) -> None:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    with RawServer(always(OK)) as server:
        connection = connections(server.port, socket_options=options)
        connection.post(b"x")
        connected = connection._socket
        assert connected is not None
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_socket_option_that_does_not_exist_is_no_connection(connections: Connections) -> None:
    with RawServer(always(OK)) as server, pytest.raises(NotConnected):
        connections(server.port, socket_options=[(socket.SOL_SOCKET, 9_999, 1)]).post(b"x")


def server_side(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def client_side(authority: trustme.CA, folder: Path) -> Callable[[], ssl.SSLContext]:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return lambda: ssl.create_default_context(cafile=str(path))


def test_tls(connections: Connections, authority: trustme.CA, tmp_path: Path) -> None:
    seen: list[Request] = []
    tls = client_side(authority, tmp_path)
    with RawServer(always(OK, seen), tls=server_side(authority, "127.0.0.1")) as server:
        connection = connections(server.port, scheme="https", tls=tls)
        assert [connection.post(b"x" * 100_000).status for _ in range(2)] == [200, 200]
        assert server.connections == 1
    assert len(seen[1][2]) == 100_000


@pytest.mark.parametrize("farewell", [False, True], ids=["cut", "close_notify"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_stale_tls_connection_is_made_anew_once(
    connections: Connections,
    authority: trustme.CA,
    tmp_path: Path,
    farewell: bool,
    version: ssl.TLSVersion,
) -> None:
    hung_up = threading.Semaphore(0)

    def handle(connected: Any) -> None:
        answers(OK)(connected)
        if farewell:
            connected.settimeout(0)
            with pytest.raises((ssl.SSLWantReadError, OSError)):
                connected.unwrap()
        connected.close()
        hung_up.release()

    context = server_side(authority, "127.0.0.1")
    context.maximum_version = version
    tls = client_side(authority, tmp_path)
    with RawServer(handle, tls=context) as server:
        connection = connections(server.port, scheme="https", tls=tls)
        for size in (1, 1, 3_000_000):
            assert connection.post(b"x" * size).status == 200
            assert hung_up.acquire(timeout=PATIENCE)
        assert server.connections == 3


@pytest.mark.parametrize("trouble", ["another name", "another authority"])
def test_a_server_that_cannot_prove_itself_gets_nothing(
    connections: Connections, authority: trustme.CA, tmp_path: Path, trouble: str
) -> None:
    seen: list[Request] = []
    name = "sentry.example" if trouble == "another name" else "127.0.0.1"
    trusted = trustme.CA() if trouble == "another authority" else authority
    tls = client_side(trusted, tmp_path)
    with (
        RawServer(always(OK, seen), tls=server_side(authority, name)) as server,
        pytest.raises(NotConnected, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        connections(server.port, scheme="https", tls=tls).post(b"secret")
    assert seen == []


# -- proxies --------------------------------------------------------------------------------------


@contextmanager
def proxy(*, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> Iterator[Any]:
    """A proxy that takes CONNECT; keeps what it is asked."""
    asked: list[Request] = []

    def handle(connected: socket.socket) -> None:
        request = read_request(connected)
        asked.append(request)
        connected.sendall(answer)
        host, _, port = request[0].split()[1].rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as onward:
            back = threading.Thread(target=pump, args=(onward, connected), daemon=True)
            back.start()
            pump(connected, onward)
            back.join(PATIENCE)

    with RawServer(handle) as server:
        yield server.port, asked


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


BASIC = "Basic " + b64encode(b"bob:p@ss").decode()


def test_plain_uploads_are_given_to_the_proxy_whole(connections: Connections) -> None:
    seen: list[Request] = []
    with RawServer(always(OK, seen)) as server:
        connection = connections(
            9_000,
            host="sentry.example",
            proxy=f"http://bob:p%40ss@127.0.0.1:{server.port}",
            proxy_headers={"X-Via": "y"},
        )
        assert [connection.post(b"x").status for _ in range(2)] == [200, 200]
        assert server.connections == 1
    (line, headers, body), _ = seen
    assert line == "POST http://sentry.example:9000/api/1/envelope/ HTTP/1.1"
    assert headers["host"] == "sentry.example:9000"
    assert headers["proxy-authorization"] == BASIC
    assert headers["x-via"] == "y"
    assert body == b"x"


def test_a_proxys_header_given_by_hand_comes_before_the_credentials_in_its_url(
    connections: Connections,
) -> None:
    seen: list[Request] = []
    with RawServer(always(OK, seen)) as server:
        url = f"http://bob@127.0.0.1:{server.port}"
        headers = {"Proxy-Authorization": "Bearer z"}
        connections(80, proxy=url, proxy_headers=headers).post(b"x")
    assert seen[0][1]["proxy-authorization"] == "Bearer z"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tls_goes_through_a_tunnel_and_the_proxy_sees_only_where_to(
    connections: Connections, authority: trustme.CA, tmp_path: Path, host: str
) -> None:
    seen: list[Request] = []
    tls = client_side(authority, tmp_path)
    with (
        RawServer(always(OK, seen), host=host, tls=server_side(authority, host)) as server,
        proxy() as (port, asked),
    ):
        connection = connections(
            server.port,
            scheme="https",
            host=host,
            tls=tls,
            proxy=f"http://bob:p%40ss@127.0.0.1:{port}",
            proxy_headers={"X-Via": "y"},
        )
        assert [connection.post(b"secret").status for _ in range(2)] == [200, 200]
        connection.close()
    where = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    headers = {"host": where, "x-via": "y", "proxy-authorization": BASIC}
    assert asked == [(f"CONNECT {where} HTTP/1.1", headers, b"")]
    assert {"proxy-authorization", "x-via"}.isdisjoint(seen[0][1])
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", b"nonsense"],
)
def test_a_proxy_that_refuses_is_no_connection(connections: Connections, answer: bytes) -> None:
    with RawServer(answers(answer)) as server:
        url = f"http://127.0.0.1:{server.port}"
        with pytest.raises(NotConnected):
            connections(443, scheme="https", host="sentry.example", proxy=url).post(b"x")


def test_a_proxy_that_is_not_there_is_no_connection(connections: Connections) -> None:
    with RawServer(always(OK)) as server:
        pass
    with pytest.raises(NotConnected):
        connections(80, proxy=f"http://127.0.0.1:{server.port}").post(b"x")
