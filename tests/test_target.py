"""Where uploads go is what sentry-sdk's own transport would do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
import trustme
import urllib3
from sentry_sdk.transport import HttpTransport, Transport

from otel_sentry_exporters._target import to_target

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE")

Client = Callable[..., sentry_sdk.Client]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "REQUESTS_CA_BUNDLE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def make() -> Iterator[Client]:
    made: list[sentry_sdk.Client] = []

    def client(dsn: str = "https://public@sentry.example/prefix/7", **given: Any) -> Any:
        given = {"default_integrations": False, "auto_enabling_integrations": False, **given}
        made.append(sentry_sdk.Client(dsn=dsn, **given))
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("dsn", "host", "port", "path"),
    [
        ("https://p@sentry.example/7", "sentry.example", 443, "/api/7/envelope/"),
        ("http://p@sentry.example/7", "sentry.example", 80, "/api/7/envelope/"),
        ("https://p@h:9000/a/b/7", "h", 9000, "/a/b/api/7/envelope/"),
        ("http://p:s@[::1]:9000/7", "::1", 9000, "/api/7/envelope/"),
        ("http://p@m\u00fcller.example/7", "xn--mller-kva.example", 80, "/api/7/envelope/"),
    ],
)
def test_the_dsn_says_where(make: Client, dsn: str, host: str, port: int, path: str) -> None:
    client: Any = make(dsn)
    target = to_target(client)
    assert target is not None
    assert (target.scheme, target.host, target.port, target.path) == (
        dsn.partition(":")[0],
        host,
        port,
        path,
    )
    auth = client.transport._auth
    assert target.headers == {
        "User-Agent": auth.client,
        "X-Sentry-Auth": auth.to_header(),
        "Content-Type": "application/x-sentry-envelope",
    }
    assert target.timeout == HttpTransport.TIMEOUT


class Own(Transport):
    def capture_envelope(self, _envelope: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    "given",
    [
        {"transport": Own},
        {"transport": type("Subclass", (HttpTransport,), {})},
        {"transport": lambda _: None},
        {"_experiments": {"transport_http2": True}},
        {"https_proxy": "https://proxy.example"},
    ],
    ids=["class", "subclass", "function", "http/2", "tls in tls"],
)
@pytest.mark.filterwarnings("ignore:.*[Ff]unction transports.*:DeprecationWarning")
def test_what_only_another_transport_can_do_is_left_to_it(
    make: Client, given: dict[str, Any]
) -> None:
    assert to_target(make(**given)) is None


def test_without_a_dsn_or_a_client_there_is_no_target(make: Client) -> None:
    assert to_target(make("")) is None
    assert to_target(sentry_sdk.client.NonRecordingClient()) is None


A, B = "http://a.example:3128", "http://b.example:3128"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, {}),
        ({"HTTP_PROXY": A}, {}),
        ({"HTTPS_PROXY": A}, {}),
        ({"HTTP_PROXY": A, "HTTPS_PROXY": B}, {}),
        ({"HTTPS_PROXY": A}, {"https_proxy": ""}),
        ({"HTTP_PROXY": A, "HTTPS_PROXY": B}, {"https_proxy": ""}),
        ({"HTTP_PROXY": A, "HTTPS_PROXY": B}, {"https_proxy": "", "http_proxy": ""}),
        ({"HTTP_PROXY": A}, {"http_proxy": B}),
        ({}, {"http_proxy": A, "https_proxy": B}),
        ({"HTTP_PROXY": A, "NO_PROXY": "sentry.example"}, {}),
        ({"HTTPS_PROXY": A, "NO_PROXY": "localhost, .example"}, {}),
        ({"HTTPS_PROXY": A, "NO_PROXY": "sentry.example:9000"}, {}),
        ({"HTTPS_PROXY": A, "NO_PROXY": "other.example"}, {}),
        ({"NO_PROXY": "sentry.example"}, {"https_proxy": A, "http_proxy": B}),
    ],
)
def test_proxies_are_those_that_sentry_sdk_would_take(
    make: Client,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    environment: dict[str, str],
    given: dict[str, Any],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client: Any = make(f"{scheme}://p@sentry.example:9000/7", proxy_headers={"X": "y"}, **given)
    pool, target = client.transport._pool, to_target(client)
    assert target is not None
    assert target.proxy == (str(pool.proxy.url) if pool.proxy else None)
    assert target.proxy_headers == {"X": "y"}


def test_an_empty_entry_exempts_nothing(make: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """sentry-sdk takes `localhost,` for all hosts."""
    monkeypatch.setenv("HTTPS_PROXY", A)
    monkeypatch.setenv("NO_PROXY", "localhost,")
    target = to_target(make())
    assert target is not None
    assert target.proxy == A


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"keep_alive": True},
        {"socket_options": [(1, 9, 0)]},
        {"socket_options": [(1, 9, 0)], "keep_alive": True},
    ],
)
def test_socket_options_are_those_of_sentry_sdk(make: Client, given: dict[str, Any]) -> None:
    client: Any = make(**given)
    target = to_target(client)
    pool: urllib3.PoolManager = client.transport._pool
    assert target is not None
    assert list(target.socket_options) == list(pool.connection_pool_kw.get("socket_options") or [])


@pytest.mark.parametrize("how", ["option", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "default"])
def test_certificates_are_where_sentry_sdk_looks(
    make: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    authority = trustme.CA()
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    if how.isupper():
        monkeypatch.setenv(how, str(path))
    target = to_target(make(ca_certs=str(path) if how == "option" else None))
    assert target is not None
    issuers = target.tls().get_ca_certs()
    assert (len(issuers) == 1) is (how != "default")
    assert target.tls() is target.tls()


@pytest.mark.parametrize("how", ["options", "environment"])
def test_the_client_may_have_a_certificate(
    make: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    certificate = trustme.CA().issue_cert("client")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    given = {"cert_file": str(chain), "key_file": str(key)}
    if how == "environment":
        monkeypatch.setenv("CLIENT_CERT_FILE", str(chain))
        monkeypatch.setenv("CLIENT_KEY_FILE", str(key))
        given = {}
    target = to_target(make(**given))
    assert target is not None
    target.tls()
    monkeypatch.setenv("CLIENT_KEY_FILE", str(tmp_path / "missing"))
    missing = to_target(make(cert_file=str(chain)))
    assert missing is not None
    with pytest.raises(FileNotFoundError):
        missing.tls()
