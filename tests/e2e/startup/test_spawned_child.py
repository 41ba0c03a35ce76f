"""A pool child that is spawned and not forked (``--pool-start-method spawn``) is what a forked one is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.messages.celery_message import task_body
from bridge.s3.event import ObjectRecord
from bridge.testing import s3_event
from tests.support.servers.sqs import QueueFactory, SqsServer, environment_for, send
from tests.support.worker_process import PATIENCE_SECONDS, WorkerProcess

pytestmark = pytest.mark.slow

TASKS = "tests.e2e.startup.child_tasks"
SETTINGS = {
    "BRIDGE_TASK_MODULES": TASKS,
    "BRIDGE_WAIT_TIME_SECONDS": "1",
    "BRIDGE_MAX_RETRIES": "3",
    "BRIDGE_RETRY_BACKOFF_SECONDS": "7",
    "BRIDGE_RETRY_BACKOFF_MAX_SECONDS": "77",
}
TIME_LIMIT_SECONDS = 7_200


@pytest.fixture(scope="module", params=["spawn", "fork"])
def site(
    request: pytest.FixtureRequest, moto_server: SqsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A worker of both queues, with a store, whose one child is started the one way or the other."""
    queues, folder, store = QueueFactory(), tmp_path_factory.mktemp("child"), f"store-{request.param}"
    events, tasks = queues(moto_server, prefix="events"), queues(moto_server, prefix="tasks")
    moto_server.s3.create_bucket(Bucket=store)
    env = environment_for(moto_server) | SETTINGS
    env |= {
        "SQS_QUEUE_URL": events.url,
        "SQS_TASK_QUEUE_URL": tasks.url,
        "BRIDGE_IDEMPOTENCY_URL": f"s3://{store}/claims",
    }
    options = ("-c", "1", "--pool-start-method", request.param, "--time-limit", str(TIME_LIMIT_SECONDS))
    try:
        with WorkerProcess(env, *options, cwd=folder) as worker:
            yield SimpleNamespace(
                server=moto_server, worker=worker, folder=folder, events=events, tasks=tasks, way=request.param
            )
    finally:
        queues.delete_all()


@pytest.fixture(scope="module")
def seen(site: SimpleNamespace) -> dict[str, Any]:
    """What a run for an S3 event saw of its process; its message was settled as done."""
    sent = send(site.server, site.events.url, s3_event("children/a.csv", bucket="uploads-1"))
    site.worker.wait_event("message_settled", message_id=sent, outcome="deleted")
    noted: dict[str, Any] = json.loads((site.folder / "seen.json").read_text(encoding="utf-8"))
    return noted


def test_the_run_is_in_a_child_that_was_started_as_asked(site: SimpleNamespace, seen: dict[str, Any]) -> None:
    """The worker took the option: the run's process is a child of the worker, and spawned if that was asked for."""
    assert seen["pid"] in site.worker.children()
    assert seen["parent_pid"] == site.worker.pid
    assert seen["spawned"] == (site.way == "spawn")


def test_the_child_has_tasks_and_routes(seen: dict[str, Any]) -> None:
    """The child has imported the worker's task modules, and knows their routes in the order of definition."""
    assert seen["routes"] == [f"{TASKS}.look", f"{TASKS}.count"]
    assert seen["tasks"] == sorted(f"{TASKS}.{name}" for name in ("look", "count", "double", "leave"))


def test_a_spawned_child_builds_no_worker(site: SimpleNamespace, seen: dict[str, Any]) -> None:
    """A spawned child loads the root with its signals, and neither the runtime of the parent nor its SQS calls."""
    parents_own = {
        "bridge.worker.bootsteps",
        "bridge.worker.runtime",
        "bridge.worker.dispatch",
        "bridge.sqs.fast_client",
    }
    assert "bridge.celery" in seen["modules"]
    if site.way == "spawn":
        assert not parents_own & set(seen["modules"])
    else:
        assert parents_own <= set(seen["modules"])


def test_the_child_runs_tasks_with_the_defaults_of_the_worker(seen: dict[str, Any]) -> None:
    """Retries, backoff and time limits that a task leaves open are those of the settings and the command line."""
    assert (seen["max_retries"], seen["backoff_seconds"], seen["backoff_max_seconds"]) == (3, 7, 77)
    assert (seen["time_limit"], seen["soft_time_limit"]) == (TIME_LIMIT_SECONDS, TIME_LIMIT_SECONDS - 10)


def test_a_child_has_one_app(seen: dict[str, Any]) -> None:
    """The decorators' app, the running task's and Celery's current one are the same object."""
    assert seen["apps"] == 1


def test_the_child_claims_its_event(site: SimpleNamespace, seen: dict[str, Any]) -> None:
    """With a store the run holds a claim, and a second message of the same event is ignored as a duplicate."""
    assert seen["claims"] == 1
    event = s3_event("children/b.csv", bucket="uploads-1")
    for outcome, reason in (("deleted", None), ("ignored", "duplicate")):
        sent = send(site.server, site.events.url, event)
        settled = site.worker.wait_event("message_settled", message_id=sent)
        assert (settled["outcome"], settled.get("reason")) == (outcome, reason)


def test_no_task_ends_the_child(site: SimpleNamespace) -> None:
    """``sys.exit()`` in a task of Celery's own decorator is an error of the task, and costs no process."""
    children = site.worker.children()
    record = ObjectRecord(bucket="uploads-1", key="a.csv")
    send(site.server, site.tasks.url, task_body(record, f"{TASKS}.leave", "leaves", "a test"))
    ended = site.worker.wait_for(
        lambda event: event.get("event") in ("task_failed", "task_retried") and event["task"] == f"{TASKS}.leave",
        PATIENCE_SECONDS,
        "end of the run",
    )
    assert (ended["event"], ended["error_type"]) == ("task_failed", "TaskExited")
    assert site.worker.children() == children
