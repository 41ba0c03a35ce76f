"""Ctrl-C and SIGTERM as a question that a loop asks between two calls, and waiting that ends with them.

An exception in the middle of a call would leave it open whether SQS has done it: a message could be held, or sent, and
nobody would know. So the first signal only sets a flag; the second one ends the command at once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from bridge.sqs.quotas import MAX_BATCH_ENTRIES

#: What a command does that has only looked at messages.
HANDING_BACK = "handing back what was only looked at"
_SLICE_SECONDS = 0.1


class Stop:
    """True once a signal has come; to be used in ``with``, in the main thread."""

    def __init__(self, doing: str = "finishing what was begun") -> None:
        """``doing`` says what happens after the first signal."""
        self._doing = doing
        self._signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._signal != 0

    @property
    def exit_code(self) -> int:
        """What a shell expects of a command that a signal ended: 130 or 143; 0 when none came."""
        return 128 + self._signal if self._signal else 0

    def wait(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait, at most until a signal; ``meanwhile`` is called ten times a second."""
        end = time.monotonic() + seconds
        while not self and (left := end - time.monotonic()) > 0:
            meanwhile()
            time.sleep(min(_SLICE_SECONDS, left))

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signal:
            raise KeyboardInterrupt
        self._signal = number
        # Not through sys.stderr: a handler may run in the middle of a write to it.
        os.write(2, f"\nbrigade: {self._doing} (once more to quit at once)\n".encode())


class Pace:
    """At most ``rate`` messages a second, or as fast as it goes when that is None."""

    def __init__(self, rate: float | None, stop: Stop) -> None:
        self._rate = rate
        self._stop = stop
        self._due = time.monotonic()

    @property
    def batch(self) -> int:
        """How many may go together: a second's worth, for nine messages should not wait for a slow tenth."""
        return MAX_BATCH_ENTRIES if self._rate is None else max(1, min(MAX_BATCH_ENTRIES, int(self._rate)))

    def wait(self, messages: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until so many may go, or until a signal."""
        if self._rate is None:
            return
        self._stop.wait(self._due - time.monotonic(), meanwhile)
        # From the later of the two: a slow answer is not made good by a burst.
        self._due = max(self._due, time.monotonic() - 1) + messages / self._rate
