"""The dead letter: the body untouched, the attributes kept, the cause added where it fits, sizes as SQS counts them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.messages.dead_letter import CAUSE_ATTRIBUTE, CAUSE_KEYS, cause, fitted, send_arguments
from bridge.messages.verdicts import DeadLetter

URL = "https://sqs/1/dlq"
MEBIBYTE = 1_048_576


def why(**changed):
    """A cause."""
    verdict = DeadLetter("exhausted", "ValueError", changed.pop("error", "bad"), changed.pop("traceback", "Traceback"))
    given = {"raw": {}, "task": "t", "task_id": "m-1", "attempts": 3, "source_queue": "q", "now": 0.0, "worker": "w"}
    return cause(verdict, **(given | changed))


def message(body="body", attributes=0, **fields):
    """A received message with so many text attributes."""
    named = {f"a{n}": {"DataType": "String", "StringValue": f"v{n}"} for n in range(attributes)}
    return {"MessageId": "m-1", "ReceiptHandle": "h", "Body": body, "MessageAttributes": named, **fields}


def size(arguments):
    """The size of a message as SQS counts it: body, and each attribute's name, type and value."""
    total = len(arguments["MessageBody"].encode("utf-8", "surrogatepass"))
    for name, value in arguments.get("MessageAttributes", {}).items():
        content = value.get("StringValue", "").encode("utf-8", "surrogatepass") or value.get("BinaryValue", b"")
        total += len(name.encode()) + len(value["DataType"]) + len(content)
    return total


def test_the_cause_says_everything():
    """All keys are there, times are ISO 8601 in UTC."""
    raw = {"Attributes": {"ApproximateFirstReceiveTimestamp": "1767323045678"}}
    told = why(raw=raw, now=1767323105.5)
    assert tuple(told) == CAUSE_KEYS
    assert told == {
        "version": 1,
        "reason": "exhausted",
        "error_type": "ValueError",
        "error": "bad",
        "traceback": "Traceback",
        "task": "t",
        "task_id": "m-1",
        "attempts": 3,
        "source_queue": "q",
        "first_received_at": "2026-01-02T03:04:05.678+00:00",
        "dead_lettered_at": "2026-01-02T03:05:05.500+00:00",
        "worker": "w",
    }


def test_what_is_not_known_is_null():
    """A message that no task took, from a server that gives no timestamps, still has every key."""
    told = cause(
        DeadLetter("unrouted"),
        raw={},
        task=None,
        task_id="m",
        attempts=1,
        source_queue="q",
        now=0.0,
        worker="w",
    )
    assert tuple(told) == CAUSE_KEYS
    assert [name for name in CAUSE_KEYS if told[name] is None] == [
        "error_type",
        "error",
        "traceback",
        "task",
        "first_received_at",
    ]


def test_long_texts_keep_the_end_of_the_traceback_and_the_start_of_the_error():
    """The tail of a traceback is where the error is, the head of an error text is what it says."""
    told = why(error="E" + "e" * 9_000, traceback="t" * 90_000 + "LAST LINE")
    assert told["error"].startswith("E")
    assert len(told["error"]) <= 2_001
    assert told["traceback"].endswith("LAST LINE")
    assert len(told["traceback"]) <= 8_001


def test_the_letter_is_the_original_and_its_cause():
    """Body and attributes are sent as received; BridgeCause is added as a text."""
    raw = message("ünïcode\n", attributes=2)
    raw["MessageAttributes"]["bin"] = {"DataType": "Binary.gz", "BinaryValue": b"\x00\xff"}
    arguments = send_arguments(raw, why(), queue_url=URL, max_bytes=MEBIBYTE)
    assert (arguments["QueueUrl"], arguments["MessageBody"]) == (URL, "ünïcode\n")
    attributes = dict(arguments["MessageAttributes"])
    told = attributes.pop(CAUSE_ATTRIBUTE)
    assert told["DataType"] == "String"
    assert json.loads(told["StringValue"]) == why()
    assert attributes == raw["MessageAttributes"]
    assert "MessageSystemAttributes" not in arguments


def test_the_trace_header_goes_along():
    """AWSTraceHeader is a system attribute, so that a trace does not end at the dead-letter queue."""
    raw = message(Attributes={"AWSTraceHeader": "Root=1", "SentTimestamp": "1"})
    arguments = send_arguments(raw, why(), queue_url=URL, max_bytes=MEBIBYTE)
    assert arguments["MessageSystemAttributes"] == {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}


