"""A worker of both queues, and what can be seen of it: its runs, its calls to SQS, its dead letters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fault_proxy import Call, FaultProxy
from tests.support.servers.sqs import QueuePair, SqsServer, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

TASKS = "tests.e2e.task_queue.queue_tasks"


@dataclass
class Site:
    """A worker of both queues, reached through a proxy that writes down every call."""

    server: SqsServer
    proxy: FaultProxy
    worker: WorkerProcess
    events: QueuePair
    tasks: QueuePair
    env: dict[str, str]
    folder: Path

    def runs(self, **fields: Any) -> list[dict[str, Any]]:
        """The runs that the tasks noted, in order."""
        file = self.folder / "runs.jsonl"
        noted = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [run for run in noted if fields.items() <= run.items()]

    def await_runs(self, number: int, **fields: Any) -> list[dict[str, Any]]:
        def enough() -> list[dict[str, Any]]:
            runs = self.runs(**fields)
            return runs if len(runs) >= number else []

        return wait_until(enough, 45, f"{number} runs of {fields}")

    def sent(self, task_id: str) -> list[Call]:
        """The SendMessage calls to the task queue for this task id."""
        calls = [c for c in self.proxy.calls if c.action == "SendMessage" and c.queue == self.tasks.name]
        return [c for c in calls if json.loads(c.request["MessageBody"])["headers"]["id"] == task_id]

    def letter(self, **fields: Any) -> tuple[dict[str, Any], Any]:
        """The one dead letter whose cause has these fields, waited for: (cause, message); it is not deleted."""

        def found() -> list[tuple[dict[str, Any], Any]]:
            for message in receive(self.server, self.tasks.dlq_url, visibility_timeout_seconds=1):
                cause = json.loads(message["MessageAttributes"]["BridgeCause"]["StringValue"])
                letters[message["MessageId"]] = (cause, message)
            return [(cause, message) for cause, message in letters.values() if fields.items() <= cause.items()]

        letters: dict[str, tuple[dict[str, Any], Any]] = {}
        [letter] = wait_until(found, 45, f"a dead letter with {fields}")
        return letter
