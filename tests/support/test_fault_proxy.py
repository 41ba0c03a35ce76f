"""The fault proxy, as a real boto3 client with retries off sees it, in front of moto's SQS server."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from moto.server import ThreadedMotoServer

from tests.support.fault_proxy import Call, FaultProxy

Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """The address of one moto server for all tests of this file."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def proxy(server_url: str) -> Iterator[FaultProxy]:
    """A proxy in front of moto, without any fault yet."""
    with FaultProxy(server_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def session() -> boto3.session.Session:
    """One session, so that botocore reads its service descriptions once and not for every client."""
    return boto3.session.Session("test", "test", region_name="eu-west-1")


@pytest.fixture
def connect(session: boto3.session.Session) -> Iterator[Connect]:
    """Make a boto3 SQS client of a URL, without retries; all are closed after the test."""
    clients = []

    def make(url: str, read_timeout: float = 10) -> Any:
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=read_timeout)
        client: Any = session.client("sqs", endpoint_url=url, config=config)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def server(connect: Connect, server_url: str) -> Any:
    """A client that talks to the server past the proxy."""
    return connect(server_url)


@pytest.fixture
def sqs(connect: Connect, proxy: FaultProxy) -> Any:
    """A client that talks through the proxy."""
    return connect(proxy.url)


@pytest.fixture
def queue_url(server: Any) -> Iterator[str]:
    """The server's own URL of an empty queue named ``incoming``."""
    url = server.create_queue(QueueName="incoming")["QueueUrl"]
    yield url
    server.delete_queue(QueueUrl=url)


def bodies(server: Any, queue_url: str) -> list[str]:
    """What the queue holds, sorted; the messages stay visible."""
    received = server.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return sorted(message["Body"] for message in received.get("Messages", []))


def receive(sqs: Any, queue_url: str, count: int) -> list[dict[str, Any]]:
    """Send and receive this many messages with bodies 0, 1, 2…, in that order."""
    for number in range(count):
        sqs.send_message(QueueUrl=queue_url, MessageBody=str(number))
    messages = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)["Messages"]
    return sorted(messages, key=lambda message: int(message["Body"]))


def entries(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Batch entries for these messages, with their positions as ids."""
    return [{"Id": str(at), "ReceiptHandle": message["ReceiptHandle"]} for at, message in enumerate(messages)]


def ended(action: str) -> Callable[[Call], bool]:
    """Accept a call of this action that is over."""
    return lambda call: call.action == action and call.finished_at is not None


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Run it beside the test; pytest reports what it raises."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_queue_urls_of_the_server_do_not_lead_around_the_proxy(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """boto3 posts to its endpoint whatever host the QueueUrl names, and gets the server's own URLs in answers."""
    sqs.send_message(QueueUrl="http://127.0.0.1:1/123456789012/incoming", MessageBody="a")
    assert sqs.get_queue_url(QueueName="incoming")["QueueUrl"] == queue_url
    assert proxy.actions(queue="incoming") == ["SendMessage", "GetQueueUrl"]


def test_the_record_holds_every_call_in_order(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """A call is recorded with its queue, request, answer, outcome and times, the server's own errors included."""
    before = time.monotonic()
    sqs.send_message(QueueUrl=queue_url, MessageBody="a")
    sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1)
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="missing")
    sent, received, refused = proxy.calls
    assert [call.index for call in proxy.calls] == [0, 1, 2]
    assert (sent.action, sent.queue, sent.status, sent.outcome) == ("SendMessage", "incoming", 200, "forwarded")
    assert sent.request == {"QueueUrl": queue_url, "MessageBody": "a"}
    assert received.request["WaitTimeSeconds"] == 1
    assert received.response is not None
    assert received.response["Messages"][0]["Body"] == "a"
    assert (refused.queue, refused.status, refused.outcome) == ("missing", 400, "forwarded")
    times = [moment for call in proxy.calls for moment in (call.started_at, call.finished_at or 0)]
    assert times == sorted(times)
    assert before < times[0] <= times[-1] < time.monotonic()


