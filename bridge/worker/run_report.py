"""Report how a run ended, once: a log line and the counters, in the parent process."""

from __future__ import annotations

import time
from logging import INFO
from typing import Any

from bridge import metrics
from bridge.delivery.lease import Lease
from bridge.log import get_logger
from bridge.messages.retry_policy import Failure
from bridge.messages.verdicts import RetryIn

log = get_logger(__name__)


def started(request: Any, pid: int) -> None:
    """Log that a run began, in this process; of a first receive, measure how old its message is."""
    lease = request.lease
    if log.is_enabled_for(INFO):
        log.info("task_started", **lease.log_fields, pid=pid)
    sent = (lease.raw.get("Attributes") or {}).get("SentTimestamp") if lease.receives == 1 else None
    if sent:
        metrics.age_in(lease.queue.name).observe(max(0.0, time.time() - int(sent) / 1000))


def succeeded(request: Any) -> None:
    """Report a run that returned."""
    seconds = _count(request, "succeeded")
    if log.is_enabled_for(INFO):  # the fields alone cost as much as all the rest here
        log.info("task_succeeded", **request.lease.log_fields, duration_seconds=seconds)


def retried(request: Any, verdict: RetryIn, retries: int) -> None:
    """Report a failed run whose message comes again; ``retries`` were before it."""
    fields = {"delay_seconds": verdict.delay_seconds, "duration_seconds": _count(request, "retried")}
    if verdict.delay_seconds < verdict.wanted_seconds:
        fields["wanted_seconds"] = round(verdict.wanted_seconds, 3)  # cut: SQS holds a message twelve hours at most
    log.warning(
        "task_retried",
        **request.lease.log_fields,
        **fields,
        error_type=verdict.error_type,
        error=verdict.error,
        retries=retries,
        max_retries=request.task.max_retries,
    )


def waits(request: Any, verdict: RetryIn) -> None:
    """Report a run that could not begin; its message comes again, and this does not count as an attempt."""
    _count(request, "waited")
    log.info(
        "task_waits",
        **request.lease.log_fields,
        delay_seconds=verdict.delay_seconds,
        reason=verdict.reason,
        error=verdict.error,
    )


def failed(request: Any, failure: Failure) -> None:
    """Report a run that will not be repeated; a retried one was reported when that was decided."""
    if failure.kind == "retry-requested":
        return
    if failure.kind in ("ignore", "revoked", "requeue"):
        _count(request, "handed_back" if failure.kind == "requeue" else "ignored")
        return
    log.error(
        "task_failed",
        **request.lease.log_fields,
        duration_seconds=_count(request, "failed"),
        error_type=failure.error_type,
        error=failure.error,
    )


def overran(lease: Lease) -> None:
    """Tell of a run of the threads or solo pool that took longer than its time limit, which only prefork enforces."""
    request = lease.request() if lease.request is not None else None
    began_at = getattr(request, "time_start", None)
    if began_at is None:
        return
    seconds = time.time() - began_at
    if seconds > lease.time_limit_seconds > 0:
        metrics.overruns.labels(lease.task).inc()
        log.warning(
            "time_limit_overrun",
            message_id=lease.message_id,
            task=lease.task,
            duration_seconds=round(seconds, 3),
            time_limit_seconds=lease.time_limit_seconds,
        )


def _count(request: Any, outcome: str) -> float:
    """Count the run and return its seconds; a run that never began took none."""
    metrics.runs_of(request.task.name, outcome).inc()
    if request.time_start is None:
        return 0.0
    seconds = max(0.0, time.time() - float(request.time_start))
    metrics.seconds_of(request.task.name).observe(seconds)
    return round(seconds, 4)
