"""The SQS server in memory answers boto3 as SQS does; else what it is used for measuring would be worth nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.benchmarks.conftest import client

pytestmark = pytest.mark.slow


@pytest.fixture
def sqs(sqs_url: str) -> Any:
    """A boto3 client for it."""
    return client("sqs", sqs_url)


@pytest.fixture
def queue(sqs: Any, queue_name: str) -> str:
    """The URL of an empty queue."""
    return sqs.create_queue(QueueName=queue_name)["QueueUrl"]


def filled(sqs: Any, queue: str, count: int) -> None:
    """Send so many messages."""
    for first in range(0, count, 10):
        entries = [{"Id": str(n), "MessageBody": f"body {n}"} for n in range(first, min(count, first + 10))]
        sqs.send_message_batch(QueueUrl=queue, Entries=entries)


def received(sqs: Any, queue: str, **more: Any) -> list[dict[str, Any]]:
    """The messages of one receive."""
    return sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"], **more).get(
        "Messages", []
    )


def test_what_is_received_and_deleted_by_batch_is_gone(sqs: Any, queue: str):
    """Ten at a time, each once; the boto3 checks of the MD5s pass; nothing is left."""
    filled(sqs, queue, 25)
    bodies = []
    while messages := received(sqs, queue):
        bodies += [message["Body"] for message in messages]
        entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
        answer = sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
        assert [entry["Id"] for entry in answer["Successful"]] == [entry["Id"] for entry in entries]
    assert sorted(bodies) == sorted(f"body {n}" for n in range(25))
    left = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == left["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_a_received_message_is_hidden_and_comes_back(sqs: Any, queue: str):
    """After the visibility timeout it is received again, with a higher count and another handle."""
    filled(sqs, queue, 1)
    (first,) = received(sqs, queue, VisibilityTimeout=1)
    assert received(sqs, queue) == []
    (second,) = received(sqs, queue, WaitTimeSeconds=10)
    assert second["MessageId"] == first["MessageId"]
    assert second["ReceiptHandle"] != first["ReceiptHandle"]
    counts = [message["Attributes"]["ApproximateReceiveCount"] for message in (first, second)]
    assert counts == ["1", "2"]


def test_an_old_handle_deletes_nothing(sqs: Any, queue: str):
    """SQS answers such a delete as a success, and the message stays."""
    filled(sqs, queue, 1)
    (first,) = received(sqs, queue, VisibilityTimeout=0)
    (second,) = received(sqs, queue)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)
    assert len(received(sqs, queue)) == 1


def test_a_visibility_can_be_extended(sqs: Any, queue: str):
    """What was renewed is not there when the first timeout ends."""
    filled(sqs, queue, 1)
    (message,) = received(sqs, queue, VisibilityTimeout=1)
    entry = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 60}
    answer = sqs.change_message_visibility_batch(QueueUrl=queue, Entries=[entry])
    assert answer["Successful"] == [{"Id": "0"}]
    assert received(sqs, queue, WaitTimeSeconds=2) == []


def test_a_long_poll_ends_with_a_message_or_with_its_time(sqs: Any, queue: str):
    """An empty queue is waited on for as long as was asked, and a message sent meanwhile is handed out."""
    start = time.monotonic()
    assert received(sqs, queue, WaitTimeSeconds=1) == []
    assert time.monotonic() - start >= 1
    got: list[Any] = []
    poll = threading.Thread(target=lambda: got.extend(received(sqs, queue, WaitTimeSeconds=20)), daemon=True)
    poll.start()
    filled(sqs, queue, 1)
    poll.join(15)
    assert [message["Body"] for message in got] == ["body 0"]


def test_a_queue_that_is_none_is_an_error(sqs: Any, sqs_url: str):
    """The error has the code that SDKs and the worker know."""
    with pytest.raises(ClientError) as caught:
        sqs.receive_message(QueueUrl=f"{sqs_url}/000000000000/no-such-queue")
    assert caught.value.response["Error"]["Code"].endswith(("QueueDoesNotExist", "NonExistentQueue"))