def test_counts_are_by_action_and_queue(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """count() takes a glob and a queue name, actions() a queue name."""
    other = sqs.create_queue(QueueName="other")["QueueUrl"]
    for url in (queue_url, other, other):
        sqs.receive_message(QueueUrl=url)
    assert proxy.count("ReceiveMessage") == 3
    assert proxy.count("Receive*", queue="other") == 2
    assert proxy.count("DeleteMessage") == 0
    assert proxy.actions(queue="other") == ["CreateQueue", "ReceiveMessage", "ReceiveMessage"]


def test_the_calls_of_one_message_are_found_by_handle_and_by_id(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """for_message() finds batch entries, follows a message id to its handles, and finds an id inside a dead letter."""
    one, two = receive(sqs, queue_url, 2)
    sqs.change_message_visibility_batch(
        QueueUrl=queue_url, Entries=[{**entry, "VisibilityTimeout": 30} for entry in entries([one, two])]
    )
    cause = {"BridgeCause": {"DataType": "String", "StringValue": f'{{"task_id": "{one["MessageId"]}"}}'}}
    sqs.send_message(QueueUrl=queue_url, MessageBody="dead letter", MessageAttributes=cause)
    sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=one["ReceiptHandle"])
    sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=two["ReceiptHandle"])

    def found(identifier: str) -> list[int]:
        return [call.index for call in proxy.for_message(identifier)]

    assert proxy.actions()[2:] == [
        *("ReceiveMessage", "ChangeMessageVisibilityBatch", "SendMessage", "DeleteMessage", "DeleteMessage")
    ]
    assert found(one["ReceiptHandle"]) == [2, 3, 5]
    assert found(one["MessageId"]) == [0, 2, 3, 4, 5]
    assert found(two["MessageId"]) == [1, 2, 3, 6]


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "ServiceUnavailable"), (403, "ExpiredToken"), (400, "ThrottlingException"), (500, "InternalError")],
)
def test_fail_is_a_client_error_with_that_code(
    proxy: FaultProxy, sqs: Any, server: Any, queue_url: str, status: int, code: str
) -> None:
    """The client gets a ClientError with status and code, the server sees nothing, and the next call goes through."""
    proxy.fail(code=code)
    with pytest.raises(ClientError) as caught:
        sqs.send_message(QueueUrl=queue_url, MessageBody="lost")
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    sqs.send_message(QueueUrl=queue_url, MessageBody="kept")
    assert bodies(server, queue_url) == ["kept"]
    assert [(call.outcome, call.status) for call in proxy.calls] == [("failed", status), ("forwarded", 200)]


