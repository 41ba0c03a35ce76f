"""Every line of a task's life carries the fields that lead from one to the next, in every pool."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.docs.test_log_docs import documented
from tests.e2e.logs.conftest import TASKS
from tests.e2e.outcomes.rig import POD_NAME

NOTE = {"kind": {"DataType": "String", "StringValue": "note"}}


def said(rig, message_id, text):
    """The user's lines with this text from the runs of this message."""
    rig.end(message_id)
    return [e for e in rig.worker.found(text) if e["message_id"] == message_id]


def test_a_life_in_lines(rig):
    """From task_started to message_settled each line has the same fields, and so have the user's own lines between."""
    message_id = rig.upload("talk/a b.txt")
    expected = {
        "message_id": message_id,
        "task_id": message_id,
        "job_id": message_id,
        "task": f"{TASKS}.talk",
        "queue": rig.queues["main"].name,
        "bucket": rig.bucket,
        "key": "talk/a b.txt",
        "attempt": 1,
        "pod_name": POD_NAME,
    }

    [own] = said(rig, message_id, "halfway through talk/a b.txt")

    lines = [own]
    for event in ("task_started", "task_succeeded", "message_settled"):
        lines += rig.worker.found(event, message_id=message_id)
    assert len(lines) == 4
    assert [{name: line.get(name) for name in expected} for line in lines] == [expected] * 4
    assert own["logger"] == "my_module"
    assert lines[2]["duration_seconds"] >= 0
    assert lines[3]["outcome"] == "deleted"


def test_a_field_of_the_line_wins(rig):
    """What the user gives a line as ``extra`` is there, and stands before what the run has of the same name."""
    message_id = rig.upload("talk/own")
    [line] = said(rig, message_id, "own field wins")
    assert (line["step"], line["queue"], line["key"]) == (2, "mine", "talk/own")


def test_a_retry_and_a_failure(rig):
    """task_retried says the delay and the cause, task_failed the cause, and each run's lines its attempt."""
    message_id = rig.upload("fail/a")
    runs = said(rig, message_id, "about to fail")
    assert [run["attempt"] for run in runs] == [1, 2]
    [retried] = rig.worker.found("task_retried", message_id=message_id)
    assert (retried["delay_seconds"], retried["error_type"], retried["error"]) == (1, "ValueError", "no good: fail/a")
    assert (retried["attempt"], retried["retries"], retried["max_retries"]) == (1, 0, 1)
    [failed] = rig.worker.found("task_failed", message_id=message_id)
    assert (failed["attempt"], failed["error_type"], failed["key"]) == (2, "ValueError", "fail/a")
    settled = rig.settled(message_id)
    assert [(e["outcome"], e.get("reason"), e.get("delay_seconds")) for e in settled] == [
        ("retried", None, 1),
        ("dead_lettered", "exhausted", None),
    ]


def test_nothing_is_left_behind(rig):
    """A message without an object, run after one with, shows no bucket and no key."""
    rig.end(rig.upload("talk/before"))
    message_id = rig.send("just a note", attributes=NOTE)
    [line] = said(rig, message_id, "a note")
    assert line["task"] == f"{TASKS}.note"
    assert not {"bucket", "key", "objects"} & line.keys()


def test_a_task_inside_a_task(rig):
    """The lines of a task run by ``.apply()`` name it, and still the message; after it, the outer task is back."""
    message_id = rig.upload("nest/a")
    [inside] = said(rig, message_id, "inside")
    assert (inside["task"], inside["key"]) == ("tests.inner", "nest/a")
    assert inside["task_id"] != message_id
    for text in ("before", "after"):
        [line] = said(rig, message_id, text)
        assert (line["task"], line["task_id"]) == (f"{TASKS}.nest", message_id)


def test_several_objects(rig):
    """A message with several records is known by the first, and says how many there are."""
    message_id = rig.announce(*[rig.put(f"talk/{n}") for n in "abc"])
    [line] = said(rig, message_id, "halfway through talk/b")
    assert (line["key"], line["objects"]) == ("talk/a", 3)


def test_structlogs_own_context(rig):
    """What a user binds with structlog's contextvars is on the lines of that run, beside ours."""
    message_id = rig.upload("bound/a")
    [line] = said(rig, message_id, "with a customer")
    assert (line["customer"], line["key"]) == ("c-1", "bound/a")


def test_celerys_own_messages(rig):
    """On the task queue a line has both ids: Celery's of the task and SQS's of the message."""
    envelope = {
        "body": json.dumps([[1, 2], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "tests.add", "id": "celery-id", "retries": 0, "eta": None},
        "properties": {"correlation_id": "celery-id"},
    }
    message_id = rig.send(json.dumps(envelope), queue="tasks")
    [line] = said(rig, message_id, "adding")
    assert (line["task_id"], line["job_id"], line["task"]) == ("celery-id", "celery-id", "tests.add")
    assert line["queue"] == rig.queues["tasks"].name


@pytest.mark.parametrize("body", ["garbage ü", "{}", json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})])
def test_a_body_that_no_task_saw(rig, body):
    """A message dropped or dead-lettered for its form is known by its SHA-256 and size; its body is in no line."""
    message_id = rig.send(body)
    end = rig.end(message_id)
    data = body.encode()
    assert (end["body_sha256"], end["body_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert not [line for line in rig.worker.lines if "garbage" in line]


def test_polls(rig):
    """A receive that brought something is one line with its count; the empty ones are not logged at INFO."""
    rig.end(rig.upload("talk/polled"))
    polls = rig.worker.found("poll")
    assert polls
    assert all(poll["received"] > 0 for poll in polls)


def test_every_line_is_as_the_docs_say(rig):
    """Of all the lines of ours so far, none has a name or a field that docs/reference/logs.md does not list."""
    rig.end(rig.upload("talk/last"))
    listed = documented()
    ours = [e for e in rig.worker.events if str(e.get("logger")).startswith("bridge.")]
    assert len({e["event"] for e in ours}) > 5
    always = {"event", "level", "logger", "timestamp", "pod_name", "job_id"}
    unlisted = [(e["event"], e.keys() - listed[e["event"]][1] - always) for e in ours]
    assert [line for line in unlisted if line[1]] == []
