"""Bounds on what pool children may grow to, where neither the user nor Celery has set one.

A leak in a task, or in a library that it uses, would otherwise end in the kernel killing whatever is largest
(celery#8521, #3712). Celery replaces a child between two tasks, so nothing is interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: A child is replaced after this many tasks: often enough to bound a leak, too rarely to cost anything. (After 1,000,
#: two children at 800 short tasks a second are replaced every two seconds or so, each by a fork of the whole worker.)
MAX_TASKS_PER_CHILD = 10_000
#: The share of a container's memory that its processes may fill.
MEMORY_SHARE = 0.8
#: What cgroup version 1 says for "no limit" is close to 2^63.
_NO_LIMIT_BYTES = 2**60


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
