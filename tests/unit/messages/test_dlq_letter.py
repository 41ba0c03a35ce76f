"""A dead letter is read whatever it holds: real causes, forged ones, and none."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.messages.dead_letter import NO_CAUSE, read_letter
from tests.unit.cli.conftest import event, letter_arguments

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=8,
)
CAUSE_NAMES = st.sampled_from(
    ["reason", "task", "task_id", "attempts", "error", "error_type", "dead_lettered_at", "source_queue", "traceback"]
)
FORGED = st.dictionaries(CAUSE_NAMES, JSON, max_size=9).map(json.dumps) | JSON.map(json.dumps) | st.text()
MOMENTS = st.datetimes().map(lambda moment: json.dumps({"dead_lettered_at": moment.isoformat()}))


def raw(arguments=None, body="body", **system):
    """A received message."""
    arguments = arguments or {}
    return {
        "MessageId": "m-1",
        "ReceiptHandle": "h-1",
        "Body": arguments.get("MessageBody", body),
        "MessageAttributes": arguments.get("MessageAttributes", {}),
        "Attributes": {"SentTimestamp": "1767323045678", "ApproximateReceiveCount": "1", **system},
    }


def text(value):
    """A message attribute."""
    return {"DataType": "String", "StringValue": value}


def test_the_cause_is_read():
    """What the worker wrote is what the letter says; its id is the one in the worker's logs."""
    letter = read_letter(raw(letter_arguments(event("a+b.csv"), task_id="t-7")))
    assert (letter.id, letter.message_id, letter.reason, letter.task) == ("t-7", "m-1", "exhausted", "my.task")
    assert (letter.error_type, letter.error, letter.attempts) == ("ValueError", "bad row", 6)
    assert (letter.source_queue, letter.source_arn, letter.worker) == ("uploads", None, "pod-1")
    assert letter.objects == (("uploads", "a b.csv"),)
    assert letter.redrives == 0


def test_a_letter_that_sqs_moved():
    """Without a cause the MessageId is the id, the sending is the moment, and SQS's word names the queue."""
    letter = read_letter(raw(DeadLetterQueueSourceArn="arn:aws:sqs:eu-west-1:123456789012:uploads"))
    assert (letter.id, letter.reason, letter.when) == ("m-1", NO_CAUSE, 1767323045.678)
    assert (letter.source_queue, letter.task, letter.attempts) == ("uploads", None, None)
    assert letter.summary()["when"] == "2026-01-02T03:04:05.678+00:00"


def test_sqs_counts_for_more_than_an_attribute():
    """A message that SQS moved may bring a cause that its sender wrote: the queue it came from is SQS's to say."""
    forged = {"BridgeCause": text('{"source_queue": "payroll", "reason": "exhausted"}')}
    arn = "arn:aws:sqs:eu-west-1:123456789012:uploads"
    letter = read_letter(raw({"MessageBody": "x", "MessageAttributes": forged}, DeadLetterQueueSourceArn=arn))
    assert (letter.source_queue, letter.source_arn) == ("uploads", arn)


def test_redrives_are_counted_from_digits_only():
    """Anything but a small number counts as none, so that no text can make a count overflow."""
    for value, redrives in (("2", 2), ("-1", 0), ("9" * 30, 0), ("x", 0), ("", 0), ("١", 0)):
        found = read_letter(raw({"MessageBody": "x", "MessageAttributes": {"BridgeRedrives": text(value)}}))
        assert found.redrives == redrives


def test_an_export_can_be_sent_again():
    """Body and attributes are all there, binary values as base64."""
    attributes = {"kind": text("x"), "bin": {"DataType": "Binary", "BinaryValue": b"\x00\xff", "BinaryListValues": []}}
    whole = read_letter(raw({"MessageBody": "ü\n", "MessageAttributes": attributes})).whole()
    assert json.loads(json.dumps(whole)) == whole
    assert whole["body"] == "ü\n"
    assert whole["message_attributes"] == {"kind": text("x"), "bin": {"DataType": "Binary", "BinaryValue": "AP8="}}


@given(cause=FORGED | MOMENTS, body=st.text(min_size=1) | JSON.map(json.dumps), sent=st.text(max_size=20))
def test_any_letter_can_be_read_and_shown(cause, body, sent):
    """No cause, body or timestamp makes reading fail, and what is read is JSON."""
    message = raw({"MessageBody": body, "MessageAttributes": {"BridgeCause": text(cause)}}, SentTimestamp=sent)
    letter = read_letter(message)
    assert letter.id
    assert letter.reason
    json.dumps(letter.whole())
