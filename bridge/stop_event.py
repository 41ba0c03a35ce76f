"""An event that a signal handler may set.

``threading.Event`` is not made for that: a handler runs in the main thread between any two instructions, also while
the main thread is inside ``wait`` and holds the event's own lock, and would wait for that lock for ever. A SimpleQueue
may be put to from a handler (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put).
"""

from __future__ import annotations

import threading
from queue import SimpleQueue


class StopEvent(threading.Event):
    """Asks everybody to stop."""

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
