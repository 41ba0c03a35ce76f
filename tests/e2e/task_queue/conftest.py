from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.e2e.task_queue.site import TASKS, Site
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, SqsServer, environment_for
from tests.support.worker_process import WorkerProcess


@pytest.fixture(scope="package", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    """Each SQS server in turn, once for all tests of this folder: a worker takes a second to start."""
    server: SqsServer = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def calls(site: Site) -> dict[str, SimpleNamespace]:
    """What the user's process saw of its calls, by their names."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.task_queue.web_process"],
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
