"""Calls that fail: both clients raise the same, and where they do not, it is meant."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from botocore.exceptions import ConnectionClosedError

from tests.support.fault_proxy import FaultProxy
from tests.unit.sqs.conftest import SECRET_KEY, TOKEN, UNKNOWN_HOST, outcome
from tests.unit.sqs.scripted_server import End, ScriptedServer, answered


def error_answer(status: str, kind: str, message: str = "a text", **headers: str) -> bytes:
    """An error in the form SQS gives it."""
    return answered(json.dumps({"__type": kind, "message": message}).encode(), status, **headers)


_NO_QUEUE = "com.amazonaws.sqs#QueueDoesNotExist"
REFUSALS = {
    "no such queue": error_answer(
        "400 Bad Request", _NO_QUEUE, x_amzn_query_error="AWS.SimpleQueueService.NonExistentQueue;Sender"
    ),
    "no such queue, without the old code": error_answer("400 Bad Request", _NO_QUEUE),
    "an old code in an odd form": error_answer("400 Bad Request", _NO_QUEUE, x_amzn_query_error="NonExistentQueue"),
    "access denied": error_answer(
        "403 Forbidden", "com.amazon.coral.service#AccessDeniedException", x_amzn_query_error="AccessDenied;Sender"
    ),
    "expired token": error_answer("403 Forbidden", "com.amazon.coral.service#ExpiredTokenException"),
    "throttled": error_answer(
        "400 Bad Request", "com.amazonaws.sqs#RequestThrottled", x_amzn_query_error="RequestThrottled;Sender"
    ),
    "a code with an address": error_answer("400 Bad Request", "Throttling:http://internal.amazon.com/coral/"),
    "message in capitals": answered(b'{"__type": "X", "Message": "a text"}', "400 Bad Request"),
    "503 without a body": answered(b"", "503 Service Unavailable"),
    "403 without a body": answered(b"", "403 Forbidden"),
    "500 in HTML": answered(b"<html><body>sorry</body></html>", "500 Internal Server Error"),
    "502 in other HTML": answered(b"<!DOCTYPE html><title>sorry</title>", "502 Bad Gateway"),
    "a redirect": answered(b"", "307 Temporary Redirect", Location="http://127.0.0.1:1/"),
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_an_error_answer_is_the_same_exception(clients, answer):
    """Class, code and message of what SQS refuses are those that a boto3 client shows."""
    with ScriptedServer(lambda _: [answer]) as server:
        first, second = clients(server.url).receive()
        assert len(server.requests) == 2
    assert second.seen == first.seen
    assert second.code


@pytest.mark.parametrize("body", [b'["a list"]', b'"a text"', '{"message": "größer'.encode("latin-1")])
def test_an_error_that_is_none_of_sqs_has_the_status_as_its_code(clients, body):
    """A page that botocore trips over (it raises AttributeError or UnicodeDecodeError) is a ClientError here."""
    with ScriptedServer(lambda _: [answered(body, "502 Bad Gateway")]) as server:
        first, second = clients(server.url).receive()
    assert first.kind.startswith("builtins.")
    assert second.seen == ("exceptions.ClientError", "502", "Bad Gateway")


@pytest.mark.parametrize("code", ["AccessDenied", "RequestThrottled", "ServiceUnavailable", "InternalError"])
def test_an_injected_error_is_the_same_exception(sqs_server, queues, clients, code):
    """What the proxy of the fault tests injects is the same to both clients."""
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        proxy.fail(code=code, times=2)
        first, second = clients(proxy.url).receive(queues.single(sqs_server))
    assert second.seen == first.seen
    assert second.code == code


FAILURES = {
    "closed before the answer": ([End.CLOSE], "ConnectionClosedError"),
    "reset before the answer": ([End.RESET], "ConnectionClosedError"),
    "never answered": ([End.HANG], "ReadTimeoutError"),
    "no HTTP": ([b"\x15\x03\x01\x00\x02\x02\x50 what is this\r\n\r\n", End.CLOSE], "ConnectionClosedError"),
}


@pytest.mark.parametrize(("script", "kind"), FAILURES.values(), ids=FAILURES)
def test_a_failure_on_the_way_is_the_same_exception(clients, script, kind):
    """A connection that ends or falls silent is the same exception of botocore's."""
    with ScriptedServer(lambda _: script) as server:
        first, second = clients(server.url, read_seconds=0.5).receive()
    assert second.seen == first.seen == (f"exceptions.{kind}", None, None)


def test_silence_on_a_connection_that_was_used_is_a_read_timeout(clients):
    """The second call of a connection that hangs is the same exception as a first one that does."""
    with ScriptedServer(lambda request: [End.HANG if request.parameters["QueueUrl"] == "q2" else answered()]) as server:
        pair = clients(server.url, read_seconds=0.5)
        assert pair.receive("q1") == ({}, {})
        first, second = pair.receive("q2")
        assert server.connections == 2
    assert second.seen == first.seen == ("exceptions.ReadTimeoutError", None, None)


