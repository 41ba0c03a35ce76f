"""A lease: our hold on one message, which is its SQS visibility timeout, and the states that it goes through.

    WAITING --start--> RUNNING --end--> ENDING    --drop--> (gone)      renewed until the delete is confirmed
       |                  |
       +-----release------+-----------> RELEASING --drop--> (gone)      not renewed: a renewal would undo the delay

Plain data, with the time passed in; the steps are those of the table (``leases``), under its lock.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bridge.messages.verdicts import HOLD_MARGIN_SECONDS
from bridge.sqs.queues import Queue
from bridge.sqs.quotas import MAX_VISIBILITY_SECONDS

#: A lease is renewed when this share of its visibility timeout has passed, so two renewals may fail.
RENEWAL_SHARE = 1 / 3


class LeaseState(StrEnum):
    """Where a held message stands; texts, because a plain enum's hash is Python code, run at every count."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDING = "ending"
    RELEASING = "releasing"
    GONE = "gone"


@dataclass(slots=True, eq=False, weakref_slot=True)
class Lease:
    """Our hold on one message. Times are those of the table's monotonic clock, in seconds.

    ``tag`` is the receipt handle of the first receive and Kombu's delivery tag; ``receipt_handle`` is the newest one.
    ``lost`` says that this handle is known to be stale, ``delete_asked_with`` is the handle of
    a delete that was sent and may have taken effect.
    """

    queue: Queue
    raw: Mapping[str, Any]
    received_at_epoch: float
    received_at: float
    visibility_timeout_seconds: int
    receives: int = 1
    waits: int = 0
    task: str | None = None
    task_id: str = ""
    retries: int = 0
    attempts: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    time_limit_seconds: float = 0.0
    tag: str = ""
    receipt_handle: str = ""
    state: LeaseState = LeaseState.WAITING
    delivered: bool = False
    expires_at: float = 0.0
    next_renewal_at: float = 0.0
    renewing: bool = False
    lost: bool = False
    delete_asked_with: str = ""
    request: weakref.ref[Any] | None = None
    number: int = field(default_factory=itertools.count(1).__next__)
    run_ended_at: float | None = None

    def __post_init__(self) -> None:
        """Take the handle and the first expiry from the receive."""
        self.tag = self.receipt_handle = self.raw["ReceiptHandle"]
        self.task_id = self.message_id
        self.attempts = self.receives
        self.held_until(self.received_at)

    @property
    def message_id(self) -> str:
        """The SQS MessageId."""
        return str(self.raw["MessageId"])

    @property
    def log_fields(self) -> dict[str, Any]:
        """What every log line about this message says of it: docs/reference/logs.md calls these the message fields."""
        return {
            "message_id": self.message_id,
            "task_id": self.task_id,
            **({} if self.task is None else {"task": self.task}),
            "queue": self.queue.name,
            **self.about,
            "attempt": self.attempts,
        }

    def held_until(self, now: float) -> None:
        """Count the visibility timeout from ``now``, as far as the twelve hours allow, and the next renewal with it."""
        seconds = max(0, self.room_seconds(now))
        self.expires_at = now + seconds
        self.next_renewal_at = now + seconds * RENEWAL_SHARE

    def age_seconds(self, now: float) -> float:
        """Return the seconds since this receive, from which SQS counts its twelve hours."""
        return now - self.received_at

    def room_seconds(self, now: float) -> int:
        """Return how long the next renewal may last before SQS's twelve hours end."""
        rest = MAX_VISIBILITY_SECONDS - HOLD_MARGIN_SECONDS - self.age_seconds(now)
        return int(min(self.visibility_timeout_seconds, rest))
