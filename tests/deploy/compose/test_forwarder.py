from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from bridge.local.forwarder import Forwarder
from bridge.local.stack import LocalStack, create_resources
from bridge.s3.event import TestEvent, parse
from bridge.sqs.batches import PARALLEL
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.elasticmq
END_SECONDS = 45.0
#: Keys that are hard to get through JSON, XML and URLs unharmed.
KEYS = [
    "plain.txt",
    "Grüße aus Köln.txt",
    "c++ & a+b.txt",
    "100%25 sure.json",
    "a/b/ü \u2028.csv",
    "日本語",
    'quote".txt',
]


@pytest.fixture
def target(elasticmq_server: SqsServer, queues: QueueFactory) -> QueuePair:
    """A queue on ElasticMQ."""
    return queues(elasticmq_server, prefix="forwarded")


@pytest.fixture
def stack(moto_server: SqsServer) -> LocalStack:
    """A bucket on moto that notifies a queue there."""
    name = f"from-{uuid.uuid4().hex[:8]}"
    return create_resources(moto_server.endpoint_url, name, max_receive_count=1000, visibility_timeout_seconds=30)


@contextmanager
def forwarding(stack: LocalStack, endpoint_url: str, queue_url: str) -> Iterator[Forwarder]:
    """A forwarder in a thread, its client as quick to give up as a test wants it; stopped in the end."""
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    config = Config(
        proxies={}, connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}, max_pool_connections=PARALLEL
    )
    client = session.client("sqs", endpoint_url=endpoint_url, config=config)
    source = stack.sqs()
    forwarder = Forwarder(source, stack.queue_url, client, queue_url)
    thread = threading.Thread(target=forwarder.run)
    thread.start()
    try:
        yield forwarder
    finally:
        forwarder.stop()
        thread.join(30)
        client.close()
        source.close()
        assert not thread.is_alive()


def put(stack: LocalStack, keys: list[str]) -> None:
    """Put an object under each key."""
    s3 = stack.s3()
    try:
        for key in keys:
            s3.put_object(Bucket=stack.uploads_bucket, Key=key, Body=b"x")
    finally:
        s3.close()


def left_in(stack: LocalStack) -> int:
    """How many messages moto's own queue still has, hidden ones included."""
    sqs = stack.sqs()
    try:
        found = sqs.get_queue_attributes(QueueUrl=stack.queue_url, AttributeNames=["All"])["Attributes"]
    finally:
        sqs.close()
    return int(found["ApproximateNumberOfMessages"]) + int(found["ApproximateNumberOfMessagesNotVisible"])


def keys_of(server: SqsServer, queue: QueuePair) -> Counter[str]:
    """The keys of all events in the queue; the test event, without any, counts as ``""``."""
    found: Counter[str] = Counter()
    while messages := receive(server, queue.url):
        for message in messages:
            event = parse(message["Body"])
            found.update([""] if isinstance(event, TestEvent) else [record.key for record in event])
    return found


def test_everything_arrives_once(elasticmq_server: SqsServer, target: QueuePair, stack: LocalStack) -> None:
    """Every event of the bucket, its test event too, is in ElasticMQ exactly once, keys intact, and gone from moto."""
    keys = KEYS + [f"many/{n}" for n in range(30)]
    with forwarding(stack, elasticmq_server.endpoint_url, target.url) as forwarder:
        put(stack, keys)
        wait_until(lambda: forwarder.forwarded >= len(keys) + 1, END_SECONDS, "all forwarded")
    assert keys_of(elasticmq_server, target) == Counter([*keys, ""])
    assert left_in(stack) == 0


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(lambda proxy: proxy.fail("SendMessageBatch", times=None), id="errors"),
        pytest.param(lambda proxy: proxy.reset("SendMessageBatch", times=None), id="resets"),
        pytest.param(lambda proxy: proxy.fail_entries("SendMessageBatch", {0}, times=2), id="entries"),
    ],
)
def test_nothing_is_lost_while_the_queue_is_away(
    elasticmq_server: SqsServer, target: QueuePair, stack: LocalStack, trouble: Callable[[FaultProxy], None]
) -> None:
    """What ElasticMQ did not confirm stays in moto, and arrives when the trouble is over; nothing arrives twice."""
    keys = [f"{n}.txt" for n in range(15)]
    with FaultProxy(elasticmq_server.endpoint_url) as proxy:
        trouble(proxy)
        with forwarding(stack, proxy.url, target.url):
            put(stack, keys)
            wait_until(lambda: proxy.count("SendMessageBatch") >= 2, END_SECONDS, "a second try")
            # `entries` fails two calls by itself; of the others nothing can have arrived.
            assert left_in(stack) + counts(elasticmq_server, target.url).total >= len(keys) + 1
            proxy.clear()
            wait_until(lambda: left_in(stack) == 0, END_SECONDS, "all forwarded")
    assert keys_of(elasticmq_server, target) == Counter([*keys, ""])


