"""What the settings change about the lines: the job's name, and what is seen at debug only."""

from __future__ import annotations

import pytest

from tests.e2e.logs.conftest import TASKS
from tests.e2e.outcomes.rig import Rig


@pytest.fixture(scope="module")
def rig(moto_server):
    """A worker of a named job that tells everything."""
    with Rig(moto_server) as rig:
        rig.start_worker(
            *("-P", "solo"),
            BRIDGE_TASK_MODULES=TASKS,
            BRIDGE_JOB_ID="nightly-7",
            BRIDGE_LOG_LEVEL="debug",
            OTEL_TRACES_EXPORTER="zipkin",
        )
        yield rig


def test_a_named_job(rig):
    """With BRIDGE_JOB_ID set, every line has it as its job_id, about a task or not."""
    message_id = rig.upload("talk/a")
    rig.end(message_id)
    lines = [e for e in rig.worker.events if "pod_name" in e]
    assert len(lines) > 5
    assert {line["job_id"] for line in lines} == {"nightly-7"}


def test_bodies_and_empty_polls_at_debug(rig):
    """At DEBUG each message is told with its body as it is received, and empty polls too."""
    message_id = rig.send("a body for debug")
    rig.end(message_id)
    [received] = rig.worker.found("message_received", message_id=message_id)
    assert (received["body"], received["level"]) == ("a body for debug", "debug")
    rig.worker.wait_event("poll", received=0, level="debug")


def test_an_exporter_that_is_missing_costs_a_warning(rig):
    """A worker asked for spans that it cannot make says so once, and works."""
    message_id = rig.upload("talk/b")
    assert rig.end(message_id)["outcome"] == "deleted"
    [warning] = rig.worker.found("tracing_off")
    assert warning["error"] == "no span exporter zipkin is installed"
    [line] = rig.worker.found("halfway through talk/b")
    assert not {"trace_id", "span_id"} & line.keys()
