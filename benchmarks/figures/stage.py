"""What the figures share: servers and a queue to work on, workers, their memory, and how a figure is run alone."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import FOLDER, REPOSITORY
from benchmarks.figures import environments
from benchmarks.peers import bridge_worker, s3_events, stock_celery
from benchmarks.peers.place import Command, Place
from benchmarks.runner.measure import Process, running
from benchmarks.runner.queue_client import SqsQueue
from benchmarks.servers.starting import Proxy, delay_proxy, memory_sqs
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until

#: Both folders of tasks; what a stock Celery sees is the same.
APPS = f"{FOLDER / 'figures' / 'apps'}:{FOLDER / 'peers' / 'apps'}"
ACCOUNT = "000000000000"
MEGABYTE = 1_000_000
#: For a worker to be there, on a busy machine.
START_SECONDS = 60.0


@dataclass(frozen=True)
class Stage:
    """A new queue behind a proxy, and a folder for files."""

    proxy: Proxy
    queue: SqsQueue
    place: Place
    folder: Path
    #: Where our worker on this stage serves its metrics.
    health_port: int

    @property
    def marks(self) -> Path:
        """Where marked tasks write."""
        return self.folder / "marks"

    def times(self) -> list[tuple[str, float]]:
        """What marked tasks have written so far: a name and a time in seconds since 1970."""
        lines = self.marks.read_text().splitlines() if self.marks.exists() else []
        return [(name, float(when)) for name, when in (line.rsplit(" ", 1) for line in lines)]


@contextmanager
def stage(delay_ms: float, *, s3_url: str = "") -> Iterator[Stage]:
    """Start the in-memory SQS and the proxy, and make a queue with its dead-letter queue."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = stack.enter_context(memory_sqs())
        proxy = stack.enter_context(delay_proxy(server, delay_ms))
        yield stack.enter_context(queue_on(server, proxy, folder, s3_url))


@contextmanager
def queue_on(server: str, proxy: Proxy, folder: Path, s3_url: str = "") -> Iterator[Stage]:
    """Make one more queue on a server that runs."""
    name = f"figure-{uuid.uuid4().hex[:8]}"
    with SqsQueue(server, name, counts_deletes=True) as queue:
        yield Stage(proxy, queue, Place(proxy.url, name, ACCOUNT, s3_url=s3_url), folder, free_port())


def ours(
    at: Stage, pool: str, concurrency: int, prefetch: int, *, python: Path | None = None, **settings: str
) -> Command:
    """Our worker; with nothing in ``settings`` its task is ``marked``. ``python``: of ``environments``, else core's."""
    command = bridge_worker.worker(pool, concurrency, prefetch)(at.place, "")
    more = {
        "PYTHONPATH": f"{APPS}:{REPOSITORY}",
        "BRIDGE_TASK_MODULES": "marked_bridge",
        "BENCH_MARKS": str(at.marks),
        "BRIDGE_HEALTH_PORT": str(at.health_port),
        **settings,
    }
    argv = [str(python or environments.core_python()), *command.argv[1:]]
    return replace(command, argv=argv, env={**command.env, **more})


def stock(at: Stage, concurrency: int) -> Command:
    """Stock Celery with ``polling_interval`` 0, prefork, otherwise as it comes."""
    command = stock_celery.on_sqs(None, stock_celery.NO_PAUSE)(at.place, "")
    argv = ["marked_celery" if word == "celery_app" else word for word in command.argv]
    env = {**command.env, "PYTHONPATH": APPS, "BENCH_MARKS": str(at.marks)}
    return replace(command, argv=[*argv, "-P", "prefork", "-c", str(concurrency)], env=env)


def event(workload: str, number: int) -> str:
    """The body of an S3 event for an object whose key begins with the workload's name."""
    return s3_events.message(workload, number)


@contextmanager
def worker(command: Command) -> Iterator[Process]:
    """Run one worker until the end of the block."""
    with running(command) as (process,):
        yield process


def wait_for(process: Process, ready: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is true; raises RuntimeError, with the worker's words, when it ends or the time is over."""

    def answer() -> bool:
        if process.ended():
            raise RuntimeError(f"the worker ended while {what} was awaited: {process.last_line()}")
        return bool(ready())

    try:
        wait_until(answer, seconds, what)
    except AssertionError as error:
        raise RuntimeError(f"{error}; the worker's last line: {process.last_line()}") from error


def parent_and_children(process: Process, children: int) -> tuple[int, list[int]]:
    """The process ids of a prefork worker and of its pool, waited for. The tether is the worker's own parent."""
    found: tuple[int, list[int]] = (0, [])

    def there() -> bool:
        nonlocal found
        parents = _children(process.group)
        found = (parents[0], _children(parents[0])) if parents else found
        return len(found[1]) >= children

    wait_for(process, there, START_SECONDS, f"a pool of {children}")
    return found


def memory_mb(pid: int) -> dict[str, float]:
    """RSS, PSS (shared pages divided by those who share them) and the highest RSS so far of a process, in MB (10^6).

    Source: https://docs.kernel.org/filesystems/proc.html, smaps_rollup and status.
    """
    lines = [*Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    lines += Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    names = {"rss_mb": "Rss", "pss_mb": "Pss", "peak_rss_mb": "VmHWM"}
    return {ours: int(fields[kernels][0]) * 1024 / MEGABYTE for ours, kernels in names.items()}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The median over rounds, with the lowest, the highest and all of them."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "rounds": [round(value, 6) for value in values],
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below ``share`` of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def run_alone(figure: Callable[..., dict[str, Any]], options: Mapping[str, Any] | None = None, rounds: int = 3) -> None:
    """Run a figure from the command line: ``--rounds``, ``--quick`` and its own options, the answer as JSON."""
    parser = argparse.ArgumentParser(description=(figure.__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds whose medians are taken (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works")
    for name, (convert, text) in (options or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=convert, default=None, help=text)
    start = time.monotonic()
    answer = figure(**vars(parser.parse_args()))
    print(json.dumps({**answer, "took_seconds": round(time.monotonic() - start, 1)}, indent=2))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []  # it has ended
