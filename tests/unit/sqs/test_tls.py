"""Which servers are trusted: the same on both clients."""

from __future__ import annotations

import socket

import pytest

from tests.unit.sqs.certificates import Authority
from tests.unit.sqs.scripted_server import ScriptedServer

SSL_ERROR = ("exceptions.SSLError", None, None)


@pytest.fixture
def authority(tmp_path) -> Authority:
    """One that no system knows."""
    return Authority(tmp_path)


@pytest.fixture
def server(authority):
    """A server at 127.0.0.1 with the authority's certificate."""
    with ScriptedServer(tls=authority.context("127.0.0.1", "localhost")) as running:
        yield running


@pytest.mark.parametrize("where", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile"])
def test_a_bundle_of_ones_own_is_trusted(clean, clients, authority, server, tmp_path, where):
    """A company's authority is named in the environment or in the profile, and all of botocore's places count."""
    if where == "profile":
        (tmp_path / "config").write_text(f"[profile company]\nca_bundle = {authority.bundle}\n", encoding="utf-8")
        clean.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        clean.setenv("AWS_PROFILE", "company")
    else:
        clean.setenv(where, str(authority.bundle))
    assert clients(server.url).receive() == ({}, {})


def test_an_unknown_certificate_is_refused(clients, server):
    """Without the bundle the server is not trusted, and is sent no request."""
    first, second = clients(server.url).receive()
    assert second.seen == first.seen == SSL_ERROR
    assert not server.requests


def test_a_bundle_is_trusted_alone(clean, clients, server, tmp_path):
    """A bundle stands in place of all others: a certificate that another one vouches for is refused."""
    (tmp_path / "other").mkdir()
    clean.setenv("AWS_CA_BUNDLE", str(Authority(tmp_path / "other").bundle))
    first, second = clients(server.url).receive()
    assert second.seen == first.seen == SSL_ERROR


def test_a_certificate_for_another_host_is_refused(clean, clients, authority):
    """A certificate of a trusted authority that names another host is refused."""
    clean.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    with ScriptedServer(tls=authority.context("sqs.example.com")) as server:
        first, second = clients(server.url).receive()
    assert second.seen == first.seen == SSL_ERROR


def test_a_bundle_that_is_not_there_fails_as_with_boto3(clean, clients, server, tmp_path):
    """A wrong path is no reason to trust anybody."""
    clean.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    first, second = clients(server.url).receive()
    assert second.seen[0] in (first.seen[0], SSL_ERROR[0])
    assert not server.requests


def test_a_server_that_never_finishes_tls_is_given_up(clients):
    """A peer that takes the connection and says nothing is given up after the time for connecting, as with boto3."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        first, second = clients(f"https://127.0.0.1:{silent.getsockname()[1]}", read_seconds=0.5).receive()
    assert second.seen == first.seen
