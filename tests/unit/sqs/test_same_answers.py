"""Calls that reach SQS: both clients send the same and show the same, on moto and on ElasticMQ."""

from __future__ import annotations

import re

from bridge.aws_errors import is_stale_handle
from bridge.sqs.calls import last_call
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import counts, receive, send
from tests.support.servers.waiting import wait_until
from tests.unit.sqs.scripted_server import ScriptedServer, answered

EVERYTHING = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"], "MaxNumberOfMessages": 10}
#: What differs from one receive to the next.
_OF_THE_RECEIVE = ("ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp")


def test_both_send_the_same_request(clients):
    """Path, body and the headers that SQS reads are those of boto3, and the signature covers the same ones."""
    with ScriptedServer() as server:
        pair = clients(server.url)
        entry, queue_url = {"Id": "0", "ReceiptHandle": "h"}, "https://sqs.example.com/1/q"
        pair.both("receive_message", QueueUrl=queue_url, WaitTimeSeconds=20, **EVERYTHING)
        pair.both("delete_message_batch", QueueUrl=queue_url, Entries=[entry])
        entries = [{**entry, "VisibilityTimeout": 5}]
        pair.both("change_message_visibility_batch", QueueUrl=queue_url, Entries=entries)
    seen = [
        (
            request.line,
            request.parameters,
            {name: request.headers.get(name) for name in ("content-type", "x-amz-target", "x-amzn-query-mode", "host")},
            re.findall("Credential=[^/]+|[^/]+/aws4_request|SignedHeaders=[^,]+", request.headers["authorization"]),
            request.headers["x-amz-security-token"],
        )
        for request in server.requests
    ]
    assert seen[0::2] == seen[1::2]
    assert len(seen) == 6


def test_a_receive_shows_the_same(sqs_server, queues, clients):
    """A message comes with the same body, system attributes and message attributes, binary ones as bytes."""
    url = queues.single(sqs_server)
    sqs_server.sqs.send_message(
        QueueUrl=url,
        MessageBody='{"a": null, "ü": "\\u2028"}',
        MessageAttributes={
            "text": {"DataType": "String", "StringValue": "ü null"},
            "number": {"DataType": "Number", "StringValue": "12"},
            "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff null"},
        },
        MessageSystemAttributes={
            "AWSTraceHeader": {
                "DataType": "String",
                "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
            }
        },
    )
    first, second = clients(sqs_server.endpoint_url).both(
        "receive_message", QueueUrl=url, VisibilityTimeout=0, **EVERYTHING
    )
    for answer in (first, second):
        [message] = answer["Messages"]
        assert message.pop("ReceiptHandle")
        assert all(message["Attributes"].pop(name) for name in _OF_THE_RECEIVE)
    assert second == first
    [message] = second["Messages"]
    assert message["MessageAttributes"]["bytes"]["BinaryValue"] == b"\x00\xff null"
    assert message["Attributes"]["AWSTraceHeader"].endswith("Sampled=1")


def test_an_empty_receive_shows_the_same(sqs_server, queues, clients):
    """A receive that brought nothing is the same answer, and was counted as a call that went well."""
    url = queues.single(sqs_server)
    pair = clients(sqs_server.endpoint_url)
    first, second = pair.both("receive_message", QueueUrl=url, WaitTimeSeconds=0, **EVERYTHING)
    assert second == first
    assert not second.get("Messages")
    assert (last_call(url).action, last_call(url).result) == ("ReceiveMessage", "ok")


def test_a_batch_of_deletes_shows_the_same(sqs_server, queues, clients):
    """Of a delete with a good handle and one that is none, both clients say the same, entry by entry."""
    url = queues.single(sqs_server)
    pair = clients(sqs_server.endpoint_url)
    seen = []
    for client in pair:
        send(sqs_server, url, "a body")
        [message] = receive(sqs_server, url)
        entries = [
            {"Id": "0", "ReceiptHandle": message["ReceiptHandle"]},
            {"Id": "1", "ReceiptHandle": "this is none"},
        ]
        answer = client.delete_message_batch(QueueUrl=url, Entries=entries)
        answer.pop("ResponseMetadata", None)
        seen.append(answer)
    assert seen[1] == seen[0]
    assert [entry["Id"] for entry in seen[1]["Successful"]] == ["0"]
    assert [entry["Id"] for entry in seen[1]["Failed"]] == ["1"]
    assert counts(sqs_server, url).total == 0


