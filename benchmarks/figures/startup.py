"""How long a worker takes from its exec to the end of its first task, over stock Celery on the same queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.figures import environments
from benchmarks.figures.stage import (
    START_SECONDS,
    Stage,
    event,
    ours,
    run_alone,
    spread,
    stage,
    stock,
    wait_for,
    worker,
)
from benchmarks.peers import bridge_worker, stock_celery
from benchmarks.peers.place import Command
from benchmarks.runner.quiet import MACHINE

DELAY_MS = 10
CONCURRENCY = 2
TARGET = 1.3


def startup(rounds: int = 7, quick: bool = False) -> dict[str, Any]:
    """Exec → first task done, ours and stock Celery, prefork 2, message waiting, 10 ms: seconds, medians of the rounds.

    The clock starts in the process that becomes ``celery … worker``, just before its exec. Rounds are interleaved, and
    each worker is started once before them, unmeasured: Python writes its bytecode then.
    """
    stock_celery.prepare()
    rounds = 2 if quick else rounds
    image = environments.image_python()
    contestants: dict[str, tuple[Callable[[Stage], Command], Callable[[int], str]]] = {
        "ours": (lambda at: ours(at, "prefork", CONCURRENCY, 1), lambda number: event("mark", number)),
        "ours_image": (
            lambda at: ours(at, "prefork", CONCURRENCY, 1, python=image),
            lambda number: event("mark", number),
        ),
        "stock": (lambda at: stock(at, CONCURRENCY), lambda number: stock_celery.message_on_sqs("mark", number)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, (command, message) in contestants.items():
            taken = MACHINE.measure(partial(_one_start, command, message(number)))
            if number:
                seconds[name].append(taken)
    ratio = spread(_ratios(seconds["ours"], seconds["stock"]))
    return {
        "figure": "startup",
        "delay_ms": DELAY_MS,
        "pool": "prefork",
        "concurrency": CONCURRENCY,
        "ours_seconds": spread(seconds["ours"]),
        "stock_seconds": spread(seconds["stock"]),
        "ratio": ratio,
        # Not the target's: with all that the container image holds, Flower's Celery plugin above all.
        "ours_image_seconds": spread(seconds["ours_image"]),
        "image_ratio": spread(_ratios(seconds["ours_image"], seconds["stock"])),
        "target": TARGET,
        "met": ratio["median"] <= TARGET,
        "versions": {"ours": bridge_worker.versions(), "stock": stock_celery.versions_on_sqs()},
    }


def _ratios(ours_seconds: list[float], stock_seconds: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours_seconds, stock_seconds, strict=True)]


def _one_start(command: Callable[[Stage], Command], message: str) -> float:
    with stage(DELAY_MS) as at:
        at.queue.fill([message])
        wanted = command(at)
        clock = at.folder / "exec"
        # "$@" is the worker's own command line; nothing of it is read by the shell.
        script = f'date +%s.%N > {clock}; exec "$@"'
        with worker(replace(wanted, argv=["/bin/sh", "-c", script, "sh", *wanted.argv])) as process:
            wait_for(process, at.times, START_SECONDS, "the first task")
            time.sleep(0.2)  # it settles its message, as it would in a longer life
        return at.times()[0][1] - float(clock.read_text())


if __name__ == "__main__":
    run_alone(startup, rounds=7)
