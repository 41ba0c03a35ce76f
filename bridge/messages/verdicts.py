"""The four verdicts on a message, one per way to settle it, as plain data. Pure.

``routing`` and ``retry_policy`` decide them; bridge/delivery/settler.py carries them out. Outcomes and reasons are
public: they appear in logs, metrics, dead-lettered messages and ``bridge.testing``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The margin below SQS's MAX_VISIBILITY_SECONDS, so that SQS does not refuse a call that arrives a few seconds late.
HOLD_MARGIN_SECONDS = 5

Outcome = Literal["deleted", "ignored", "retried", "dead_lettered", "handed_back", "settle_failed"]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the message: the task returned (``deleted``), or there is nothing to do (``ignored``)."""

    outcome: Literal["deleted", "ignored"] = "deleted"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Make SQS deliver the message again after ``delay_seconds``; ``wanted_seconds`` is the delay before any cut."""

    delay_seconds: int
    wanted_seconds: float
    reason: str | None = None
    error_type: str | None = None
    error: str | None = None

    @property
    def outcome(self) -> Literal["retried"]:
        """Return the outcome."""
        return "retried"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Send the message to the dead-letter queue with its cause, and then delete it from its own queue."""

    reason: str
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None

    @property
    def outcome(self) -> Literal["dead_lettered"]:
        """Return the outcome."""
        return "dead_lettered"


@dataclass(frozen=True, slots=True)
class HandBack:
    """Make the message visible to every worker at once; ``reason`` says why its run did not finish."""

    reason: str | None = None

    @property
    def outcome(self) -> Literal["handed_back"]:
        """Return the outcome."""
        return "handed_back"


Verdict = Delete | RetryIn | DeadLetter | HandBack
