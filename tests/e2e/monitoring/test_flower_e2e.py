"""Flower over SQS: live workers, tasks with their objects, the queues' depths; seen by a real browser too."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.health.asking import samples
from tests.e2e.monitoring.flower_process import FlowerProcess, browse, needs_chromium
from tests.e2e.monitoring.site import END_SECONDS, Site
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq]

ENDS = ("deleted", "dead_lettered")
#: What a person who looks at Flower may be shown too late.
TRUTH_SECONDS = 10.0


@pytest.fixture(scope="module")
def flower(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowerProcess]:
    """Flower on the module's bus, started before any worker."""
    with FlowerProcess(site.environment(), tmp_path_factory.mktemp("flower") / "output.log") as flower:
        yield flower


@pytest.fixture(scope="module")
def health_port() -> int:
    """Where the worker serves its metrics."""
    return free_port()


@pytest.fixture(scope="module")
def worker(site: Site, flower: FlowerProcess, health_port: int) -> Iterator[WorkerProcess]:
    """A worker that has run tasks of every end."""
    settings = {"BRIDGE_HEALTH_PORT": str(health_port), "BRIDGE_LOG_LEVEL": "INFO"}
    with site.worker("-c", "2", "-n", "first@shop", **settings) as worker:
        yield worker


def test_flower_is_closed(flower: FlowerProcess) -> None:
    """It listens on 127.0.0.1 unless told otherwise, and a wrong password is refused."""
    assert flower.host == "127.0.0.1"
    assert flower.get("/tasks", credentials="me:wrong")[0] == 401


def test_counts_are_the_workers_own(site: Site, flower: FlowerProcess, worker: WorkerProcess, health_port: int) -> None:
    """After 3,000 messages Flower has counted what the worker's metrics and its log say, and knows every task."""
    names = {"good": 3, "flaky": 2, "bad": 2}
    ids = {name: [site.put(f"{name}/Überblick {n}.csv") for n in range(count)] for name, count in names.items()}
    site.put_noops(3_000)
    site.wait_empty()
    total = 3_000 + 3 + 2 * 2 + 2

    def counted() -> int:
        return int(flower.workers().get("first@shop", {}).get("task-started", 0))

    wait_until(lambda: counted() >= total, END_SECONDS, f"{total} runs in Flower")
    row = flower.workers()["first@shop"]
    kinds = ("task-started", "task-succeeded", "task-retried", "task-failed")
    assert {kind: row[kind] for kind in kinds} == {kind: len(worker.found(kind.replace("-", "_"))) for kind in kinds}
    assert (row["task-received"], row["status"]) == (total, True)
    metrics = samples(health_port)
    runs: Counter[str] = Counter()
    for (name, labels), value in metrics.items():
        if name == "bridge_task_runs_total":
            runs[labels[0]] += int(value)  # by outcome and task
    assert runs == {name: row[f"task-{name}"] for name in ("succeeded", "retried", "failed")}
    assert metrics["bridge_monitor_events_dropped_total", ()] == 0
    assert metrics["bridge_monitor_connected", ("events",)] == metrics["bridge_monitor_connected", ("control",)] == 1
    wait_until(lambda: flower.workers()["first@shop"]["active"] == 0, END_SECONDS, "a heartbeat with nothing active")
    tasks = {task["uuid"]: task for task in flower.tasks()}
    assert [tasks[i]["state"] for i in ids["good"]] == ["SUCCESS"] * 3
    assert [(tasks[i]["state"], tasks[i]["retries"]) for i in ids["flaky"]] == [("SUCCESS", 1)] * 2
    assert [(tasks[i]["state"], tasks[i]["exception"]) for i in ids["bad"]] == [
        ("FAILURE", "ValueError('this file is broken')")
    ] * 2
    assert {tasks[i]["args"] for i in ids["good"]} == {f"s3://uploads/good/Überblick {n}.csv" for n in range(3)}


def test_broker_page_shows_sqs(site: Site, flower: FlowerProcess, worker: WorkerProcess) -> None:
    """The page that would look for the queues in Redis shows SQS's counts, dead letters included, on page and API."""
    status, page = flower.get("/broker")
    assert status == 200
    assert site.queue.name in page
    assert "Queues in SQS" in page
    rows = {row["name"]: row for row in flower.json("/api/queues/length")["active_queues"]}
    assert rows[site.queue.name]["messages"] == 0
    assert rows[f"{site.queue.name}-dlq"]["messages_ready"] >= 2  # the two of `bad`