def test_a_lost_answer_repeats_and_never_loses(
    elasticmq_server: SqsServer, target: QueuePair, stack: LocalStack
) -> None:
    """When SQS took a batch and its answer was lost, the batch is sent again: at least once."""
    keys = [f"{n}.txt" for n in range(5)]
    put(stack, keys)
    with FaultProxy(elasticmq_server.endpoint_url) as proxy:
        proxy.drop_response("SendMessageBatch", times=1)
        with forwarding(stack, proxy.url, target.url):
            wait_until(lambda: left_in(stack) == 0, END_SECONDS, "all forwarded")
    assert set(keys_of(elasticmq_server, target)) == {*keys, ""}


def test_a_stop_sends_what_is_there(elasticmq_server: SqsServer, target: QueuePair, stack: LocalStack) -> None:
    """What was announced before the stop still goes out."""
    keys = [f"{n}.txt" for n in range(25)]
    put(stack, keys)
    with forwarding(stack, elasticmq_server.endpoint_url, target.url) as forwarder:
        forwarder.stop()
    assert keys_of(elasticmq_server, target) == Counter([*keys, ""])


def _run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge.local.forwarder", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def _environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_REGION": "eu-west-1", **settings}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "SQS_QUEUE_URL must name the one queue"),
        ({"SQS_QUEUE_URL": "http://h/1/a,http://h/1/b"}, "SQS_QUEUE_URL must name the one queue"),
        ({"SQS_QUEUE_URL": "nonsense"}, "SQS_QUEUE_URL=nonsense"),
        ({"SQS_QUEUE_URL": "http://h/1/a", "BRIDGE_BUCKET": "b"}, "unknown setting BRIDGE_BUCKET"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    """One line that names the setting, and exit code 2."""
    done = _run(_environment(tmp_path, **settings))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """Exit code 2 and no traceback when another program has the port; a wrong host is refused by name."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = _run(_environment(tmp_path, SQS_QUEUE_URL="http://h/1/a"), "--port", str(other.getsockname()[1]))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "cannot serve S3 on 127.0.0.1" in done.stderr
    done = _run(_environment(tmp_path, SQS_QUEUE_URL="http://h/1/a"), "--host", "10.0.0.1")
    assert (done.returncode, "10.0.0.1" in done.stderr) == (2, True)


def _events(log: Path) -> dict[str, dict[str, object]]:
    """The log's events by name; a line that is half written is left out."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return {event["event"]: event for event in events}


def test_the_process_stops_when_told(elasticmq_server: SqsServer, target: QueuePair, tmp_path: Path) -> None:
    """SIGTERM ends it with 0, after what was announced has gone out."""
    env = {**environment_for(elasticmq_server), "SQS_QUEUE_URL": target.url}
    command = [sys.executable, "-m", "bridge.local.forwarder", "--port", "0"]
    log = tmp_path / "output.log"
    with log.open("wb") as output, subprocess.Popen(command, env=env, stderr=output) as process:
        try:
            ready = wait_until(lambda: _events(log).get("s3_ready"), END_SECONDS, "s3_ready")
            assert (ready["bucket"], ready["queue"]) == ("uploads", target.url)
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_SECONDS) == 0
        finally:
            process.kill()
    assert "s3_stopped" in _events(log)
    assert keys_of(elasticmq_server, target) == Counter([""])
