"""Receiving from two queues of S3 events: one full of work, or just run dry, never keeps the other from its turn."""

from __future__ import annotations

import time

import pytest

from tests.e2e.outcomes.rig import Rig
from tests.support.servers.waiting import wait_until

BUSY = 60


@pytest.fixture
def rig(sqs_server):
    """A worker with two threads, and work for them in the queue ``busy`` for many seconds."""
    with Rig(sqs_server, "busy") as rig:
        record = rig.put("sleep/busy", b"0.2")
        rig.earlier["busy"] = [rig.announce(record, queue="busy") for _ in range(BUSY)]
        rig.start_worker("-P", "threads", "-c", "2")
        yield rig


def test_a_busy_queue_does_not_starve_another(rig):
    """A message on the quiet queue is run while most of the busy queue's messages still wait."""
    rig.end(rig.earlier["busy"][0])
    first = rig.upload("ok/first")
    assert rig.course(first) == [("deleted", None)]
    busy = rig.queues["busy"].name
    assert len(rig.worker.found("message_settled", queue=busy)) < BUSY * 2 / 3


def test_a_queue_that_ran_dry_does_not_starve_another(rig):
    """After the busy queue has run dry, the quiet one is received as before."""
    for message_id in rig.earlier["busy"]:
        rig.end(message_id)
    for n in range(3):
        assert rig.course(rig.upload(f"ok/{n}")) == [("deleted", None)]


def test_idle_queues_cost_one_long_poll_each(sqs_server):
    """When the work is done, the further receives end: one long poll a queue remains, and nothing else is called."""
    with Rig(sqs_server, "quiet") as rig:
        rig.start_worker("-P", "threads", "-c", "2", BRIDGE_WAIT_TIME_SECONDS="20", BRIDGE_DRAIN_SECONDS="1")
        for message_id in [rig.upload(f"ok/{n}") for n in range(12)]:
            rig.end(message_id)
        wait_until(lambda: time.monotonic() - rig.proxy.calls[-1].started_at > 4, 60, "four seconds without a call")
        polls = [call for call in rig.proxy.calls if call.finished_at is None]
        assert sorted(call.queue for call in polls) == sorted(pair.name for pair in rig.queues.values())
        assert [call.request["WaitTimeSeconds"] for call in polls] == [20, 20]