def test_a_browser_shows_it(site: Site, flower: FlowerProcess, worker: WorkerProcess, tmp_path: Path) -> None:
    """Chromium shows the worker online, and succeeded, failed and retried tasks by name with their objects."""
    needs_chromium()
    last = [site.put(key) for key in ("good/2026/März.csv", "bad/half a file.csv", "flaky/again.csv", "good/final.csv")]
    for message_id in last:
        worker.wait_for(
            lambda e, i=message_id: e.get("message_id") == i and e.get("outcome") in ENDS, END_SECONDS, "end"
        )
    gate = site.put("gate/a large file.parquet")
    worker.wait_event("task_started", END_SECONDS, task_id=gate)
    wait_until(lambda: any(task["uuid"] == gate for task in flower.tasks()), END_SECONDS, "the running task in Flower")
    address = f"http://me:secret@127.0.0.1:{flower.port}"
    shown = browse(f"{address}/tasks", tmp_path / "profile", "--dump-dom")
    text = " ".join(re.sub(r"<[^>]*>", " ", shown).split())
    objects = ("s3://uploads/good/2026/März.csv", "s3://uploads/bad/half a file.csv", "s3://uploads/flaky/again.csv")
    for wanted in ("good", "flaky", "bad", "gate", "SUCCESS", "FAILURE", "STARTED", "first@shop", *objects):
        assert wanted in text, f"{wanted} is not on the page: {text[:2000]}"
    workers = browse(f"{address}/workers", tmp_path / "profile", "--dump-dom")
    assert "Online" in workers
    assert "first@shop" in workers
    site.open_gate("gate/a large file.parquet")
    worker.wait_event("message_settled", END_SECONDS, message_id=gate)


def test_killed_and_restarted(site: Site, flower: FlowerProcess, worker: WorkerProcess) -> None:
    """Within 10 s Flower shows that a worker was killed, and that another has taken its place."""
    os.killpg(worker.pid, signal.SIGKILL)
    wait_until(lambda: not flower.workers()["first@shop"]["status"], TRUTH_SECONDS, "first@shop offline")
    with site.worker("-c", "1", "-n", "first@shop"):
        wait_until(lambda: flower.workers()["first@shop"]["status"], TRUTH_SECONDS, "first@shop online again")
    wait_until(lambda: not flower.workers()["first@shop"]["status"], TRUTH_SECONDS, "first@shop stopped")


def test_rolled(site: Site, flower: FlowerProcess) -> None:
    """Within 10 s of each step Flower shows a worker that takes over from one which drains, and that one gone."""
    with site.worker("-c", "1", "-n", "old@shop", BRIDGE_DRAIN_SECONDS="60") as old:
        last = site.put("gate/of the old one")
        old.wait_event("task_started", END_SECONDS, task_id=last)
        with site.worker("-c", "1", "-n", "new@shop") as new:
            wait_until(lambda: flower.workers().get("new@shop", {}).get("status"), TRUTH_SECONDS, "new@shop online")
            old.process.terminate()
            taken = site.put("good/by the new one")
            new.wait_event("message_settled", END_SECONDS, message_id=taken)
            tasks = wait_until(
                lambda: (
                    (known := {task["uuid"]: task for task in flower.tasks()}).get(taken, {}).get("state") == "SUCCESS"
                    and known
                ),
                TRUTH_SECONDS,
                "the new worker's task",
            )
            assert (tasks[taken]["worker"], tasks[last]["worker"]) == ("new@shop", "old@shop")
            # It still works, and beats while it does.
            assert (flower.workers()["old@shop"]["status"], tasks[last]["state"]) == (True, "STARTED")
            site.open_gate("gate/of the old one")
            assert old.wait_exit(END_SECONDS) == 0
            wait_until(lambda: not flower.workers()["old@shop"]["status"], TRUTH_SECONDS, "old@shop gone")
            tasks = {task["uuid"]: task for task in flower.tasks()}
            assert tasks[last]["state"] == "SUCCESS"


def test_flower_stops(flower: FlowerProcess, worker: WorkerProcess) -> None:
    """SIGTERM ends Flower at once, and its output holds neither a traceback nor a password."""
    flower.process.terminate()
    assert flower.process.wait(20) == 0
    assert "Traceback" not in flower.output()
    assert "secret" not in flower.output()
    assert json.dumps(flower.output()).count("Failed to capture") == 0
