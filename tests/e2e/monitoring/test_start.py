"""A worker's start with a bus that is named and cannot be used, and what -E means."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.monitoring.site import Site
from tests.support.servers.sqs import SqsServer
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq]


def test_refused_without_the_client(elasticmq_server: SqsServer, tmp_path: Path) -> None:
    """With a bus named and Redis's client not installed, the worker refuses to start: one line, exit code 2."""
    (tmp_path / "redis.py").write_text("raise ImportError('not here')\n")
    with Site(elasticmq_server, "redis://:pw@127.0.0.1:1") as site:
        environment = site.environment()
        environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
        with WorkerProcess(environment, wait_ready=False) as worker:
            assert worker.wait_exit(60) == 2
        assert len(worker.lines) == 1
        assert "pip install 'bucket-brigade[monitor]'" in worker.output
        assert ":pw" not in worker.output


def test_task_events_without_a_bus(elasticmq_server: SqsServer) -> None:
    """-E without a bus is a warning that names the setting; the worker runs without events."""
    with Site(elasticmq_server, "") as site, site.worker("-E", "-P", "solo") as worker:
        assert "BRIDGE_MONITOR_URL" in worker.wait_event("task_events_off")["error"]
