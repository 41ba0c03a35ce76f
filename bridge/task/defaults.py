"""What tasks that do not say get from the worker: retries, backoff, time limits; and which tasks it refuses to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.utils.imports import symbol_by_name

from bridge.errors import SettingsError
from bridge.messages.retry_policy import TaskLimits
from bridge.settings.loading import WorkerSettings
from bridge.task.base import BridgeTask, normalize_exits_of

#: Soft limits come this much before hard ones: 10 s, but never more than a tenth.
SOFT_LIMIT_SECONDS = 10.0
#: SQS ends every hold 43,200 s after the receive; the rest up to there is time to settle the message.
LONGEST_LIMIT_SECONDS = 42_000


def apply_defaults(
    tasks: Mapping[str, Any], settings: WorkerSettings, time_limit: float | None, soft_time_limit: float | None
) -> dict[str, TaskLimits]:
    """Give every task what it does not say, and return what the intake must know of each.

    ``time_limit`` and ``soft_time_limit`` are the worker's own (``--time-limit``, ``task_time_limit``), seconds.
    Raises SettingsError for a task that would lose messages.
    """
    limits: dict[str, TaskLimits] = {}
    for name, task in tasks.items():
        if not task.acks_late:
            raise SettingsError(f"task {name}: acks_late=False would delete a message before its task has run")
        if not _uses_our_request(task):
            raise SettingsError(f"task {name}: its base class must be bridge.task.base.BridgeTask or a subclass of it")
        if "max_retries" in task.unset_options:
            task.max_retries = settings.max_retries
        if "retry_backoff" in task.unset_options:
            task.backoff_seconds = settings.retry_backoff_seconds
        if "retry_backoff_max" in task.unset_options:
            task.backoff_max_seconds = settings.retry_backoff_max_seconds
        if getattr(task, "retry_on_worker_lost", False):
            raise SettingsError(
                f"task {name}: retry_on_worker_lost sends a new message; a lost child is retried anyway"
            )
        if settings.idempotency_url is None and (task.idempotent or task.latest_only):
            option = "latest_only=True" if task.latest_only else "idempotent=True"
            raise SettingsError(f"task {name}: {option} needs a store: set BRIDGE_IDEMPOTENCY_URL")
        hard = task.time_limit or time_limit or settings.task_time_limit_seconds
        soft = task.soft_time_limit or (None if task.time_limit else soft_time_limit)
        task.time_limit = hard
        task.soft_time_limit = soft or hard - min(SOFT_LIMIT_SECONDS, hard / 10)
        if hard > LONGEST_LIMIT_SECONDS:
            raise SettingsError(
                f"task {name}: time_limit={hard:g} is above {LONGEST_LIMIT_SECONDS}, and SQS holds no message longer"
            )
        if task.soft_time_limit >= hard:
            raise SettingsError(
                f"task {name}: soft_time_limit={task.soft_time_limit:g} is not below time_limit={hard:g}"
            )
        # Without a heartbeat every lease is as long as the receive asks for: nothing would set a task's own length.
        own = task.visibility_timeout if settings.heartbeat else None
        visibility = own or settings.visibility_timeout_seconds
        if not settings.heartbeat and hard > visibility:
            raise SettingsError(
                f"BRIDGE_HEARTBEAT=off: task {name} may run {hard:g} s, longer than its lease of {visibility} s"
            )
        limits[name] = TaskLimits(task.max_retries, float(hard), int(visibility))
    return limits


def normalize_plain_tasks(tasks: Mapping[str, Any]) -> None:
    """Normalize the exits of tasks that Celery's own decorator made, so that none costs a process or a message."""
    for task in tasks.values():
        if task.route is None:  # our decorators see to it themselves
            normalize_exits_of(task)


def _uses_our_request(task: Any) -> bool:
    return issubclass(symbol_by_name(task.Request), symbol_by_name(BridgeTask.Request))
