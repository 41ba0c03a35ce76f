from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bad_input.celery_bodies import stock_celery
from tests.fault_proxy import Call, FaultProxy
from tests.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive, send
from tests.servers.waiting import wait_until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

TASKS = "tests.task_queue.queue_tasks"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request):
    """Each SQS server in turn, once for all tests of this file."""
    return request.getfixturevalue(f"{request.param}_server")


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

        return wait_until(enough, 20, f"{number} runs of {fields}")

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
        [letter] = wait_until(found, 20, f"a dead letter with {fields}")
        return letter


@pytest.fixture(scope="module")
def site(sqs_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker for all tests of a server."""
    queues, folder = QueueFactory(), tmp_path_factory.mktemp("task-queue")
    events, tasks = queues(sqs_server, prefix="events"), queues(sqs_server, prefix="tasks")
    (folder / "results").mkdir()
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        env = environment_for(sqs_server) | {
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "SQS_TASK_QUEUE_URL": tasks.url,
            "CELERY_RESULT_BACKEND": f"file://{folder}/results",
        }
        for_worker = {
            "SQS_QUEUE_URL": events.url,
            "BRIDGE_TASK_MODULES": TASKS,
            "BRIDGE_WAIT_TIME_SECONDS": "2",
            "BRIDGE_RETRY_BACKOFF_SECONDS": "1",
        }
        try:
            with WorkerProcess(env | for_worker, "-c", "2", cwd=folder) as worker:
                yield Site(sqs_server, proxy, worker, events, tasks, env, folder)
                assert worker.process.poll() is None
        finally:
            queues.delete_all()


@pytest.fixture(scope="module")
def calls(site: Site) -> dict[str, SimpleNamespace]:
    """What the user's process saw of its calls, by their names."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.task_queue.web_process"],
        cwd=site.folder,
        env=site.env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    notes = [json.loads(line) for line in done.stdout.splitlines()]
    return {note["call"]: SimpleNamespace(**{"value": None, "error_type": None, **note}) for note in notes}


def test_delay_runs_the_task(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task called with .delay() runs once, under Celery's own task id, and its result can be got."""
    call = calls["delay"]
    assert call.value == 3
    [run] = site.runs(id=call.id)
    assert (run["x"], run["y"], run["retries"]) == (1, 2, 0)
    [sent] = site.sent(call.id)
    assert sent.request.get("DelaySeconds", 0) == 0
    [settled] = site.worker.found("message_settled", task_id=call.id)
    assert (settled["outcome"], settled["queue"]) == ("deleted", site.tasks.name)
    assert settled["message_id"] == (sent.response or {})["MessageId"]


def test_a_short_countdown_is_a_delay_of_the_message(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """With countdown=3 the message itself is delayed: it is received once, and runs after 3 s as no retry."""
    call = calls["countdown 3"]
    [run] = site.runs(id=call.id)
    assert 3.0 <= run["at"] - call.called_at < 8.0
    assert run["retries"] == 0
    [sent] = site.sent(call.id)
    assert sent.request["DelaySeconds"] == 3
    [started] = site.worker.found("task_started", task_id=call.id)
    assert started["attempt"] == 1


def test_a_long_countdown_is_delayed_as_far_as_sqs_can(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """With countdown=2000 the message is sent with SQS's longest delay, 900 s, and no worker holds it."""
    call = calls["countdown 2000"]
    [sent] = site.sent(call.id)
    assert sent.request["DelaySeconds"] == 900
    assert counts(site.server, site.tasks.url).delayed == 1
    assert not site.runs(id=call.id)


def test_a_chain_runs_in_its_order(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """Each task of a chain is given the result of the one before."""
    assert calls["chain"].value == 123
    assert [(run["x"], run["y"]) for run in site.runs(task="add") if run["y"] in (40, 80)] == [(3, 40), (43, 80)]


def test_a_group_runs_all_its_tasks(calls: dict[str, SimpleNamespace]) -> None:
    """The results of a group come in the order of its tasks."""
    assert calls["group"].value == [0, 2, 4, 6, 8]


def test_a_chord_runs_its_body_last(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """The body of a chord runs once, with the results of all its tasks."""
    assert calls["chord"].value == 20
    assert len(site.runs(task="total")) == 1
    unlocks = site.worker.found("message_settled", task="celery.chord_unlock")
    assert {unlock["outcome"] for unlock in unlocks} == {"deleted"}


def test_a_failing_task_is_retried_in_place(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task that fails twice runs three times as one message under one id, and is a FAILURE to nobody meanwhile."""
    call = calls["fails_twice"]
    assert call.value == "third time lucky"
    assert call.states[-1] == "SUCCESS"
    assert "RETRY" in call.states
    assert "FAILURE" not in call.states
    runs = site.runs(task="fails_twice")
    assert [run["retries"] for run in runs] == [0, 1, 2]
    assert {run["id"] for run in runs} == {call.id}
    assert runs[1]["at"] - runs[0]["at"] >= 0.9
    assert runs[2]["at"] - runs[1]["at"] >= 1.9
    assert len(site.sent(call.id)) == 1


def test_a_lost_child_is_no_failure_while_retries_are_left(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task whose process was killed runs again, and whoever waits for its result is told of no failure."""
    call = calls["loses_its_child"]
    assert call.value == "another child took over"
    assert "FAILURE" not in call.states
    assert [run["retries"] for run in site.runs(task="loses_its_child")] == [0, 1]
    assert len(site.sent(call.id)) == 1


def test_an_exhausted_task_is_a_dead_letter_and_a_failure(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task out of retries is dead-lettered as it was sent, and .get() raises its error."""
    call = calls["always_fails"]
    assert (call.error_type, call.error) == ("OSError", "never")
    assert call.states[-1] == "FAILURE"
    assert [run["retries"] for run in site.runs(id=call.id)] == [0, 1]
    cause, letter = site.letter(task_id=call.id)
    assert (cause["reason"], cause["error_type"], cause["error"]) == ("exhausted", "OSError", "never")
    assert (cause["task"], cause["attempts"]) == (f"{TASKS}.always_fails", 2)
    assert 'raise OSError("never")' in cause["traceback"]
    assert letter["Body"] == site.sent(call.id)[0].request["MessageBody"]


def test_an_unknown_task_is_a_dead_letter_and_a_failure(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A message that names no registered task is dead-lettered as unrouted, and .get() raises."""
    call = calls["unknown task"]
    assert call.error_type == "NotRegistered"
    cause, letter = site.letter(task_id=call.id)
    assert (cause["reason"], cause["task"]) == ("unrouted", "nobody.knows")
    assert letter["Body"] == site.sent(call.id)[0].request["MessageBody"]


def test_a_stock_producer_can_send(site: Site) -> None:
    """A plain Celery app with Kombu's own SQS transport, which writes base64, is understood."""
    with stock_celery(site.server, site.tasks.url) as send_task:
        task_id = send_task(f"{TASKS}.add", (20, 22)).id
    site.worker.wait_event("message_settled", task_id=task_id, outcome="deleted")
    [run] = site.runs(id=task_id)
    assert (run["x"], run["y"], run["retries"]) == (20, 22, 0)


def test_an_eta_of_a_stock_producer_waits_in_place(site: Site) -> None:
    """A message that was not delayed waits for its ETA in the queue, not in a worker, and that is no attempt."""
    with stock_celery(site.server, site.tasks.url) as send_task:
        sent_at = time.time()
        task_id = send_task(f"{TASKS}.add", (30, 3), countdown=4).id
    waits = site.worker.wait_event("message_settled", task_id=task_id, outcome="retried")
    assert (waits["reason"], waits["delay_seconds"]) == ("eta", 4)
    assert not site.worker.found("task_started", task_id=task_id)
    [run] = site.await_runs(1, id=task_id)
    assert 4.0 <= run["at"] - sent_at < 9.0
    assert run["retries"] == 0
    site.worker.wait_event("message_settled", task_id=task_id, outcome="deleted")
    seen = site.proxy.for_message(waits["message_id"])
    assert [c.action for c in seen] == [
        "ReceiveMessage",
        "ChangeMessageVisibilityBatch",
        "ReceiveMessage",
        "DeleteMessageBatch",
    ]
    [started] = site.worker.found("task_started", task_id=task_id)
    assert started["attempt"] == 1


@pytest.mark.parametrize(
    "body",
    ["garbage", "{}", '{"properties": null}', '{"body": 5, "headers": {}, "properties": {}}'],
    ids=["text", "empty object", "properties: null", "no task"],
)
def test_garbage_is_a_dead_letter(site: Site, body: str) -> None:
    """What is no Celery message is dead-lettered as malformed, byte for byte."""
    message_id = send(site.server, site.tasks.url, body)
    cause, letter = site.letter(task_id=message_id)
    assert cause["reason"] == "malformed"
    assert letter["Body"] == body


class Opened:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickle_is_never_opened(site: Site) -> None:
    """A pickled message is dead-lettered as malformed, and nobody unpickles it."""
    trace = site.folder / "unpickled"
    pickle.loads(pickle.dumps(Opened(trace)))  # noqa: S301 - shows that the trap works
    assert trace.exists()
    trace.unlink()
    with stock_celery(site.server, site.tasks.url) as send_task:
        task_id = send_task(f"{TASKS}.add", (Opened(trace), 1), serializer="pickle").id
    settled = site.worker.wait_for(
        lambda e: e.get("event") == "message_settled" and "content type" in str(e.get("error")), 20, "the pickle's end"
    )
    cause, _ = site.letter(task_id=settled["message_id"])
    assert cause["reason"] == "malformed"
    assert "pickle" in cause["error"] or "python-serialize" in cause["error"]
    assert not trace.exists()
    assert not site.runs(id=task_id)


def test_without_a_task_queue_delay_says_so_at_once(site: Site) -> None:
    """.delay() in a process without SQS_TASK_QUEUE_URL raises at once, naming the setting."""
    code = f"from {TASKS} import add\nimport time\nt = time.monotonic()\ntry:\n add.delay(1, 2)\nexcept Exception as e:"
    code += "\n print(type(e).__name__, e, flush=True)\n print(time.monotonic() - t)"
    env = {name: value for name, value in site.env.items() if name != "SQS_TASK_QUEUE_URL"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=30, check=True
    )
    said, seconds = done.stdout.splitlines()
    assert said.startswith("NoTaskQueue ")
    assert "SQS_TASK_QUEUE_URL" in said
    assert float(seconds) < 2
