"""``--rate``: at most so many messages per second."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.operations.stopping import Stop
from bridge.sqs.quotas import MAX_BATCH_ENTRIES


class RateLimit:
    """At most ``rate`` messages per second, or as fast as it goes when that is None."""

    def __init__(self, rate: float | None, stop: Stop) -> None:
        self._rate = rate
        self._stop = stop
        self._due = time.monotonic()

    @property
    def batch(self) -> int:
        """How many may go together: as many as a second allows, so that nine do not wait for a slow tenth."""
        return MAX_BATCH_ENTRIES if self._rate is None else max(1, min(MAX_BATCH_ENTRIES, int(self._rate)))

    def wait(self, messages: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until so many may go, or until a signal."""
        if self._rate is None:
            return
        self._stop.wait(self._due - time.monotonic(), meanwhile)
        # From the later of the two: a slow answer is not made good by a burst.
        self._due = max(self._due, time.monotonic() - 1) + messages / self._rate
