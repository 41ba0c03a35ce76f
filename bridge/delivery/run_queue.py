"""The run queue before the pool: starts no more tasks than there are free processes or threads, and none after the
drain began.

Celery hands requests to the pool as they are received (the threads pool takes them all at once, and runs them after a
SIGTERM). Here they wait in our own line, in Celery's own sight (``inspect reserved``), until a place is free: so what
has not started can be handed back at any moment, and a revoke reaches it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.log import get_logger

log = get_logger(__name__)

#: Looked up for every message, and an enum's members are slow to find.
_RUNNING = LeaseState.RUNNING


class RunQueue:
    """Takes Celery requests in order and hands them to the pool."""

    def __init__(
        self,
        table: LeaseTable,
        *,
        processes: Callable[[], int],
        hand_to_pool: Callable[[Any], Any],
        wake: Callable[[], None],
        on_expired: Callable[[Lease], None],
        on_refused: Callable[[Lease], None],
        on_dropped: Callable[[Any], object],
        one_at_a_time: bool,
        may_pump: Callable[[], bool] = lambda: False,
    ) -> None:
        """``wake`` makes the main loop call ``pump``, from any thread; ``on_refused`` gets what the pool fails to take,
        ``on_dropped`` the Celery requests that will not run. ``may_pump`` says whether the thread that asks may hand a
        request to the pool itself: then a free place is filled at once, without a turn of the main loop.

        ``one_at_a_time`` is for the solo pool, where handing a request over runs it: the main loop must breathe
        between two tasks, or no signal would be seen.
        """
        self._table = table
        self._processes = processes
        self._hand_to_pool = hand_to_pool
        self._wake = wake
        self._on_expired = on_expired
        self._on_refused = on_refused
        self._on_dropped = on_dropped
        self._one_at_a_time = one_at_a_time
        self._may_pump = may_pump
        self._lock = threading.RLock()  # two that see one free place must not both fill it
        self._waiting: deque[tuple[Lease, Any]] = deque()

    def submit(self, request: Any) -> None:
        """Let a Celery request wait for its place."""
        self._waiting.append((request.lease, request))
        if self._one_at_a_time:
            self._wake()
        else:
            self.pump()

    def slot_free(self) -> None:
        """A task has ended; called from any thread."""
        if not self._waiting:
            return
        if self._may_pump():
            self.pump()
        else:
            self._wake()

    def pump(self) -> None:
        """Start what may start."""
        with self._lock:
            self._pump()

    def _pump(self) -> None:
        processes = self._processes() if self._waiting else 0
        while self._waiting and self._table.counts[_RUNNING] < processes:
            lease, request = self._waiting.popleft()
            if not self._table.start(lease, time.monotonic()):
                self._refused(lease)
                self._on_dropped(request)  # Celery would count it as reserved for ever
                continue
            try:
                self._hand_to_pool(request)
            except Exception:
                log.exception("pool_refused", **lease.log_fields)
                self._on_refused(lease)
            if self._one_at_a_time:
                if self._waiting:
                    self._wake()
                return

    def forget(self) -> None:
        """Drop the line: Celery's consumer restarted, and its requests are void."""
        with self._lock:  # a thread of the pool may be about to take the next one
            self._waiting.clear()

    def _refused(self, lease: Lease) -> None:
        if lease.state is LeaseState.WAITING and not self._table.closed:
            # It expired while it waited (an outage): another worker may have it, so it must not start here.
            self._on_expired(lease)
