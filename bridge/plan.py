"""What a worker's start found out, handed over to the parts that run it.

Celery itself makes the bootstep and can pass it nothing, so the plan waits here between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.drain import PoolKind
from bridge.errors import SettingsError
from bridge.health import HealthServer
from bridge.intake import TaskLimits
from bridge.messages.routing import Rules
from bridge.settings.loading import WorkerSettings
from bridge.sqs.queues import Queue

_POOL_KINDS: dict[str, PoolKind] = {
    "celery.concurrency.prefork": "prefork",
    "celery.concurrency.thread": "threads",
    "celery.concurrency.solo": "solo",
}


@dataclass(frozen=True)
class Plan:
    """What the start-up found out, for the parts to be built from."""

    settings: WorkerSettings
    queues: tuple[Queue, ...]
    rules: Rules
    limits: Mapping[str, TaskLimits]
    #: Its port is taken, and it answers as soon as the parts are built; None when it is switched off.
    health: HealthServer | None = None
    #: The boto3 session of the start: another one would read the models of SQS once more. None: make one.
    session: Any = None


_plan: Plan | None = None


def present_plan() -> Plan:
    """Return what was handed over; raises RuntimeError before that."""
    if _plan is None:
        raise RuntimeError("bridge.startup runs before Celery builds its consumer")
    return _plan


def use_plan(plan: Plan) -> None:
    """Hand over from ``bridge.startup``; Celery makes the bootstep itself and can pass it nothing."""
    global _plan  # noqa: PLW0603 - a process has one worker
    _plan = plan


def pool_kind(pool: Any) -> PoolKind:
    """Return which pool it is; raises SettingsError for one that the bridge does not know how to drain."""
    module = type(pool).__module__ if not isinstance(pool, type) else pool.__module__
    kind = _POOL_KINDS.get(module)
    if kind is None:
        raise SettingsError(f"pool {module} is not supported: use -P prefork, threads or solo")
    return kind
