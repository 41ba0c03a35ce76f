"""Calls to SQS are counted where botocore tells of them: what it tells, held by a real client and a real network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from prometheus_client import REGISTRY

from bridge.sqs.calls import last_call
from bridge.sqs.clients import sqs_client
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import REGION, QueueFactory, SqsServer


@pytest.fixture
def proxy(sqs_server: SqsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The network before each server, and an environment that leads a client through it."""
    with FaultProxy(sqs_server.endpoint_url) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", made.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield made


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[object]:
    """A client as a worker makes it."""
    made = sqs_client("settle", REGION)
    yield made
    made.close()


@pytest.fixture
def counted() -> Callable[[str, str], float]:
    """How many calls of an action with a result were counted since the test began."""
    before: dict[tuple[str, str], float] = {}

    def read(action: str, result: str) -> float:
        labels = {"action": action, "result": result}
        return REGISTRY.get_sample_value("bridge_sqs_requests_total", labels) or 0.0

    for action in ("ReceiveMessage", "GetQueueUrl", "GetQueueAttributes", "SendMessage"):
        for result in ("ok", "ServiceUnavailable", "EndpointConnectionError", "ReadTimeoutError"):
            before[action, result] = read(action, result)
    return lambda action, result: read(action, result) - before.get((action, result), 0.0)


def test_an_answer_is_counted_as_ok(client, counted, sqs_server: SqsServer, queues: QueueFactory) -> None:
    """Once for a call, and it is the last one of its queue."""
    url = queues(sqs_server).url
    client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    client.receive_message(QueueUrl=url)
    assert (counted("GetQueueAttributes", "ok"), counted("ReceiveMessage", "ok")) == (1, 1)
    last = last_call(url)
    assert last is not None
    assert (last.action, last.result) == ("ReceiveMessage", "ok")


def test_a_call_without_a_queue_is_counted_too(client, counted, sqs_server: SqsServer, queues: QueueFactory) -> None:
    """GetQueueUrl names no queue by its URL: it is counted, and is the last call of none."""
    name = queues(sqs_server).name
    url = client.get_queue_url(QueueName=name)["QueueUrl"]
    assert counted("GetQueueUrl", "ok") == 1
    assert last_call(url) is None


def test_an_error_of_sqs_is_counted_by_its_code(
    client, counted, proxy: FaultProxy, sqs_server: SqsServer, queues: QueueFactory
) -> None:
    """The code is the one that the caller is told."""
    url = queues(sqs_server).url
    proxy.fail("ReceiveMessage")
    with pytest.raises(ClientError) as raised:
        client.receive_message(QueueUrl=url)
    code = raised.value.response["Error"]["Code"]
    assert (code, counted("ReceiveMessage", code)) == ("ServiceUnavailable", 1)
    assert counted("ReceiveMessage", "ok") == 0
    last = last_call(url)
    assert last is not None
    assert last.result == code


def test_no_answer_is_counted_by_the_error(
    client, counted, proxy: FaultProxy, sqs_server: SqsServer, queues: QueueFactory
) -> None:
    """A network failure has no code: the name of the SDK's error stands in."""
    url = queues(sqs_server).url
    with proxy.refusing(), pytest.raises(EndpointConnectionError):
        client.receive_message(QueueUrl=url)
    assert counted("ReceiveMessage", "EndpointConnectionError") == 1
    last = last_call(url)
    assert last is not None
    assert last.result == "EndpointConnectionError"


def test_what_a_users_process_sends_is_not_counted(
    proxy: FaultProxy, counted, sqs_server: SqsServer, queues: QueueFactory
) -> None:
    """``.delay()`` in somebody's web server is no call of the worker's."""
    url = queues(sqs_server).url
    sender = sqs_client("send", REGION)
    sender.send_message(QueueUrl=url, MessageBody="{}")
    sender.close()
    assert counted("SendMessage", "ok") == 0
    assert last_call(url) is None
