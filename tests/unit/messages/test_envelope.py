"""The Celery message the bridge writes for an event, and what it accepts of Celery's own messages."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime

import pytest
from celery.app.amqp import AMQP
from hypothesis import given
from hypothesis import strategies as st

from bridge.celery import app
from bridge.errors import MalformedEvent
from bridge.messages.celery_message import CeleryMessage, open_celery_message
from bridge.messages.envelope import Delivery, for_celery, for_event
from bridge.messages.message import Message
from bridge.messages.routing import ToTask
from bridge.s3.event import ObjectRecord
from bridge.s3.object import S3Object

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DELIVERY = Delivery("q", "https://sqs/1/q", "handle-1", receives=3, retries=2, received_at_epoch=NOW.timestamp())
RAW = {
    "MessageId": "m-1",
    "ReceiptHandle": "handle-1",
    "Body": "hello",
    "Attributes": {"SentTimestamp": "1767323045000", "ApproximateReceiveCount": "3"},
    "MessageAttributes": {"kind": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}},
}
NO_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def record(key):
    """An object of an event."""
    return ObjectRecord(bucket="b", key=key, etag="e", size=1)


def celery_body(arguments=None, encoding="base64", **changed):
    """What Kombu puts into SQS for one of Celery's messages, as a dict; ``changed`` are its headers."""
    text = json.dumps([[1], {"a": 2}, NO_EMBED] if arguments is None else arguments)
    return {
        "body": base64.b64encode(text.encode()).decode() if encoding == "base64" else text,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "t", "id": "id-1", "retries": 0, "eta": None} | changed,
        "properties": {
            "correlation_id": "id-1",
            "reply_to": "r",
            "priority": 0,
            "body_encoding": encoding,
            "delivery_tag": "theirs",
            "delivery_info": {"exchange": "theirs", "routing_key": "theirs"},
        },
    }


def test_one_object_is_the_argument_itself():
    """A message with one record runs the task with that record, under the SQS MessageId as task id."""
    payload = for_event(RAW, ToTask("t", (record("a b"),)), DELIVERY)
    args, kwargs, embed = payload["body"]
    assert (kwargs, embed) == ({}, NO_EMBED)
    assert S3Object.from_dict(args[0]) == S3Object(bucket="b", key="a b", etag="e", size=1)
    headers = payload["headers"]
    assert (headers["task"], headers["id"], headers["root_id"], headers["retries"]) == ("t", "m-1", "m-1", 2)
    assert headers["argsrepr"] == "s3://b/a b"
    assert headers["bridge"] == {
        "kind": "event",
        "queue": "q",
        "message_id": "",
        "receives": 3,
        "lease": 0,
        "owner": "",
        "republished": 0,
    }
    assert payload["properties"]["correlation_id"] == "m-1"
    assert payload["properties"]["delivery_tag"] == "handle-1"
    assert payload["properties"]["delivery_info"] == {"exchange": "", "routing_key": "q", "redelivered": True}


def test_a_first_receive_is_no_redelivery():
    """Celery's ``redelivered`` is false for the first receive."""
    delivery = Delivery("q", "u", "h", receives=1, retries=0, received_at_epoch=NOW.timestamp())
    payload = for_event(RAW, ToTask("t", None), delivery)
    assert payload["properties"]["delivery_info"]["redelivered"] is False


def test_several_objects_are_a_list_and_shown_shortly():
    """A message with several records runs the task once with all of them; Flower sees the first three."""
    payload = for_event(RAW, ToTask("t", tuple(record(f"k{n}") for n in range(5))), DELIVERY)
    [[objects], _, _] = payload["body"]
    assert [o["key"] for o in objects] == ["k0", "k1", "k2", "k3", "k4"]
    assert payload["headers"]["argsrepr"] == "s3://b/k0, s3://b/k1, s3://b/k2, … (5 objects)"


