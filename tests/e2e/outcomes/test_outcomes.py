"""What becomes of a message: time limits and lost processes, which only prefork has, and what never reaches a pool."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.outcomes.rig import TASKS, Rig


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where the worker stores results, a file each."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def rig(sqs_server, results):
    """A prefork worker with an allowed bucket, an output prefix of its own, a task queue and a result backend."""
    with Rig(sqs_server, "tasks") as rig:
        rig.start_worker(
            "-P",
            "prefork",
            "-c",
            "4",
            CELERY_RESULT_BACKEND=f"file://{results}",
            BRIDGE_ALLOWED_BUCKETS="e2e-*",
            BRIDGE_RESULTS_URL=f"s3://{rig.bucket}/results/",
        )
        yield rig


def celery_body(task: str, *args: object, **headers: object) -> tuple[str, str]:
    """Return the id and the body of a message that Celery would send (task protocol 2)."""
    task_id = str(uuid.uuid4())
    message = {
        "body": json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0, **headers},
        "properties": {"correlation_id": task_id, "delivery_mode": 2, "delivery_tag": str(uuid.uuid4())},
    }
    return task_id, json.dumps(message)


def status(results: Path, task_id: str) -> str | None:
    """Return the status of the stored result, or None when none is stored."""
    path = results / f"celery-task-meta-{task_id}"
    return json.loads(path.read_text())["status"] if path.exists() else None


def pids(rig: Rig, message_id: str) -> list[int]:
    """Return the process of each run."""
    return [note["pid"] for note in rig.notes(message_id)]


def test_hard_time_limit(rig, results):
    """The hard time limit ends the process; the message is retried, and dead-lettered when retries are used up."""
    message_id = rig.upload("hard/a")
    rig.worker.wait_event("message_settled", message_id=message_id, outcome="retried")
    assert status(results, message_id) != "FAILURE"
    assert rig.course(message_id) == [("retried", None), ("dead_lettered", "time-limit")]
    assert rig.retries(message_id) == [0, 1]
    assert len(set(pids(rig, message_id))) == 2
    # The task took no notice of the soft limit, which comes a tenth of the hard one earlier.
    assert [n["error"] for n in rig.notes(message_id, "caught")] == ["SoftTimeLimitExceeded"] * 2
    cause = rig.cause(message_id)
    assert (cause["error_type"], cause["attempts"], cause["task"]) == ("TimeLimitExceeded", 2, f"{TASKS}.hard")
    assert status(results, message_id) == "FAILURE"


def test_soft_time_limit(rig):
    """The soft time limit is retried like the hard one, with the task's own backoff, and its process lives on."""
    message_id = rig.upload("soft/a")
    assert rig.course(message_id) == [("retried", None), ("dead_lettered", "time-limit")]
    assert rig.retries(message_id) == [0, 1]
    assert set(pids(rig, message_id)) <= set(rig.worker.children())
    cause = rig.cause(message_id)
    assert (cause["error_type"], cause["attempts"]) == ("SoftTimeLimitExceeded", 2)
    assert "time.sleep(60)" in cause["traceback"]


def test_child_killed_once(rig, results):
    """A process killed from outside costs its message one retry; the second run succeeds in another process."""
    message_id = rig.upload("killed-once/a")
    rig.worker.wait_event("message_settled", message_id=message_id, outcome="retried")
    # The second run is a second away: a FAILURE now would tell whoever waits for the result that it was the end.
    assert status(results, message_id) != "FAILURE"
    assert rig.course(message_id) == [("retried", None), ("deleted", None)]
    assert rig.retries(message_id) == [0, 1]
    first, second = pids(rig, message_id)
    assert first != second
    assert first not in rig.worker.children()
    assert status(results, message_id) == "SUCCESS"


def test_child_killed_on_every_attempt(rig, results):
    """A task that takes its process down each time is dead-lettered as worker-lost after its retries."""
    message_id = rig.upload("killed/a")
    assert rig.course(message_id) == [("retried", None), ("dead_lettered", "worker-lost")]
    assert rig.retries(message_id) == [0, 1]
    cause = rig.cause(message_id)
    assert (cause["error_type"], cause["attempts"]) == ("WorkerLostError", 2)
    assert "SIGKILL" in cause["error"]
    assert status(results, message_id) == "FAILURE"
    assert rig.course(rig.upload("ok/after")) == [("deleted", None)]


def test_expired(rig):
    """A Celery message whose ``expires`` has passed is deleted without a run."""
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    task_id, body = celery_body(f"{TASKS}.add", 1900, 2, expires=past)
    message_id = rig.send(body, queue="tasks")
    assert rig.course(message_id) == [("ignored", "revoked")]
    assert rig.settled(message_id)[0]["task_id"] == task_id
    assert rig.worker.found("added", x=1900) == []


def test_not_yet_expired(rig):
    """A Celery message whose ``expires`` lies ahead is run."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    task_id, body = celery_body(f"{TASKS}.add", 2900, 2, expires=soon)
    message_id = rig.send(body, queue="tasks")
    assert rig.course(message_id) == [("deleted", None)]
    assert rig.settled(message_id)[0]["task_id"] == task_id
    assert len(rig.worker.found("added", x=2900)) == 1


def test_celery_message_on_an_event_queue(rig):
    """A Celery message on a queue of S3 events is dead-lettered and never executed."""
    message_id = rig.send(celery_body(f"{TASKS}.add", 3900, 2)[1])
    assert rig.course(message_id) == [("dead_lettered", "malformed")]
    assert rig.worker.found("added", x=3900) == []


def test_own_output(rig):
    """An event for an object under our own output prefix is ignored: it would be an endless loop."""
    message_id = rig.upload("results/a.json")
    assert rig.course(message_id) == [("ignored", "own-output")]


def test_s3_test_event(rig):
    """The test event that S3 sends when a notification is set up is deleted."""
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-14T09:00:00.000Z", "Bucket": rig.bucket}
    assert rig.course(rig.send(json.dumps(event))) == [("ignored", "test-event")]


def test_forbidden_bucket(rig):
    """An event of a bucket outside BRIDGE_ALLOWED_BUCKETS is dead-lettered, and no task sees it."""
    message_id = rig.announce(rig.record("ok/a", bucket="elsewhere"))
    assert rig.course(message_id) == [("dead_lettered", "forbidden-bucket")]
    assert rig.notes(message_id) == []
    assert "elsewhere" in rig.cause(message_id)["error"]


def test_mixed_records(rig):
    """A message whose records go to two tasks is dead-lettered whole, and neither task runs."""
    message_id = rig.announce(rig.put("ok/mixed"), rig.put("ignore/mixed"))
    assert rig.course(message_id) == [("dead_lettered", "mixed")]
    assert rig.notes(message_id) == []
    assert f"{TASKS}.ignore, {TASKS}.ok" in rig.cause(message_id)["error"]
