"""Whether a failed task runs again, when, and with which reason it is dead-lettered. Pure: no clock, SQS or Celery.

The table in the README ("What becomes of a message") describes this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from bridge.messages.verdicts import HOLD_MARGIN_SECONDS, DeadLetter, Delete, HandBack, RetryIn, Verdict
from bridge.sqs.quotas import MAX_VISIBILITY_SECONDS

#: A message whose ETA is nearer than this runs now, because SQS delays by whole seconds.
ETA_SLACK_SECONDS = 0.5

FailureKind = Literal[
    "retry-requested",  # Task.retry, or Celery's autoretry, which calls it
    "error",  # the task raised an error, and Celery grants no further retry
    "internal-error",  # Celery failed around the task (result backend, deserialization); not the task's error
    "time-limit",
    "worker-lost",
    "reject",
    "requeue",
    "ignore",
    "object-gone",
    "too-large",
    "revoked",
    "wait",  # the run could not start (another run's live claim, store unavailable); not an attempt
]


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What the bridge must know about a task before it runs; ``max_retries`` None means no limit."""

    max_retries: int | None
    time_limit_seconds: float
    visibility_timeout_seconds: int


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run failed, in plain data.

    ``wanted_seconds`` is the requested delay, for ``retry-requested`` and ``wait``. ``retryable`` says whether the task
    retries on this error. ``gave_up`` says that the task's own call of retry() had reached its limit. ``reason`` is set
    for ``ignore`` (why there was nothing to do) and ``wait`` (what it waits for).
    """

    kind: FailureKind
    wanted_seconds: float = 0.0
    retryable: bool = False
    gave_up: bool = False
    reason: str | None = None
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which run it was: the ``retries`` before it, their limit (None: no limit), and the seconds since the receive."""

    retries: int
    max_retries: int | None
    age_seconds: float
    backoff_seconds: int = 2
    backoff_max_seconds: int = 600


def decide(failure: Failure, attempt: Attempt, *, jitter: float) -> Verdict:
    """Return the verdict on the message of a failed run.

    ``jitter`` is a number from 0 to 1, drawn by the caller. It applies to the delays that are decided here: after a
    lost child, a time limit or an internal error, which the task's own backoff never sees.
    """
    match failure.kind:
        case "retry-requested":
            return _retry(failure, attempt, failure.wanted_seconds)
        case "wait":
            return replace(_retry(failure, attempt, failure.wanted_seconds), reason=failure.reason)
        case "ignore":
            return Delete("ignored", failure.reason) if failure.reason else Delete()
        case "revoked":
            return Delete("ignored", "revoked")
        case "requeue":
            return HandBack("requeued")
        case "reject":
            return _dead_letter(failure, "rejected")
        case "object-gone" | "too-large":
            return _dead_letter(failure, failure.kind)
        case "error":
            return _dead_letter(failure, "exhausted" if failure.retryable else "permanent")
        case "internal-error":
            exhausted = "exhausted"
        case "time-limit" | "worker-lost":
            if not failure.retryable:
                return _dead_letter(failure, "permanent")
            exhausted = failure.kind
    if failure.gave_up or (attempt.max_retries is not None and attempt.retries >= attempt.max_retries):
        return _dead_letter(failure, exhausted)
    wanted = backoff(attempt.retries, attempt.backoff_seconds, attempt.backoff_max_seconds, jitter)
    return _retry(failure, attempt, wanted)


def backoff(retries: int, factor: float, maximum: float, jitter: float) -> float:
    """Return ``factor`` × 2^retries seconds, at most ``maximum``, times ``jitter`` (1 for none)."""
    # The exponent is capped, because with max_retries=None any number of retries is possible.
    return float(min(maximum, factor * 2 ** min(retries, 40))) * jitter


def cut_delay(wanted_seconds: float, age_seconds: float) -> int:
    """Return the delay in whole seconds, cut to what SQS still allows for a message received ``age_seconds`` ago."""
    if math.isnan(wanted_seconds):
        return 0
    return max(0, min(math.ceil(min(wanted_seconds, MAX_VISIBILITY_SECONDS)), _longest_delay(age_seconds)))


def request_retries(receives: int, max_retries: int | None, *, waits: int = 0, republished: int = 0) -> int:
    """Return Celery's ``request.retries`` for a message received ``receives`` times.

    Receives that only waited for an ETA (``waits``) are not attempts. ``republished`` is the number of retries that
    Celery counted in the message itself. The result is at most ``max_retries``: the receive count also includes
    hand-backs and expired leases, and they must not dead-letter a message that never ran.
    """
    retries = max(0, receives - 1 - waits) + republished
    return retries if max_retries is None else min(retries, max_retries)


def is_poison_message(receives: int, max_retries: int | None, spare_receives: int, *, waits: int = 0) -> bool:
    """Return whether a message has so many receives beyond its retries that it must be what kills the workers."""
    return max_retries is not None and receives - waits > max_retries + 1 + spare_receives


def eta_waits(eta_after_first_receive_seconds: float) -> int:
    """Return how many receives a message spends waiting for its ETA, which is given in seconds after its first receive.

    It waits in SQS, in periods of at most twelve hours, and each period ends with a receive.
    """
    if eta_after_first_receive_seconds <= ETA_SLACK_SECONDS:
        return 0
    return math.ceil(eta_after_first_receive_seconds / (MAX_VISIBILITY_SECONDS - HOLD_MARGIN_SECONDS))


def _longest_delay(age_seconds: float) -> int:
    return math.floor(MAX_VISIBILITY_SECONDS - max(0.0, age_seconds) - HOLD_MARGIN_SECONDS)


def _retry(failure: Failure, attempt: Attempt, wanted_seconds: float) -> RetryIn:
    return RetryIn(
        delay_seconds=cut_delay(wanted_seconds, attempt.age_seconds),
        wanted_seconds=wanted_seconds,
        error_type=failure.error_type,
        error=failure.error,
    )


def _dead_letter(failure: Failure, reason: str) -> DeadLetter:
    return DeadLetter(reason, failure.error_type, failure.error, failure.traceback)
