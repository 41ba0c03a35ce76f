"""What the monitor bus costs tasks and shutdown: no bus, one that is up, one that is down, one that hangs."""

from __future__ import annotations

import os
import socket
import statistics
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.figures import environments
from benchmarks.figures.stage import (
    START_SECONDS,
    Stage,
    event,
    ours,
    parent_and_children,
    run_alone,
    spread,
    stage,
    wait_for,
    worker,
)
from benchmarks.peers import bridge_worker
from benchmarks.runner.measure import STANDSTILL_SECONDS, Process
from benchmarks.runner.quiet import MACHINE
from benchmarks.servers import starting
from tests.support.servers.port import free_port

CONCURRENCY = 2
PREFETCH = 64
MESSAGES = 3_000
#: The stretch that counts: from the hundredth message, when the pool is warm, until the queue is all but empty.
FIRST_MESSAGE, LAST_SHARE = 100, 0.98
SAMPLE_SECONDS = 0.02
#: Longer than the worker's own deadlines together; a worker that still runs then has ignored SIGTERM.
STOP_SECONDS = 90.0
BACKLOG = 512
#: In the first round's order; each round begins with the next one.
MODES = ("none", "up", "down", "hanging")
TARGETS = {"slowest_over_fastest": 0.95, "exit_codes": 0}


@dataclass(frozen=True)
class Sample:
    """At a moment of the monotonic clock: messages done so far, and the CPU time of the worker's parent."""

    seconds: float
    done: int
    cpu_seconds: float


@dataclass(frozen=True)
class Stretch:
    """The part of a run that counts."""

    first: Sample
    last: Sample

    @property
    def messages(self) -> int:
        """How many were done in it; raises RuntimeError when there are too few messages for a stretch."""
        done = self.last.done - self.first.done
        if done <= 0 or self.last.seconds <= self.first.seconds:
            raise RuntimeError("all were done at one glance: too few messages")
        return done

    @property
    def per_second(self) -> float:
        """Messages per second."""
        return self.messages / (self.last.seconds - self.first.seconds)

    @property
    def cpu_us_per_message(self) -> float:
        """Microseconds of the parent's CPU time for each message."""
        return (self.last.cpu_seconds - self.first.cpu_seconds) * 1e6 / self.messages


def bus(rounds: int = 6, quick: bool = False, messages: int | None = None) -> dict[str, Any]:
    """No-op messages/s, the parent's CPU µs per message, and SIGTERM, by what ``BRIDGE_MONITOR_URL`` leads to.

    Prefork 2, prefetch multiplier 64, 0 ms, log level WARNING, 3,000 messages (``messages``) that are in the queue
    before the worker starts. ``none`` has no URL; ``up`` is a real Redis; ``down`` a port that nobody listens on;
    ``hanging`` one that takes connections and never answers. All four run in the environment of the container image:
    the bus needs Redis's client, which the core environment of the other figures lacks, and what else the image holds
    must not differ between them. Rounds are interleaved, each begins with another mode.
    """
    rounds = 1 if quick else rounds
    count = messages if messages is not None else MESSAGES
    environments.image_python()
    seen: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with starting.redis() as redis_url:
        for number in range(rounds):
            for mode in rotated(MODES, number):
                seen[mode].append(MACHINE.measure(partial(_one_run, mode, redis_url, count)))
    return {
        "figure": "bus",
        "pool": "prefork",
        "concurrency": CONCURRENCY,
        "prefetch_multiplier": PREFETCH,
        "delay_ms": 0,
        "messages": count,
        **compared(seen),
        "versions": {"ours": bridge_worker.versions()},
    }


