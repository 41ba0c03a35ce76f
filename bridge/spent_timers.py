"""Forgets the timers of time limits whose tasks have ended.

Celery's prefork pool sets a timer for the time limit of each task and cancels it when the task ends. Kombu's timer
only marks it then, and keeps it in its heap until it would have been due (kombu.asynchronous.timer, 5.7). Every task
here has a limit, an hour unless it says otherwise, so the worker's parent would grow by half a kilobyte a task for an
hour: 190 MB at 100 tasks a second, more than 2 GB at 1,500. Its children would too, for new ones are forked from it.
"""

from __future__ import annotations

import heapq
from typing import Any

#: How often the heap is looked through: with 2,000 tasks a second 2 MB have gathered by then, and it takes 1 ms.
INTERVAL_SECONDS = 2.0
#: A heap no longer than this is left as it is.
LEAST = 500


def forget_spent(timer: Any) -> None:
    """Drop the cancelled entries of a ``kombu.asynchronous.timer.Timer``, for the thread that runs its event loop.

    In place, because the loop may be going through this very list: it looks anew at what comes first each time.
    """
    queue = timer._queue
    if len(queue) > LEAST:
        queue[:] = [scheduled for scheduled in queue if not scheduled.entry.canceled]
        heapq.heapify(queue)


class SpentTimers:
    """Looks through the event loop's timer again and again."""

    def __init__(self) -> None:
        """Not under way."""
        self._again: Any = None

    def register(self, hub: Any) -> None:
        """Begin; called again when the consumer has restarted, it goes on once and not twice."""
        if self._again is not None:
            self._again.cancel()
        self._again = hub.call_repeatedly(INTERVAL_SECONDS, forget_spent, hub.timer)
