"""What is run, in which order, and how many messages each run gets. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.runner.contestants import BOTO3_TUNED, CONTESTANTS, OURS_PREFORK, OURS_THREADS, Contestant

MEMORY = "memory"
ELASTICMQ = "elasticmq"
#: On ElasticMQ only these run: it is there to show that our own server flatters nobody.
ON_ELASTICMQ = (OURS_THREADS, OURS_PREFORK, BOTO3_TUNED)
#: The delay of all workloads but ``noop``, and of ElasticMQ: about what SQS answers in, within a region.
USUAL_DELAY_MS = 10
#: More messages than the window takes, so that the queue does not run dry in it: for a guess, and for a measured rate.
MORE_THAN_GUESSED = 1.6
MORE_THAN_MEASURED = 1.3
FEWEST = 30
MOST = 60_000


@dataclass(frozen=True)
class Series:
    """Runs that are compared with one another: the same work, the same server, the same delay."""

    server: str
    workload: str
    delay_ms: int

    @property
    def name(self) -> str:
        """A word for the log and for ``--only``."""
        return f"{self.workload}-{self.delay_ms}ms-{self.server}"


@dataclass(frozen=True)
class PlannedRun:
    """One contestant in one series, once."""

    series: Series
    contestant: Contestant
    round: int


def series_of(delays_ms: Sequence[int]) -> list[Series]:
    """Return all series, the usual delay first, for it has the most targets."""
    ordered = sorted(delays_ms, key=lambda delay: (delay != USUAL_DELAY_MS, delay))
    noop = [Series(MEMORY, "noop", delay) for delay in ordered]
    others = [Series(MEMORY, workload, USUAL_DELAY_MS) for workload in ("hash", "sleep", "cpu")]
    return [*noop, *others, Series(ELASTICMQ, "noop", USUAL_DELAY_MS)]


def contestants_of(series: Series) -> list[Contestant]:
    """Return who takes part. Redis is not behind the proxy, so it runs without a delay only (or at the usual one)."""
    return [
        contestant
        for contestant in CONTESTANTS
        if contestant.rate(series.workload, series.delay_ms) is not None
        and (series.server != ELASTICMQ or contestant.name in ON_ELASTICMQ)
    ]


def planned_runs(delays_ms: Sequence[int], rounds: int, only: Collection[str] = ()) -> Iterator[PlannedRun]:
    """Yield all runs, round by round: every contestant once, then every one again.

    Each round begins with another contestant, so that none always has the same one before it. ``only`` are parts of
    the names of contestants or series; a run needs one of them in either.
    """
    for number in range(rounds):
        for series in series_of(delays_ms):
            taking_part = [c for c in contestants_of(series) if _wanted(series, c, only)]
            for place in range(len(taking_part)):
                yield PlannedRun(series, taking_part[(place + number) % len(taking_part)], number)


def message_count(guess: float, measured: float | None, seconds: float) -> int:
    """Return how many messages to put into the queue for a window of ``seconds``."""
    wanted = guess * MORE_THAN_GUESSED if measured is None else measured * MORE_THAN_MEASURED
    return max(FEWEST, min(MOST, round(wanted * seconds)))


def _wanted(series: Series, contestant: Contestant, only: Collection[str]) -> bool:
    return not only or any(word in contestant.name or word in series.name for word in only)
