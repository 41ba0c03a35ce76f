"""What Celery itself does where messages cost nothing: stock Celery, its queue in the worker's own memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures.bus import FIRST_MESSAGE, LAST_SHARE, Sample, Stretch
from benchmarks.figures.stage import APPS, START_SECONDS, run_alone, spread, wait_for, worker
from benchmarks.peers import stock_celery
from benchmarks.peers.apps.work import SLEEP_SECONDS
from benchmarks.peers.place import Command, Place
from benchmarks.runner.quiet import MACHINE

#: Kombu waits so long when its window is full or its queue empty; the default of 1 s would be most of what is measured.
POLLING_SECONDS = 0.001
#: For the slowest row on a busy machine, beyond a worker's start: 400 sleeps by two processes are 10 s.
RUN_SECONDS = 120.0


@dataclass(frozen=True)
class Row:
    """A pool with something to do, as our own worker has it in the table of rates."""

    pool: str
    concurrency: int
    prefetch: int
    workload: str
    messages: int

    @property
    def name(self) -> str:
        """Workload and pool."""
        return f"{self.workload} {self.pool}"


ROWS = (
    Row("threads", 8, 16, "noop", 10_000),
    Row("prefork", 2, 64, "noop", 10_000),
    Row("threads", 32, 2, "sleep", 4_000),
    Row("prefork", 2, 4, "sleep", 400),
)


def ceiling(rounds: int = 3, quick: bool = False) -> dict[str, Any]:
    """Messages/s and the parent's CPU µs per message, by workload and pool, of Celery without a broker; no target.

    Kombu's ``memory://`` in the worker's own process, filled before the pool is there; acknowledged late, no gossip,
    mingle, heartbeat, remote control or events, log level WARNING. Counted by the worker as it acknowledges, from the
    hundredth task to 98 % of them. With threads the parent's CPU time holds the tasks themselves; with tasks of 50 ms
    much of it is Kombu asking a full window again, every millisecond. ``of_the_ideal`` is the rate over concurrency ÷
    50 ms.
    """
    rounds = 1 if quick else rounds
    stock_celery.prepare()
    seen: dict[Row, list[Stretch]] = {row: [] for row in ROWS}
    for number in range(rounds):
        for row in (*ROWS[number % len(ROWS) :], *ROWS[: number % len(ROWS)]):
            seen[row].append(MACHINE.measure(partial(_one_run, row)))
    versions = stock_celery.versions_on_sqs()
    return {
        "figure": "ceiling",
        "rows": shown(seen),
        "versions": {"stock": {name: versions[name] for name in ("celery", "kombu")}},
    }


def shown(seen: Mapping[Row, Sequence[Stretch]]) -> dict[str, Any]:
    """Return the rows with their spreads, by name. Pure."""
    rows = {}
    for row, stretches in seen.items():
        rates = [stretch.per_second for stretch in stretches]
        rows[row.name] = {
            "concurrency": row.concurrency,
            "prefetch_multiplier": row.prefetch,
            "messages": row.messages,
            "messages_per_s": spread(rates),
            "parent_cpu_us_per_message": spread([stretch.cpu_us_per_message for stretch in stretches]),
        }
        if row.workload == "sleep":
            ideal = row.concurrency / SLEEP_SECONDS
            rows[row.name]["of_the_ideal"] = spread([rate / ideal for rate in rates])
    return rows


def _one_run(row: Row) -> Stretch:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        samples = Path(folder) / "samples.json"
        with worker(_command(row, samples)) as process:
            wait_for(process, samples.exists, START_SECONDS + RUN_SECONDS, f"{row.messages} tasks ({row.name})")
        first, last = (Sample(*sample) for sample in json.loads(samples.read_text()))
    return Stretch(first, last)


def _command(row: Row, samples: Path) -> Command:
    command = stock_celery.on_sqs(row.prefetch, {})(Place("", "bench", ""), row.workload)
    argv = ["ceiling_celery" if word == "celery_app" else word for word in command.argv]
    argv += ["-P", row.pool, "-c", str(row.concurrency), "--without-gossip", "--without-mingle", "--without-heartbeat"]
    env = {
        **command.env,
        "PYTHONPATH": APPS,
        "BENCH_BROKER": "memory://",
        "BENCH_TRANSPORT_OPTIONS": json.dumps({"polling_interval": POLLING_SECONDS}),
        "BENCH_TASK": f"bench.{row.workload}",
        "BENCH_MESSAGES": str(row.messages),
        "BENCH_FIRST": str(FIRST_MESSAGE),
        "BENCH_LAST": str(round(LAST_SHARE * row.messages)),
        "BENCH_SAMPLES": str(samples),
    }
    return Command(argv, env)


if __name__ == "__main__":
    run_alone(ceiling, rounds=3)
