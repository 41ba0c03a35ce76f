"""How long an event that is visible in the queue waits until its task starts, with a worker that has little to do."""

from __future__ import annotations

import random
import threading
import time
from functools import partial
from typing import Any

from benchmarks.figures.stage import Stage, event, ours, percentile, run_alone, spread, stage, wait_for, worker
from benchmarks.runner.quiet import MACHINE

DELAY_MS = 10
EVENTS_PER_SECOND = 10
ROUND_SECONDS = 30
#: The first events meet a worker whose connections are still being opened; they are sent and not counted.
WARM_UP_EVENTS = 20
TARGETS = {"p50_ms": 30.0, "p99_ms": 120.0}


def latency(rounds: int = 3, quick: bool = False, seconds: float | None = None) -> dict[str, Any]:
    """Visible → started at 10 events/s through 10 ms, by pool: p50 and p99 in ms, medians over the rounds.

    An event is visible when SendMessage, sent past the proxy, was answered; its task has started when its function's
    first line ran. Events come at random (exponential gaps), as uploads do: a fixed step would measure one phase of
    the long poll only. ``seconds`` is the length of a round, 30 unless told.
    """
    length = seconds if seconds is not None else (5.0 if quick else float(ROUND_SECONDS))
    pools = {"prefork": 2, "threads": 8}
    seen: dict[str, dict[str, list[float]]] = {pool: {"p50_ms": [], "p99_ms": [], "max_ms": []} for pool in pools}
    for number in range(rounds):
        for pool, concurrency in pools.items():
            events = round(length * EVENTS_PER_SECOND)
            waits_ms = MACHINE.measure(partial(_one_round, pool, concurrency, events, seed=number))
            seen[pool]["p50_ms"].append(percentile(waits_ms, 0.5))
            seen[pool]["p99_ms"].append(percentile(waits_ms, 0.99))
            seen[pool]["max_ms"].append(max(waits_ms))
    return {
        "figure": "latency",
        "delay_ms": DELAY_MS,
        "events_per_second": EVENTS_PER_SECOND,
        "events_per_round": round(length * EVENTS_PER_SECOND),
        # On a real line the answer to the long poll is half a round trip under way; nothing else is missing here.
        "note": "the proxy delays requests and not answers: half a round trip (5 ms) is to be added",
        "targets": TARGETS,
        "pools": {
            pool: {
                "concurrency": pools[pool],
                "prefetch_multiplier": 1,
                **{name: spread(v) for name, v in found.items()},
            }
            for pool, found in seen.items()
        },
        "met": {
            name: all(spread(found[name])["median"] <= target for found in seen.values())
            for name, target in TARGETS.items()
        },
    }


def _one_round(pool: str, concurrency: int, events: int, seed: int) -> list[float]:
    with stage(DELAY_MS) as at, worker(ours(at, pool, concurrency, 1)) as process:
        return _waits_ms(at, process, events, seed)


def _waits_ms(at: Stage, process: Any, events: int, seed: int) -> list[float]:
    gaps = random.Random(seed)  # noqa: S311 - the same events in every run
    total = WARM_UP_EVENTS + events
    visible: dict[str, float] = {}
    at.queue.fill([event("mark", 0)])
    wait_for(process, at.times, 60, "the first task")

    def send() -> None:
        due = time.monotonic()
        for number in range(1, total + 1):
            due += gaps.expovariate(EVENTS_PER_SECOND)
            time.sleep(max(0.0, due - time.monotonic()))
            body = event("mark", number)
            at.queue.fill([body])
            visible[_key(number)] = time.time()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(10 * total / EVENTS_PER_SECOND)
    wait_for(process, lambda: len(at.times()) >= total + 1, 30, f"{total} tasks")
    # The first note of each: a message that comes twice has started when it started first.
    started = dict(reversed(at.times()))
    counted = [_key(number) for number in range(WARM_UP_EVENTS + 1, total + 1)]
    # A task can start before the sender has read its answer: then it has not waited.
    return [max(0.0, started[key] - visible[key]) * 1000 for key in counted]


def _key(number: int) -> str:
    return f"mark/2026/11/21/file-{number:08d}.csv"


if __name__ == "__main__":
    run_alone(latency, {"seconds": (float, "length of a round (default 30; 5 with --quick)")})
