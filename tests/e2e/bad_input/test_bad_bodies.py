from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.messages.dead_letter import CAUSE_KEYS
from tests.e2e.bad_input.bodies import ALLOWED_BUCKETS, BAD_BODIES, Bad, event
from tests.e2e.bad_input.celery_bodies import FORMS, celery_bodies
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

TASKS = "tests.e2e.bad_input.file_tasks"
ROUNDS = 2


@dataclass
class Run:
    """One worker, and what became of all that was sent to it."""

    worker: WorkerProcess
    folder: Path
    server: SqsServer
    queue: QueuePair
    bodies: dict[str, Bad]
    ids: dict[str, list[str]] = field(default_factory=dict)
    letters: dict[str, Any] = field(default_factory=dict)
    """The dead letters by the MessageId of their source."""

    def send(self, name: str) -> None:
        self.ids.setdefault(name, []).append(send(self.server, self.queue.url, self.bodies[name].body))

    def send_good(self, key: str) -> None:
        send(self.server, self.queue.url, event(f"good/{key}"))

    def await_good(self, *keys: str) -> None:
        for key in keys:
            self.worker.wait_event("task_succeeded", 60, key=f"good/{key}")


@pytest.fixture(scope="module")
def run(sqs_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Every bad body sent twice: before the worker starts, with one good event behind; then a good event after each."""
    queues, folder = QueueFactory(), tmp_path_factory.mktemp("bad")
    queue = queues(sqs_server, prefix="bad", visibility_timeout_seconds=60)
    celery = celery_bodies(sqs_server, queues, f"{TASKS}.leave_a_trace")
    bodies = {bad.name: bad for bad in BAD_BODIES} | {name: Bad(name, body) for name, body in celery.items()}
    env = environment_for(sqs_server) | {
        "SQS_QUEUE_URL": queue.url,
        "BRIDGE_TASK_MODULES": TASKS,
        "BRIDGE_ALLOWED_BUCKETS": ALLOWED_BUCKETS,
        "BRIDGE_WAIT_TIME_SECONDS": "1",
        "BRIDGE_POD_NAME": "the-worker",
    }
    worker = WorkerProcess(env, "-c", "2", cwd=folder)
    run = Run(worker, folder, sqs_server, queue, bodies)
    for name in bodies:
        run.send(name)
    run.send_good("behind")
    try:
        with worker:
            run.await_good("behind")
            for number, name in enumerate(bodies):
                run.send(name)
                run.send_good(str(number))
            run.await_good(*map(str, range(len(bodies))))
            expected = ROUNDS * len(bodies)
            wait_until(lambda: counts(sqs_server, queue.dlq_url).visible >= expected, 60, f"{expected} dead letters")
            wait_until(lambda: counts(sqs_server, queue.url).total == 0, 45, "an empty queue")
            while letters := receive(sqs_server, queue.dlq_url):
                for letter in letters:
                    cause = json.loads(letter["MessageAttributes"]["BridgeCause"]["StringValue"])
                    assert cause["task_id"] not in run.letters, "dead-lettered twice"
                    run.letters[cause["task_id"]] = (letter, cause)
            yield run
    finally:
        queues.delete_all()


@pytest.mark.parametrize("name", [*(bad.name for bad in BAD_BODIES), *(name for name, _, _ in FORMS)])
def test_a_bad_body_is_a_dead_letter(run: Run, name: str) -> None:
    """Each bad body is in the dead-letter queue byte for byte, with its reason and a complete cause."""
    bad = run.bodies[name]
    assert len(run.ids[name]) == ROUNDS
    for message_id in run.ids[name]:
        letter, cause = run.letters[message_id]
        assert letter["Body"] == bad.body
        assert cause["reason"] == bad.reason
        assert cause["error"]
        assert list(cause) == list(CAUSE_KEYS)
        assert (cause["version"], cause["task"], cause["attempts"]) == (1, None, 1)
        assert (cause["source_queue"], cause["worker"]) == (run.queue.name, "the-worker")
        assert cause["first_received_at"] <= cause["dead_lettered_at"]


def test_there_is_no_other_dead_letter(run: Run) -> None:
    """The dead-letter queue holds each bad body once for each time it was sent, and nothing else."""
    assert run.letters.keys() == {message_id for ids in run.ids.values() for message_id in ids}


@pytest.mark.parametrize("name", [name for name, _, _ in FORMS])
def test_a_celery_message_is_named_in_its_cause(run: Run, name: str) -> None:
    """The cause of a Celery message on a queue of S3 events says that it was one and was not executed."""
    _, cause = run.letters[run.ids[name][0]]
    assert "Celery message" in cause["error"]
    assert "never runs" in cause["error"]


def test_celery_messages_are_never_executed(run: Run) -> None:
    """No Celery message on the queue of S3 events has run the registered task that it names."""
    assert not (run.folder / "executed").exists()
    assert not run.worker.found("task_started", task=f"{TASKS}.leave_a_trace")


def test_good_events_run_once_beside_the_bad(run: Run) -> None:
    """Each good event behind and between the bad bodies was run exactly once."""
    keys = [started["key"] for started in run.worker.found("task_started")]
    assert sorted(keys) == sorted(["good/behind", *(f"good/{number}" for number in range(len(run.bodies)))])


def test_one_worker_took_them_all(run: Run) -> None:
    """The worker that took the first bad body still lives, and met no error of its own with any."""
    assert run.worker.process.poll() is None
    assert not run.worker.found("intake_bug")
    assert not run.worker.found("deliver_bug")
    assert not run.worker.found("settle_bug")