def test_a_fault_keeps_to_its_action_queue_and_times(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """A fault leaves other actions and queues alone, is used up after its times, and else lasts until clear()."""
    other = sqs.create_queue(QueueName="other")["QueueUrl"]
    proxy.fail("Send*", status=503, code="Odd", times=2, queue="other")
    sqs.send_message(QueueUrl=queue_url, MessageBody="other queue")
    sqs.receive_message(QueueUrl=other)
    for _ in range(2):
        with pytest.raises(ClientError, match="Odd"):
            sqs.send_message(QueueUrl=other, MessageBody="a")
    sqs.send_message(QueueUrl=other, MessageBody="used up")
    proxy.fail(times=None)
    for _ in range(5):
        with pytest.raises(ClientError, match="ServiceUnavailable"):
            sqs.receive_message(QueueUrl=other)
    proxy.clear()
    sqs.receive_message(QueueUrl=other)


def test_hang_never_answers(proxy: FaultProxy, connect: Connect, sqs: Any, server: Any, queue_url: str) -> None:
    """A hanging call times out in its client, the server sees nothing, and other clients are served meanwhile."""
    impatient = connect(proxy.url, read_timeout=2)
    errors: list[BaseException] = []
    proxy.hang("SendMessage")

    def call() -> None:
        with pytest.raises(ReadTimeoutError) as caught:
            impatient.send_message(QueueUrl=queue_url, MessageBody="a")
        errors.append(caught.value)

    thread = in_thread(call)
    hung = proxy.wait_for(lambda call: call.outcome == "hung", 5, "a hanging call")
    assert hung.finished_at is None
    sqs.send_message(QueueUrl=queue_url, MessageBody="b")
    assert proxy.calls[hung.index].finished_at is None
    thread.join(5)
    assert errors
    proxy.wait_for(lambda call: call.outcome == "hung" and call.finished_at is not None, 5, "the client giving up")
    assert proxy.calls[hung.index].status is None
    assert bodies(server, queue_url) == ["b"]


@pytest.mark.parametrize("seconds", [None, 0.3])
def test_a_hanging_call_is_released(proxy: FaultProxy, sqs: Any, queue_url: str, seconds: float | None) -> None:
    """clear() or the end of the seconds closes the hanging connection, and the same client can go on."""
    errors: list[BaseException] = []

    def call() -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            sqs.receive_message(QueueUrl=queue_url)
        errors.append(caught.value)

    proxy.hang(times=None, seconds=seconds)
    thread = in_thread(call)
    proxy.wait_for(lambda call: call.outcome == "hung", 5, "a hanging call")
    if seconds is None:
        proxy.clear()
    ended_call = proxy.wait_for(ended("ReceiveMessage"), 5, "the release")
    thread.join(5)
    assert errors
    assert ended_call.finished_at is not None
    assert ended_call.finished_at - ended_call.started_at >= (seconds or 0)
    proxy.clear()
    sqs.receive_message(QueueUrl=queue_url)


def test_reset_closes_the_connection_before_the_server_sees_the_call(
    proxy: FaultProxy, sqs: Any, server: Any, queue_url: str
) -> None:
    """The client gets ConnectionClosedError caused by ECONNRESET, and nothing was sent."""
    proxy.reset("SendMessage")
    with pytest.raises(ConnectionClosedError) as caught:
        sqs.send_message(QueueUrl=queue_url, MessageBody="a")
    assert "Connection reset by peer" in repr(caught.value.kwargs["error"])
    assert bodies(server, queue_url) == []
    assert [(call.outcome, call.status) for call in proxy.calls] == [("refused", None)]


def test_drop_response_takes_effect_but_is_not_answered(
    proxy: FaultProxy, sqs: Any, server: Any, queue_url: str
) -> None:
    """The client gets ConnectionClosedError although the server did it; the record shows the server's answer."""
    proxy.drop_response("SendMessage")
    with pytest.raises(ConnectionClosedError):
        sqs.send_message(QueueUrl=queue_url, MessageBody="a")
    assert bodies(server, queue_url) == ["a"]
    (call,) = proxy.calls
    assert (call.outcome, call.status) == ("dropped", 200)
    assert call.response is not None
    assert call.response["MessageId"]


def test_fail_entries_withholds_them_from_the_server(proxy: FaultProxy, sqs: Any, server: Any, queue_url: str) -> None:
    """Entries at these positions come back as Failed and stay in the queue, the others are deleted."""
    messages = receive(sqs, queue_url, 4)
    proxy.fail_entries("DeleteMessageBatch", positions=[1, 3], code="Odd", sender_fault=True)
    answer = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries(messages))
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "2"]
    assert [(entry["Id"], entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]] == [
        ("1", "Odd", True),
        ("3", "Odd", True),
    ]
    call = proxy.calls[-1]
    assert call.outcome == "forwarded"
    assert len(call.request["Entries"]) == 4
    server.change_message_visibility_batch(
        QueueUrl=queue_url, Entries=[{**entry, "VisibilityTimeout": 0} for entry in entries([messages[1], messages[3]])]
    )
    assert bodies(server, queue_url) == ["1", "3"]


def test_fail_entries_adds_to_the_failures_of_the_server(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """An entry that the server itself refuses is still among the Failed."""
    (message,) = receive(sqs, queue_url, 1)
    batch = [*entries([message]), {"Id": "bad", "ReceiptHandle": "bad"}, {"Id": "held", "ReceiptHandle": "x"}]
    proxy.fail_entries("DeleteMessageBatch", positions=[2])
    answer = sqs.delete_message_batch(QueueUrl=queue_url, Entries=batch)
    assert [entry["Id"] for entry in answer["Successful"]] == ["0"]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [
        ("bad", "ReceiptHandleIsInvalid"),
        ("held", "InternalError"),
    ]


def test_fail_entries_of_a_whole_batch_and_of_a_short_one(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """A batch withheld as a whole never reaches the server; one without the position is left alone, the fault kept."""
    messages = receive(sqs, queue_url, 3)
    proxy.fail_entries("DeleteMessageBatch", positions=[1])
    first = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries(messages[:1]))
    assert (len(first["Successful"]), first.get("Failed", [])) == (1, [])
    second = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries(messages[1:]))
    assert (len(second["Successful"]), len(second["Failed"])) == (1, 1)
    proxy.fail_entries("DeleteMessageBatch", positions=range(10), times=1)
    third = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries(messages[2:]))
    assert (third.get("Successful", []), len(third["Failed"])) == ([], 1)
    assert [call.outcome for call in proxy.calls[-3:]] == ["forwarded", "forwarded", "failed"]