def compared(seen: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return each mode's spreads, what is compared, and whether the targets are met. Pure; by mode, then by round."""
    modes = {
        mode: {
            **{
                name: spread([run[name] for run in runs])
                for name in ("messages_per_s", "parent_cpu_us_per_message", "stop_seconds", "events_dropped")
            },
            # A text: it is shown as it is, and two codes in one mode must both be seen.
            "exit_codes": ", ".join(str(code) for code in sorted({run["exit_code"] for run in runs})),
        }
        for mode, runs in seen.items()
    }
    medians = [statistics.median(run["messages_per_s"] for run in seen[mode]) for mode in ("up", "down", "hanging")]
    slowest_over_fastest = min(medians) / max(medians)
    pairs = zip(seen["up"], seen["none"], strict=True)
    return {
        "modes": modes,
        "slowest_over_fastest": slowest_over_fastest,
        "up_over_none": spread([up["messages_per_s"] / none["messages_per_s"] for up, none in pairs]),
        "targets": TARGETS,
        "met": {
            "slowest_over_fastest": slowest_over_fastest >= TARGETS["slowest_over_fastest"],
            "exit_codes": all(run["exit_code"] == TARGETS["exit_codes"] for runs in seen.values() for run in runs),
        },
    }


def rotated(modes: Sequence[str], number: int) -> list[str]:
    """Return the order of round ``number``, which counts from 0."""
    start = number % len(modes)
    return [*modes[start:], *modes[:start]]


def cpu_seconds(pid: int) -> float:
    """CPU time of one process with its threads, without its children, in steps of 10 ms.

    Source: https://docs.kernel.org/filesystems/proc.html, stat: utime and stime.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _monitor_url(mode: str, redis_url: str) -> Iterator[str]:
    if mode == "hanging":
        # Never accepted: the kernel completes the connection and keeps what is sent, and nothing comes back. A new one
        # for each run, so that no earlier worker's connections have filled the backlog.
        with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
            yield f"redis://127.0.0.1:{listening.getsockname()[1]}"
    else:
        yield {"none": "", "up": redis_url, "down": f"redis://127.0.0.1:{free_port()}"}[mode]


def _one_run(mode: str, redis_url: str, count: int) -> dict[str, Any]:
    with _monitor_url(mode, redis_url) as url:
        return _run_with(mode, url, count)


def _run_with(mode: str, url: str, count: int) -> dict[str, Any]:
    # The long poll under way at SIGTERM is awaited: with the 20 s of the default nothing else would be seen of a stop.
    settings = {"BRIDGE_TASK_MODULES": "bridge_tasks", "BRIDGE_WAIT_TIME_SECONDS": "1"}
    settings.update({"BRIDGE_MONITOR_URL": url} if url else {})
    with stage(0) as at:
        at.queue.fill(event("noop", number) for number in range(count))
        command = ours(at, "prefork", CONCURRENCY, PREFETCH, python=environments.image_python(), **settings)
        with worker(command) as process:
            parent, _ = parent_and_children(process, CONCURRENCY)
            stretch = _watched(at, process, parent, count)
            wait_for(process, lambda: at.queue.done() >= count, START_SECONDS, f"{count} messages")
            dropped = _events_dropped(mode, at.health_port)
            exit_code, stop_seconds = process.terminate(STOP_SECONDS)
        if at.queue.dead_letters():
            raise RuntimeError(f"{at.queue.dead_letters()} messages were dead-lettered")
    return {
        "messages_per_s": stretch.per_second,
        "parent_cpu_us_per_message": stretch.cpu_us_per_message,
        "events_dropped": dropped,
        "stop_seconds": stop_seconds,
        "exit_code": exit_code,
    }


def _watched(at: Stage, process: Process, parent: int, count: int) -> Stretch:
    """Ask the server how many are deleted until the stretch is over."""
    first: Sample | None = None
    done, progress_at = 0, time.monotonic()
    began = progress_at
    while True:
        sample = Sample(time.monotonic(), at.queue.done(), cpu_seconds(parent))
        if sample.done > done:
            done, progress_at = sample.done, sample.seconds
        if first is None and done >= FIRST_MESSAGE:
            first = sample
        if first is not None and done >= LAST_SHARE * count:
            return Stretch(first, sample)
        allowed = STANDSTILL_SECONDS if done else START_SECONDS
        if process.ended() or sample.seconds - max(progress_at, began) > allowed:
            raise RuntimeError(f"stood still at {done} of {count}: {process.last_line()}")
        time.sleep(SAMPLE_SECONDS)


def _events_dropped(mode: str, health_port: int) -> int:
    """How many events the worker says that it has dropped; raises RuntimeError when its bus is not what is measured."""
    with urllib.request.urlopen(f"http://127.0.0.1:{health_port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = {(s.name, s.labels.get("use", "")): s.value for family in families for s in family.samples}
    connected = samples.get(("bridge_monitor_connected", "events"))
    if connected != {"none": None, "up": 1.0}.get(mode, 0.0):
        raise RuntimeError(f"bus {mode}: the worker says that bridge_monitor_connected is {connected}")
    return round(samples.get(("bridge_monitor_events_dropped_total", ""), 0.0))


if __name__ == "__main__":
    run_alone(bus, {"messages": (int, "how many in each run (default 3,000)")}, rounds=6)
