"""Message: one SQS message as a Celery argument, and what it says of itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from bridge.messages.message import Message

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
RAW = {
    "MessageId": "m-1",
    "ReceiptHandle": "handle",
    "Body": '{"a": 1}',
    "Attributes": {"SentTimestamp": "1767323045678", "ApproximateReceiveCount": "4"},
    "MessageAttributes": {
        "text": {"DataType": "String", "StringValue": "x"},
        "number": {"DataType": "Number.int", "StringValue": "7"},
        "binary": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        "empty": {"DataType": "Binary", "BinaryValue": b""},
    },
}


def message(raw=None):
    """The message of a receive."""
    return Message.from_sqs(raw or RAW, queue_url="https://sqs/1/q", received_at=NOW, attempt=4)


def test_every_field_of_a_receive_is_there():
    """Body, ids, system attributes and message attributes as SQS gave them."""
    made = message()
    assert (made.id, made.body, made.receipt_handle, made.queue_url) == ("m-1", '{"a": 1}', "handle", "https://sqs/1/q")
    assert (made.attempt, made.received_at) == (4, NOW)
    assert made.attributes == RAW["Attributes"]
    assert made.message_attributes == RAW["MessageAttributes"]
    assert made.sent_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert made.json() == {"a": 1}


def test_a_bare_receive_has_empty_attributes():
    """A server that gives none, or null, makes a message without."""
    made = message({"MessageId": "m", "ReceiptHandle": "h", "Body": "x", "Attributes": None})
    assert (made.attributes, made.message_attributes, made.sent_at) == ({}, {}, None)


@pytest.mark.parametrize("body", ["", "hello", "{", "\x00"])
def test_a_body_that_is_no_json_says_so(body):
    """json() raises a ValueError, which a task may catch or list."""
    with pytest.raises(ValueError, match=r"."):
        message({**RAW, "Body": body}).json()


def test_it_never_shows_its_body():
    """Logs and Flower see the id only."""
    assert str(message({**RAW, "Body": "secret"})) == "sqs:m-1"


def test_it_travels_through_celery():
    """The dict is JSON, binary values included, and gives the same message back; so does Kombu's own encoder."""
    made = message()
    assert Message.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert Message.from_dict(kombu_json.loads(kombu_json.dumps([made]))[0]) == made


def test_an_older_dict_still_makes_a_message():
    """Fields with a default may be missing from the dict, but for the attributes' place itself."""
    fields = message().to_dict()
    del fields["attempt"]
    assert Message.from_dict(fields).attempt == 1


values = st.one_of(
    st.fixed_dictionaries({"DataType": st.just("String"), "StringValue": st.text()}),
    st.fixed_dictionaries({"DataType": st.just("Binary"), "BinaryValue": st.binary()}),
)


@given(
    body=st.text(st.characters(codec=None)),
    attributes=st.dictionaries(st.text(), st.text()),
    message_attributes=st.dictionaries(st.text(), values),
    received_at=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])),
    attempt=st.integers(1, 10_000),
)
def test_any_message_survives_json(body, attributes, message_attributes, received_at, attempt):
    """Whatever SQS delivers, what a task gets is what was received."""
    made = Message(
        id="m",
        body=body,
        queue_url="u",
        receipt_handle="h",
        received_at=received_at,
        attempt=attempt,
        attributes=attributes,
        message_attributes=message_attributes,
    )
    assert Message.from_dict(json.loads(json.dumps(made.to_dict()))) == made
