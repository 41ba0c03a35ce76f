"""When to try the monitor bus again after a failure, and what the log is told of it."""

from __future__ import annotations

import random
import time

from bridge.log import get_logger

log = get_logger(__name__)

#: A bus that is restarted is used again within seconds, and one that is gone costs a try every few seconds.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 3.0
#: A bus that stays away is named in the log this often.
REMIND_SECONDS = 300.0


class BusLink:
    """When to try the bus again, and what the log is told: its loss once, a reminder now and then, its return."""

    def __init__(self, bus: str, use: str) -> None:
        """``bus`` is its address without a password, ``use`` what it is used for; the log names both."""
        self._bus = bus
        self._use = use
        self._pause_seconds = 0.0
        self._next_try_at = 0.0
        self._told_at: float | None = None
        self._lost_at = 0.0

    def may_try(self) -> bool:
        """Say whether the pause after the last failure is over."""
        return time.monotonic() >= self._next_try_at

    @property
    def is_lost(self) -> bool:
        """Whether the last try failed; False before the first."""
        return self._told_at is not None

    @property
    def wait_seconds(self) -> float:
        """How long that pause still is."""
        return max(0.0, self._next_try_at - time.monotonic())

    def failed(self, error: BaseException) -> None:
        """Wait a little longer than the last time, with jitter: the bus may be coming up for many workers at once."""
        now = time.monotonic()
        self._pause_seconds = min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, self._pause_seconds * 2))
        self._next_try_at = now + self._pause_seconds * random.SystemRandom().uniform(0.75, 1.25)
        if self._told_at is None:
            self._lost_at = now
        if self._told_at is None or now - self._told_at > REMIND_SECONDS:
            self._told_at = now
            log.warning("bus_lost", bus=self._bus, use=self._use, error_type=type(error).__name__, error=str(error))

    def works(self) -> None:
        """Say that the bus is there (again)."""
        self._pause_seconds = 0.0
        if self._told_at is not None:
            seconds = round(time.monotonic() - self._lost_at, 1)
            log.info("bus_back", bus=self._bus, use=self._use, duration_seconds=seconds)
            self._told_at = None
