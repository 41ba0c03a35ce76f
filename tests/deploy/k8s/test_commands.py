"""The manifests' own commands, run as processes with the manifests' own variables, do their work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import REPOSITORY
from tests.deploy.k8s.conftest import Rendered
from tests.deploy.k8s.kustomize import Document
from tests.e2e.health.asking import await_status
from tests.support.servers.port import free_port
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.slow
#: A run of the ScaledJob's command: its exit code and the line ``run_summary``.
RunJob = Callable[[], tuple[int, dict[str, Any]]]
#: The task of the ScaledJob's tests: the second retry is the third failure.
JOB_TASK = """
from bridge import message_task

@message_task(everything=True, max_retries=2, retry_backoff=1, retry_jitter=False)
def take(message):
    if message.body == "bad":
        raise ValueError("as told")
"""


def container_of(documents: list[Document], kind: str, check: ModuleType) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables of the container that works on the queue."""
    [container] = [
        container
        for document in documents
        if document["kind"] == kind and (pod := check.pod_spec(document))
        for container in pod["containers"]
        if container["name"] == "worker"
    ]
    given = check.environment(container, documents)
    del given["BRIDGE_MONITOR_URL"]  # optional, and there is no bus here
    return list(container["args"]), given


def test_the_worker_of_the_dev_overlay(
    rendered: Rendered,
    check: ModuleType,
    moto_server: SqsServer,
    queues: QueueFactory,
    tmp_path: Path,
) -> None:
    """The dev overlay's worker starts with its ConfigMaps, answers its probes on all addresses, and runs its task."""
    documents = rendered("dev")
    arguments, given = container_of(documents, "Deployment", check)
    assert arguments[:4] == ["celery", "-A", "bridge", "worker"]
    [tasks] = [doc["data"] for doc in documents if doc["metadata"]["name"].startswith("bucket-brigade-tasks-")]
    for name, text in tasks.items():
        (tmp_path / name).write_text(text)
    queue, port = queues(moto_server), free_port()
    env = {
        **given,
        **environment_for(moto_server),
        "SQS_QUEUE_URL": queue.url,
        "BRIDGE_HEALTH_PORT": str(port),
        "BRIDGE_WAIT_TIME_SECONDS": "1",  # a drain waits for the poll under way
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)]),
    }
    with WorkerProcess(env, *arguments[4:]) as worker:
        assert worker.found("worker_starting")[0]["health_url"] == f"http://0.0.0.0:{port}"
        await_status(port, "/live", 200)
        await_status(port, "/ready", 200)
        message_id = send(moto_server, queue.url, '{"seconds": 0.1}')
        settled = worker.wait_event("message_settled", message_id=message_id)
        assert (settled["outcome"], settled["task"]) == ("deleted", "dev_tasks.pretend")
        assert settled["pod_name"] == "from-the-cluster"


@pytest.fixture
def job_queue(moto_server: SqsServer, queues: QueueFactory) -> QueuePair:
    """The queue of the ScaledJob, with its DLQ."""
    return queues(moto_server)


@pytest.fixture
def run_job(
    rendered: Rendered, check: ModuleType, moto_server: SqsServer, job_queue: QueuePair, tmp_path: Path
) -> RunJob:
    """Run the ScaledJob's command as its pod would: a process, with the manifest's variables and little else."""
    arguments, given = container_of(rendered("scaled-job"), "ScaledJob", check)
    assert arguments[:2] == ["brigade", "run-once"]
    (tmp_path / "my_files.py").write_text(JOB_TASK)
    env = {
        "PATH": os.environ["PATH"],
        **given,
        **environment_for(moto_server),
        "SQS_QUEUE_URL": job_queue.url,
        "BRIDGE_TASK_MODULES": "my_files",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)]),
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges:RuntimeWarning",
    }
    del env["BRIDGE_IDEMPOTENCY_URL"]  # there is no DynamoDB here

    def run() -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *arguments[1:]],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        [summary] = [line for line in lines if line["event"] == "run_summary"]
        assert summary["exit_code"] == done.returncode, done.stderr
        return done.returncode, summary

    return run


def test_the_job_of_the_scaled_job(run_job: RunJob, moto_server: SqsServer, job_queue: QueuePair) -> None:
    """The ScaledJob's command takes one message of two, runs the task, and ends with exit code 0."""
    send(moto_server, job_queue.url, "one")
    send(moto_server, job_queue.url, "two")
    code, summary = run_job()
    assert (code, summary["received"], summary["settled"]) == (0, 1, {"deleted": 1})
    assert counts(moto_server, job_queue.url).total == 1


def test_the_third_failure_of_a_scaled_job(run_job: RunJob, moto_server: SqsServer, job_queue: QueuePair) -> None:
    """Each failing Job ends with 1; two leave the message in retry, the third in the DLQ with its cause."""
    send(moto_server, job_queue.url, "bad")
    for outcome in ("retried", "retried", "dead_lettered"):
        wait_until(lambda: counts(moto_server, job_queue.url).visible == 1, 30, "the message to be visible")
        code, summary = run_job()
        assert (code, summary["settled"]) == (1, {outcome: 1})
    assert counts(moto_server, job_queue.url).total == 0
    [letter] = receive(moto_server, job_queue.dlq_url)
    assert letter["Body"] == "bad"
    cause = json.loads(letter["MessageAttributes"]["BridgeCause"]["StringValue"])
    assert (cause["reason"], cause["error_type"], cause["attempts"]) == ("exhausted", "ValueError", 3)


def test_a_scaled_job_without_a_message(run_job: RunJob) -> None:
    """A Job that comes too late finds nothing for its idle time-out and ends with 0, so that nobody is alarmed."""
    code, summary = run_job()
    assert (code, summary["received"], summary["settled"]) == (0, 0, {})
