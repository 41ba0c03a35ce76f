"""From runs to figures: medians, spreads, ratios within a round, and the targets. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from benchmarks.runner.contestants import (
    BOTO3_TUNED,
    NODE_FOUR,
    OURS_PREFORK,
    OURS_THREADS,
    REDIS,
    STOCK_NO_PAUSE,
    TASKIQ,
)
from benchmarks.runner.plan import MEMORY
from benchmarks.runner.result import Result

SLEEP_SECONDS = 0.05


@dataclass(frozen=True)
class Figure:
    """The median of a figure over the rounds, and its spread."""

    median: float
    lowest: float
    highest: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """Return the figure of the values that are there; None when none is."""
        there = [value for value in values if value is not None]
        return cls(statistics.median(there), min(there), max(there), len(there)) if there else None


@dataclass(frozen=True)
class JudgedTarget:
    """A line of the table of targets: wanted and measured. ``reached`` is None when it was not measured."""

    name: str
    wanted: str
    figure: Figure | None
    reached: bool | None


@dataclass(frozen=True)
class Results:
    """All runs."""

    runs: Sequence[Result]

    def of(self, contestant: str, workload: str, delay_ms: int, server: str = MEMORY) -> list[Result]:
        """Return the runs of one contestant in one series, by round."""
        wanted = (contestant, workload, delay_ms, server)
        found = [r for r in self.runs if (r.contestant, r.workload, r.delay_ms, r.server) == wanted]
        return sorted(found, key=lambda result: result.round)

    def rate(self, contestant: str, workload: str, delay_ms: int, server: str = MEMORY) -> Figure | None:
        """Return messages per second."""
        return Figure.of(r.rate for r in self.of(contestant, workload, delay_ms, server))

    def ratio(self, ours: tuple[str, int], theirs: tuple[str, int], workload: str = "noop") -> Figure | None:
        """Return ours over theirs, each a contestant and a delay: the median of the rounds' own ratios.

        What slows the machine for a while slows both sides of a round, so its ratio is steadier than its rates. Rounds
        that lack one side do not count.
        """
        rates = {r.round: r.rate for r in self.of(theirs[0], workload, theirs[1])}
        pairs = [(r.rate, rates.get(r.round)) for r in self.of(ours[0], workload, ours[1])]
        return Figure.of(mine / other for mine, other in pairs if mine is not None and other)


def targets(results: Results) -> list[JudgedTarget]:
    """Return the targets of the project for throughput and calls, each with what was measured."""
    both = ((OURS_THREADS, "threads"), (OURS_PREFORK, "prefork"))
    found = []

    def at_least(name: str, least: float, figure: Figure | None) -> None:
        found.append(_judged(name, f"≥ {least:g}", figure, lambda value: value >= least))

    for name, pool in both:
        least = 0.8 if pool == "threads" else 0.65
        figure = results.ratio((name, 10), (BOTO3_TUNED, 10))
        at_least(f"{pool} over boto3 with 8 threads and batch deletes, 10 ms", least, figure)
    for title, peer, least in (
        ("four node sqs-consumers", NODE_FOUR, 1.0),
        ("taskiq-aio-sqs", TASKIQ, 2.2),
        ("Celery on SQS with polling_interval 0", STOCK_NO_PAUSE, 20.0),
    ):
        for name, pool in both:
            at_least(f"{pool} over {title}, 10 ms", least, results.ratio((name, 10), (peer, 10)))
    for name, pool in both:
        at_least(f"{pool} at 10 ms over Celery on Redis at 0 ms", 1.5, results.ratio((name, 10), (REDIS, 0)))
    for name, pool in both:
        at_least(f"{pool} at 30 ms over the same at 0 ms", 0.8, results.ratio((name, 30), (name, 0)))
    for name, pool in both:
        calls = Figure.of(r.all_calls for r in results.of(name, "noop", 10) if r.rate is not None)
        found.append(_judged(f"{pool}: SQS calls per message, 10 ms", "≤ 0.21", calls, lambda value: value <= 0.21))
    for name, title, slots, least in (
        ("ours-prefork-2", "prefork, 2 processes", 2, 0.97),
        ("ours-threads-32", "threads, 32 of them", 32, 0.95),
    ):
        rates = [r.rate for r in results.of(name, "sleep", 10)]
        share = Figure.of(None if rate is None else rate * SLEEP_SECONDS / slots for rate in rates)
        at_least(f"{title}: share of the ideal rate of 50 ms tasks", least, share)
    return found


def _judged(name: str, wanted: str, figure: Figure | None, good: Callable[[float], bool]) -> JudgedTarget:
    return JudgedTarget(name, wanted, figure, None if figure is None else good(figure.median))
