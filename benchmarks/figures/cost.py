"""What SQS asks for a million messages: calls counted by the proxy, times the price of a request."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.figures.stage import Stage, event, ours, run_alone, spread, stage, wait_for, worker
from benchmarks.runner.measure import Process

DELAY_MS = 10
BULK_MESSAGES = 20_000
DRIP_MESSAGES = 60
IDLE_POLLS = 3
#: The pool and window of the rates' rows, for bulk; for the others Celery's plain default window.
BULK = {"prefork": (2, 64), "threads": (8, 16)}
QUIET = ("prefork", 2, 1)
TARGET_CALLS_PER_MESSAGE = 0.21
#: Standard queues, US East (N. Virginia), from the second million requests of a month to the 100th billion. Each 64 KB
#: of a call's payload counts as a request; ten S3 events are about 12 KB. The sends are not in here: they are S3's.
PRICE_USD_PER_MILLION_REQUESTS = 0.40
PRICE_SOURCE = "https://aws.amazon.com/sqs/pricing/, standard queues, us-east-1, as reported in June 2026"
HOURS_PER_MONTH = 730


def cost(rounds: int = 2, quick: bool = False, messages: int | None = None) -> dict[str, Any]:
    """SQS calls and dollars per million messages: bulk (saturated) and drip (1 message/s); idle: calls an hour.

    Long polls of 20 s, 10 ms. ``messages`` is the number in bulk (20,000; 3,000 with ``quick``).
    """
    rounds = 1 if quick else rounds
    bulk_messages = messages if messages is not None else (3_000 if quick else BULK_MESSAGES)
    drip_messages = 15 if quick else DRIP_MESSAGES
    polls = 1 if quick else IDLE_POLLS
    bulk: dict[str, list[dict[str, Any]]] = {pool: [] for pool in BULK}
    drips, idles = [], []
    for _ in range(rounds):
        for pool, (concurrency, prefetch) in BULK.items():
            with stage(DELAY_MS) as at:
                at.queue.fill(event("noop", number) for number in range(bulk_messages))
                settings = {"BRIDGE_TASK_MODULES": "bridge_tasks"}
                with worker(ours(at, pool, concurrency, prefetch, **settings)) as process:
                    bulk[pool].append(_bulk(at, process, bulk_messages))
        with stage(DELAY_MS) as at, worker(ours(at, *QUIET)) as process:
            drips.append(_drip(at, process, drip_messages))
            idles.append(_idle(at, process, polls))
    return {
        "figure": "cost",
        "delay_ms": DELAY_MS,
        "price_usd_per_million_requests": PRICE_USD_PER_MILLION_REQUESTS,
        "price_source": PRICE_SOURCE,
        "bulk": {
            pool: {
                "concurrency": BULK[pool][0],
                "prefetch_multiplier": BULK[pool][1],
                "messages": bulk_messages,
                **_per_message(found),
            }
            for pool, found in bulk.items()
        },
        "drip": {
            "messages": drip_messages,
            "pool": QUIET[0],
            "concurrency": QUIET[1],
            "prefetch_multiplier": QUIET[2],
            **_per_message(drips),
        },
        "idle": {
            "calls_per_hour": spread([found["calls_per_hour"] for found in idles]),
            "usd_per_month": spread(
                [found["calls_per_hour"] * HOURS_PER_MONTH * PRICE_USD_PER_MILLION_REQUESTS / 1e6 for found in idles]
            ),
            "calls": idles[-1]["calls"],
        },
        "target_calls_per_message": TARGET_CALLS_PER_MESSAGE,
        "met": all(
            _per_message(found)["calls_per_message"]["median"] <= TARGET_CALLS_PER_MESSAGE for found in bulk.values()
        ),
    }


def _per_message(found: list[dict[str, Any]]) -> dict[str, Any]:
    calls = [sum(one["calls"].values()) / one["messages"] for one in found]
    return {
        "calls_per_message": spread(calls),
        "usd_per_million_messages": spread([number * PRICE_USD_PER_MILLION_REQUESTS for number in calls]),
        "calls": found[-1]["calls"],
    }


def _bulk(at: Stage, process: Process, messages: int) -> dict[str, Any]:
    """All calls of a worker from its start to its last delete, over the messages."""
    at.proxy.reset()
    wait_for(process, lambda: at.queue.done() >= messages, 600, f"{messages} deletes")
    return {"messages": messages, "calls": at.proxy.counts()}


def _drip(at: Stage, process: Process, messages: int) -> dict[str, Any]:
    """A message a second, each alone: the calls between the first poll after one message and after the last."""
    at.queue.fill([event("mark", 0)])
    wait_for(process, lambda: at.queue.done() >= 1, 60, "the first delete")
    _wait_for_calls_to_rest(at)
    at.proxy.reset()
    due = time.monotonic()
    for number in range(1, messages + 1):
        at.queue.fill([event("mark", number)])
        due += 1
        time.sleep(max(0.0, due - time.monotonic()))
    wait_for(process, lambda: at.queue.done() >= messages + 1, 60, f"{messages} deletes")
    _wait_for_calls_to_rest(at)
    return {"messages": messages, "calls": at.proxy.counts()}


def _idle(at: Stage, process: Process, polls: int) -> dict[str, Any]:
    """Calls an hour of a worker with an empty queue, over a whole number of long polls."""

    def next_poll() -> float:
        before = at.proxy.counts().get("ReceiveMessage", 0)
        wait_for(process, lambda: at.proxy.counts().get("ReceiveMessage", 0) > before, 60, "the next poll")
        return time.monotonic()

    start = next_poll()
    at.proxy.reset()
    for _ in range(polls):
        end = next_poll()
    calls = at.proxy.counts()
    return {"calls": calls, "calls_per_hour": sum(calls.values()) * 3600 / (end - start)}


def _wait_for_calls_to_rest(at: Stage) -> None:
    """Until no call was made for a second: further polls that were under way with the work have ended."""
    before = at.proxy.counts()
    while True:
        time.sleep(1)
        now = at.proxy.counts()
        if now == before:
            return
        before = now


if __name__ == "__main__":
    run_alone(cost, {"messages": (int, "messages in bulk (default 20,000; 3,000 with --quick)")}, rounds=2)
