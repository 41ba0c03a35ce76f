"""From received to running: a message goes to Celery's consumer, comes back as a request, and waits in the run queue.

Celery's consumer and its strategies belong to the main loop, and receivers have threads of their own; so whatever makes
work wakes the main loop, which does the rest in order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.worker import state as worker_state

from bridge import metrics
from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.run_queue import RunQueue
from bridge.delivery.settle_calls import BUG_DELAY_SECONDS
from bridge.delivery.settler import Settler
from bridge.log import get_logger
from bridge.messages.verdicts import HandBack, RetryIn
from bridge.worker import run_report
from bridge.worker.event_loop import Waker
from bridge.worker.pool import WorkerPool
from bridge.worker.transport import Channel

log = get_logger(__name__)


class Dispatch:
    """Hands messages to Celery and Celery's requests to the pool."""

    def __init__(self, leases: LeaseTable, pool: WorkerPool, *, hand_to_pool: Callable[[Any], Any]) -> None:
        """``hand_to_pool`` is Celery's own ``on_task_request``."""
        self._leases = leases
        self._channel: Channel | None = None
        self._ready: deque[tuple[Lease, dict[str, Any]]] = deque()
        self._settler: Settler
        self._waker = Waker(self._on_wake)
        self.run_queue = RunQueue(
            leases,
            processes=pool.processes,
            hand_to_pool=hand_to_pool,
            wake=self.wake,
            on_expired=self._on_expired,
            on_refused=self._on_bug,
            on_dropped=worker_state.task_ready,
            one_at_a_time=pool.kind == "solo",
            may_pump=pool.takes_from_this_thread,
        )

    def connect(self, ready: deque[tuple[Lease, dict[str, Any]]], settler: Settler) -> None:
        """Take messages from ``ready``, in order, and settle with ``settler`` what Celery cannot take."""
        self._ready = ready
        self._settler = settler

    def attach(self, channel: Channel) -> None:
        """Deliver to this channel; a new one after a restart of Celery's consumer."""
        self._channel = channel

    def register(self, hub: Any) -> None:
        """Join the event loop, again after each time that Celery rebuilt it."""
        self._waker.register(hub)

    def wake(self) -> None:
        """Make the main loop look at what is ready and at the run queue; may be called from any thread."""
        self._waker.wake()

    def end_worker(self, exit_code: int) -> None:
        """Let the worker leave with this exit code; may be called from any thread."""
        worker_state.should_stop = exit_code
        self.wake()

    def on_orphaned(self, lease: Lease) -> None:
        """Hand back a message that Celery no longer knows."""
        self._settler.carry_out(lease, HandBack("unanswered"))
        self.run_queue.slot_free()

    def on_run_ended(self, task: Any = None, **_: Any) -> None:
        """Celery's last signal of a run, sent in this process by the threads and solo pools."""
        number = (task.request.get("bridge") or {}).get("lease")
        lease = self._leases.numbered(number)
        if lease is not None and lease.state is LeaseState.RUNNING:
            lease.run_ended_at = time.monotonic()
            run_report.overran(lease)

    def _on_wake(self) -> None:
        """On the main loop: give Celery what was received, then start what may start."""
        while self._ready:
            lease, payload = self._ready.popleft()
            if lease.state is LeaseState.WAITING:
                self._deliver(lease, payload)
        self.run_queue.pump()

    def _deliver(self, lease: Lease, payload: dict[str, Any]) -> None:
        assert self._channel is not None  # noqa: S101 - receivers start only when a channel consumes
        try:
            self._channel.deliver(lease.queue.name, payload)
        except Exception:  # whatever Celery's strategy trips over: the message must outlive it
            log.exception("deliver_bug", **lease.log_fields)
            self._on_bug(lease)
        finally:
            lease.delivered = True

    def _on_bug(self, lease: Lease) -> None:
        self._settler.settle(lease, RetryIn(BUG_DELAY_SECONDS, BUG_DELAY_SECONDS, reason="bridge-error"))

    def _on_expired(self, lease: Lease) -> None:
        self._leases.drop(lease)
        metrics.count_expired(lease.queue.name)
        log.warning("message_expired", **lease.log_fields)
        log.warning("message_lapsed", **lease.log_fields)  # its former name, for one release
