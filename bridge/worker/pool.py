"""Celery's pool: its kind and size, which thread may hand it a request, and bounds on how large its children grow.

A leak in a task, or in a library that it uses, would otherwise end in the kernel killing whatever is largest
(celery#8521, #3712). Celery replaces a child between two tasks, so nothing is interrupted.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from bridge.delivery.drain import PoolKind
from bridge.errors import SettingsError

#: Celery reads a prefetch multiplier of 0 as "no limit"; a window needs one, or a flood would be held by one worker.
UNLIMITED_MULTIPLIER = 100


#: A child is replaced after this many tasks: often enough to bound a leak, too rarely to cost anything. (After 1,000,
#: two children at 800 short tasks per second are replaced every two seconds or so, each by a fork of the whole worker.)
MAX_TASKS_PER_CHILD = 10_000
#: The share of a container's memory that its processes may fill.
MEMORY_SHARE = 0.8
#: What cgroup version 1 says for "no limit" is close to 2^63.
_NO_LIMIT_BYTES = 2**60


_POOL_KINDS: dict[str, PoolKind] = {
    "celery.concurrency.prefork": "prefork",
    "celery.concurrency.thread": "threads",
    "celery.concurrency.solo": "solo",
}


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


def bound_children(worker: Any) -> None:
    """Set Celery's ``max_tasks_per_child``, and inside a container ``max_memory_per_child`` (KiB), if unset.

    The container's memory is shared among the children, with one share more for the parent.
    https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-max-memory-per-child
    """
    if worker.max_tasks_per_child is None:
        worker.max_tasks_per_child = MAX_TASKS_PER_CHILD
    container_bytes = container_memory_bytes()
    if worker.max_memory_per_child is None and container_bytes is not None:
        worker.max_memory_per_child = int(container_bytes * MEMORY_SHARE / 1024 / (int(worker.concurrency) + 1))


def container_memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the memory limit of this container in bytes, of cgroup version 2 or 1; None when there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            return int(text)
    return None


def pool_kind(pool: Any) -> PoolKind:
    """Return which pool it is; raises SettingsError for one that the bridge does not know how to drain."""
    module = type(pool).__module__ if not isinstance(pool, type) else pool.__module__
    kind = _POOL_KINDS.get(module)
    if kind is None:
        raise SettingsError(f"pool {module} is not supported: use -P prefork, threads or solo")
    return kind
