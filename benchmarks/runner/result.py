"""What one run of the throughput came to, as results.json holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Result:
    """What one run came to. ``rate`` is in messages per second, None when there is none, and ``problem`` says why.

    ``calls_per_message`` are those through the proxy between the first completed task and the last, by action.
    ``stolen`` is the share of 1 that the machine's host took of the time that was wanted, None when nobody looked.
    """

    contestant: str
    server: str
    workload: str
    delay_ms: int
    round: int
    messages: int
    done: int = 0
    seconds: float = 0.0
    rate: float | None = None
    first_task_seconds: float | None = None
    cpu_ms_per_message: float | None = None
    calls_per_message: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    stolen: float | None = None

    @classmethod
    def read(cls, saved: dict[str, Any]) -> Self:
        """Take back what ``dataclasses.asdict`` made."""
        return cls(**saved)

    @property
    def all_calls(self) -> float | None:
        """Calls of all actions for each message; None where no proxy counted them."""
        return sum(self.calls_per_message.values()) if self.calls_per_message else None
