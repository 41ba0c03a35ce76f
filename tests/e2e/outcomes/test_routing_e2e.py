"""Which task gets which message, in a real worker: by key, by message attributes, or none at all."""

from __future__ import annotations

import pytest

from tests.e2e.outcomes.rig import TASKS, Rig


@pytest.fixture(scope="module")
def rig(sqs_server):
    """A worker that dead-letters what no task takes."""
    with Rig(sqs_server) as rig:
        rig.start_worker("-P", "threads", "-c", "2")
        yield rig


def test_two_tasks_by_key(rig):
    """Two objects of one bucket go to the two tasks whose patterns match their keys."""
    first, second = rig.upload("ok/nested/deep.csv"), rig.upload("once/deep.csv")
    for message_id, task in ((first, f"{TASKS}.ok"), (second, f"{TASKS}.once")):
        assert rig.course(message_id) == [("deleted", None)]
        assert [note["task"] for note in rig.notes(message_id)] == [task]
        assert rig.end(message_id)["task"] == task


def test_unrouted_key(rig):
    """A key that no task takes ends in the DLQ; the case of letters counts."""
    message_id = rig.upload("OK/a")
    assert rig.course(message_id) == [("dead_lettered", "unrouted")]
    cause = rig.cause(message_id)
    assert cause["task"] is None
    assert f"s3://{rig.bucket}/OK/a" in cause["error"]
    assert rig.notes(message_id) == []


def test_unrouted_and_ignored(sqs_server):
    """With BRIDGE_UNROUTED=ignore a key that no task takes is deleted, and other messages are run as ever."""
    with Rig(sqs_server) as rig:
        rig.start_worker("-P", "threads", "-c", "2", BRIDGE_UNROUTED="ignore")
        unrouted, routed = rig.upload("nobody/a"), rig.upload("ok/a")
        assert rig.course(unrouted) == [("ignored", "unrouted")]
        assert rig.course(routed) == [("deleted", None)]
        rig.wait_empty("main")
        assert rig.dead_letters(unrouted) == []


def test_message_task(rig):
    """A plain text with a matching message attribute goes to the message task as it came, attributes and all."""
    attributes = {
        "kind": {"DataType": "String", "StringValue": "note"},
        "weight": {"DataType": "Number", "StringValue": "1.50"},
        "seal": {"DataType": "Binary", "BinaryValue": b"\x00\xff{}"},
    }
    body = "plain text, no JSON:\n\t\u201eGrüße\u201c 🪣 "
    message_id = rig.send(body, attributes=attributes)
    assert rig.course(message_id) == [("deleted", None)]
    notes = rig.notes(message_id, "message")
    assert len(notes) == 1
    assert {name: notes[0][name] for name in ("id", "body", "attempt", "attributes")} == {
        "id": message_id,
        "body": body,
        "attempt": 1,
        "attributes": {"kind": "note", "weight": "1.50", "seal": "00ff7b7d"},
    }
    assert notes[0]["queue_url"].endswith(rig.queues["main"].name)
    assert [n["argsrepr"] for n in rig.notes(message_id, "received")] == [f"sqs:{message_id}"]


def test_message_task_does_not_take_others(rig):
    """A plain text whose attribute does not match is malformed to a queue of S3 events; an S3 event stays one."""
    other = rig.send("plain text", attributes={"kind": {"DataType": "String", "StringValue": "bill"}})
    event = rig.announce(rig.put("ok/b"))
    assert rig.course(other) == [("dead_lettered", "malformed")]
    assert rig.notes(other, "message") == []
    assert rig.course(event) == [("deleted", None)]