def test_a_refused_connection_is_the_same_exception(clients):
    """Where nothing listens, both say EndpointConnectionError."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    first, second = clients(f"http://127.0.0.1:{port}").receive()
    assert second.seen == first.seen == ("exceptions.EndpointConnectionError", None, None)


def test_a_host_that_does_not_answer_is_the_same_exception(clients, full_port):
    """A connection that does not come about in its time is a ConnectTimeoutError on both."""
    first, second = clients(f"http://127.0.0.1:{full_port}", read_seconds=0.5).receive()
    assert second.seen == first.seen == ("exceptions.ConnectTimeoutError", None, None)


def test_an_unknown_host_is_the_same_exception(clients):
    """A name that does not resolve is an EndpointConnectionError on both."""
    assert len(UNKNOWN_HOST) > 253
    first, second = clients(f"http://{UNKNOWN_HOST}").receive()
    assert second.seen == first.seen == ("exceptions.EndpointConnectionError", None, None)


CUT_SHORT = answered(b'{"Messages": []}')[:-6]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([answered(b"<html>all is well</html>")], "parsers.ResponseParserError"),
        ([answered(b'["a list"]')], "parsers.ResponseParserError"),
        ([CUT_SHORT, End.CLOSE], "exceptions.ConnectionClosedError"),
    ],
    ids=["no JSON", "no object", "cut short"],
)
def test_an_answer_that_cannot_be_read_is_an_error(clients, script, kind):
    """To botocore most of these are an empty answer, after which a receiver would ask again at once, without end."""
    with ScriptedServer(lambda _: script) as server:
        first, second = clients(server.url).receive()
    assert first == {} or first.kind.startswith("builtins.")
    assert second.kind == kind


def test_what_libcurl_repeats(clients):
    """A request on a connection that was used is repeated once, on a new one, if no byte of the answer came; no other.

    A server that keeps connections for a while closes them just when the next request is on its way. That a delete or
    a receive may so be made twice is shown to be harmless in test_same_answers.py; a visibility change made twice in a
    row is one made once.
    """

    def script(request):
        name = request.parameters["QueueUrl"]
        if name == "closed" and request.connection == 0:
            return [End.CLOSE]
        return {"begun": [CUT_SHORT, End.CLOSE], "new": [End.CLOSE]}.get(name, [answered()])

    with ScriptedServer(script) as server:
        calls = clients(server.url).curl
        calls.receive_message(QueueUrl="first")
        assert calls.receive_message(QueueUrl="closed") == {}
        for name in ("begun", "new"):
            with pytest.raises(ConnectionClosedError):
                calls.receive_message(QueueUrl=name)
    made = [(request.parameters["QueueUrl"], request.connection) for request in server.requests]
    assert made == [("first", 0), ("closed", 0), ("closed", 1), ("begun", 1), ("new", 2)]


def test_a_slow_answer_gets_more_time(clients):
    """An answer that was arriving when time was up is waited for longer the next time."""
    body = json.dumps({"Messages": [{"Body": "x" * 5000}]}).encode()
    whole = answered(body)

    def script(request):
        yield whole[:1000]
        if request.connection == 0:
            yield End.HANG
        threading.Event().wait(0.8)  # longer than the first was waited for
        yield whole[1000:]

    with ScriptedServer(script) as server:
        calls = clients(server.url, read_seconds=0.4).curl
        first, second = (outcome(calls.receive_message, QueueUrl="q") for _ in range(2))
    assert first.kind == "exceptions.ReadTimeoutError"
    assert second == json.loads(body)


def test_no_failure_tells_a_secret(clients):
    """Neither key nor token is in the text of an exception, nor in that of the one it came from."""
    texts = []
    for script in ([REFUSALS["access denied"]], [End.CLOSE], [CUT_SHORT, End.CLOSE], [answered(b"no JSON")]):
        with ScriptedServer(lambda _, script=script: script) as server:
            texts.append(outcome(clients(server.url).curl.receive_message, QueueUrl="q").text)
    assert len(texts) == 4
    assert not [text for text in texts if SECRET_KEY in text or TOKEN in text or "Signature" in text]


@pytest.mark.parametrize("line_break", ["\n", "\r"])
@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"])
def test_a_line_break_in_a_credential_is_refused(clean, clients, name, line_break):
    """A token that was read from a file with its last line break is refused: it would be sent as a header more."""
    clean.setenv(name, f"{TOKEN}{line_break}X-Injected: 1")
    with ScriptedServer() as server:
        first, second = clients(server.url).receive()
        assert not server.requests
    assert second.seen == first.seen == ("exceptions.HTTPClientError", None, None)
    assert TOKEN not in second.text
