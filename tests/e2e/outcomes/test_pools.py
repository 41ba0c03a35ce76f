"""What becomes of a message, by how its task ended: the outcomes that are the same in every pool."""

from __future__ import annotations

import json

import pytest

from tests.e2e.outcomes.rig import TASKS, Rig


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def rig(sqs_server, request):
    """A worker of each pool in turn."""
    with Rig(sqs_server) as rig:
        rig.start_worker("-P", request.param, "-c", "3")
        yield rig


def test_success(rig):
    """A task that returns has its message deleted after one run."""
    message_id = rig.upload("ok/a", b"what was put")
    assert rig.course(message_id) == [("deleted", None)]
    assert [note["content"] for note in rig.notes(message_id)] == ["what was put"]


def test_retries_until_success(rig):
    """A task that fails twice runs three times, with request.retries 0, 1 and 2."""
    message_id = rig.upload("flaky/a")
    assert rig.course(message_id) == [("retried", None), ("retried", None), ("deleted", None)]
    assert rig.retries(message_id) == [0, 1, 2]


def test_retries_by_hand(rig):
    """``raise self.retry(countdown=1)`` brings the same message back after a second."""
    message_id = rig.upload("by-hand/a")
    assert rig.course(message_id) == [("retried", None), ("deleted", None)]
    assert [e["delay_seconds"] for e in rig.settled(message_id) if e["outcome"] == "retried"] == [1]
    assert rig.retries(message_id) == [0, 1]


@pytest.mark.parametrize(("key", "error_type"), [("permanent/a", "ValueError"), ("narrow/a", "KeyError")])
def test_permanent_error(rig, key, error_type):
    """An error in dont_autoretry_for, or not in autoretry_for, is dead-lettered after the one run."""
    message_id = rig.upload(key)
    assert rig.course(message_id) == [("dead_lettered", "permanent")]
    assert rig.retries(message_id) == [0]
    cause = rig.cause(message_id)
    assert (cause["error_type"], cause["attempts"], cause["task_id"]) == (error_type, 1, message_id)
    assert f"raise {error_type}(" in cause["traceback"]


def test_reject(rig):
    """``Reject(requeue=False)`` is dead-lettered with its own text, although the task retries on any exception."""
    message_id = rig.upload("reject/a")
    assert rig.course(message_id) == [("dead_lettered", "rejected")]
    assert rig.retries(message_id) == [0]
    assert rig.cause(message_id)["error"] == "not for us"


def test_reject_and_requeue(rig):
    """``Reject(requeue=True)`` makes the message visible at once, and it is received and run again."""
    message_id = rig.upload("requeue/a")
    assert rig.course(message_id) == [("handed_back", "requeued"), ("deleted", None)]
    assert rig.retries(message_id) == [0, 1]
    changes = [c for c in rig.proxy.for_message(message_id) if c.action == "ChangeMessageVisibilityBatch"]
    assert [entry["VisibilityTimeout"] for c in changes for entry in c.request["Entries"]] == [0]


def test_ignore(rig):
    """A task that raises Ignore is done with its message."""
    message_id = rig.upload("ignore/a")
    assert rig.course(message_id) == [("deleted", None)]
    assert rig.retries(message_id) == [0]


def test_sys_exit(rig):
    """``sys.exit()`` in a task is an error of that task, retried and then dead-lettered; the worker stays."""
    message_id = rig.upload("exit/a")
    assert rig.course(message_id) == [("retried", None), ("dead_lettered", "exhausted")]
    assert rig.retries(message_id) == [0, 1]
    cause = rig.cause(message_id)
    assert (cause["error_type"], cause["error"]) == ("TaskExited", "the task called sys.exit(3)")
    assert rig.course(rig.upload("ok/after")) == [("deleted", None)]


def test_revoked(rig):
    """A revoked task never runs, and its message is settled as ignored."""
    message_id = rig.upload("revoked/a")
    assert rig.course(message_id) == [("ignored", "revoked")]
    assert rig.notes(message_id) == []
    assert rig.worker.found("task_started", message_id=message_id) == []


def test_object_gone(rig):
    """An object that is gone is dead-lettered after one run: no retry brings it back."""
    message_id = rig.announce(rig.record("read/gone"))
    assert rig.course(message_id) == [("dead_lettered", "object-gone")]
    assert rig.retries(message_id) == [0]
    cause = rig.cause(message_id)
    assert (cause["error_type"], cause["task"]) == ("ObjectGone", f"{TASKS}.read")
    assert f"s3://{rig.bucket}/read/gone" in cause["error"]


def test_object_gone_and_missing_ok(rig):
    """With ``missing_ok=True`` an object that is gone is ignored."""
    message_id = rig.announce(rig.record("may-be-gone/a"))
    assert rig.course(message_id) == [("ignored", "object-gone")]
    assert rig.retries(message_id) == [0]


def test_object_overwritten(rig):
    """An object overwritten since its event is ignored as superseded; the event of the new one is processed."""
    old, new = rig.put("read/twice", b"old"), rig.put("read/twice", b"new!")
    first, second = rig.announce(old), rig.announce(new)
    assert rig.course(first) == [("ignored", "superseded")]
    assert rig.course(second) == [("deleted", None)]
    assert rig.retries(first) == [0]


def test_object_overwritten_and_allow_changed(rig):
    """With ``allow_changed=True`` the task of the old event reads the new object."""
    old = rig.put("changed-is-fine/a", b"old")
    rig.put("changed-is-fine/a", b"new!")
    message_id = rig.announce(old)
    assert rig.course(message_id) == [("deleted", None)]
    assert [note["content"] for note in rig.notes(message_id)] == ["new!"]


def test_readable_arguments(rig):
    """What Celery shows of the arguments, in Flower and in ``inspect``, is the object's address."""
    message_id = rig.upload("ok/shown + ü.txt")
    rig.end(message_id)
    assert [n["argsrepr"] for n in rig.notes(message_id, "received")] == [f"s3://{rig.bucket}/ok/shown + ü.txt"]


def test_several_records_run_once(rig):
    """Several records of one message run in order in a single run of one task, and the message is deleted once."""
    records = [rig.put(f"ok/several/{name}", name.encode()) for name in "cab"]
    message_id = rig.announce(*records)
    assert rig.course(message_id) == [("deleted", None)]
    assert [note["content"] for note in rig.notes(message_id)] == ["c", "a", "b"]
    assert len(rig.worker.found("task_started", message_id=message_id)) == 1


def test_a_good_event_behind_a_bad_one(rig):
    """A body that is no event is dead-lettered as malformed, unread by any task, and the worker goes on."""
    bad, good = rig.send(json.dumps({"Records": "x"})), rig.upload("ok/behind")
    assert rig.course(bad) == [("dead_lettered", "malformed")]
    assert rig.cause(bad)["task"] is None
    assert rig.course(good) == [("deleted", None)]