def test_a_delayed_call_takes_effect_although_the_client_gave_up(
    proxy: FaultProxy, connect: Connect, server: Any, queue_url: str
) -> None:
    """The client times out first, the message is sent later, and the call is recorded as dropped."""
    impatient = connect(proxy.url, read_timeout=0.2)
    proxy.delay("SendMessage", seconds=2)
    with pytest.raises(ReadTimeoutError):
        impatient.send_message(QueueUrl=queue_url, MessageBody="late")
    assert bodies(server, queue_url) == []
    call = proxy.wait_for(ended("SendMessage"), 5, "the delayed call")
    assert (call.outcome, call.status) == ("dropped", 200)
    assert bodies(server, queue_url) == ["late"]


def test_a_delay_goes_with_another_fault_and_with_latency(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """latency_seconds and a delay add up, and another fault set for the same call still happens."""
    proxy.latency_seconds = 0.1
    proxy.delay(seconds=1)
    proxy.drop_response()
    with pytest.raises(ConnectionClosedError):
        sqs.receive_message(QueueUrl=queue_url)
    sqs.receive_message(QueueUrl=queue_url)
    first, second = ((call.finished_at or 0) - call.started_at for call in proxy.calls)
    assert first >= 1.1
    assert 0.1 <= second < 1.1


def test_refusing_cuts_and_refuses_connections(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """During the block no connection can be made; afterwards the same client goes on at the same address."""
    url = proxy.url
    sqs.receive_message(QueueUrl=queue_url)
    with proxy.refusing():
        for _ in range(3):
            with pytest.raises(EndpointConnectionError, match="Could not connect"):
                sqs.receive_message(QueueUrl=queue_url)
    sqs.receive_message(QueueUrl=queue_url)
    assert proxy.url == url
    assert proxy.count("ReceiveMessage") == 2


def test_a_call_under_way_when_refusing_begins(proxy: FaultProxy, sqs: Any, server: Any, queue_url: str) -> None:
    """A long poll is cut at once; what the server still gives to it is in the record, as dropped."""
    errors: list[BaseException] = []

    def poll() -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=20)
        errors.append(caught.value)

    thread = in_thread(poll)
    proxy.wait_for(lambda call: call.action == "ReceiveMessage", 5, "the long poll")
    with proxy.refusing():
        thread.join(5)
        assert len(errors) == 1
        server.send_message(QueueUrl=queue_url, MessageBody="swallowed")
        call = proxy.wait_for(ended("ReceiveMessage"), 10, "the end of the long poll")
    assert call.outcome == "dropped"
    assert call.response is not None
    assert [message["Body"] for message in call.response["Messages"]] == ["swallowed"]


def test_a_long_poll_holds_up_nobody(proxy: FaultProxy, connect: Connect, sqs: Any, queue_url: str) -> None:
    """While a long poll waits, another client sends the message that ends it."""
    poller = connect(proxy.url, read_timeout=30)
    thread = in_thread(lambda: poller.receive_message(QueueUrl=queue_url, WaitTimeSeconds=20))
    proxy.wait_for(lambda call: call.action == "ReceiveMessage", 5, "the long poll")
    sqs.send_message(QueueUrl=queue_url, MessageBody="a")
    thread.join(10)
    receive_call, send_call = proxy.calls
    assert receive_call.response is not None
    assert receive_call.response["Messages"][0]["Body"] == "a"
    assert (
        receive_call.started_at < send_call.started_at < (receive_call.finished_at or 0) < receive_call.started_at + 10
    )


def test_random_failures_follow_their_seed(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """The same seed fails the same calls with the same codes, at about the rate, until clear()."""

    def run(seed: int) -> list[str]:
        proxy.random_failures(rate=0.4, seed=seed, codes=["ThrottlingException", "InternalError"])
        codes = []
        for _ in range(50):
            try:
                sqs.get_queue_url(QueueName="incoming")
                codes.append("")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])
        return codes

    first = run(seed=7)
    assert run(seed=7) == first
    assert run(seed=8) != first
    assert set(first) == {"", "ThrottlingException", "InternalError"}
    assert 10 <= sum(map(bool, first)) <= 30
    proxy.clear()
    assert all(not sqs.get_queue_url(QueueName="incoming").get("Error") for _ in range(20))


