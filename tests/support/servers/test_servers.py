"""The test servers do what the tests of the bridge take for granted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import REPOSITORY
from tests.support.servers.process import running_server
from tests.support.servers.sqs import Counts, QueueFactory, SqsServer, counts, receive, send
from tests.support.servers.waiting import wait_until


def test_a_message_is_counted_where_it_is(sqs_server: SqsServer, queues: QueueFactory) -> None:
    """A message counts as visible, delayed or in flight, and as nothing once it is deleted."""
    queue = queues(sqs_server)
    send(sqs_server, queue.url, "delayed", delay_seconds=60)
    sent_id = send(sqs_server, queue.url, {"n": 1}, attributes={"a": {"DataType": "String", "StringValue": "b"}})
    assert counts(sqs_server, queue.url) == Counts(visible=1, in_flight=0, delayed=1)

    [message] = receive(sqs_server, queue.url)

    assert (message["MessageId"], message["Body"]) == (sent_id, '{"n": 1}')
    assert message["MessageAttributes"]["a"]["StringValue"] == "b"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert counts(sqs_server, queue.url) == Counts(visible=0, in_flight=1, delayed=1)
    sqs_server.sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    assert counts(sqs_server, queue.url).total == 1


def test_redrive_moves_a_message_received_too_often(sqs_server: SqsServer, queues: QueueFactory) -> None:
    """After maxReceiveCount receives the next one finds nothing, and the message is in the DLQ under its old id."""
    queue = queues(sqs_server, max_receive_count=2)
    sent_id = send(sqs_server, queue.url, "again and again")
    for _ in range(2):
        [message] = receive(sqs_server, queue.url)
        sqs_server.sqs.change_message_visibility(
            QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
        wait_until(lambda: counts(sqs_server, queue.url).visible, 5, "the message is back in the queue")

    assert not receive(sqs_server, queue.url)

    [moved] = wait_until(lambda: receive(sqs_server, queue.dlq_url), 5, "the message is in the DLQ")
    assert (moved["MessageId"], moved["Body"]) == (sent_id, "again and again")


def test_a_long_poll_hinders_nobody_and_ends_with_a_message(sqs_server: SqsServer, queues: QueueFactory) -> None:
    """While four long polls wait on an empty queue, other calls are answered; a message ends one of the four."""
    queue, other = queues(sqs_server), queues(sqs_server)
    found: list[str] = []

    def poll() -> None:
        found.extend(message["Body"] for message in receive(sqs_server, queue.url, limit=1, wait_seconds=3))

    polls = [threading.Thread(target=poll) for _ in range(4)]
    for thread in polls:
        thread.start()
    started = time.monotonic()
    for number in range(20):
        send(sqs_server, other.url, str(number))
    took_seconds = time.monotonic() - started
    send(sqs_server, queue.url, "the awaited one")
    for thread in polls:
        thread.join()

    assert took_seconds < 2
    assert found == ["the awaited one"]


@pytest.mark.slow
def test_nothing_is_lost_or_received_twice_under_load(sqs_server: SqsServer, queues: QueueFactory) -> None:
    """Two senders and four receivers at once: every message is received exactly once, and all deletes succeed."""
    queue = queues(sqs_server, visibility_timeout_seconds=120)
    received: Counter[str] = Counter()
    all_sent = threading.Event()

    def sender(name: str) -> None:
        for number in range(60):
            send(sqs_server, queue.url, f"{name}-{number}")

    def receiver() -> None:
        while (messages := receive(sqs_server, queue.url, wait_seconds=1)) or not all_sent.is_set():
            for message in messages:
                received[message["Body"]] += 1
                sqs_server.sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])

    senders = [threading.Thread(target=sender, args=(name,)) for name in "ab"]
    receivers = [threading.Thread(target=receiver) for _ in range(4)]
    for thread in (*senders, *receivers):
        thread.start()
    for thread in senders:
        thread.join()
    all_sent.set()
    for thread in receivers:
        thread.join()

    assert received == Counter(f"{name}-{number}" for name in "ab" for number in range(60))
    assert counts(sqs_server, queue.url).total == 0


@pytest.mark.slow
def test_a_server_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    """A kill -9 of the process that started a server leaves no server behind."""
    script = (
        "import pathlib, sys, time\n"
        "from tests.support.servers.process import running_server\n"
        "command = [sys.executable, '-m', 'tests.support.servers.moto_process']\n"
        "with running_server(command, r'serving at (.+)', pathlib.Path(sys.argv[1])) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    tests = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "moto.log")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        assert tests.stdout is not None
        address = urlsplit(tests.stdout.readline().strip())
        assert address.hostname is not None
        assert address.port is not None
        assert _answers(address.hostname, address.port)
    finally:
        os.kill(tests.pid, signal.SIGKILL)
        tests.communicate()

    wait_until(lambda: not _answers(str(address.hostname), int(address.port or 0)), 5, "the server is gone")


def test_a_server_that_cannot_start_shows_its_output(tmp_path: Path) -> None:
    """The error of a server that ends early holds what it had printed and its exit code."""
    command = [sys.executable, "-c", "import sys; print('no such port'); sys.exit(3)"]

    with (
        pytest.raises(RuntimeError, match=r"exit code 3:\nno such port"),
        running_server(command, r"serving at (\S+)", tmp_path / "output.log"),
    ):
        pytest.fail("the server is not running")


def test_waiting_in_vain_says_for_what() -> None:
    """The error of a wait that ends without success names what was awaited and the last answer."""
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: rain \(last answer: 0\)"):
        wait_until(lambda: 0, 0.01, "rain")


def test_no_setting_of_the_shell_reaches_a_test() -> None:
    """Only the variables that shut out real accounts are left of the prefixes that the bridge reads."""
    prefixes = ("AWS_", "BRIDGE_", "CELERY_", "SQS_")

    left = {name for name in os.environ if name.startswith(prefixes)}

    assert left == {"AWS_CONFIG_FILE", "AWS_EC2_METADATA_DISABLED", "AWS_SHARED_CREDENTIALS_FILE"}


def test_a_process_gets_the_server_and_nothing_else(aws_env: dict[str, str], sqs_server: SqsServer) -> None:
    """In the environment of a process SQS and S3 have the addresses of the test servers."""
    assert aws_env["AWS_ENDPOINT_URL_SQS"] == sqs_server.endpoint_url
    assert aws_env["AWS_ENDPOINT_URL_S3"] == sqs_server.s3_endpoint_url


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
