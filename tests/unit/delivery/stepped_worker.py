"""A worker's delivery without threads: the real parts, wired as in ``bridge.worker.runtime``, each step taken when
asked.

What a thread would wait for ends its step instead: a lane takes one due batch and makes its call, and who would have
to wait for a renewal under way (``Blocked``) is tried again later.
"""

from __future__ import annotations

import sys
import threading
import weakref

import pytest

from bridge import metrics
from bridge.delivery import batcher as batchers
from bridge.delivery import heartbeat, intake, run_queue
from bridge.delivery import settle_calls as deletes
from bridge.delivery import settler as settle
from bridge.delivery.heartbeat import Heartbeat
from bridge.delivery.intake import Intake
from bridge.delivery.lease import LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.run_queue import RunQueue
from bridge.delivery.settler import Settler
from bridge.messages.retry_policy import TaskLimits
from bridge.messages.routing import Route, Rules
from bridge.messages.verdicts import HandBack
from bridge.sqs.queues import Queue
from tests.unit.delivery.watch import Blocked, Watch

#: The modules that read a clock; each has its own name for it.
_CLOCKED = (deletes, run_queue, heartbeat, intake, batchers, settle)
PROCESSES = 3
VISIBILITY_SECONDS = 30
DLQ_URL = "https://sqs/1/dead"
QUEUES = tuple(Queue(f"stepped-{n}", f"https://sqs/1/{n}", "event", dlq_url=DLQ_URL) for n in "ab")
RULES = Rules(tuple(Route(task=name, kind="file", key=f"{name}/*") for name in ("plain", "slow", "quick")))
#: The leases of two tasks are longer and shorter than what the receive asks for.
LIMITS = {
    "plain": TaskLimits(2, 60.0, VISIBILITY_SECONDS),
    "slow": TaskLimits(None, 600.0, 200),
    "quick": TaskLimits(2, 60.0, 6),
}
SPARE_RECEIVES = 2
#: Stands for SQS's twelve hours, which would take thousands of renewals.
HOLD_SECONDS = 1_200


class _NeverSleeps(threading.Condition):
    def __init__(self, on_wait, lock):
        super().__init__(lock)
        self._on_wait = on_wait

    def wait(self, timeout=None):
        self._on_wait()
        return True


def _blocked():
    raise Blocked


class Run:
    """What stands for Celery's request: the bridge asks it for its lease, and whether it is still there."""

    def __init__(self, lease):
        self.lease = lease


