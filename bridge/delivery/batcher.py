"""A batcher sends jobs of one kind to SQS, ten per call, on its own threads, and retries until they are done.

A job is counted in ``pending`` from ``add`` until its call was confirmed or given up, whether it waits in the batch,
sits in a call or waits to be tried again: a flush that looked away for a moment would lose it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bridge.log import get_logger
from bridge.sqs.quotas import MAX_BATCH_ENTRIES

Job = TypeVar("Job")
log = get_logger(__name__)

#: After an error that is our own (a bug): the job stays, but does not spin.
_BUG_DELAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Again(Generic[Job]):
    """A job to be tried again after ``delay_seconds``."""

    job: Job
    delay_seconds: float


class Batches(Generic[Job]):
    """What waits to be sent, by key (a queue URL), and when a batch is due. Pure: the time is passed in."""

    def __init__(self, batch_size: int, linger_seconds: float) -> None:
        """A batch is due when ``batch_size`` jobs wait, or the oldest has waited ``linger_seconds``."""
        self.batch_size = batch_size
        self.linger_seconds = linger_seconds
        self._ready: dict[str, deque[tuple[float, Job]]] = {}
        self._later: list[tuple[float, int, str, Job]] = []
        self._tie = itertools.count()

    def add(self, key: str, job: Job, now: float, delay_seconds: float = 0.0) -> bool:
        """Let a job wait, for ``delay_seconds`` before anything else; say whether one more batch is due, or sooner."""
        if delay_seconds > 0:
            heapq.heappush(self._later, (now + delay_seconds, next(self._tie), key, job))
            return True
        jobs = self._ready.setdefault(key, deque())
        jobs.append((now, job))
        return len(jobs) == 1 or len(jobs) % self.batch_size == 0

    def take(self, now: float, *, flush: bool = False) -> list[Job]:
        """Return the next due batch, of one key; empty when none is due. ``flush``: no lingering."""
        while self._later and self._later[0][0] <= now:
            _, _, key, job = heapq.heappop(self._later)
            self._ready.setdefault(key, deque()).append((now, job))
        for key, jobs in self._ready.items():
            if len(jobs) >= self.batch_size or flush or now - jobs[0][0] >= self.linger_seconds:
                batch = [jobs.popleft()[1] for _ in range(min(self.batch_size, len(jobs)))]
                # To the end of the order: a busy queue must not starve the others.
                del self._ready[key]
                if jobs:
                    self._ready[key] = jobs
                return batch
        return []

    def __bool__(self) -> bool:
        """Say whether anything waits."""
        return bool(self._ready or self._later)

    def due_in(self, now: float) -> float | None:
        """Return the seconds until something is due, or None when nothing waits."""
        moments = [jobs[0][0] + self.linger_seconds for jobs in self._ready.values()]
        if self._later:
            moments.append(self._later[0][0])
        return max(0.0, min(moments) - now) if moments else None


class Batcher(Generic[Job]):
    """Threads that take due batches and make the call for each."""

    def __init__(
        self,
        name: str,
        call: Callable[[list[Job]], Iterable[Again[Job]]],
        *,
        batch_size: int = MAX_BATCH_ENTRIES,
        linger_seconds: float = 0.0,
        threads: int = 1,
    ) -> None:
        """``call`` makes one SQS call for a batch and returns the jobs to try again; its errors must be its own."""
        self._call = call
        self._batches: Batches[Job] = Batches(batch_size, linger_seconds)
        lock = threading.RLock()
        self._condition = threading.Condition(lock)
        self._all_done = threading.Condition(lock)
        self._keys: dict[int, str] = {}
        self._pending = 0
        self._flushing = False
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._run, name=f"bridge-{name}-{n}", daemon=True) for n in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def add(self, key: str, job: Job) -> None:
        """Take a job for the queue with URL ``key``; the batcher keeps it until it is confirmed or given up."""
        with self._condition:
            self._pending += 1
            self._keys[id(job)] = key
            # One thread keeps the time for a batch that is not full, and another is woken for each that is; to wake
            # them all for every job would cost more than the calls.
            if self._batches.add(key, job, time.monotonic()):
                self._condition.notify()

    @property
    def pending(self) -> int:
        """How many jobs are not confirmed yet."""
        return self._pending

    def flush(self, timeout_seconds: float) -> bool:
        """Send without lingering from now on; wait until nothing is pending. False when time ran out."""
        with self._condition:
            self._flushing = True
            self._condition.notify_all()
            return self._all_done.wait_for(lambda: self._pending == 0, timeout_seconds)

    def stop(self) -> None:
        """End the threads after the call they are in. What is still pending is left to SQS's visibility timeout."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                batch = self._next_batch()
            if batch is None:
                return
            try:
                again = list(self._call(batch))
            except Exception:
                log.exception("settle_bug", jobs=len(batch))
                again = [Again(job, _BUG_DELAY_SECONDS) for job in batch]
            with self._condition:
                now = time.monotonic()
                for item in again:
                    self._batches.add(self._keys[id(item.job)], item.job, now, item.delay_seconds)
                kept = {id(item.job) for item in again}
                for job in batch:
                    if id(job) not in kept:
                        del self._keys[id(job)]
                        self._pending -= 1
                if self._pending == 0:
                    self._all_done.notify_all()

    def _next_batch(self) -> list[Job] | None:
        while not self._stopped:
            now = time.monotonic()
            batch = self._batches.take(now, flush=self._flushing)
            if batch:
                if self._batches:
                    self._condition.notify()  # this thread kept the time, and is off to its call
                return batch
            self._condition.wait(self._batches.due_in(now))
        return None
