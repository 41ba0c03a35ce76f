"""What happens to a message between its receive and Celery: hold it, find its task, wrap it, or settle it at once.

Runs in the receivers' threads, message by message: an error with one never costs its batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bridge import metrics
from bridge.delivery.lease import Lease
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.settle_calls import BUG_DELAY_SECONDS
from bridge.delivery.settler import Settler
from bridge.errors import MalformedEvent
from bridge.log import get_logger
from bridge.messages.celery_message import open_celery_message
from bridge.messages.envelope import Delivery, for_celery, for_event
from bridge.messages.retry_policy import (
    ETA_SLACK_SECONDS,
    TaskLimits,
    cut_delay,
    eta_waits,
    is_poison_message,
    request_retries,
)
from bridge.messages.routing import Rules, ToTask, route
from bridge.messages.verdicts import DeadLetter, HandBack, RetryIn, Verdict
from bridge.s3.event import ObjectRecord
from bridge.sqs.queues import Queue

log = get_logger(__name__)


class Intake:
    """Takes in what the receivers bring; what is for Celery waits in ``ready``, in order."""

    def __init__(
        self,
        table: LeaseTable,
        settler: Settler,
        rules: Rules,
        limits: Mapping[str, TaskLimits],
        *,
        visibility_timeout_seconds: int,
        spare_receives: int,
        worker: str,
        wake: Callable[[], None],
    ) -> None:
        """``limits`` has every registered task; ``wake`` makes the main loop look into ``ready``.

        ``worker`` identifies this worker among all others, its own restarts included.
        """
        self._worker = worker
        self._table = table
        self._settler = settler
        self._rules = rules
        self._limits = limits
        self._visibility_timeout_seconds = visibility_timeout_seconds
        self._spare_receives = spare_receives
        self._wake = wake
        self.ready: deque[tuple[Lease, dict[str, Any]]] = deque()

    def take(self, queue: Queue, messages: Sequence[Mapping[str, Any]], received_at: float) -> None:
        """Take in the messages of one receive; ``received_at`` is the monotonic time of SQS's answer."""
        for raw in messages:
            metrics.received_from(queue.name).inc()
            log.debug("message_received", message_id=raw.get("MessageId"), queue=queue.name, body=raw.get("Body"))
            try:
                self._take_one(queue, raw, received_at)
            except Exception:  # an entry without a handle cannot even be held; SQS gives it again after its timeout
                metrics.count_expired(queue.name)
                log.exception("intake_bug", queue=queue.name, message_id=raw.get("MessageId"))
        if self.ready:
            self._wake()

    def _take_one(self, queue: Queue, raw: Mapping[str, Any], received_at: float) -> None:
        lease = Lease(
            queue=queue,
            raw=raw,
            received_at_epoch=time.time(),
            received_at=received_at,
            visibility_timeout_seconds=self._visibility_timeout_seconds,
            receives=int((raw.get("Attributes") or {}).get("ApproximateReceiveCount") or 1),
        )
        older = self._table.take_in(lease, received_at)
        if older is not None:
            metrics.count_expired(queue.name)
            log.warning("message_again", **older.log_fields, state=older.state.value)
            return
        try:
            end = self._admit(lease)
        except Exception:  # a bug, or an unknown form of message: the message must not be lost
            log.exception("intake_bug", **lease.log_fields)
            end = RetryIn(BUG_DELAY_SECONDS, BUG_DELAY_SECONDS, reason="bridge-error")
        if self._table.closed:
            end = HandBack("draining")
        if end is not None:
            self._settler.settle(lease, end)

    def _admit(self, lease: Lease) -> Verdict | None:
        """Put the message into ``ready``, or return what becomes of it without a task."""
        if lease.queue.kind == "task":
            return self._admit_celery(lease)
        target = route(lease.raw["Body"], lease.raw.get("MessageAttributes") or {}, self._rules)
        if not isinstance(target, ToTask):
            return target
        killer = self._apply_limits(lease, target.task, retries_republished=0)
        if killer:
            return killer
        if target.objects:
            lease.about = _about(target.objects)
        self.ready.append((lease, for_event(lease.raw, target, self._delivery(lease))))
        return None

    def _admit_celery(self, lease: Lease) -> Verdict | None:
        try:
            message = open_celery_message(lease.raw["Body"])
        except MalformedEvent as error:
            return DeadLetter("malformed", type(error).__name__, str(error))
        lease.task_id = message.id
        if message.eta is not None:
            wait = (message.eta - datetime.now(UTC)).total_seconds()
            lease.waits = eta_waits(_seconds_after_first_receive(lease, message.eta))
            if wait > ETA_SLACK_SECONDS:
                lease.task = message.task
                return RetryIn(cut_delay(wait, 0.0), wait, reason="eta")
        # An unknown task goes on to Celery too, which stores the failure as its result.
        if message.task in self._limits:
            killer = self._apply_limits(lease, message.task, retries_republished=message.retries)
            if killer:
                return killer
        lease.task = message.task
        self.ready.append((lease, for_celery(message, self._delivery(lease, republished=message.retries))))
        return None

    def _apply_limits(self, lease: Lease, task: str, *, retries_republished: int) -> Verdict | None:
        limits = self._limits[task]
        lease.task = task
        if is_poison_message(lease.receives, limits.max_retries, self._spare_receives, waits=lease.waits):
            return DeadLetter(
                "worker-lost",
                None,
                f"received {lease.receives} times without ever ending: each run took its worker down, or outlived it",
            )
        lease.retries = request_retries(
            lease.receives, limits.max_retries, waits=lease.waits, republished=retries_republished
        )
        lease.attempts = lease.retries + 1
        lease.time_limit_seconds = limits.time_limit_seconds
        if limits.visibility_timeout_seconds != lease.visibility_timeout_seconds:
            lease.visibility_timeout_seconds = limits.visibility_timeout_seconds
            lease.next_renewal_at = 0.0  # the receive asked for another length: set this one with the next renewal
        return None

    def _delivery(self, lease: Lease, *, republished: int = 0) -> Delivery:
        return Delivery(
            queue=lease.queue.name,
            queue_url=lease.queue.url,
            receipt_handle=lease.tag,
            receives=lease.receives,
            retries=lease.retries,
            received_at_epoch=lease.received_at_epoch,
            lease=lease.number,
            message_id=lease.message_id,
            owner=f"{lease.message_id}/{lease.receives}/{self._worker}/{lease.number}",
            republished=republished,
            trace=(lease.raw.get("Attributes") or {}).get("AWSTraceHeader"),
        )


def _about(objects: Sequence[ObjectRecord]) -> dict[str, Any]:
    """Return what the log lines of a message say of its objects: the first one, and how many."""
    about: dict[str, Any] = {"bucket": objects[0].bucket, "key": objects[0].key}
    return about if len(objects) == 1 else about | {"objects": len(objects)}


def _seconds_after_first_receive(lease: Lease, eta: datetime) -> float:
    first = (lease.raw.get("Attributes") or {}).get("ApproximateFirstReceiveTimestamp")
    return eta.timestamp() - int(first) / 1000 if first else 0.0
