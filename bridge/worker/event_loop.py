"""Celery's event loop as the bridge uses it: wake it from any thread, run something on it, keep its timer small."""

from __future__ import annotations

import heapq
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

#: How often the heap is looked through: with 2,000 tasks per second 2 MB have gathered by then, and it takes 1 ms.
INTERVAL_SECONDS = 2.0
#: A heap no longer than this is left as it is.
LEAST = 500


class Waker:
    """Wakes Celery's event loop from any thread, in order, by a byte through a pipe.

    ``hub.call_soon`` would keep no order, and a hub without any readable file (threads and solo pools) sleeps 0.1 s a
    turn (kombu.asynchronous.hub).
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        """``callback`` runs on the main loop, once for any number of wakes in between."""
        self._callback = callback
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._lock = threading.Lock()
        self._awake = False

    def register(self, hub: Any) -> None:
        """Listen on the event loop; called again whenever the loop was rebuilt."""
        hub.add_reader(self._read_fd, self._on_readable)
        self.wake()

    def wake(self) -> None:
        """Make the loop call back."""
        with self._lock:
            if self._awake:
                return
            self._awake = True
        with suppress(BlockingIOError):  # a full pipe is a wake already
            os.write(self._write_fd, b"w")

    def _on_readable(self) -> None:
        # The pipe first: a wake between the two would otherwise leave the flag set and the pipe empty for ever.
        with suppress(BlockingIOError):
            os.read(self._read_fd, 4096)
        with self._lock:
            self._awake = False
        self._callback()


class MainLoopBusy(Exception):  # noqa: N818 - says what is the case
    """The main loop did not come to it in time; it will not do it any more either."""


class MainLoop:
    """The main loop, as other threads may use it."""

    def __init__(self) -> None:
        """Takes jobs from now on; they run once it is registered."""
        self._waker = Waker(self._run_all)
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def register(self, hub: Any) -> None:
        """Join the event loop, again after each time that Celery rebuilt it."""
        self._waker.register(hub)

    def call(self, job: Callable[[], Any], *, start_seconds: float, end_seconds: float) -> Any:
        """Return what ``job`` returns or raise what it raises, when the main loop has run it.

        Raises MainLoopBusy when it has not begun within ``start_seconds``, and TimeoutError when it has begun and not
        ended ``end_seconds`` later.
        """
        future: Future[Any] = Future()
        self._jobs.append((future, job))
        self._waker.wake()
        try:
            return future.result(start_seconds)
        except TimeoutError:
            if future.done():
                raise  # the job's own
            if future.cancel():
                raise MainLoopBusy from None
        return future.result(end_seconds)

    def _run_all(self) -> None:
        while self._jobs:
            future, job = self._jobs.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller; here it would end the worker
                future.set_exception(error)
            else:
                future.set_result(result)


def forget_spent(timer: Any) -> None:
    """Drop the cancelled entries of a ``kombu.asynchronous.timer.Timer``, for the thread that runs its event loop.

    In place, because the loop may be going through this very list: it looks anew at what comes first each time.
    """
    queue = timer._queue
    if len(queue) > LEAST:
        queue[:] = [scheduled for scheduled in queue if not scheduled.entry.canceled]
        heapq.heapify(queue)


class SpentTimers:
    """Drops the timers of time limits whose tasks have ended, every ``INTERVAL_SECONDS``.

    Celery's prefork pool sets a timer for the time limit of each task and cancels it when the task ends. Kombu's timer
    only marks it then, and keeps it in its heap until it would have been due (kombu.asynchronous.timer, 5.7). Every
    task here has a limit, an hour by default, so the worker's parent would grow by half a kilobyte per task for an
    hour: 190 MB at 100 tasks per second, more than 2 GB at 1,500. Its children would too: new ones are forked from it.
    """

    def __init__(self) -> None:
        """Not under way."""
        self._again: Any = None

    def register(self, hub: Any) -> None:
        """Begin; called again when the consumer has restarted, it goes on once and not twice."""
        if self._again is not None:
            self._again.cancel()
        self._again = hub.call_repeatedly(INTERVAL_SECONDS, forget_spent, hub.timer)
