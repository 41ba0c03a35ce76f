"""What bridge.messages.envelope leans on in Kombu's messages and JSON, and what stock Kombu makes of an S3 event."""

from __future__ import annotations

import json

import pytest
from kombu import Connection
from kombu.exceptions import DecodeError
from kombu.utils.encoding import safe_repr, safe_str
from kombu.utils.json import dumps, loads

from tests.contract import QUEUE, memory_channel, message_for, payload

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"


def _stock_reads(body: str):
    options = {"predefined_queues": {QUEUE: {"url": URL}}}
    channel = Connection("sqs://", transport="kombu.transport.SQS:Transport", transport_options=options).channel()
    raw = {"Body": body, "MessageId": "m", "ReceiptHandle": "handle"}
    return channel.Message(channel._message_to_python(raw, QUEUE, URL), channel=channel)


def test_our_payload_is_read_as_protocol_two():
    """The body is decoded from its JSON text, the headers are Celery's, and the tag is the receipt handle."""
    message = message_for("some.task", args=[{"key": "ä"}], tag="handle")
    assert message.payload[0] == [{"key": "ä"}]
    assert (message.headers["task"], message.delivery_tag) == ("some.task", "handle")
    assert not message.errors


def test_stock_kombu_reads_an_s3_event_as_a_message_without_headers():
    """Celery then rejects it as unknown, that is deletes it: why the bridge reads S3 queues itself."""
    message = _stock_reads(json.dumps({"Records": [{"eventSource": "aws:s3"}]}))
    assert message.headers == {}


@pytest.mark.parametrize("body", ['{"properties": null}', '{"properties": "x"}'])
def test_stock_kombu_raises_on_some_bodies(body):
    """One such message ends its batch or its worker: why no body reaches Kombu's own parser."""
    with pytest.raises((AttributeError, TypeError)):
        _stock_reads(body)


def test_a_missing_routing_key_is_a_key_error_at_restore():
    """Kombu's _restore reads exchange and routing_key without asking, so the envelope names both."""
    channel = memory_channel()
    incomplete = payload("some.task")
    incomplete["properties"]["delivery_info"] = {}
    with pytest.raises(KeyError):
        channel._restore(channel.Message(incomplete, channel=channel))
    channel._restore(channel.Message(payload("some.task"), channel=channel))


def test_an_unknown_compression_is_an_error_of_the_message():
    """It is not raised while the message is made, but handed to on_decode_error: basic_ack dead-letters it."""
    assert message_for("some.task", compression="no-such").errors


def test_json_asks_an_object_for_its_json():
    """The encoder calls __json__, which S3Object and Message have, so both can be a Celery argument."""

    class Thing:
        def __json__(self):
            return {"key": "a"}

    assert loads(dumps([Thing()])) == [{"key": "a"}]


def test_json_of_a_marked_dict_is_refused_at_decoding():
    """A dict of exactly __type__ and __value__ is Kombu's own notation; another type in it is a DecodeError."""
    channel = memory_channel()
    odd = payload("some.task", [{"__type__": "no-such", "__value__": 1}])
    message = channel.Message(odd, channel=channel)
    message.accept = {"application/json"}
    with pytest.raises(DecodeError):
        message.decode()


def test_base64_bodies_are_what_stock_kombu_sends():
    """The task queue may hold messages of a producer with stock settings: the whole message in base64."""
    options = {"predefined_queues": {QUEUE: {"url": URL}}}
    channel = Connection("sqs://", transport="kombu.transport.SQS:Transport", transport_options=options).channel()
    assert (channel.sqs_base64_encoding, channel.body_encoding) == (True, "base64")


def test_safe_texts_survive_an_object_that_cannot_be_shown():
    """safe_repr and safe_str never raise, whatever a user's __repr__ does."""

    class Odd:
        def __repr__(self):
            raise ValueError("no")

    assert "Odd" in safe_repr(Odd())
    assert isinstance(safe_str(None), str)


def test_a_body_that_is_no_text_stays_what_it_is():
    """Kombu leaves it alone and asks ``decode`` for the payload, once: so our messages come decoded."""
    channel = memory_channel()
    ours = {**payload("some.task"), "body": [[{"key": "ä"}], {}, {}]}
    message = channel.Message(ours, channel=channel)
    message.decode = lambda: message.body
    assert message.body is ours["body"]
    assert message.payload is ours["body"]
