"""Receivers: long polls on threads of their own, as many as the window has free slots for.

Every queue keeps one long poll going while the window has free slots, whatever the other queues do; while a queue has
work, up to ``MAX_IN_FLIGHT`` receives are in flight. With work about, a receive starts when ten slots (the whole
window, if smaller) are free, or when a process would otherwise run dry, so that ten messages cost one call. Any error
is met with backoff; none ends a receiver.

A receive is never cut off: SQS may have handed out messages whose answer is still on its way.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge import metrics
from bridge.aws_errors import error_code
from bridge.delivery.lease import LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.receive_size import is_surely_none, receive_size
from bridge.log import get_logger
from bridge.sqs.clients import PROBE_WAIT_SECONDS
from bridge.sqs.queues import Queue
from bridge.sqs.quotas import MAX_BATCH_ENTRIES

log = get_logger(__name__)

#: Receives in flight for one queue under load.
MAX_IN_FLIGHT = 4
FIRST_PAUSE_SECONDS = 0.2
#: With the time-outs of the client, this keeps "resumes within 5 s of AWS coming back".
LONGEST_PAUSE_SECONDS = 2.0
#: A receiver without free slots looks again after this long, for a pool may grow without notice.
_NET_SECONDS = 1.0
#: The window and the processes are asked for this often, and not at every change of a message.
POOL_SECONDS = 0.1
_WAITING, _RUNNING = LeaseState.WAITING, LeaseState.RUNNING
_ENDING, _RELEASING = LeaseState.ENDING, LeaseState.RELEASING

#: A receiver calls this with the queue, the messages of one receive, and the monotonic time of the answer.
Deliver = Callable[[Queue, Sequence[Mapping[str, Any]], float], None]


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """One receiver: ``call_seconds`` is how long its present call lasts, None between calls."""

    name: str
    call_seconds: float | None
    thread_alive: bool


class Receivers:
    """All receivers of a worker."""

    def __init__(
        self,
        client: Any,
        probe_client: Any,
        table: LeaseTable,
        deliver: Deliver,
        *,
        window: Callable[[], int],
        processes: Callable[[], int],
        visibility_timeout_seconds: int,
        wait_time_seconds: int,
        max_messages_per_poll: int = MAX_BATCH_ENTRIES,
        poll_interval_seconds: float = 0.0,
        paced: bool = False,
        max_in_flight: int = MAX_IN_FLIGHT,
        pool_seconds: float = POOL_SECONDS,
    ) -> None:
        """``window`` and ``processes`` are asked every ``pool_seconds``, because a pool may grow and shrink.

        ``max_in_flight`` receives of one queue are under way at most.
        """
        self._max_in_flight = max_in_flight
        self._pool_seconds = pool_seconds
        self._client = client
        self._probe_client = probe_client
        self._table = table
        self._deliver = deliver
        self._window = window
        self._processes = processes
        self._visibility_timeout_seconds = visibility_timeout_seconds
        self._wait_time_seconds = wait_time_seconds
        self._limit = max_messages_per_poll
        self._poll_interval_seconds = poll_interval_seconds
        self._paced = paced
        self._stopped = threading.Event()
        self._polls: dict[str, _QueuePolls] = {}
        self._threads: list[threading.Thread] = []
        self._calls: dict[str, float] = {}
        self._pool, self._pool_at = (0, 0), -math.inf
        table.on_change = self._wake

    def start(self, queue: Queue) -> None:
        """Receive from this queue until stopped."""
        with self._table.lock:
            polls = self._polls[queue.name] = _QueuePolls(queue, self._table.lock)
        self._start_thread(polls, extra=False)

    def stop(self) -> None:
        """Start no further receive; those under way go on, and their messages are delivered."""
        self._stopped.set()
        with self._table.lock:
            for polls in self._polls.values():
                polls.first.notify_all()
                polls.extra.notify_all()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the receives under way; False when time ran out."""
        deadline = time.monotonic() + timeout_seconds
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def asked(self) -> int:
        """Return how many messages the receives under way may bring."""
        with self._table.lock:
            return sum(polls.asked for polls in list(self._polls.values()))

    def states(self) -> list[ReceiverState]:
        """Return what each receiver is doing, for the liveness."""
        now, calls = time.monotonic(), dict(self._calls)
        return [
            ReceiverState(t.name, now - calls[t.name] if t.name in calls else None, t.is_alive()) for t in self._threads
        ]

    def _start_thread(self, polls: _QueuePolls, *, extra: bool) -> None:
        name = f"bridge-receive-{polls.queue.name}-{polls.threads}"
        polls.threads += 1
        thread = threading.Thread(target=self._run, args=(polls, extra), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)  # started first: one that has not started cannot be joined, and looks dead

    def _run(self, polls: _QueuePolls, extra: bool) -> None:
        while not self._stopped.is_set():
            size = self._await_room(polls, extra)
            if not size:
                continue
            name = threading.current_thread().name
            self._calls[name] = time.monotonic()
            try:
                messages = self._receive(polls, size, extra=extra, probing=polls.failures > 0)
            except Exception as error:  # noqa: BLE001 - whatever SQS or the network does, the receiver goes on
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(max(0, polls.failures - 1), 10))
                pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, is no secret
                log.warning(
                    "receive_failed",
                    queue=polls.queue.name,
                    error_type=error_code(error),
                    error=str(error),
                    delay_seconds=round(pause, 2),
                )
                self._calls.pop(name, None)
                self._stopped.wait(pause)
                continue
            self._calls.pop(name, None)
            if self._poll_interval_seconds and (self._paced or not messages):
                self._stopped.wait(self._poll_interval_seconds)

    def _await_room(self, polls: _QueuePolls, extra: bool) -> int:
        """Wait until a receive may start; return its size, already counted as asked, or 0 when stopped."""
        with self._table.lock:
            while not self._stopped.is_set():
                size = self._size(polls, extra)
                if size:
                    polls.asked += size
                    self._wake()  # another receive may fit
                    return size
                polls.wait(extra)
        return 0

    def _wake(self) -> None:
        """Wake one receiver of each queue that has free slots; at every change, under the table's lock."""
        counts, (window, processes) = self._table.counts, self._pool_now()
        waiting, running = counts[_WAITING], counts[_RUNNING]
        for polls in self._polls.values():
            # One that was woken has not looked yet, and will pass on what it leaves.
            if polls.woken or not (polls.first_waits or polls.extra_wait):
                continue
            if is_surely_none(
                window=window,
                waiting=waiting,
                running=running,
                processes=processes,
                asked=polls.asked,
                idle=polls.idle,
                limit=self._limit,
            ):
                continue
            if polls.first_waits and self._size(polls, extra=False):
                polls.woken = True
                polls.first.notify()
            elif polls.extra_wait and not polls.idle and self._size(polls, extra=True):
                polls.woken = True
                polls.extra.notify()

    def _size(self, polls: _QueuePolls, extra: bool) -> int:
        if extra and polls.idle:
            return 0
        counts = self._table.counts
        waiting, running = counts[_WAITING], counts[_RUNNING]
        window, processes = self._pool_now()
        # The one long poll of a queue goes on whatever the others do, at the price of a window that may be passed.
        others = sum(p.extra_asked for p in self._polls.values() if p is not polls) if extra else 0
        return receive_size(
            window=window,
            waiting=waiting,
            running=running,
            processes=processes,
            asked=polls.asked + others,
            unconfirmed=counts[_ENDING] + counts[_RELEASING],
            idle=polls.idle,
            limit=self._limit,
        )

    def _pool_now(self) -> tuple[int, int]:
        now = time.monotonic()
        if now - self._pool_at >= self._pool_seconds:
            self._pool_at, self._pool = now, (self._window(), self._processes())
        return self._pool

    def _receive(self, polls: _QueuePolls, size: int, *, extra: bool, probing: bool) -> Sequence[Mapping[str, Any]]:
        if extra:
            polls.extra_asked += size
        # After a failure a short wait: a long poll on a connection that hangs would be noticed late.
        short = min(PROBE_WAIT_SECONDS, self._wait_time_seconds)
        wait = short if extra or probing else self._wait_time_seconds
        try:
            answer = (self._probe_client if probing else self._client).receive_message(
                QueueUrl=polls.queue.url,
                MaxNumberOfMessages=size,
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility_timeout_seconds,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            received_at = time.monotonic()
            metrics.last_poll.labels(polls.queue.name).set_to_current_time()
            messages: Sequence[Mapping[str, Any]] = answer.get("Messages") or []
            if messages:
                self._deliver(polls.queue, messages, received_at)
            (log.info if messages else log.debug)("poll", queue=polls.queue.name, received=len(messages))
            polls.idle = not messages  # of an extra receive too: it ends when the queue has run dry
            polls.failures = 0
        except Exception:
            # Before the slot is free: whichever receiver of the queue takes it must probe, and only one may. With the
            # ordinary wait on a connection that hangs it would notice 25 s later that the outage is over.
            polls.idle = True
            polls.failures += 1
            raise
        finally:
            # Only now: what was delivered is held, so the window never counts a message twice or not at all.
            with self._table.lock:
                polls.asked -= size
                if extra:
                    polls.extra_asked -= size
                self._wake()
        if messages and not extra and polls.threads < self._max_in_flight and not self._stopped.is_set():
            self._start_thread(polls, extra=True)
        return messages


class _QueuePolls:
    """What the receivers of one queue share; changed under the table's lock."""

    def __init__(self, queue: Queue, lock: threading.RLock) -> None:
        self.queue = queue
        #: The queue's one long poll waits on the first, the others on the second; how many wait there now.
        self.first, self.extra = threading.Condition(lock), threading.Condition(lock)
        self.first_waits = False
        self.extra_wait = 0
        #: One was woken and has not looked yet.
        self.woken = False
        self.idle = True
        self.asked = 0
        self.extra_asked = 0
        self.threads = 0
        #: Receives that failed since the last one that did not.
        self.failures = 0

    def wait(self, extra: bool) -> None:
        """Wait until woken, or for the net."""
        if extra:
            self.extra_wait += 1
            self.extra.wait(_NET_SECONDS)
            self.extra_wait -= 1
        else:
            self.first_waits = True
            self.first.wait(_NET_SECONDS)
            self.first_waits = False
        self.woken = False
