"""What a worker says of itself when it starts: where its messages come from, where they go, and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.messages.explain import describe
from bridge.messages.routing import Route
from bridge.settings.loading import WorkerSettings
from bridge.sqs.queues import Queue


def banner_fields(settings: WorkerSettings, queues: Sequence[Queue], routes: Sequence[Route]) -> dict[str, Any]:
    """Return the same as ``banner``, as fields of a log event."""
    return {
        "queues": [q.url for q in queues],
        "dead_letter_queues": [q.dlq_url or "not known yet" for q in queues],
        "region": settings.region,
        "task_modules": list(settings.task_modules),
        "routes": [describe(r) for r in routes],
        "results_url": settings.results_url,
        "idempotency_url": settings.idempotency_url,
        "visibility_timeout_seconds": settings.visibility_timeout_seconds,
        "drain_seconds": settings.drain_seconds,
        "health_url": settings.health_url,
        "monitor_bus": settings.monitor_shown,
    }


def banner(settings: WorkerSettings, queues: Sequence[Queue], routes: Sequence[Route]) -> str:
    """Return the lines a person reads on a terminal."""
    lines = ["", "Bucket Brigade"]
    for queue in queues:
        what = "Celery's own messages" if queue.kind == "task" else "S3 events"
        lines += [f"  queue    {queue.url}  ({what})", f"  DLQ      {queue.dlq_url or 'not known yet'}"]
    lines.append(f"  region   {settings.region}")
    lines.append(f"  modules  {', '.join(settings.task_modules)}")
    lines += [f"  route    {describe(route)}" for route in routes] or ["  route    none"]
    lines.append(f"  results  {settings.results_url or 'none (BRIDGE_RESULTS_URL)'}")
    lines.append(f"  store    {settings.idempotency_url or 'none (BRIDGE_IDEMPOTENCY_URL)'}")
    lines.append(f"  health   {settings.health_url or 'none (BRIDGE_HEALTH_PORT)'}")
    lines.append(f"  bus      {settings.monitor_shown or 'none (BRIDGE_MONITOR_URL)'}")
    return "\n".join([*lines, "", ""])
