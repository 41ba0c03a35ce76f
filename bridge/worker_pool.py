"""What the bridge asks of Celery's pool: its kind and size, and which thread may hand a request to it."""

from __future__ import annotations

import threading
from typing import Any

from bridge.drain import PoolKind
from bridge.plan import pool_kind

#: Celery reads a prefetch multiplier of 0 as "no limit"; a window needs one, or a flood would be held by one worker.
UNLIMITED_MULTIPLIER = 100


class WorkerPool:
    """The pool of this worker. It may be asked from any thread."""

    def __init__(self, consumer: Any) -> None:
        """Called on the main loop's thread; raises SettingsError for a pool that the bridge cannot drain."""
        self._consumer = consumer
        self.kind: PoolKind = pool_kind(consumer.pool)
        self._main_thread = threading.get_ident()

    def processes(self) -> int:
        """Return how many tasks run at a time; 0 when the pool has stopped."""
        try:
            return int(self._consumer.pool.num_processes)
        except AttributeError:  # Celery's pool forgets itself when it stops (celery.concurrency.prefork)
            return 0

    def pids(self) -> list[int]:
        """Return the children's process ids; none without children, or when the pool has stopped."""
        try:
            return list(self._consumer.pool.info["processes"])
        except AttributeError:
            return []

    def window(self) -> int:
        """Return how many messages the worker may hold: processes times prefetch multiplier."""
        # With --autoscale the pool grows when more waits than it can run, so the window is that of the largest pool.
        most = max(self.processes(), getattr(self._consumer.controller, "max_concurrency", None) or 0)
        return most * (self._consumer.prefetch_multiplier or UNLIMITED_MULTIPLIER)

    def takes_from_this_thread(self) -> bool:
        """Say whether this thread may hand it a request: threads take from any, prefork's pipes are the main loop's."""
        if self.kind == "prefork":
            return threading.get_ident() == self._main_thread
        return self.kind == "threads"

    def keep_what_it_was_given(self) -> None:
        """Let a prefork pool keep what it was given and has not accepted when Celery's consumer closes.

        Celery would drop it, and the child run it all the same, while the message is handed back. Kept, it is waited
        for like any running task.
        """
        self._consumer.pool.flush = None

    def replace_dead_children(self) -> None:
        """Look for dead children now: Billiard itself does every 5 s, and a task handed to one would wait as long."""
        if self.kind == "prefork":
            self._consumer.pool.maintain_pool()
