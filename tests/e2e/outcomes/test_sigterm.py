"""SIGTERM while a task runs: it finishes if the budget lets it, and is else stopped and handed back; exit code 0."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.outcomes.rig import Rig
from tests.support.servers.sqs import receive
from tests.support.servers.waiting import wait_until

DRAIN_SECONDS = 3
#: What a busy machine may add. The tasks that are to be stopped would go on for a minute, and a lease for 30 s.
BUSY_SECONDS = 10
POOLS = pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])


def alive(session_id: int) -> list[int]:
    """Return the processes of a session that still run; one that waits to be reaped does not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended while we looked
            continue
        if int(session) == session_id and state != "Z":
            found.append(int(path.parent.name))
    return found


@POOLS
def test_a_task_within_the_budget_finishes(sqs_server, pool):
    """The running task ends by itself, its message is deleted, and the worker leaves with code 0."""
    with Rig(sqs_server) as rig:
        rig.start_worker("-P", pool, "-c", "1", BRIDGE_DRAIN_SECONDS="25")
        finish_within_the_budget(rig)


def finish_within_the_budget(rig):
    """See the test above."""
    message_id = rig.upload("sleep/short", b"3")
    rig.worker.wait_event("run", message_id=message_id)
    began = time.monotonic()
    rig.worker.process.terminate()
    assert rig.notes(message_id, "slept") == []

    assert rig.worker.wait_exit() == 0
    assert time.monotonic() - began < 3 + 5 + BUSY_SECONDS
    assert len(rig.notes(message_id, "slept")) == 1
    assert rig.course(message_id) == [("deleted", None)]
    assert alive(rig.worker.pid) == []
    rig.wait_empty("main")


@POOLS
def test_a_task_beyond_the_budget_is_stopped_and_handed_back(sqs_server, pool):
    """What has not started goes back at once, what runs too long is stopped first and then goes back; nothing lives."""
    with Rig(sqs_server) as rig:
        both = [rig.upload(f"sleep/long/{n}", b"60") for n in range(2)]  # before the start: one receive brings both
        rig.start_worker(
            *("-P", pool, "-c", "1", "--prefetch-multiplier", "2"), BRIDGE_DRAIN_SECONDS=str(DRAIN_SECONDS)
        )
        stop_at_the_budget(rig, both, last_call_ends_the_process=pool != "prefork")


def stop_at_the_budget(rig, both, last_call_ends_the_process):
    """See the test above."""
    running = rig.worker.wait_event("tick")["message_id"]
    [waiting] = set(both) - {running}
    rig.proxy.wait_for(lambda call: waiting in str(call.response), 45, "the receive of the other")
    # Time for a task that was not stopped to tick while its message is handed back, in the second that threads and solo
    # give that call.
    rig.proxy.delay("ChangeMessageVisibilityBatch", seconds=0.25, times=None)
    began = time.monotonic()
    rig.worker.process.terminate()

    assert rig.worker.wait_exit() == 0
    assert DRAIN_SECONDS <= time.monotonic() - began < DRAIN_SECONDS + 5 + BUSY_SECONDS
    assert alive(rig.worker.pid) == []
    assert [(e["outcome"], e["reason"]) for e in rig.settled(waiting)] == [("handed_back", "draining")]
    assert [(e["outcome"], e["reason"]) for e in rig.settled(running)] == [("handed_back", "drain-budget")]
    assert rig.notes(waiting) == []

    # Only the changes to 0: a renewal of the lease is the same call with its full length.
    changes = [call for call in rig.proxy.calls if call.action == "ChangeMessageVisibilityBatch"]
    first, last = [c for c in changes if [e["VisibilityTimeout"] for e in c.request["Entries"]] == [0]]
    # At once (in half a second, on a machine with nothing else to do), and the other when its time was over.
    assert first.finished_at < began + DRAIN_SECONDS < last.started_at
    last_tick = rig.notes(running, "tick")[-1]["at"]
    if last_call_ends_the_process:
        assert last_tick < last.finished_at + 2
    else:
        assert last_tick < last.started_at

    again: list[Any] = []

    def both_received() -> bool:
        again.extend(receive(rig.server, rig.queues["main"].url))
        return len(again) == 2

    wait_until(both_received, BUSY_SECONDS, "both messages, visible again at once")
    assert {m["MessageId"]: m["Attributes"]["ApproximateReceiveCount"] for m in again} == dict.fromkeys(both, "2")
    assert rig.dead_letters(running) == []
