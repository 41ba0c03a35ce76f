from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.e2e.bad_input.bodies import BAD_BODIES, event
from tests.e2e.bad_input.celery_bodies import FORMS, celery_bodies
from tests.support.servers.sqs import QueueFactory, SqsServer, counts, environment_for, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

TASKS = "tests.e2e.bad_input.everything_task"
EVENTS = {
    "S3 event": json.dumps(event("good/file%2B1.txt")),
    "S3 removal": json.dumps(event("gone.txt", eventName="ObjectRemoved:Delete")),
    "S3 event of two objects": json.dumps({"Records": event("a")["Records"] + event("b")["Records"]}),
    "test event": json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads-tests"}),
}
NAMES = [*(bad.name for bad in BAD_BODIES), *(name for name, _, _ in FORMS), *EVENTS]


@pytest.fixture(scope="module")
def run(sqs_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A worker whose only task takes everything, and what it kept of all the bodies there are."""
    queues, folder = QueueFactory(), tmp_path_factory.mktemp("everything")
    queue = queues(sqs_server, prefix="everything", visibility_timeout_seconds=60)
    bodies = {bad.name: bad.body for bad in BAD_BODIES} | EVENTS
    bodies |= celery_bodies(sqs_server, queues, f"{TASKS}.leave_a_trace")
    env = environment_for(sqs_server) | {
        "SQS_QUEUE_URL": queue.url,
        "BRIDGE_TASK_MODULES": TASKS,
        "BRIDGE_ALLOWED_BUCKETS": "uploads-*",
        "BRIDGE_WAIT_TIME_SECONDS": "1",
    }
    ids = {name: send(sqs_server, queue.url, body) for name, body in bodies.items()}
    try:
        with WorkerProcess(env, "-c", "2", cwd=folder) as worker:
            wait_until(lambda: counts(sqs_server, queue.url).total == 0, 60, "an empty queue")
            yield SimpleNamespace(worker=worker, server=sqs_server, queue=queue, bodies=bodies, ids=ids, folder=folder)
    finally:
        queues.delete_all()


@pytest.mark.parametrize("name", NAMES)
def test_everything_takes_every_body(run: SimpleNamespace, name: str) -> None:
    """A message_task with everything=True is given each body as it is: garbage, Celery's, test events, S3 events."""
    kept = run.folder / "bodies" / run.ids[name]
    assert kept.read_bytes() == run.bodies[name].encode()
    [settled] = run.worker.found("message_settled", message_id=run.ids[name])
    assert settled["outcome"] == "deleted"


def test_everything_leaves_no_dead_letter(run: SimpleNamespace) -> None:
    """Where a task takes everything, nothing is dead-lettered, and no Celery message is executed either."""
    assert counts(run.server, run.queue.dlq_url).total == 0
    assert not (run.folder / "executed").exists()
