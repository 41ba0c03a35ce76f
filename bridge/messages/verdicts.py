"""What can become of a message: the four ways to settle it, as plain data.

Pure: decided in ``routing`` and ``retry_policy``, carried out in ``settle``. Outcomes and reasons are public words:
they appear in logs, metrics, dead letters and in ``bridge.testing``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What we stay below SQS's MAX_VISIBILITY_SECONDS: a call that arrives late must not be refused for a second or two.
HOLD_MARGIN_SECONDS = 5

Outcome = Literal["deleted", "ignored", "retried", "dead_lettered", "handed_back", "settle_failed"]


@dataclass(frozen=True, slots=True)
class Delete:
    """The message is done with: the task returned (``deleted``), or there is nothing to do (``ignored``)."""

    outcome: Literal["deleted", "ignored"] = "deleted"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RetryIn:
    """The same message again after ``delay_seconds``; ``wanted_seconds`` is what was asked for before any cut."""

    delay_seconds: int
    wanted_seconds: float
    reason: str | None = None
    error_type: str | None = None
    error: str | None = None

    @property
    def outcome(self) -> Literal["retried"]:
        """Return the public word for this end."""
        return "retried"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """To the dead-letter queue with its cause, and only then deleted here."""

    reason: str
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None

    @property
    def outcome(self) -> Literal["dead_lettered"]:
        """Return the public word for this end."""
        return "dead_lettered"


@dataclass(frozen=True, slots=True)
class HandBack:
    """Visible to every worker again, at once; ``reason`` says why it was not run to its end."""

    reason: str | None = None

    @property
    def outcome(self) -> Literal["handed_back"]:
        """Return the public word for this end."""
        return "handed_back"


Verdict = Delete | RetryIn | DeadLetter | HandBack
