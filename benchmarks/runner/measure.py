"""One run of one contestant: fill a queue, start the consumer, watch the server until the work is done, end it.

The clock starts at the first completed task and stops at the last, both as the *server* sees them: a task is complete
when its message has been deleted (on Redis: acknowledged). So the start of a process is not part of a rate, and nothing
in a contestant has to be trusted or changed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.place import Command
from benchmarks.runner.queue_client import QueueClient
from bridge.local import die_with_parent as tether

#: How long a consumer may take to complete its first task.
FIRST_TASK_SECONDS = 30.0
#: No completed task for so long means that it hangs.
STANDSTILL_SECONDS = 15.0


@dataclass(frozen=True)
class Timing:
    """What was seen: ``rate`` is in messages per second, None when there was no rate to be seen (``problem``)."""

    done: int
    seconds: float
    rate: float | None
    first_task_seconds: float | None
    problem: str = ""
    cpu_ms_per_message: float | None = None
    #: Calls for each message, by action, between the first completed task and the last.
    calls_per_message: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Used:
    """What a consumer has used so far: CPU time of all its processes, and calls by action."""

    cpu_seconds: float
    calls: dict[str, int]


@dataclass
class Watch:
    """The samples of one run, turned into its timing. Pure."""

    start: float
    samples: list[tuple[float, int]] = field(default_factory=list)
    #: What had been used at the first sample and at the last. Their difference leaves out the start of the process, and
    #: what it fetches ahead: as much was fetched ahead at the first as at the last.
    used: list[Used] = field(default_factory=list)

    def see(self, now: float, done: int) -> None:
        """Take a sample; only those that show progress are kept."""
        if done > (self.samples[-1][1] if self.samples else 0):
            self.samples.append((now, done))

    def timing(self, problem: str = "") -> Timing:
        """Return the rate between the first sample that showed a completed task and the last that showed progress.

        What the first sample already showed is not counted: it was completed before the clock started.
        """
        if not self.samples:
            return Timing(0, 0.0, None, None, problem or "no task was completed")
        (first, already), (last, done) = self.samples[0], self.samples[-1]
        seconds = last - first
        first_task = first - self.start
        if done == already or seconds <= 0:
            return Timing(done, seconds, None, first_task, problem or "all were completed at one glance: too few")
        number = done - already
        before, after = self.used
        calls = {name: (all_ - before.calls.get(name, 0)) / number for name, all_ in after.calls.items()}
        cpu = (after.cpu_seconds - before.cpu_seconds) * 1000 / number
        return Timing(done, seconds, number / seconds, first_task, problem, cpu, calls)


def watch_until_done(
    queue: QueueClient,
    count: int,
    start: float,
    *,
    pause_seconds: float,
    longest_seconds: float,
    alive: Sequence[Process],
    calls: Callable[[], Mapping[str, int]],
) -> tuple[Watch, str]:
    """Sample the queue until all is done, or ``longest_seconds`` after the first completed task; returns the problem.

    A run that is cut off has a rate like any other, over the time that was seen. A consumer that ends by itself, never
    begins or stands still has a problem, and what it did before counts for nothing.
    """
    watch = Watch(start)
    while True:
        now = time.monotonic()
        began = bool(watch.samples)
        watch.see(now, queue.done())
        if watch.samples and not began:
            watch.used.append(_used(alive, calls))
        problem = _end(watch, now, count, longest_seconds, alive)
        if problem is not None:
            watch.used.append(_used(alive, calls))
            return watch, problem
        time.sleep(pause_seconds)


def _end(watch: Watch, now: float, count: int, longest_seconds: float, alive: Sequence[Process]) -> str | None:
    """Say why the run is over, an empty text for a good end; None while it goes on."""
    if watch.samples and watch.samples[-1][1] >= count:
        return ""
    ended = next((process for process in alive if process.ended()), None)
    if ended:
        return f"the consumer ended: {ended.last_line()}"
    if not watch.samples:
        return f"no task completed within {FIRST_TASK_SECONDS:g} s" if now - watch.start > FIRST_TASK_SECONDS else None
    if now - watch.samples[-1][0] > STANDSTILL_SECONDS:
        return f"stood still at {watch.samples[-1][1]} of {count}"
    return "" if now - watch.samples[0][0] > longest_seconds else None


def _used(alive: Sequence[Process], calls: Callable[[], Mapping[str, int]]) -> Used:
    return Used(sum(process.cpu_seconds() for process in alive), dict(calls()))


class Process:
    """A consumer that is running, in a process group of its own."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self._log = log

    @property
    def group(self) -> int:
        """Its process group."""
        return self._popen.pid

    def ended(self) -> bool:
        """Say whether it has ended by itself."""
        return self._popen.poll() is not None

    def last_line(self) -> str:
        """The last line that it wrote."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "(it wrote nothing)"

    def output(self) -> str:
        """All that it wrote."""
        return self._log.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """Return the CPU time that the processes of its group have used so far, those that have ended included."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[2]) == self.group:
                ticks += sum(int(number) for number in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def terminate(self, longest_seconds: float) -> tuple[int, float]:
        """Send SIGTERM and wait; return the exit code, 128 + n for signal n, and the seconds that it took.

        Raises RuntimeError when it has ended before, or runs still after ``longest_seconds``.
        """
        if self.ended():
            raise RuntimeError(f"it ended before it was told to: {self.last_line()}")
        start = time.monotonic()
        self._popen.terminate()  # the tether passes it on to the consumer alone, and ends with its exit code
        try:
            return self._popen.wait(longest_seconds), time.monotonic() - start
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"it runs {longest_seconds:g} s after SIGTERM: {self.last_line()}") from None

    def kill(self) -> None:
        """End the whole group at once."""
        try:
            os.killpg(self.group, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all of it has ended
        self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()


@contextmanager
def running(command: Command) -> Iterator[list[Process]]:
    """Run the command's processes until the end of the block; the tether ends them when this process is gone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        processes = []
        for number in range(command.copies):
            log = folder / f"{number}.log"
            with log.open("wb") as output:
                popen = subprocess.Popen(
                    [sys.executable, "-I", str(tether.__file__), *command.argv],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(command.env),
                    cwd=folder,
                    start_new_session=True,
                )
            process = Process(popen, log)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def run(
    queue: QueueClient,
    command: Command,
    count: int,
    *,
    longest_seconds: float,
    pause_seconds: float = 0.02,
    calls: Callable[[], Mapping[str, int]] = dict,
) -> tuple[Timing, str]:
    """Start the consumer on a queue that holds ``count`` messages; return the timing and what the consumer wrote.

    ``calls`` tells how many calls there have been so far, by action.
    """
    start = time.monotonic()
    with running(command) as processes:
        watch, problem = watch_until_done(
            queue,
            count,
            start,
            pause_seconds=pause_seconds,
            longest_seconds=longest_seconds,
            alive=processes,
            calls=calls,
        )
        return watch.timing(problem), "\n".join(process.output() for process in processes)