def test_wait_for_sees_the_past_and_the_future(proxy: FaultProxy, sqs: Any, queue_url: str) -> None:
    """wait_for() returns a call made before or while it waits, and names what it waited for when none comes."""
    sqs.send_message(QueueUrl=queue_url, MessageBody="past")
    assert proxy.wait_for(ended("SendMessage"), 0, "the past call").request["MessageBody"] == "past"
    thread = in_thread(lambda: sqs.receive_message(QueueUrl=queue_url))
    assert proxy.wait_for(ended("ReceiveMessage"), 5, "the coming call").status == 200
    thread.join(5)
    with pytest.raises(TimeoutError, match=r"a delete: not within 0.1 s; .* ReceiveMessage\(incoming\) forwarded"):
        proxy.wait_for(ended("DeleteMessage"), 0.1, "a delete")


def test_the_query_protocol_is_understood(proxy: FaultProxy, queue_url: str, server: Any) -> None:
    """A form with Action= is recorded, failed in XML and forwarded, over one kept-alive connection."""
    form = {"Action": "SendMessage", "Version": "2012-11-05", "QueueUrl": queue_url, "MessageBody": "a b"}
    headers = {  # moto learns from the signature which service is meant
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/sqs/aws4_request",
    }
    proxy.fail("SendMessage", code="ExpiredToken")
    answers = []
    with closing(http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=10)) as connection:
        for _ in range(2):
            connection.request("POST", "/", urlencode(form), headers)
            with connection.getresponse() as response:
                answers.append((response.status, response.read()))
            assert connection.sock is not None, "the proxy did not keep the connection"
    assert [status for status, _ in answers] == [403, 200]
    assert b"<Type>Sender</Type><Code>ExpiredToken</Code>" in answers[0][1]
    assert b"<SendMessageResult>" in answers[1][1]
    assert bodies(server, queue_url) == ["a b"]
    assert [(call.action, call.queue, call.outcome) for call in proxy.calls] == [
        ("SendMessage", "incoming", "failed"),
        ("SendMessage", "incoming", "forwarded"),
    ]
    assert proxy.calls[0].request["MessageBody"] == "a b"


def test_a_client_that_dies_in_the_middle_of_a_request_made_no_call(
    proxy: FaultProxy, sqs: Any, queue_url: str
) -> None:
    """Half a request line, half a header and half a body leave no call, no dead thread and a proxy that goes on."""
    for part in (b"POST / HT", b"POST / HTTP/1.1\r\nContent-Le", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}"):
        with socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=5) as client:
            client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
    sqs.receive_message(QueueUrl=queue_url)
    assert proxy.actions() == ["ReceiveMessage"]


def test_a_server_that_is_gone_looks_like_a_reset(connect: Connect) -> None:
    """When the server cannot be reached the client's connection is reset and the call recorded as refused."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections to it are refused
        with FaultProxy(f"http://127.0.0.1:{unused.getsockname()[1]}") as proxy:
            with pytest.raises(ConnectionClosedError):
                connect(proxy.url).list_queues()
            assert [(call.action, call.outcome) for call in proxy.calls] == [("ListQueues", "refused")]


def test_closing_leaves_no_thread(connect: Connect) -> None:
    """A hanging call, a delayed one, a long poll and an idle connection do not keep the proxy from ending at once."""
    failures: list[BaseException] = []

    def poll(client: Any) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            client.receive_message(QueueUrl="http://127.0.0.1/123456789012/incoming", WaitTimeSeconds=20)
        failures.append(caught.value)

    # A server that never answers, instead of moto: what it has accepted tells when the long poll has arrived there.
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        with FaultProxy(f"http://127.0.0.1:{silent.getsockname()[1]}") as proxy:
            proxy.fail("ListQueues")
            idle = connect(proxy.url)
            with pytest.raises(ClientError):
                idle.list_queues()
            proxy.hang("ReceiveMessage")
            proxy.delay("ReceiveMessage", seconds=60, times=2)  # the hanging call and one other
            threads = [in_thread(partial(poll, connect(proxy.url))) for _ in range(3)]
            proxy.wait_for(lambda call: call.index == 3, 5, "the third long poll")
            silent.settimeout(5)
            polled = stack.enter_context(silent.accept()[0])  # not closed before the proxy is
            polled.settimeout(5)
            assert polled.recv(4) == b"POST"
            closing_at = time.monotonic()
        assert time.monotonic() - closing_at < 4
    for thread in threads:
        thread.join(5)
    assert len(failures) == 3
    assert sorted(call.outcome for call in proxy.calls) == ["failed", "hung", "refused", "refused"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fault-proxy")]
