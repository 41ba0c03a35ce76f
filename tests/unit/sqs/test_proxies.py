"""Proxies: the environment is read as botocore reads it, not as libcurl would."""

from __future__ import annotations

import base64
import socket

import pytest

from tests.unit.sqs.certificates import Authority
from tests.unit.sqs.conftest import outcome
from tests.unit.sqs.scripted_server import ScriptedServer

PASSWORD = "a%20password-of-somebody"


@pytest.fixture
def dead_port():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_plain_endpoint_is_asked_through_http_proxy(clean, clients):
    """The proxy gets the whole URL and its own credentials; that the host does not exist is its affair."""
    with ScriptedServer() as proxy:
        clean.setenv("HTTP_PROXY", f"somebody:{PASSWORD}@127.0.0.1:{proxy.port}")  # a proxy without a scheme is http://
        assert clients("http://sqs.invalid:1234").receive() == ({}, {})
    first, second = proxy.requests
    assert second.line == first.line == "POST http://sqs.invalid:1234/ HTTP/1.1"
    assert second.headers["host"] == first.headers["host"] == "sqs.invalid:1234"
    assert second.headers["proxy-authorization"] == first.headers["proxy-authorization"]
    assert base64.b64decode(second.headers["proxy-authorization"].split()[1]) == b"somebody:a password-of-somebody"


def test_aws_is_asked_through_a_tunnel(clean, clients, tmp_path):
    """To the proxy of a tunnel nothing is told but where it leads: neither token nor signature."""
    authority = Authority(tmp_path)
    clean.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    host = "sqs.eu-west-1.amazonaws.com"
    with ScriptedServer(tls_behind_proxy=authority.context(host)) as proxy:
        clean.setenv("HTTPS_PROXY", proxy.url)
        assert clients(region="eu-west-1").receive() == ({}, {})
    tunnels = [request for request in proxy.requests if request.line.startswith("CONNECT")]
    assert [request.line.split()[1] for request in tunnels] == [f"{host}:443"] * 2
    assert all("x-amz-security-token" not in t.headers and "authorization" not in t.headers for t in tunnels)
    inside = [request for request in proxy.requests if request not in tunnels]
    assert [request.line for request in inside] == ["POST / HTTP/1.1"] * 2
    assert all(request.headers["host"] == host for request in inside)


def test_a_proxy_with_tls_is_trusted_by_the_same_bundle(clean, clients, tmp_path):
    """An https:// proxy is checked with the bundle that is named for AWS (botocore does so for https:// endpoints)."""
    authority = Authority(tmp_path)
    with ScriptedServer(tls=authority.context("127.0.0.1")) as proxy:
        clean.setenv("HTTP_PROXY", proxy.url)
        refused = outcome(clients("http://sqs.invalid").curl.receive_message, QueueUrl="q")
        assert not proxy.requests
        clean.setenv("AWS_CA_BUNDLE", str(authority.bundle))
        assert clients("http://sqs.invalid").curl.receive_message(QueueUrl="q") == {}
    assert refused.kind == "exceptions.SSLError"


@pytest.mark.parametrize(
    ("no_proxy", "passes"),
    [
        ("127.0.0.1", False),
        ("*", False),
        ("sqs.example.com,127.0.0.1", False),
        ("localhost", True),
        ("127.0.0.0/8", True),  # libcurl knows networks, botocore does not
        (".0.0.1", False),
    ],
)
def test_no_proxy_is_read_as_botocore_reads_it(clean, clients, no_proxy, passes):
    """Whether the proxy is passed by is decided alike, also where libcurl would decide otherwise."""
    with ScriptedServer() as server, ScriptedServer() as proxy:
        clean.setenv("HTTP_PROXY", proxy.url)
        clean.setenv("NO_PROXY", no_proxy)
        assert clients(server.url).receive() == ({}, {})
    assert [len(proxy.requests), len(server.requests)] == ([2, 0] if passes else [0, 2])


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "all_proxy"])
def test_a_proxy_for_something_else_is_not_used(clean, clients, dead_port, name):
    """For libcurl ALL_PROXY would be for every URL; botocore does not know it."""
    clean.setenv(name, f"http://127.0.0.1:{dead_port}")
    with ScriptedServer() as server:
        assert clients(server.url).receive() == ({}, {})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_the_same_exception(clean, clients, dead_port, scheme):
    """A dead proxy is named as what failed, and its password is not."""
    clean.setenv(f"{scheme.upper()}_PROXY", f"http://somebody:{PASSWORD}@127.0.0.1:{dead_port}")
    first, second = clients(f"{scheme}://sqs.invalid").receive()
    assert second.seen == first.seen == ("exceptions.ProxyConnectionError", None, None)
    assert "password" not in second.text


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_tunnel_that_is_refused_is_the_same_exception(clean, clients, status):
    """A proxy that lets nobody through is named as what failed."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    with ScriptedServer(connect_answer=answer) as proxy:
        clean.setenv("HTTPS_PROXY", f"http://somebody:{PASSWORD}@127.0.0.1:{proxy.port}")
        first, second = clients("https://sqs.invalid").receive()
    assert second.seen == first.seen == ("exceptions.ProxyConnectionError", None, None)
    assert "password" not in second.text


def test_a_proxy_that_does_not_take_the_connection_is_the_same_exception(clean, clients, full_port):
    """A proxy that is cut off is named as what failed, after the time for connecting."""
    clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{full_port}")
    first, second = clients("https://sqs.invalid", read_seconds=0.5).receive()
    assert second.seen == first.seen == ("exceptions.ProxyConnectionError", None, None)
