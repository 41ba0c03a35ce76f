"""Which credentials a call is signed with."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from tests.unit.sqs.scripted_server import ScriptedServer


def credentials(number: int) -> str:
    """What a ``credential_process`` prints: credentials that are so near to their end that each call asks for new."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    given = {"AccessKeyId": f"AKID{number}", "SecretAccessKey": "a-secret-key", "SessionToken": f"token-{number}"}
    return json.dumps({"Version": 1, "Expiration": soon.isoformat(), **given})


def _forget_the_environment(clean) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        clean.delenv(name)


@pytest.fixture
def given(clean, tmp_path) -> Path:
    """The file that a ``credential_process`` shows."""
    _forget_the_environment(clean)
    path, config = tmp_path / "given.json", tmp_path / "config"
    config.write_text(f'[default]\ncredential_process = cat "{path}"\n', encoding="utf-8")
    clean.setenv("AWS_CONFIG_FILE", str(config))
    return path


def test_a_rotated_credential_signs_the_next_call(clients, given):
    """Credentials that are renewed while the worker runs (a role's, a service account's) are used from then on."""
    given.write_text(credentials(1), encoding="utf-8")
    with ScriptedServer() as server:
        pair = clients(server.url)
        assert pair.receive() == ({}, {})
        given.write_text(credentials(2), encoding="utf-8")
        assert pair.receive() == ({}, {})
    signed = [
        (request.headers["authorization"].split("=")[1].split("/")[0], request.headers["x-amz-security-token"])
        for request in server.requests
    ]
    assert signed == [("AKID1", "token-1")] * 2 + [("AKID2", "token-2")] * 2


def test_without_a_token_none_is_sent(clean, clients):
    """A user's own key has no session token, and no empty header stands in its place."""
    clean.delenv("AWS_SESSION_TOKEN")
    with ScriptedServer() as server:
        assert clients(server.url).receive() == ({}, {})
    assert not [request for request in server.requests if "x-amz-security-token" in request.headers]


def test_without_credentials_nothing_is_sent(clean, clients):
    """Nothing is sent unsigned, and the exception is botocore's."""
    _forget_the_environment(clean)
    with ScriptedServer() as server:
        first, second = clients(server.url).receive()
    assert second.seen == first.seen == ("exceptions.NoCredentialsError", None, None)
    assert not server.requests


def test_a_renewal_that_fails_is_the_same_exception(clean, clients, given):
    """Credentials that cannot be renewed any more are not used to their very end, and the exception is botocore's."""
    given.write_text(credentials(1), encoding="utf-8")
    with ScriptedServer() as server:
        pair = clients(server.url)
        given.unlink()
        first, second = pair.receive()
    assert second.seen == first.seen == ("exceptions.CredentialRetrievalError", None, None)
    assert not server.requests