def test_a_whole_message_travels_with_its_attributes():
    """A message task gets the message as it came, binary attributes included, and never the body in a log."""
    payload = for_event(RAW, ToTask("t", None), DELIVERY)
    [[fields], _, _] = payload["body"]
    assert Message.from_dict(fields) == Message(
        id="m-1",
        body="hello",
        queue_url="https://sqs/1/q",
        receipt_handle="handle-1",
        received_at=NOW,
        attempt=3,
        attributes=RAW["Attributes"],
        message_attributes=RAW["MessageAttributes"],
    )
    assert payload["headers"]["argsrepr"] == "sqs:m-1"


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_body_survives_the_envelope(text):
    """Lone surrogates, NUL and whatever else a body holds reach a message task unchanged."""
    payload = for_event({**RAW, "Body": text}, ToTask("t", None), DELIVERY)
    assert pickle.loads(pickle.dumps(payload["body"]))[0][0]["body"] == text  # noqa: S301 - as the pool sends it to a child


def test_the_headers_are_those_celery_itself_sends():
    """Every header that a worker's request reads is one of task protocol 2, and the embedded options are all there."""
    sent = AMQP(app).as_task_v2("id", "t", args=(1,), kwargs={})
    payload = for_event(RAW, ToTask("t", (record("k"),)), DELIVERY)
    assert payload["headers"].keys() - {"bridge"} <= sent.headers.keys()
    assert payload["body"][2].keys() == sent.body[2].keys()


@pytest.mark.parametrize("encoding", ["base64", None])
@pytest.mark.parametrize("wrapped", [True, False])
def test_celery_messages_are_opened(encoding, wrapped):
    """Plain JSON and Kombu's base64, of the whole and of its body, are the same message."""
    text = json.dumps(celery_body(encoding=encoding))
    message = open_celery_message(base64.b64encode(text.encode()).decode() if wrapped else text)
    assert (message.task, message.id, message.eta, message.retries) == ("t", "id-1", None, 0)
    assert json.loads(message.body) == [[1], {"a": 2}, NO_EMBED]


def test_the_eta_is_understood_with_and_without_a_zone():
    """A moment without a time zone is UTC, which is the app's."""
    for text in ("2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00", "2026-01-02T04:04:05+01:00"):
        assert open_celery_message(json.dumps(celery_body(eta=text))).eta == NOW


def test_celerys_own_message_goes_on_without_its_eta():
    """Its id, arguments and reply address stay; the ETA is out, the count and the delivery are ours."""
    message = open_celery_message(json.dumps(celery_body(eta="2026-01-02T03:04:05", group="g", retries=1)))
    payload = for_celery(message, DELIVERY)
    headers = payload["headers"]
    assert (headers["id"], headers["group"], headers["eta"], headers["retries"]) == ("id-1", "g", None, 2)
    assert headers["bridge"] == {
        "kind": "task",
        "queue": "q",
        "message_id": "",
        "receives": 3,
        "lease": 0,
        "owner": "",
        "republished": 0,
    }
    assert json.loads(payload["body"]) == [[1], {"a": 2}, NO_EMBED]
    properties = payload["properties"]
    assert (properties["correlation_id"], properties["reply_to"], properties["priority"]) == ("id-1", "r", 0)
    assert (properties["delivery_tag"], properties["delivery_info"]["routing_key"]) == ("handle-1", "q")
    assert "body_encoding" not in properties  # the body is decoded already