def test_nothing_but_what_can_be_sent_is_sent():
    """A receive also answers empty list values, which SendMessage refuses."""
    raw = message()
    raw["MessageAttributes"] = {"a": {"DataType": "String", "StringValue": "v", "StringListValues": []}}
    arguments = send_arguments(raw, why(), queue_url=URL, max_bytes=MEBIBYTE)
    assert arguments["MessageAttributes"]["a"] == {"DataType": "String", "StringValue": "v"}


def test_ten_attributes_leave_no_place_for_a_cause():
    """SQS allows ten; the message is sent with its own ten and no cause."""
    arguments = send_arguments(message(attributes=10), why(), queue_url=URL, max_bytes=MEBIBYTE)
    assert len(arguments["MessageAttributes"]) == 10
    assert CAUSE_ATTRIBUTE not in arguments["MessageAttributes"]


def test_an_older_cause_is_replaced():
    """A message that was dead before has one cause, the new one, and it does not count against the ten."""
    raw = message(attributes=9)
    raw["MessageAttributes"][CAUSE_ATTRIBUTE] = {"DataType": "String", "StringValue": "{}"}
    arguments = send_arguments(raw, why(error="new"), queue_url=URL, max_bytes=MEBIBYTE)
    assert len(arguments["MessageAttributes"]) == 10
    assert json.loads(arguments["MessageAttributes"][CAUSE_ATTRIBUTE]["StringValue"])["error"] == "new"


def test_a_full_body_goes_without_a_cause():
    """A body of the queue's full size is sent as it is, without any attribute."""
    arguments = send_arguments(message("x" * 1024), why(), queue_url=URL, max_bytes=1024)
    assert arguments == {"QueueUrl": URL, "MessageBody": "x" * 1024}


@given(
    body=st.text(min_size=1, max_size=3000),
    attributes=st.integers(0, 10),
    error=st.none() | st.text(max_size=3000),
    traceback=st.none() | st.text(max_size=12_000),
    room=st.integers(0, 20_000),
)
def test_the_letter_always_fits(body, attributes, error, traceback, room):
    """Whatever was said, body and attributes are whole, and the cause never makes the message too large."""
    raw = message(body, attributes)
    bare = size({"MessageBody": body, "MessageAttributes": raw["MessageAttributes"]})
    told = why(error=error, traceback=traceback)
    arguments = send_arguments(raw, told, queue_url=URL, max_bytes=bare + room)
    assert size(arguments) <= bare + room
    assert arguments["MessageBody"] == body
    kept = arguments.get("MessageAttributes", {})
    assert {n: v for n, v in kept.items() if n != CAUSE_ATTRIBUTE} == raw["MessageAttributes"]
    if CAUSE_ATTRIBUTE in kept:
        read = json.loads(kept[CAUSE_ATTRIBUTE]["StringValue"])
        assert tuple(read) == CAUSE_KEYS
        assert {n: v for n, v in read.items() if n not in ("error", "traceback")} == {
            n: v for n, v in told.items() if n not in ("error", "traceback")
        }


@pytest.mark.parametrize("room", [200, 500, 1000, 3000, 9000, 12_000])
def test_the_traceback_is_cut_before_the_error(room):
    """With less and less room first the traceback goes, then the error; what is left is the end of the one."""
    text = fitted(why(error="E" * 1000, traceback="t" * 9000 + "END"), room)
    if room == 200:
        assert text is None
        return
    assert len(text) <= room
    read = json.loads(text)
    assert read["error"].startswith("E" * 1000) or not read["traceback"].endswith("t" * 1000 + "END")
    if room >= 3000:
        assert read["traceback"].endswith("END")
        assert read["error"] == "E" * 1000


def test_characters_that_sqs_refuses_are_escaped():
    """Control characters and lone surrogates of an error text are JSON escapes in the cause."""
    text = fitted(why(error="\x00\x08\ud800\uffff"), 10_000)
    assert text.isascii()
    assert not any(ord(c) < 32 or ord(c) == 127 for c in text)
    assert json.loads(text)["error"] == "\x00\x08\ud800\uffff"
