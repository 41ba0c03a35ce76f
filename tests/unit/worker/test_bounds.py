"""How large pool children may grow: what the container allows, and what the user has said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bridge.worker import pool as bounds
from bridge.worker.pool import MAX_TASKS_PER_CHILD, bound_children, container_memory_bytes

GIB = 2**30
V1_NO_LIMIT = 9_223_372_036_854_771_712


@pytest.fixture
def cgroup(tmp_path):
    """Writes the files of a cgroup file system of either version."""

    def write(v2=None, v1=None):
        if v2 is not None:
            (tmp_path / "memory.max").write_text(v2)
        if v1 is not None:
            (tmp_path / "memory").mkdir()
            (tmp_path / "memory" / "memory.limit_in_bytes").write_text(v1)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("v2", "v1", "wanted"),
    [
        (None, None, None),
        ("max\n", None, None),
        (f"{GIB}\n", None, GIB),
        (f"{GIB}", None, GIB),
        (None, f"{2 * GIB}\n", 2 * GIB),
        (None, f"{V1_NO_LIMIT}\n", None),
        (f"{V1_NO_LIMIT}\n", None, None),
        ("max\n", f"{GIB}\n", GIB),
        (f"{GIB}\n", f"{2 * GIB}\n", GIB),
        ("", None, None),
        ("-1\n", None, None),
        ("garbage\n", f"{GIB}\n", GIB),
    ],
)
def test_the_limit_of_the_container(cgroup, v2, v1, wanted):
    """Read from version 2, else from version 1; no limit, no file and no number are None."""
    assert container_memory_bytes(cgroup(v2, v1)) == wanted


def test_a_limit_that_cannot_be_read_is_none(cgroup):
    """A directory where the file should be is an OSError like a missing permission, and no reason not to start."""
    root = cgroup()
    (root / "memory.max").mkdir()
    assert container_memory_bytes(root) is None


def worker(tasks=None, kib=None, concurrency=3):
    """What Celery's worker has of this at ``worker_init``."""
    return SimpleNamespace(max_tasks_per_child=tasks, max_memory_per_child=kib, concurrency=concurrency)


@pytest.mark.parametrize(
    ("given", "container_bytes", "wanted"),
    [
        (worker(), None, (MAX_TASKS_PER_CHILD, None)),
        (worker(), 4 * GIB, (MAX_TASKS_PER_CHILD, 838_860)),
        (worker(concurrency=1), GIB, (MAX_TASKS_PER_CHILD, 419_430)),
        (worker(tasks=5), None, (5, None)),
        (worker(tasks=5), 4 * GIB, (5, 838_860)),
        (worker(kib=100_000), 4 * GIB, (MAX_TASKS_PER_CHILD, 100_000)),
        (worker(tasks=5, kib=100_000), 4 * GIB, (5, 100_000)),
    ],
)
def test_bounds_are_defaults(monkeypatch, given, container_bytes, wanted):
    """Set where neither the user nor Celery did; the children and the parent share the container."""
    monkeypatch.setattr(bounds, "container_memory_bytes", lambda: container_bytes)
    bound_children(given)
    assert (given.max_tasks_per_child, given.max_memory_per_child) == wanted


def test_the_shares_fit_the_container(monkeypatch):
    """All children at their bound, and a parent as large as one, stay below what the kernel would kill for."""
    monkeypatch.setattr(bounds, "container_memory_bytes", lambda: GIB)
    bounded = worker(concurrency=8)
    bound_children(bounded)
    assert bounded.max_memory_per_child * 1024 * 9 <= 0.8 * GIB


@pytest.mark.parametrize("tasks", [0, -1])
def test_a_falsy_setting_of_the_user_is_a_setting(monkeypatch, tasks):
    """Only what was not said is filled in."""
    monkeypatch.setattr(bounds, "container_memory_bytes", lambda: None)
    said = worker(tasks=tasks)
    bound_children(said)
    assert said.max_tasks_per_child == tasks
