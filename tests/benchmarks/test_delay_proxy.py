"""The delay proxy, before the SQS and S3 servers of the bench."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from benchmarks.peers import s3_events
from benchmarks.servers import starting
from benchmarks.servers.starting import Proxy
from tests.benchmarks.conftest import client

pytestmark = pytest.mark.slow

LIST = b"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 2\r\n\r\n{}"


def connected(url: str) -> socket.socket:
    """A connection on which requests are written by hand."""
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), 20)


def answers(connection: socket.socket, count: int) -> bytes:
    """Whatever comes until so many answers have come."""
    read = b""
    while read.count(b"HTTP/1.1 ") < count or not read.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, f"the connection was closed after {read!r}"
        read += piece
    return read


def test_every_request_waits_for_the_whole_delay(proxy: Proxy):
    """Requests one after another take at least the delay each; the delay can be changed at any time."""
    sqs = client("sqs", proxy.url)
    sqs.list_queues()  # the connection and boto3's own beginnings
    proxy.set_delay(40)
    start = time.monotonic()
    for _ in range(5):
        sqs.list_queues()
    assert time.monotonic() - start >= 5 * 0.04
    assert proxy.counts() == {"ListQueues": 6}


def test_requests_wait_beside_one_another(proxy: Proxy):
    """Delays are timers, not sleeps: 20 requests under way at once do not wait for each other."""
    proxy.set_delay(500)
    start = time.monotonic()
    connections = [connected(proxy.url) for _ in range(20)]
    for connection in connections:
        connection.sendall(LIST)
    for connection in connections:
        assert answers(connection, 1).startswith(b"HTTP/1.1 200 OK")
        connection.close()
    assert 0.5 <= time.monotonic() - start < 20 * 0.5


def test_calls_are_counted_by_action(proxy: Proxy, queue_name: str):
    """Each SQS action has a number of its own, and reading it does not count."""
    sqs = client("sqs", proxy.url)
    url = sqs.create_queue(QueueName=queue_name)["QueueUrl"]
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    assert proxy.counts() == {"CreateQueue": 1, "SendMessage": 3}
    assert proxy.reset() == {"CreateQueue": 1, "SendMessage": 3}
    assert proxy.counts() == {}


def test_calls_to_s3_are_counted_by_method(s3_url: str):
    """What has no SQS action is counted as the method that it is."""
    with starting.delay_proxy(s3_url, delay_ms=5) as proxy:
        s3 = client("s3", proxy.url)
        body = s3.get_object(Bucket="b", Key="k", IfMatch=s3_events.etag("k"))["Body"].read()
        s3.head_object(Bucket="b", Key="k")
        assert len(body) == 100 * 1024
        assert proxy.counts() == {"GET": 1, "HEAD": 1}


def test_a_long_poll_holds_up_nobody(proxy: Proxy, queue_name: str):
    """While a receive waits for a message, other calls are answered; the message then ends the wait."""
    sqs = client("sqs", proxy.url)
    url = sqs.create_queue(QueueName=queue_name)["QueueUrl"]
    got = []
    poll = threading.Thread(
        target=lambda: got.append(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]), daemon=True
    )
    start = time.monotonic()
    poll.start()
    while not proxy.counts().get("ReceiveMessage"):
        assert time.monotonic() - start < 10
    for _ in range(20):
        sqs.list_queues()
    assert poll.is_alive()
    assert not got
    sqs.send_message(QueueUrl=url, MessageBody="at last")
    poll.join(15)
    assert [message["Body"] for message in got[0]] == ["at last"]


def test_requests_sent_at_once_are_answered_in_their_order(proxy: Proxy, queue_name: str):
    """A client that does not wait for its answers gets them in order, each after its own delay."""
    proxy.set_delay(30)
    create = json.dumps({"QueueName": queue_name}).encode()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.%s\r\nContent-Length: %d\r\n\r\n"
    find = json.dumps({"QueueName": queue_name}).encode()
    with connected(proxy.url) as connection:
        start = time.monotonic()
        connection.sendall(
            head % (b"CreateQueue", len(create)) + create + head % (b"GetQueueUrl", len(find)) + find + LIST
        )
        read = answers(connection, 3)
        assert time.monotonic() - start >= 3 * 0.03
    assert read.count(b"HTTP/1.1 200 OK") == 3
    assert read.rindex(b"QueueUrls") > read.index(b'"QueueUrl"')


def test_a_request_may_come_in_pieces(proxy: Proxy):
    """Heads and bodies that arrive byte by byte are whole at the server."""
    with connected(proxy.url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LIST:
            connection.sendall(bytes([byte]))
        assert answers(connection, 1).startswith(b"HTTP/1.1 200 OK")
    assert proxy.counts() == {"ListQueues": 1}


def test_a_server_that_is_gone_is_said(proxy: Proxy):
    """Nobody behind the proxy is a 502, and no connection that hangs."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and listened on by nobody
        port = unused.getsockname()[1]
        with starting.delay_proxy(f"http://127.0.0.1:{port}") as broken, connected(broken.url) as connection:
            connection.sendall(LIST)
            assert answers(connection, 1).startswith(b"HTTP/1.1 502 ")


def test_a_setting_that_is_none_is_refused(proxy: Proxy):
    """A delay that is no number changes nothing."""
    place = urlsplit(proxy.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    connection.request("POST", "/_proxy/delay?ms=soon")
    assert connection.getresponse().status == 400
    connection.close()
