"""The manifests' own commands, run as processes with the manifests' own variables, do their work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.health.asking import await_status, free_port
from tests.k8s.conftest import Rendered
from tests.k8s.kustomize import Document
from tests.servers.sqs import QueueFactory, SqsServer, environment_for, receive, send
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]


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


def test_the_job_of_the_scaled_job(
    rendered: Rendered, check: ModuleType, moto_server: SqsServer, queues: QueueFactory, tmp_path: Path
) -> None:
    """The ScaledJob's command takes one message, runs the task, and ends with exit code 0."""
    arguments, given = container_of(rendered("scaled-job"), "ScaledJob", check)
    (tmp_path / "my_files.py").write_text(
        "from bridge import message_task\n\n@message_task(everything=True)\ndef take(message):\n    return None\n"
    )
    queue = queues(moto_server)
    send(moto_server, queue.url, "one")
    send(moto_server, queue.url, "two")
    env = {
        "PATH": os.environ["PATH"],
        **given,
        **environment_for(moto_server),
        "SQS_QUEUE_URL": queue.url,
        "BRIDGE_TASK_MODULES": "my_files",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)]),
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges:RuntimeWarning",
    }
    del env["BRIDGE_IDEMPOTENCY_URL"]  # there is no DynamoDB here
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *arguments[1:]],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"received": 1' in done.stdout + done.stderr
    assert len(receive(moto_server, queue.url)) == 1
