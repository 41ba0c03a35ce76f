"""What a worker takes of memory: at its start against stock Celery's, and whether it grows with its messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import environments
from benchmarks.figures.stage import (
    Stage,
    event,
    memory_mb,
    ours,
    parent_and_children,
    run_alone,
    spread,
    stage,
    stock,
    worker,
)
from benchmarks.peers import bridge_worker, stock_celery
from benchmarks.peers.place import Command
from benchmarks.runner.measure import STANDSTILL_SECONDS, Process

CONCURRENCY = 2
PREFETCH = 64
EARLY_MESSAGES = 20_000
LATE_MESSAGES = 200_000
QUICK_EARLY, QUICK_LATE = 2_000, 20_000
#: After the pool is there, for clients and threads to be made and the first poll to be sent.
SETTLE_SECONDS = 3.0
#: The queue is filled as it drains: enough in it that the worker never waits, and never the whole run at once.
IN_QUEUE, FILL = 4_000, 1_000
TARGETS = {"parent_over_stock_mb": 15.0, "late_over_early": 1.05}


def memory(rounds: int = 1, quick: bool = False, messages: int | None = None) -> dict[str, Any]:
    """RSS and PSS of parent and children at start and after 20,000 and 200,000 no-op messages, in MB (10^6 bytes).

    Prefork 2, prefetch multiplier 64, 0 ms. ``messages`` is the later count (20,000 with ``quick``, and the earlier
    one then 2,000). A child's figures are those of the larger one. The first event is among the earlier count.
    """
    late = messages if messages is not None else (QUICK_LATE if quick else LATE_MESSAGES)
    early = min(QUICK_EARLY if quick else EARLY_MESSAGES, late)
    stock_celery.prepare()
    image = environments.image_python()
    starts: dict[str, list[dict[str, Any]]] = {"ours": [], "ours_image": [], "stock": []}
    after: dict[str, list[dict[str, Any]]] = {"early": [], "late": []}
    for _ in range(rounds):
        starts["stock"].append(_at_start(lambda at: stock(at, CONCURRENCY)))
        starts["ours_image"].append(_at_start(lambda at: ours(at, "prefork", CONCURRENCY, PREFETCH, python=image)))
        with stage(0) as at, worker(_noop_worker(at)) as process:
            starts["ours"].append(_settled(process))
            done = _drain(at, process, 0, early)
            after["early"].append(_seen(process))
            _drain(at, process, done, late)
            after["late"].append(_seen(process))
    over_stock = [
        a["parent"]["rss_mb"] - b["parent"]["rss_mb"] for a, b in zip(starts["ours"], starts["stock"], strict=True)
    ]
    growth = {
        who: [b[who]["rss_mb"] / a[who]["rss_mb"] for a, b in zip(after["early"], after["late"], strict=True)]
        for who in ("parent", "child")
    }
    return {
        "figure": "memory",
        "pool": "prefork",
        "concurrency": CONCURRENCY,
        "prefetch_multiplier": PREFETCH,
        "delay_ms": 0,
        "messages": {"early": early, "late": late},
        "start_mb": {name: _medians(found) for name, found in starts.items()},
        "after_mb": {name: _medians(found) for name, found in after.items()},
        "parent_over_stock_mb": spread(over_stock),
        "late_over_early": {who: spread(ratios) for who, ratios in growth.items()},
        "targets": TARGETS,
        "met": {
            "parent_over_stock_mb": spread(over_stock)["median"] <= TARGETS["parent_over_stock_mb"],
            "late_over_early": all(spread(r)["median"] <= TARGETS["late_over_early"] for r in growth.values()),
        },
        "versions": {"ours": bridge_worker.versions(), "stock": stock_celery.versions_on_sqs()},
    }


def _noop_worker(at: Stage) -> Command:
    return ours(at, "prefork", CONCURRENCY, PREFETCH, BRIDGE_TASK_MODULES="bridge_tasks")


def _at_start(command: Callable[[Stage], Command]) -> dict[str, Any]:
    with stage(0) as at, worker(command(at)) as process:
        return _settled(process)


def _settled(process: Process) -> dict[str, Any]:
    parent_and_children(process, CONCURRENCY)
    time.sleep(SETTLE_SECONDS)
    return _seen(process)


def _seen(process: Process) -> dict[str, Any]:
    """The memory of the parent and of its largest child, now."""
    parent, children = parent_and_children(process, CONCURRENCY)
    largest = max((memory_mb(child) for child in children), key=lambda found: found["rss_mb"])
    return {"parent": memory_mb(parent), "child": largest}


def _drain(at: Stage, process: Process, sent: int, total: int) -> int:
    """Fill the queue as it drains until ``total`` messages have been sent and deleted; return ``total``."""
    done, progress_at = at.queue.done(), time.monotonic()
    while done < total:
        if sent < total and sent - done < IN_QUEUE:
            more = min(FILL, total - sent)
            at.queue.fill(event("noop", sent + n) for n in range(more))
            sent += more
        else:
            time.sleep(0.05)
        before, done = done, at.queue.done()
        if done > before:
            progress_at = time.monotonic()
        if process.ended() or time.monotonic() - progress_at > STANDSTILL_SECONDS:
            raise RuntimeError(f"stood still at {done} of {total}: {process.last_line()}")
    time.sleep(1)  # what the last batch left behind is freed
    return done


def _medians(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        who: {kind: spread([one[who][kind] for one in found]) for kind in ("rss_mb", "pss_mb")}
        for who in ("parent", "child")
    }


if __name__ == "__main__":
    run_alone(memory, {"messages": (int, "the later count (default 200,000; 20,000 with --quick)")}, rounds=1)
