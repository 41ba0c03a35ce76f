"""One worker of each pool for all tests here; it makes spans too, for a collector of the tests."""

from __future__ import annotations

import pytest

from tests.e2e.logs.collector import running_collector
from tests.e2e.outcomes.rig import Rig

TASKS = "tests.e2e.logs.log_tasks"


@pytest.fixture(scope="package")
def collector():
    """Takes the spans of the workers."""
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="package", params=["prefork", "threads", "solo"])
def rig(moto_server, request, collector):
    """A worker of each pool, with one process or thread: what a run left behind, the next would show."""
    with Rig(moto_server, "tasks") as rig:
        rig.start_worker(
            *("-P", request.param, "-c", "1"),
            BRIDGE_TASK_MODULES=TASKS,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="50",
        )
        yield rig
