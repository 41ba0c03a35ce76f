"""Whether this worker is alive: not whether AWS answers it, nor whether it has work.

It is not when a receiver with free slots is stuck inside one call for three times as long as any call may take, when a
receiver's thread has died, or when the main loop stands still although it runs no task itself. A full window of
hour-long tasks, an AWS outage (calls fail, but they end), a pause between polls, a drain and a busy solo worker are all
fine. Who asks: the probe ``/live``, a log event and the gauge ``bridge_live``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from bridge import metrics
from bridge.delivery.receivers import ReceiverState
from bridge.log import get_logger
from bridge.sqs.clients import RECEIVE_GRACE_SECONDS

log = get_logger(__name__)

#: A turn of the main loop takes milliseconds; pool start-up and a forked child's copy may take seconds.
LOOP_SECONDS = 60.0
#: How often the main loop says that it turns.
TICK_SECONDS = 1.0


def longest_call_seconds(wait_time_seconds: float, poll_interval_seconds: float) -> float:
    """Return how long a receiver may go without finishing a call before it counts as stuck."""
    return 3 * (wait_time_seconds + RECEIVE_GRACE_SECONDS + poll_interval_seconds)


def why_dead(
    receivers: Sequence[ReceiverState],
    *,
    longest_call_seconds: float,
    loop_seconds: float,
    loop_runs_a_task: bool,
    draining: bool,
) -> list[str]:
    """Return what is stuck, in words; empty for a live worker. Pure.

    ``loop_seconds`` is how long ago the main loop last turned.
    """
    if draining:
        return []
    reasons = [f"receiver {r.name} has died" for r in receivers if not r.thread_alive]
    reasons += [
        f"receiver {r.name} has been in one call for {r.call_seconds:.0f} s"
        for r in receivers
        if r.thread_alive and r.call_seconds is not None and r.call_seconds > longest_call_seconds
    ]
    if loop_seconds > LOOP_SECONDS and not loop_runs_a_task:
        reasons.append(f"the main loop has stood still for {loop_seconds:.0f} s")
    return reasons


class Liveness:
    """Asks ``why_dead`` for the running worker, and says so when the answer changes."""

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        """``ask`` returns what is stuck."""
        self._ask = ask
        self._lock = threading.Lock()  # the sweep looks, and every probe does
        self.reasons: list[str] = []
        metrics.live.set(1)

    def look(self) -> list[str]:
        """Return what is stuck now; logs ``worker_stuck`` and ``worker_unstuck`` at the change."""
        with self._lock:
            before, self.reasons = self.reasons, self._ask()
            reasons = self.reasons
            metrics.live.set(0 if reasons else 1)
        if reasons and not before:
            log.critical("worker_stuck", error="; ".join(reasons))
        elif before and not reasons:
            log.warning("worker_unstuck")
        return reasons
