"""The drain: what happens from SIGTERM to the end of the process, in its order, each step with its budget.

    start no receive → hand back what has not started → let running tasks finish (BRIDGE_DRAIN_SECONDS), awaiting the
    long polls under way → stop what is left, then hand it back → flush deletes → leave

It runs in a thread of its own: Celery's main thread is busy joining the pool, and a busy solo worker is its task. It
hears of signals from the interpreter itself (``signal.set_wakeup_fd``), because Python's handlers run in the main
thread only, and wait for as long as a task in native code keeps it. A second SIGTERM or Ctrl-C, or SIGQUIT, skips the
waiting.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal

from bridge import metrics
from bridge.delivery.heartbeat import Heartbeat
from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.receivers import Receivers
from bridge.delivery.settler import Settler
from bridge.log import get_logger
from bridge.messages.verdicts import HandBack

log = get_logger(__name__)

FLUSH_SECONDS = 5.0
#: What was handed back at the start must be on its way before the first second is over.
HAND_BACK_SECONDS = 1.0
#: A killed child is gone at once; a kernel that takes longer is not waited for.
KILL_SECONDS = 2.0
#: The same for the idempotency store, where the claims of stopped runs are released.
RELEASE_SECONDS = 2.0
#: A poll that ends this soon after the last hand-back is waited for.
LAST_POLL_SECONDS = 0.5
#: How long Celery's own shutdown may take once there is nothing left to settle.
LEAVE_SECONDS = 10.0
_LOOK_SECONDS = 0.1
# What is written into the pipe; signals come as their numbers, which are below 65.
_ASKED, _FORCED = b"D", b"F"
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})

PoolKind = Literal["prefork", "threads", "solo"]


def longest_drain_seconds(drain_seconds: float) -> float:
    """The most seconds from SIGTERM to the end of the process. A pod's grace period must be longer than this.

    ``drain_seconds`` is BRIDGE_DRAIN_SECONDS. In the worst case every other step takes its whole budget, too. First the
    drain settles what the worker holds, then Celery shuts down (LEAVE_SECONDS).
    """
    return _longest_settling_seconds(drain_seconds) + LEAVE_SECONDS


def _longest_settling_seconds(drain_seconds: float) -> float:
    """The most seconds from SIGTERM until everything is settled.

    The sum holds for every pool. It counts the running tasks, then three hand-backs (at the start, after the last poll,
    at the end of a pool without processes), two releases of claims, the kill, the flush of deletes and the last poll.
    """
    return (
        drain_seconds + 3 * HAND_BACK_SECONDS + 2 * RELEASE_SECONDS + KILL_SECONDS + FLUSH_SECONDS + LAST_POLL_SECONDS
    )


class Drain:
    """Runs once, when asked."""

    def __init__(
        self,
        table: LeaseTable,
        settler: Settler,
        receivers: Receivers,
        heartbeat: Heartbeat,
        *,
        pool_kind: PoolKind,
        pool_pids: Callable[[], Iterable[int]],
        drain_seconds: float,
        exit_code: Callable[[], int],
        release_claims: Callable[[Iterable[Lease]], None],
    ) -> None:
        """``pool_pids`` gives the processes of a prefork pool, ``exit_code`` what Celery would leave with.

        ``release_claims`` lets go of what stopped runs had claimed in the idempotency store, in a budget of its own.
        """
        self._release_claims = release_claims
        self._exit_code = exit_code
        self._table = table
        self._settler = settler
        self._receivers = receivers
        self._heartbeat = heartbeat
        self._pool_kind = pool_kind
        self._pool_pids = pool_pids
        self._drain_seconds = drain_seconds
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._signals = 0
        #: The first signal that asked for the drain; None when something else did, or nothing has.
        self.first_signal: int | None = None
        self._asked = False
        self._forced = False
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge-drain", daemon=True)

    def start(self) -> None:
        """Start the thread, which waits to be asked; to be called in the main thread."""
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        # A child's signals are its own affair: a copy of the pipe would report them to this process.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        self._thread.start()

    def request(self, *, forced: bool = False) -> None:
        """Ask for the drain; safe in a signal handler and from any thread, any number of times."""
        with suppress(BlockingIOError):
            os.write(self._write_fd, _FORCED if forced else _ASKED)

    def wait(self) -> None:
        """Wait until everything is settled, on Celery's way out."""
        self.request()
        self._finished.wait(_longest_settling_seconds(self._drain_seconds))

    def _run(self) -> None:
        while not self._asked:
            self._hear()
        try:
            self._drain()
        except Exception:  # an error of ours: what is still held comes back after its visibility timeout
            log.exception("drain_bug")
            self._finished.set()
            self._leave()

    def _drain(self) -> None:
        began = time.monotonic()
        metrics.draining.set(1)
        log.info(
            "drain_started",
            running=self._table.count(LeaseState.RUNNING),
            waiting=self._table.count(LeaseState.WAITING),
        )
        self._receivers.stop()
        for lease in self._table.close():
            self._settler.carry_out(lease, HandBack("draining"))
        self._settler.flush_hand_backs(HAND_BACK_SECONDS)
        deadline = began + self._drain_seconds
        self._await_running(deadline)
        # The tasks are done or out of time; a long poll may still bring messages, which the intake hands back.
        while not self._receivers.join(0.0) and self._waits_on(deadline):
            pass
        stopped = self._stop_running() if self._pool_kind == "prefork" else []
        # Whoever gets the message next may be quick: its claim must be free by then.
        self._release_claims(stopped)
        for lease in stopped:
            self._settler.carry_out(lease, HandBack("drain-budget"))
        # What is left of the budget is the flush's too: an SQS that hangs may need it.
        left = 0.0 if self._forced else max(0.0, deadline - time.monotonic())
        self._settler.flush(left + FLUSH_SECONDS)
        if self._receivers.join(LAST_POLL_SECONDS):
            # A poll still under way may have taken what was just handed back; the intake has handed it back again.
            self._settler.flush_hand_backs(HAND_BACK_SECONDS)
        if self._pool_kind != "prefork":
            # These tasks cannot be stopped: the process must end with the very call that gives them to another worker.
            stopped = [lease for lease in self._table.in_state(LeaseState.RUNNING) if self._table.release(lease)]
            # A task that ends in this very moment finds its claim gone and completes nothing: it will be run again.
            self._release_claims(stopped)
            for lease in stopped:
                self._settler.carry_out(lease, HandBack("drain-budget"))
            self._settler.flush(HAND_BACK_SECONDS)
        self._settler.stop()
        self._heartbeat.stop()
        log.info(
            "drain_finished",
            duration_seconds=round(time.monotonic() - began, 3),
            stopped=len(stopped),
            unsettled=self._settler.pending,
        )
        self._finished.set()
        if not stopped:
            time.sleep(LEAVE_SECONDS)  # the main thread leaves by itself, and this daemon thread with it
            log.warning("drain_left_by_force")
        self._leave()

    def _await_running(self, deadline: float) -> None:
        while self._table.count(LeaseState.RUNNING) and self._waits_on(deadline):
            pass

    def _waits_on(self, deadline: float) -> bool:
        """Wait a moment; False when the deadline has passed, or a second signal has come."""
        left = deadline - time.monotonic()
        if left <= 0 or self._forced:
            return False
        readable, _, _ = select.select([self._read_fd], [], [], min(left, _LOOK_SECONDS))
        if readable:
            self._hear()
        return True

    def _hear(self) -> None:
        """Read one byte: a request of ours, or the number of a signal."""
        heard = os.read(self._read_fd, 1)
        if heard and heard[0] in _STOP_SIGNALS:
            self._signals += 1
            self.first_signal = self.first_signal or heard[0]
            self._asked = True
            self._forced = self._forced or self._signals > 1 or heard[0] == signal.SIGQUIT
        elif heard in (_ASKED, _FORCED):
            self._asked = True
            self._forced = self._forced or heard == _FORCED

    def _stop_running(self) -> list[Lease]:
        """Kill the children that still run something; return the leases once their processes are gone."""
        running = [lease for lease in self._table.in_state(LeaseState.RUNNING) if self._table.release(lease)]
        if not running:
            return []
        pids = {pid for pid in (_worker_pid(lease) for lease in running) if pid}
        if any(_worker_pid(lease) is None for lease in running):
            pids = set(self._pool_pids())  # handed to the pool and not yet accepted: any of them may have it
        log.warning("drain_stops_tasks", tasks=[lease.task_id for lease in running], pids=sorted(pids))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + KILL_SECONDS
        for pid in pids:
            while not _is_gone(pid) and time.monotonic() < deadline:
                time.sleep(0.01)
        return running

    def _leave(self) -> None:
        """End this process and its children now: the main thread may be inside a task, or joining a pool."""
        for pid in self._pool_pids() if self._pool_kind == "prefork" else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        logging.shutdown()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self._exit_code())


def _worker_pid(lease: Lease) -> int | None:
    request = lease.request() if lease.request is not None else None
    return getattr(request, "worker_pid", None)


def _is_gone(pid: int) -> bool:
    """Say whether a child of ours has exited, without reaping it: that is billiard's affair."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
