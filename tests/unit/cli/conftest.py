"""The command line in this process, and dead letters as the bridge writes them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bridge.cli import main
from bridge.messages.dead_letter import cause, send_arguments
from bridge.messages.verdicts import DeadLetter
from tests.support.foreign_tasks import hide_foreign_tasks
from tests.support.servers.sqs import SqsServer


@dataclass(frozen=True)
class Done:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _only_these_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tasks that other tests have declared in this process: a route of theirs might come first."""
    hide_foreign_tasks(monkeypatch, "tests.unit.cli.routes_tasks")


@pytest.fixture
def brigade(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Done]]:
    """Run ``brigade ARGS`` in this process; ``SETTING=value`` as keywords are added to the environment.

    With a test of ``sqs_server``, AWS is that server. Only SystemExit is expected: a traceback fails the test.
    """
    if "sqs_server" in request.fixturenames:
        for name, value in request.getfixturevalue("aws_env").items():
            monkeypatch.setenv(name, value)

    def run(*args: str, **settings: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setattr("sys.argv", ["brigade", *args])
            with pytest.raises(SystemExit) as ended:
                main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    from bridge.s3.clients import forget_clients

    forget_clients()  # an S3 client made for another server
    # The test servers are one server each, so a short poll tells that a queue is empty, a second sooner.
    monkeypatch.setattr("bridge.operations.dlq.reader.WAIT_SECONDS", 0)
    yield run
    forget_clients()


def event(key: str, bucket: str = "uploads") -> str:
    """The body of an event for an object that need not exist; ``key`` is as events encode it."""
    stored = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}}
    record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": stored}
    return json.dumps({"Records": [record]})


def letter_arguments(
    body: str,
    *,
    reason: str = "exhausted",
    task: str | None = "my.task",
    task_id: str = "task-1",
    source_queue: str = "uploads",
    age_seconds: float = 0,
    attributes: dict[str, Any] | None = None,
    dlq_url: str = "http://sqs/1/dlq",
) -> dict[str, Any]:
    """SendMessage's arguments for a dead letter of the bridge's own making."""
    why = cause(
        DeadLetter(reason, "ValueError", "bad row", "Traceback\n  in row 7"),
        raw={},
        task=task,
        task_id=task_id,
        attempts=6,
        source_queue=source_queue,
        now=time.time() - age_seconds,
        worker="pod-1",
    )
    raw = {"Body": body, "MessageAttributes": attributes or {}, "Attributes": {"AWSTraceHeader": "Root=1-5759e988"}}
    return send_arguments(raw, why, queue_url=dlq_url, max_bytes=1_048_576)


def bury(server: SqsServer, letters: Sequence[dict[str, Any]]) -> None:
    """Put dead letters into their queue."""
    for start in range(0, len(letters), 10):
        batch = letters[start : start + 10]
        entries = [
            {name: value for name, value in letter.items() if name != "QueueUrl"} | {"Id": str(n)}
            for n, letter in enumerate(batch)
        ]
        answer = server.sqs.send_message_batch(QueueUrl=batch[0]["QueueUrl"], Entries=entries)
        assert not answer.get("Failed")


def drain(server: SqsServer, url: str) -> list[Any]:
    """Receive and delete everything that is visible."""
    found: list[Any] = []
    while batch := server.sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    ).get("Messages"):
        for message in batch:
            with contextlib.suppress(server.sqs.exceptions.ReceiptHandleIsInvalid):
                server.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        found += batch
    return found