class SteppedWorker:
    """The parts of one worker that hold messages. ``verdicts`` has what each lease was to become, ``running`` what the
    pool has, ``handles`` every receipt handle this worker was told of.
    """

    def __init__(self, sqs, clock):
        self._patch = pytest.MonkeyPatch()
        for module in _CLOCKED:
            self._patch.setattr(module, "time", clock)
        for name, module in sys.modules.items():  # whoever uses it: one that was forgotten would wait for the real ones
            if name.startswith("bridge.") and name != "bridge.sqs.quotas" and hasattr(module, "MAX_VISIBILITY_SECONDS"):
                self._patch.setattr(module, "MAX_VISIBILITY_SECONDS", HOLD_SECONDS)
        self.sqs = sqs
        self.clock = clock
        self.verdicts = {}
        self.running = []
        self.handles = set()
        self.watch = Watch(sqs, self)
        self.table = LeaseTable()
        self.table._renewal_done = _NeverSleeps(_blocked, self.table.lock)
        self.settler = Settler(sqs.client("settle"), self.table, worker="pod-1", on_slot_free=lambda: None)
        self._carry_out, self.settler.carry_out = self.settler.carry_out, self._note_verdict
        self.heartbeat = Heartbeat(
            sqs.client("heartbeat"),
            self.table,
            lambda lease: self.settler.carry_out(lease, HandBack("unanswered")),
            renew=True,
        )
        self.intake = Intake(
            self.table,
            self.settler,
            RULES,
            LIMITS,
            visibility_timeout_seconds=VISIBILITY_SECONDS,
            spare_receives=SPARE_RECEIVES,
            worker="worker-1",
            wake=lambda: None,
        )
        self.run_queue = RunQueue(
            self.table,
            processes=lambda: PROCESSES,
            hand_to_pool=self._hand_to_pool,
            wake=lambda: None,
            on_expired=self._on_expired,
            on_refused=lambda lease: self.watch.says(f"the pool refused {lease.message_id}"),
            on_dropped=lambda _: None,
            one_at_a_time=False,
        )
        self.batchers = {
            "delete": self.settler._deletes,
            "visibility": self.settler._visibility,
            "dead-letter": self.settler._dead_letters,
        }
        self._in_call = dict.fromkeys(self.batchers, 0)
        for name, batcher in self.batchers.items():
            batcher._condition = _NeverSleeps(
                lambda batcher=batcher: setattr(batcher, "_stopped", True), batcher._condition._lock
            )
            batcher._call = self._one_call(name, batcher, batcher._call)
        self._beating = False
        self._counted = _counters()

    def undo(self):
        """Leave the modules and the loggers as they were."""
        self.watch.close()
        self._patch.undo()

    def receive(self, queue, count):
        """A receive's answer comes in; hand-out and answer are one moment, for the lease counts from the answer."""
        messages = self.sqs.receive(queue.url, count, VISIBILITY_SECONDS)
        self.handles.update(raw["ReceiptHandle"] for raw in messages)
        self.intake.take(queue, messages, self.clock.now)

    def main_loop(self, *, loses_requests=False):
        """A turn of the main loop, as in lifecycle.Bridge; Celery may lose requests (an error in its strategy)."""
        while self.intake.ready:
            lease, _ = self.intake.ready.popleft()
            if lease.state is LeaseState.WAITING:
                if not loses_requests:
                    run = Run(lease)
                    lease.request = weakref.ref(run)
                    self.run_queue.submit(run)
                lease.delivered = True
        self.run_queue.pump()

    def end(self, verdict, position=0):
        """A running task ends with this verdict, if one runs."""
        if self.running:
            run = self.running.pop(position % len(self.running))
            if not self.settler.settle(run.lease, verdict):
                self.watch.says(f"the end of {run.lease.message_id} was refused: {verdict}")

    def beat(self):
        """The heartbeat's turn, unless its thread is in a call."""
        if not self._beating:
            self._beating = True
            self.heartbeat.beat()
            self._beating = False

    def step(self, name):
        """Let a free thread of a lane take one due batch; nothing when none is due or no thread is free."""
        batcher = self.batchers[name]
        if self._in_call[name] < len(batcher._threads):
            batcher._run()
            batcher._stopped = False

    def close(self):
        """The drain begins: nothing starts, and what has not started is handed back."""
        for lease in self.table.close():
            self.settler.carry_out(lease, HandBack("draining"))

    def stop_running(self):
        """The drain's budget is over: the tasks are stopped, then their messages handed back."""
        stopped = [run.lease for run in self.running if self.table.release(run.lease)]
        self.running.clear()
        for lease in stopped:
            self.settler.carry_out(lease, HandBack("drain-budget"))

    def held(self):
        """All leases."""
        return self.table.in_state(LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING, LeaseState.RELEASING)

    def dead_letters(self):
        """The bodies in the dead-letter queue."""
        return [message.body for message in self.sqs.queues.get(DLQ_URL, [])]

    def counted(self, name):
        """How far ``received``, ``settled`` or ``lapsed`` has been counted since the worker began."""
        return _counters()[name] - self._counted[name]

    def _one_call(self, name, batcher, call):
        def one_call(batch):
            self._in_call[name] += 1
            try:
                return list(call(batch))
            finally:
                self._in_call[name] -= 1
                batcher._stopped = True  # one batch a step

        return one_call

    def _note_verdict(self, lease, verdict):
        if lease in self.verdicts:
            self.watch.says(f"a second verdict for {lease.message_id}: {self.verdicts[lease]}, {verdict}")
        self.verdicts[lease] = verdict
        self._carry_out(lease, verdict)

    def _hand_to_pool(self, run):
        here = [lease for lease in self.held() if lease.message_id == run.lease.message_id and lease is not run.lease]
        if any(lease.state is not LeaseState.RELEASING for lease in here):
            self.watch.says(f"{run.lease.message_id} started while it ran here or awaited its delete")
        if any(other.lease.message_id == run.lease.message_id for other in self.running):
            self.watch.says(f"{run.lease.message_id} runs twice")
        if not self.sqs.holds(run.lease.receipt_handle):
            self.watch.says(f"{run.lease.message_id} started when others could have it")
        self.running.append(run)

    def _on_expired(self, lease):
        self.table.drop(lease)
        metrics.count_expired(lease.queue.name)


def _counters():
    names = {queue.name for queue in QUEUES}
    return {
        name: sum(
            sample.value
            for family in counter.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["queue"] in names
        )
        for name, counter in (("received", metrics.received), ("settled", metrics.settled), ("lapsed", metrics.expired))
    }
