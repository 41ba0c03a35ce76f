"""Ends of runs, of workers and of start-ups that nobody plans: no worker is wedged, no message lost."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.outcomes.rig import Rig

pytestmark = pytest.mark.slow

ENDS = {
    "countdown": ("dead_lettered", "exhausted"),
    "eta": ("dead_lettered", "exhausted"),
    "reject-unprintable": ("dead_lettered", "rejected"),
    "reject-two": ("dead_lettered", "rejected"),
    "ignore-two": ("deleted", None),
    "error-two": ("dead_lettered", "exhausted"),
    "keyboard": ("dead_lettered", "exhausted"),
    "generator": ("dead_lettered", "exhausted"),
    "own": ("dead_lettered", "exhausted"),
    "sys-exit": ("dead_lettered", "exhausted"),
}


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_odd_ends_are_ends(elasticmq_server, pool):
    """Each has its outcome after one run, no place in the pool is lost, and a good message behind them all runs."""
    with Rig(elasticmq_server) as rig:
        sent = {name: rig.announce(rig.record(f"odd/{name}")) for name in ENDS}
        when = rig.announce(rig.record("odd/when"))
        good = [rig.announce(rig.record(f"good/{n}")) for n in range(3)]
        rig.start_worker("-P", pool, "-c", "2", BRIDGE_TASK_MODULES="tests.e2e.outcomes.odd_tasks")
        for message_id in good:
            assert rig.end(message_id)["outcome"] == "deleted"
        ends = {name: rig.end(message_id) for name, message_id in sent.items()}
        assert {name: (end["outcome"], end.get("reason")) for name, end in ends.items()} == ENDS
        # A Retry that the task raised by itself, with a moment that is none: again at once, and counted.
        rig.worker.wait_event("message_settled", message_id=when, outcome="retried")
        assert rig.worker.process.poll() is None
        rig.worker.process.terminate()
        assert rig.worker.wait_exit() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_a_long_poll(moto_server, how):
    """An idle worker asked twice leaves at once; asked once it would await the poll under way."""
    with Rig(moto_server) as rig:
        rig.start_worker("-c", "1", BRIDGE_WAIT_TIME_SECONDS="20", BRIDGE_DRAIN_SECONDS="25")
        rig.proxy.wait_for(lambda call: call.action == "ReceiveMessage", 20, "a long poll")
        rig.worker.process.send_signal(how)
        rig.worker.wait_event("drain_started")
        began = time.monotonic()
        rig.worker.process.send_signal(how)
        rig.worker.wait_exit()
        assert time.monotonic() - began < 15  # the poll goes on for 20 s, the budget for 25


def test_a_pool_that_may_grow_grows(elasticmq_server):
    """With --autoscale the worker holds what its largest pool could run, so that the pool has a reason to grow."""
    with Rig(elasticmq_server) as rig:
        sent = [rig.announce(rig.record(f"long/{n}")) for n in range(3)]
        worker = rig.start_worker("--autoscale", "3,1", BRIDGE_TASK_MODULES="tests.e2e.outcomes.odd_tasks")
        runs = [worker.wait_event("run", message_id=message_id) for message_id in sent]
        # A pool of one process would run all in that one.
        assert len({run["pid"] for run in runs}) >= 2
