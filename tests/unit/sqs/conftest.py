"""The two clients side by side, and what a call of each came to, in a form that can be compared."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from bridge.sqs.clients import new_session, sqs_client
from bridge.sqs.fast_client import SqsCalls
from tests.support.servers.sqs import REGION

SECRET_KEY, TOKEN = "a-secret-key-of-somebody", "a-session-token-of-somebody"
#: Longer than names may be (253 characters), so that looking it up fails on this machine and asks nobody.
UNKNOWN_HOST = ".".join(["x" * 62] * 3 + ["x" * 57, "invalid"])


class Clients(NamedTuple):
    """A boto3 client and the calls by libcurl that were made from it."""

    boto3: Any
    curl: SqsCalls

    def both(self, method: str, **request: Any) -> tuple[Any, Any]:
        """What the call comes to on each."""
        return tuple(outcome(getattr(client, method), **request) for client in self)

    def receive(self, queue_url: str = "https://sqs.example.com/1/q") -> tuple[Any, Any]:
        """What a receive comes to on each."""
        return self.both("receive_message", QueueUrl=queue_url)


class Failure(NamedTuple):
    """An exception: its class, and for an error answer its code and message."""

    kind: str
    code: str | None
    message: str | None
    text: str

    @property
    def seen(self) -> tuple[str, str | None, str | None]:
        """What callers tell failures apart by; the texts of network errors come from different libraries."""
        return self.kind, self.code, self.message


def outcome(call: Callable[..., Any], **request: Any) -> Any:
    """The answer without its metadata, or the Failure."""
    try:
        answer = dict(call(**request))
    except Exception as error:  # noqa: BLE001 - which one it is, is what the tests compare
        refusal = (getattr(error, "response", None) or {}).get("Error", {})
        kind = f"{type(error).__module__.removeprefix('botocore.')}.{type(error).__name__}"
        text = f"{error} {error!r} {error.__cause__!r}" if kind.startswith("exceptions") else f"{error}"
        return Failure(kind, refusal.get("Code"), refusal.get("Message"), text)
    answer.pop("ResponseMetadata", None)
    return answer


@pytest.fixture
def clean(monkeypatch) -> pytest.MonkeyPatch:
    """An environment without proxies and bundles, with credentials that are easily found in a text."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    return monkeypatch


@pytest.fixture
def clients(clean) -> Iterator[Callable[..., Clients]]:
    """Makes the two for an endpoint, or for AWS's own without one."""
    made: list[Clients] = []

    def make(endpoint_url: str | None = None, *, read_seconds: float = 10.0, region: str = REGION) -> Clients:
        if endpoint_url is not None:
            clean.setenv("AWS_ENDPOINT_URL_SQS", endpoint_url)
        session = new_session(region)
        client = sqs_client("settle", region, read_seconds=read_seconds, session=session)
        made.append(Clients(client, SqsCalls(session, client, read_seconds=read_seconds)))
        return made[-1]

    yield make
    for pair in made:
        pair.boto3.close()


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose line of waiting connections is full, so that Linux answers a further one with nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