def test_the_message_itself_is_not_changed():
    """Making the payload leaves the opened message as it was, so that it can be made again."""
    message = open_celery_message(json.dumps(celery_body(eta="2026-01-02T03:04:05")))
    for_celery(message, DELIVERY)
    assert message.headers["eta"] == "2026-01-02T03:04:05"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (" ", "neither JSON nor base64"),
        ("hello world", "neither JSON nor base64"),
        ("gA==", "neither JSON nor base64"),
        ("{", "not JSON"),
        ('{"a":' * 4000, "not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "not JSON"),
        (base64.b64encode(b"[]").decode(), "not a JSON object"),
        (base64.b64encode(b"null").decode(), "not a JSON object"),
        ("{}", "headers or properties are missing"),
        ('{"properties": {}}', "headers or properties are missing"),
        ('{"properties": null}', "headers or properties are missing"),
        ('{"properties": "x"}', "headers or properties are missing"),
        ('{"properties": {}, "body": 5}', "headers or properties are missing"),
        ('{"properties": {}, "headers": {}}', "the headers have no task or no id"),
        ('{"properties": {}, "headers": {"task": "t", "id": ""}}', "the headers have no task or no id"),
        ('{"properties": {}, "headers": {"task": ["t"], "id": "1"}}', "the headers have no task or no id"),
        ('{"properties": {}, "headers": {"task": "t", "id": "1"}}', "content type"),
    ],
)
def test_what_is_no_celery_message_is_refused(body, said):
    """Every broken envelope is a MalformedEvent that says where it is broken."""
    with pytest.raises(MalformedEvent, match=said):
        open_celery_message(body)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"content-type": "application/x-python-serialize"}, "only application/json is"),
        ({"content-type": ["application/json"]}, "only application/json is"),
        ({"body": None}, "not text"),
        ({"body": "!!"}, "not base64"),
        ({"body": "gA=="}, "not base64"),
        ({"body": base64.b64encode(b"{").decode()}, "not JSON"),
        ({"body": base64.b64encode(b"{}").decode()}, "not \\[args, kwargs, embed\\]"),
        ({"body": base64.b64encode(b"[[], {}]").decode()}, "not \\[args, kwargs, embed\\]"),
        ({"body": base64.b64encode(b"[{}, [], {}]").decode()}, "not \\[args, kwargs, embed\\]"),
        ({"body": base64.b64encode(b"[[], {}, 5]").decode()}, "not \\[args, kwargs, embed\\]"),
    ],
)
def test_a_body_the_worker_would_trip_over_is_refused(changes, said):
    """Only JSON is taken, never pickle, and only the three parts of protocol 2."""
    with pytest.raises(MalformedEvent, match=said):
        open_celery_message(json.dumps(celery_body() | changes))


@pytest.mark.parametrize("header", [{"eta": "soon"}, {"eta": 5}, {"eta": {}}, {"retries": -1}, {"retries": "1"}])
def test_headers_that_the_bridge_reads_are_checked(header):
    """An ETA that is no moment, or retries that are no count, are malformed."""
    with pytest.raises(MalformedEvent, match="invalid"):
        open_celery_message(json.dumps(celery_body(**header)))


@pytest.mark.parametrize("limit", ["x", 5, [1], [1, 2, 3], ["a", "b"], {"soft": 1}, [True, {}]])
def test_a_time_limit_the_pool_would_trip_over_is_refused(limit):
    """Celery unpacks ``timelimit`` unguarded on the main loop and hands it to the pool's timer, so it is looked at."""
    with pytest.raises(MalformedEvent):
        open_celery_message(json.dumps(celery_body(timelimit=limit)))


@pytest.mark.parametrize("limit", [None, [None, None], [10, None], [10.5, 5]])
def test_a_time_limit_as_celery_writes_it_is_taken(limit):
    """Celery's own forms of ``timelimit`` (hard, soft) are passed on."""
    message = open_celery_message(json.dumps(celery_body(timelimit=limit)))
    assert for_celery(message, DELIVERY)["headers"]["timelimit"] == limit


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "body": json_values,
            "headers": st.dictionaries(st.sampled_from(["task", "id", "eta", "retries", "timelimit"]), json_values),
            "properties": json_values | st.just({}),
            "content-type": st.just("application/json") | json_values,
        },
    )
    | json_values
)
def test_opening_raises_nothing_else(value):
    """Whatever JSON comes, it is a Celery message or a MalformedEvent."""
    try:
        assert isinstance(open_celery_message(json.dumps(value)), CeleryMessage)
    except MalformedEvent:
        pass
