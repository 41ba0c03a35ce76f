"""Ours: ``celery -A bridge worker`` from this checkout, metrics and leases on, bus off."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version

from benchmarks.peers.place import Command, Place
from tests.support.servers.port import free_port


def versions() -> dict[str, str]:
    """What the worker runs on."""
    return {name: version(name) for name in ("bucket-brigade", "celery", "kombu", "boto3")}


def worker(pool: str, concurrency: int, prefetch: int) -> Callable[[Place, str], Command]:
    """Return what starts a worker with that pool, concurrency and prefetch multiplier."""

    def command(place: Place, workload: str) -> Command:
        argv = [sys.executable, "-m", "celery", "-A", "bridge", "worker", "-l", "WARNING", "-P", pool]
        argv += ["-c", str(concurrency), "--prefetch-multiplier", str(prefetch)]
        env = place.environment(
            SQS_QUEUE_URL=place.queue_url,
            SQS_DLQ_URL=place.dead_letter_url,
            BRIDGE_TASK_MODULES="bridge_tasks",
            BRIDGE_LOG_LEVEL="WARNING",
            BRIDGE_LOG_FORMAT="json",
            BRIDGE_HEALTH_PORT=str(free_port()),
        )
        return Command(argv, env)

    return command
