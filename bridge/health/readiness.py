"""Whether a worker is ready, why not, and its health report: facts in, answer out.

Ready means that it takes messages: it receives from its queues, SQS answers, and no drain has begun. That is no
judgement of its life, which is ``liveness``: an AWS outage ends the readiness of every worker, and must restart none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.times import iso_utc_z

Status = Literal["healthy", "unhealthy", "draining"]

#: Outcomes after which a message does not come back; the others are not the end of it.
FINAL_OUTCOMES = ("deleted", "ignored", "dead_lettered")


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One queue that Celery consumes. Times are seconds of the epoch, None while there has been no such thing.

    ``receiving`` says that its receivers were started. ``last_result`` is how the call of this queue that ended last
    went: ``ok`` or the code of its error. ``last_poll_seconds`` is when a receive last succeeded.
    """

    name: str
    kind: str
    receiving: bool
    in_flight: int = 0
    last_poll_seconds: float | None = None
    last_action: str | None = None
    last_result: str | None = None
    last_call_seconds: float | None = None


def why_not_ready(queues: Sequence[QueueFacts], *, draining: bool, stuck: Sequence[str]) -> list[str]:
    """Return the reasons in words; empty for a worker that is ready. ``stuck`` is what ``why_dead`` said. Pure."""
    reasons = ["draining"] if draining else []
    reasons += stuck
    if not queues:
        reasons.append("no queue is consumed yet")
    for queue in queues:
        if queue.last_result is not None and queue.last_result != "ok":
            reasons.append(f"{queue.name}: {queue.last_action} failed ({queue.last_result})")
        elif not queue.receiving:
            reasons.append(f"{queue.name}: nothing is received yet")
        elif queue.last_result is None:
            reasons.append(f"{queue.name}: SQS has not answered yet")
    return reasons


def status_of(reasons: Sequence[str], *, draining: bool) -> Status:
    """Return the one word for it. A drain comes first: it is meant, whatever else is wrong. Pure."""
    return "draining" if draining else "unhealthy" if reasons else "healthy"


def report(
    queues: Sequence[QueueFacts],
    *,
    reasons: Sequence[str],
    draining: bool,
    settled: Mapping[str, int],
    version: str,
) -> dict[str, Any]:
    """Return what ``/health`` says, ready for JSON; ``settled`` counts messages by their outcome. Pure."""
    polls = [queue.last_poll_seconds for queue in queues if queue.last_poll_seconds is not None]
    return {
        "status": status_of(reasons, draining=draining),
        "reasons": list(reasons),
        "last_poll": iso(max(polls, default=None)),
        "messages_processed": sum(settled.get(outcome, 0) for outcome in FINAL_OUTCOMES),
        "settled": dict(sorted(settled.items())),
        "in_flight": sum(queue.in_flight for queue in queues),
        "draining": draining,
        "version": version,
        "queues": [
            {
                "name": queue.name,
                "kind": queue.kind,
                "receiving": queue.receiving,
                "in_flight": queue.in_flight,
                "last_poll": iso(queue.last_poll_seconds),
                "last_call": {
                    "action": queue.last_action,
                    "result": queue.last_result,
                    "at": iso(queue.last_call_seconds),
                },
            }
            for queue in queues
        ],
    }


def iso(seconds: float | None) -> str | None:
    """Return a time of the epoch as ``2026-11-21T09:30:00Z``, or None. Pure."""
    if seconds is None:
        return None
    return iso_utc_z(int(seconds), "seconds")