def test_failed_entries_show_the_same(sqs_server, queues, clients):
    """Entries that SQS could not do are listed with the same code, message and blame."""
    url = queues.single(sqs_server)
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        proxy.fail_entries("*Batch", positions=[0], times=None, code="InternalError")
        pair = clients(proxy.url)
        entries = [{"Id": str(n), "ReceiptHandle": f"handle {n}", "VisibilityTimeout": 1} for n in range(2)]
        first, second = pair.both("change_message_visibility_batch", QueueUrl=url, Entries=entries)
    assert second == first
    failed = {entry["Id"]: (entry["Code"], entry["SenderFault"]) for entry in second["Failed"]}
    assert failed["0"] == ("InternalError", False)


def test_a_stale_handle_shows_the_same(sqs_server, queues, clients):
    """A visibility change with the handle of an earlier receive, of a message since deleted, ends the same."""
    url = queues.single(sqs_server)
    send(sqs_server, url, "a body")
    [message] = receive(sqs_server, url)
    sqs_server.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    entry = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 5}
    pair = clients(sqs_server.endpoint_url)
    first, second = pair.both("change_message_visibility_batch", QueueUrl=url, Entries=[entry])
    assert second == first


def test_no_such_queue_shows_the_same(sqs_server, clients):
    """A queue that is not there is the client's own QueueDoesNotExist, with SQS's old code."""
    pair = clients(sqs_server.endpoint_url)
    url = f"{sqs_server.endpoint_url}/123456789012/not-there"
    first, second = pair.receive(url)
    assert second.seen == first.seen
    assert second.kind == "errorfactory.QueueDoesNotExist"
    assert last_call(url).result == second.code


def test_a_member_that_is_null_is_not_there(clients):
    """Where a server writes null for "none", callers see nothing, as with boto3, whatever the depth."""
    body = b'{"Successful": null, "Failed": [{"Id": "0", "Code": "X", "Message": null, "SenderFault": true}]}'
    with ScriptedServer(lambda _: [answered(body)]) as server:
        first, second = clients(server.url).both("delete_message_batch", QueueUrl="q", Entries=[])
    assert second == first == {"Failed": [{"Id": "0", "Code": "X", "SenderFault": True}]}


def test_a_delete_that_libcurl_repeats_is_harmless(sqs_server, queues, clients):
    """SQS deleted and the connection died before it said so: libcurl asks again, and hears that the message is gone."""
    url = queues.single(sqs_server)
    send(sqs_server, url, "a body")
    [message] = receive(sqs_server, url)
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        calls = clients(proxy.url).curl
        calls.receive_message(QueueUrl=url)  # libcurl repeats on a connection that was there before, and only there
        proxy.drop_response("DeleteMessageBatch")
        entry = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}
        answer = calls.delete_message_batch(QueueUrl=url, Entries=[entry])
        assert [call.outcome for call in proxy.calls] == ["forwarded", "dropped", "forwarded"]
    [told] = [*answer["Successful"], *answer.get("Failed", [])]
    # SQS and moto: it is deleted. ElasticMQ: the handle is none any more, which is then taken for a lapsed lease.
    assert told == {"Id": "0"} or is_stale_handle(told["Code"], told["Message"]), told
    assert counts(sqs_server, url).total == 0


def test_a_receive_that_libcurl_repeats_is_harmless(sqs_server, queues, clients):
    """What the lost answer brought stays invisible for its timeout and comes back: it cost a receive, nothing else."""
    url = queues.single(sqs_server)
    request = {"QueueUrl": url, "VisibilityTimeout": 1, **EVERYTHING}
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        calls = clients(proxy.url).curl
        assert not calls.receive_message(**request).get("Messages")
        sent = send(sqs_server, url, "a body")
        proxy.drop_response("ReceiveMessage")
        assert not calls.receive_message(**request).get("Messages")
        assert [call.outcome for call in proxy.calls] == ["forwarded", "dropped", "forwarded"]
        [message] = wait_until(lambda: calls.receive_message(**request).get("Messages"), 30, "the message is back")
    assert message["MessageId"] == sent
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"
