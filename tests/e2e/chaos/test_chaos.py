"""Three workers, thousands of objects, and everything that can happen to them; seeded, and bounded in time.

``CHAOS_OBJECTS``, ``CHAOS_SECONDS`` (of killing) and ``CHAOS_SEED`` make it longer, or another run, on demand.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from bridge.testing import s3_event
from tests import REPOSITORY
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

OBJECTS = int(os.environ.get("CHAOS_OBJECTS", "3000"))
KILLING_SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
WORKERS = 3
POISON = 5
#: The default visibility timeout: what a killed worker held comes back after it.
LAPSE_SECONDS = 120


def plant(server: SqsServer, queue: QueuePair) -> None:
    """Send the events, the poison among them, ten a call."""
    bodies = [json.dumps(s3_event(f"o/{n:05d}", bucket="chaos")) for n in range(OBJECTS)]
    bodies += [json.dumps(s3_event(f"poison/{n}", bucket="chaos")) for n in range(POISON)]
    bodies += [f"garbage {n}" for n in range(POISON)]
    random.Random(SEED).shuffle(bodies)  # noqa: S311 - repeatable, and no secret
    for n in range(0, len(bodies), 10):
        entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(bodies[n : n + 10])]
        assert len(server.sqs.send_message_batch(QueueUrl=queue.url, Entries=entries)["Successful"]) == len(entries)


class Fleet:
    """The workers, and what was done to them."""

    def __init__(self, environment: dict[str, str], stack: contextlib.ExitStack) -> None:
        self._environment = environment
        self._stack = stack
        self.all: list[WorkerProcess] = []
        self.running: list[WorkerProcess] = []
        self.child_kills = 0
        self.unsettled_at_kills = 0
        self.drained: list[WorkerProcess] = []

    def add(self) -> None:
        worker = WorkerProcess(self._environment, "-c", "2", wait_ready=False)
        self._stack.enter_context(worker)
        self.all.append(worker)
        self.running.append(worker)

    def kill_child(self, worker: WorkerProcess, choose: random.Random) -> None:
        if children := worker.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(choose.choice(children), signal.SIGKILL)
                self.child_kills += 1

    def kill(self, worker: WorkerProcess) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait_exit()
        started = {e["message_id"] for e in worker.found("task_started")}
        settled = {e["message_id"] for e in worker.found("message_settled")}
        # A start whose line was still in the pipe is one more at most for each process.
        self.unsettled_at_kills += len(started - settled) + 2
        self.running.remove(worker)

    def roll(self, worker: WorkerProcess) -> None:
        worker.process.terminate()
        self.running.remove(worker)
        self.drained.append(worker)


def runs(marks: Path) -> dict[str, tuple[int, int]]:
    """Key → (starts, ends)."""
    found = {}
    for path in marks.iterdir():
        lines = path.read_text().splitlines()
        found[path.name] = (sum(x.startswith("start") for x in lines), sum(x.startswith("end") for x in lines))
    return found


@pytest.mark.elasticmq  # moto takes 40 ms and more for a receive when many messages wait: the run would take an hour
@pytest.mark.slow
@pytest.mark.timeout(KILLING_SECONDS + LAPSE_SECONDS + 240)
def test_nothing_is_lost_and_little_is_repeated(
    elasticmq_server: SqsServer, queues: QueueFactory, tmp_path: Path
) -> None:
    """Whatever is killed, rolled or refused: every effect happens, and repeats are bounded by what was running."""
    queue = queues(elasticmq_server, visibility_timeout_seconds=30)
    plant(elasticmq_server, queue)
    choose = random.Random(SEED)  # noqa: S311 - repeatable, and no secret
    marks = tmp_path / "marks"
    marks.mkdir()
    with FaultProxy(elasticmq_server.endpoint_url) as proxy, contextlib.ExitStack() as stack:
        proxy.random_failures(0.1, seed=SEED)
        fleet = Fleet(
            {
                **environment_for(elasticmq_server),
                "AWS_ENDPOINT_URL_SQS": proxy.url,
                "SQS_QUEUE_URL": queue.url,
                "BRIDGE_TASK_MODULES": "tests.e2e.chaos.chaos_tasks",
                "CHAOS_MARKS": str(marks),
                "PYTHONPATH": str(REPOSITORY),
            },
            stack,
        )
        for _ in range(WORKERS):
            fleet.add()
        wait_until(lambda: any(marks.iterdir()), 60, "the first run")
        until = time.monotonic() + KILLING_SECONDS
        while time.monotonic() < until:
            time.sleep(choose.uniform(1.0, 3.0))  # the pause between two blows is the chaos itself
            # A SIGTERM that comes before Python has its handlers ends a process like any other.
            at_work = [worker for worker in fleet.running if worker.found("task_started")]
            if not at_work:
                continue
            worker = choose.choice(at_work)
            match choose.choices(["child", "worker", "rollout"], [6, 2, 2])[0]:
                case "child":
                    fleet.kill_child(worker, choose)
                case "worker":
                    fleet.kill(worker)
                    fleet.add()
                case "rollout":
                    fleet.roll(worker)
                    fleet.add()
        wait_until(lambda: counts(elasticmq_server, queue.url).total == 0, LAPSE_SECONDS + 200, "an empty queue")
        for worker in fleet.drained:
            assert worker.wait_exit(60) == 0, worker.output[-3000:]
        for worker in list(fleet.running):
            worker.wait_for(lambda line: "ready" in str(line.get("event")), 60, "the worker ready")
            fleet.roll(worker)
        for worker in fleet.drained:
            assert worker.wait_exit(60) == 0, worker.output[-3000:]
        proxy.clear()

    found = runs(marks)
    assert len(found) == OBJECTS
    assert all(ends >= 1 for _, ends in found.values())
    letters = receive_all(elasticmq_server, queue.dlq_url)
    assert sum("poison" in body for body in letters) == POISON
    assert len({body for body in letters if body.startswith("garbage")}) == POISON
    assert not [body for body in letters if "o/" in body]
    # A dead letter whose send was answered with an error that came too late may be there twice: SQS is at least once.
    assert len(letters) <= 2 * POISON + fleet.unsettled_at_kills
    extra = sum(starts for starts, _ in found.values()) - OBJECTS
    allowed = fleet.child_kills + fleet.unsettled_at_kills
    print(f"chaos: {extra} extra runs, {allowed} allowed; {fleet.child_kills} children killed")  # noqa: T201
    assert extra <= allowed


def receive_all(server: SqsServer, url: str) -> list[str]:
    """Every body of a queue."""
    bodies: list[str] = []
    while messages := receive(server, url, visibility_timeout_seconds=600):
        bodies += [m["Body"] for m in messages]
    return bodies
