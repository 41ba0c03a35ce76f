"""What a worker's start found out, handed over to the parts that run it.

Celery itself makes the bootstep and can pass it nothing, so the plan waits here between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.health.server import HealthServer
from bridge.messages.retry_policy import TaskLimits
from bridge.messages.routing import Rules
from bridge.settings.loading import WorkerSettings
from bridge.sqs.queues import Queue


@dataclass(frozen=True)
class WorkerContext:
    """What the start-up found out, for the parts to be built from."""

    settings: WorkerSettings
    queues: tuple[Queue, ...]
    rules: Rules
    limits: Mapping[str, TaskLimits]
    #: Its port is taken, and it answers as soon as the parts are built; None when it is switched off.
    health: HealthServer | None = None
    #: The boto3 session of the start: another one would read the models of SQS once more. None: make one.
    session: Any = None


_context: WorkerContext | None = None


def worker_context() -> WorkerContext:
    """Return what was handed over; raises RuntimeError before that."""
    if _context is None:
        raise RuntimeError("bridge.worker.startup runs before Celery builds its consumer")
    return _context


def use_worker_context(context: WorkerContext) -> None:
    """Hand over from ``bridge.worker.startup``; Celery makes the bootstep itself and can pass it nothing."""
    global _context  # noqa: PLW0603 - a process has one worker
    _context = context
