"""SIGINT and SIGTERM for a command: a flag that its loop asks between two calls, and waiting that ends with a signal.

An exception in the middle of a call would leave it open whether SQS has done it: a message could be held, or sent, and
nobody would know. So the first signal only sets a flag; the second one ends the command at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import FrameType
from typing import Any, Self

#: What a command does that has only looked at messages.
HANDING_BACK = "handing back what was only looked at"
_SLICE_SECONDS = 0.1


class StopEvent(threading.Event):
    """An event that a signal handler may set.

    ``threading.Event`` is not made for that: a handler runs in the main thread between any two instructions, also while
    the main thread is inside ``wait`` and holds the event's own lock, and would wait for that lock for ever. A
    SimpleQueue may be put to from a handler (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put).
    """

    def __init__(self) -> None:
        """Start the thread that sets it on a handler's behalf."""
        super().__init__()
        self._told: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._listen, name="bridge-stop", daemon=True).start()

    def set_by_handler(self) -> None:
        """Set it from a signal handler; it is set a moment later."""
        self._told.put(None)

    def _listen(self) -> None:
        self._told.get()
        self.set()


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
        """Wait, at most until a signal; ``meanwhile`` is called ten times per second."""
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


@dataclass
class StopRequest:
    """Set by SIGINT or SIGTERM; ``exit_code`` is then the shell's word for that signal."""

    event: StopEvent = field(default_factory=StopEvent)
    exit_code: int = 0


@contextmanager
def stopping() -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM set a flag, the first time; a second one ends the process as it always does."""
    stop = StopRequest()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def ask_to_stop(number: int, _: Any) -> None:
        stop.exit_code = 128 + number
        stop.event.set_by_handler()
        restore()

    for number in former:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        restore()
