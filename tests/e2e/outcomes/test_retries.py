"""Retries in place, the dead letter after the last of them, and the receive count, which is only an upper bound."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta

import pytest

from bridge.messages.dead_letter import CAUSE_KEYS
from tests.e2e.outcomes.rig import POD_NAME, TASKS, Rig
from tests.support.servers.sqs import receive
from tests.support.servers.waiting import wait_until

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
ATTRIBUTES = {
    "origin": {"DataType": "String", "StringValue": "Übersee – 海外"},
    "weight": {"DataType": "Number", "StringValue": "12.50"},
    "seal": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    "unit": {"DataType": "String.custom", "StringValue": "t"},
}
TEN_ATTRIBUTES = {f"name-{n}": {"DataType": "String", "StringValue": str(n)} for n in range(10)}


def hand_back(rig: Rig, queue: str, message_id: str, times: int) -> None:
    """Receive the only message of a queue that many times, with visibility 0 at once after each."""
    url = rig.queues[queue].url
    for n in range(1, times + 1):
        [message] = wait_until(lambda: receive(rig.server, url), 30, f"receive {n} of {message_id}")
        assert message["MessageId"] == message_id
        assert message["Attributes"]["ApproximateReceiveCount"] == str(n)
        rig.server.sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )


@pytest.fixture(scope="module")
def rig(sqs_server):
    """A prefork worker; on ``tired`` and ``spent`` wait messages received ten and eleven times before it started."""
    with Rig(sqs_server, "flaky", "exhausted", "books", "tired", "spent") as rig:
        for queue, times in (("tired", 10), ("spent", 11)):
            message_id = rig.upload(f"once/{queue}", queue=queue)
            rig.earlier[queue] = [message_id]
            hand_back(rig, queue, message_id, times)
        rig.start_worker("-c", "4", BRIDGE_SPARE_RECEIVES="10")
        yield rig


def test_fails_twice_then_succeeds(rig):
    """Three runs of one message under one task id, with growing delays, nothing sent, and then it is deleted."""
    message_id = rig.upload("flaky/a", queue="flaky")
    assert rig.course(message_id) == [("retried", None), ("retried", None), ("deleted", None)]

    assert rig.retries(message_id) == [0, 1, 2]
    starts = rig.worker.found("task_started", message_id=message_id)
    assert [(e["task_id"], e["attempt"]) for e in starts] == [(message_id, n) for n in (1, 2, 3)]

    name = rig.queues["flaky"].name
    calls = [c for c in rig.proxy.for_message(message_id) if c.queue == name]
    assert [c.action for c in calls] == [
        "ReceiveMessage",
        "ChangeMessageVisibilityBatch",
        "ReceiveMessage",
        "ChangeMessageVisibilityBatch",
        "ReceiveMessage",
        "DeleteMessageBatch",
    ]
    delays = [c.request["Entries"][0]["VisibilityTimeout"] for c in calls if c.action.startswith("Change")]
    assert delays == [1, 2]
    # Measured: hidden for as long as was asked for (a tenth is for clocks), and received before its lease could lapse.
    for change, again, delay in zip(calls[1:4:2], calls[2:5:2], delays, strict=True):
        assert delay - 0.1 <= again.finished_at - change.started_at <= delay + 20

    sent = [c for c in rig.proxy.calls if c.action.startswith("SendMessage") and "flaky" in json.dumps(c.request)]
    assert sent == []
    rig.wait_empty("flaky")
    assert rig.dead_letters(message_id) == []


def test_exhausted_retries_end_as_one_dead_letter(rig):
    """After max_retries=2 there were three runs, and the DLQ holds the message once, byte for byte, with its cause."""
    record = rig.put("exhausted/a")
    record["userIdentity"] = {"principalId": "Jürgen – 漢字 🪣 \u200b\\u00fc"}
    body = " \t" + json.dumps({"Records": [record]}, ensure_ascii=False, indent="\t").replace(": ", " :\n ") + "\n \n"
    message_id = rig.send(body, queue="exhausted", attributes=ATTRIBUTES, trace_header=TRACE)

    assert rig.course(message_id) == [("retried", None), ("retried", None), ("dead_lettered", "exhausted")]
    assert rig.retries(message_id) == [0, 1, 2]

    letters = rig.dead_letters(message_id)
    assert len(letters) == 1
    assert letters[0]["Body"].encode() == body.encode()
    assert letters[0]["Attributes"]["AWSTraceHeader"] == TRACE
    kept = {name: value for name, value in letters[0]["MessageAttributes"].items() if name != "BridgeCause"}
    assert kept == ATTRIBUTES

    cause = rig.cause(message_id)
    assert set(cause) == set(CAUSE_KEYS)
    first = datetime.fromisoformat(cause.pop("first_received_at"))
    last = datetime.fromisoformat(cause.pop("dead_lettered_at"))
    assert timedelta(seconds=3) <= last - first <= timedelta(seconds=60)
    assert first.utcoffset() == last.utcoffset() == timedelta(0)
    text = cause.pop("traceback")
    assert "in _third" in text
    assert text.rstrip().endswith("LookupError: the third attempt failed – für immer")
    assert "the first attempt" not in text
    assert "the second attempt" not in text
    assert cause == {
        "version": 1,
        "reason": "exhausted",
        "error_type": "LookupError",
        "error": "the third attempt failed – für immer",
        "task": f"{TASKS}.exhausted",
        "task_id": message_id,
        "attempts": 3,
        "source_queue": rig.queues["exhausted"].name,
        "worker": POD_NAME,
    }
    rig.wait_empty("exhausted")


def test_ten_attributes_leave_no_room_for_the_cause(rig):
    """A message that already has ten attributes keeps them all, goes without a cause, and the log has the cause."""
    body = json.dumps({"Records": [rig.put("permanent/ten")]})
    message_id = rig.send(body, attributes=TEN_ATTRIBUTES)
    assert rig.course(message_id) == [("dead_lettered", "permanent")]

    letters = rig.dead_letters(message_id)
    assert [letter["MessageAttributes"] for letter in letters] == [TEN_ATTRIBUTES]
    logged = rig.worker.wait_event("dead_lettered", message_id=message_id)["cause"]
    assert set(logged) == set(CAUSE_KEYS)
    assert (logged["reason"], logged["error_type"]) == ("permanent", "ValueError")


def test_handed_back_ten_times_still_runs(rig):
    """A message received ten times without a run is run, once, although its task allows no retry."""
    [message_id] = rig.earlier["tired"]
    assert rig.course(message_id) == [("deleted", None)]
    assert rig.retries(message_id) == [0]
    rig.wait_empty("tired")


def test_received_far_beyond_its_retries_is_not_run(rig):
    """One receive more than max_retries + 1 + BRIDGE_SPARE_RECEIVES: it must be what kills workers."""
    [message_id] = rig.earlier["spent"]
    assert rig.course(message_id) == [("dead_lettered", "worker-lost")]
    assert rig.notes(message_id) == []
    cause = rig.cause(message_id)
    assert cause["attempts"] == 12
    assert "received 12 times" in cause["error"]
    rig.wait_empty("spent")


def test_received_equals_settled(rig):
    """Every receive that the log counts ends as one settlement in the log, whatever becomes of the message."""
    sent = [rig.upload(key, queue="books") for key in ("ok/1", "flaky/2", "reject/3", "requeue/4", "nobody/5")]
    sent.append(rig.send('{"Event": "s3:TestEvent", "Service": "Amazon S3", "Bucket": "b"}', queue="books"))
    sent.append(rig.send("garbage", queue="books"))
    for message_id in sent:
        rig.end(message_id)
    rig.wait_empty("books")

    name = rig.queues["books"].name
    settled = [(e["outcome"], e.get("reason")) for e in rig.worker.found("message_settled", queue=name)]
    assert Counter(settled) == {
        ("deleted", None): 3,
        ("retried", None): 2,
        ("handed_back", "requeued"): 1,
        ("ignored", "test-event"): 1,
        ("dead_lettered", "rejected"): 1,
        ("dead_lettered", "unrouted"): 1,
        ("dead_lettered", "malformed"): 1,
    }

    def received() -> int:
        return sum(e["received"] for e in rig.worker.found("poll", queue=name))

    # A poll is logged after its messages were taken in: the last line may still be on its way.
    wait_until(lambda: received() == len(settled), 20, f"{len(settled)} receives, as many as settlements")
