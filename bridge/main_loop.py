"""Running something on Celery's main loop for another thread, and waiting for what comes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from bridge.gate import Waker


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
