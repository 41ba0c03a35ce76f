"""Who runs: every contestant, in which configuration, with which work, and how fast it may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.peers import boto3_loops, bridge_worker, dramatiq_sqs, s3_events, sqs_consumer, stock_celery, taskiq_sqs
from benchmarks.peers.place import Command, Place

#: What the work of each workload is, for the report.
WORKLOADS = {
    "noop": "nothing",
    "hash": "a 100 KB object read from S3 and hashed (SHA-256)",
    "sleep": "50 ms of waiting",
    "cpu": "20 ms of CPU time",
}


def _s3_message(queue: str, workload: str, number: int) -> str:
    return s3_events.message(workload, number)


@dataclass(frozen=True)
class Contestant:
    """One row of the tables.

    ``rates`` are guesses in messages per second, by workload, for the number of messages of the first round; for
    ``noop`` by delay in milliseconds too (``noop@10``). A workload without one is not run. The rounds after it go by
    what the first one measured.
    """

    name: str
    title: str
    pool: str
    concurrency: str
    prefetch: str
    start: Callable[[Place, str], Command]
    versions: Callable[[], dict[str, str]]
    rates: Mapping[str, float]
    prepare: Callable[[], None] = lambda: None
    message: Callable[[str, str, int], str] = _s3_message
    broker: str = "sqs"
    #: How many tasks can run at once, where that bounds the rate (``sleep``, ``cpu``).
    slots: int | None = None
    note: str = field(default="")

    def rate(self, workload: str, delay_ms: int) -> float | None:
        """Return the guess, None when this is not run."""
        return self.rates.get(f"{workload}@{delay_ms}", self.rates.get(workload))


def _celery_on_sqs(queue: str, workload: str, number: int) -> str:
    return stock_celery.message_on_sqs(workload, number)


def _celery_on_redis(queue: str, workload: str, number: int) -> str:
    return stock_celery.message(workload, number)


def _taskiq(queue: str, workload: str, number: int) -> str:
    return taskiq_sqs.message(workload, number)


OURS_THREADS = "ours-threads"
OURS_PREFORK = "ours-prefork"
BOTO3_TUNED = "boto3-tuned"
NODE_FOUR = "node-x4"
TASKIQ = "taskiq"
STOCK_NO_PAUSE = "celery-no-pause"
STOCK = "celery"
REDIS = "celery-redis"

CONTESTANTS = (
    Contestant(
        OURS_THREADS,
        "Bucket Brigade, threads",
        "threads",
        "8",
        "×16",
        bridge_worker.worker("threads", 8, 16),
        bridge_worker.versions,
        {"noop@0": 2000, "noop@10": 1500, "noop@30": 1200, "hash": 400},
    ),
    Contestant(
        OURS_PREFORK,
        "Bucket Brigade, prefork",
        "prefork",
        "2",
        "×64",
        bridge_worker.worker("prefork", 2, 64),
        bridge_worker.versions,
        {"noop@0": 1500, "noop@10": 1200, "noop@30": 1000, "hash": 400},
    ),
    Contestant(
        "ours-threads-32",
        "Bucket Brigade, threads",
        "threads",
        "32",
        "×2",
        bridge_worker.worker("threads", 32, 2),
        bridge_worker.versions,
        {"sleep": 600},
        slots=32,
    ),
    Contestant(
        "ours-prefork-2",
        "Bucket Brigade, prefork",
        "prefork",
        "2",
        "×4",
        bridge_worker.worker("prefork", 2, 4),
        bridge_worker.versions,
        {"sleep": 39, "cpu": 80},
        slots=2,
    ),
    Contestant(
        BOTO3_TUNED,
        "boto3, 8 threads, batch deletes",
        "threads",
        "8",
        "10 a thread",
        boto3_loops.loop(8),
        boto3_loops.versions,
        {"noop@0": 2500, "noop@10": 2000, "noop@30": 1000, "hash": 400},
        boto3_loops.prepare,
    ),
    Contestant(
        "boto3-tuned-32",
        "boto3, 32 threads, batch deletes",
        "threads",
        "32",
        "10 a thread",
        boto3_loops.loop(32),
        boto3_loops.versions,
        {"sleep": 550},
        boto3_loops.prepare,
        slots=32,
    ),
    Contestant(
        NODE_FOUR,
        "node sqs-consumer ×4",
        "4 processes",
        "10 each",
        "10 each",
        sqs_consumer.consumers(4),
        sqs_consumer.versions,
        {"noop@0": 4000, "noop@10": 1400, "sleep": 500},
        sqs_consumer.prepare,
        slots=40,
    ),
    Contestant(
        "node",
        "node sqs-consumer",
        "1 process",
        "10",
        "10",
        sqs_consumer.consumers(1),
        sqs_consumer.versions,
        {"noop@10": 360},
        sqs_consumer.prepare,
    ),
    Contestant(
        TASKIQ,
        "taskiq-aio-sqs",
        "asyncio, 1 process",
        "100",
        "10 a receive",
        taskiq_sqs.worker(100),
        taskiq_sqs.versions,
        {"noop@0": 600, "noop@10": 600},
        taskiq_sqs.prepare,
        _taskiq,
    ),
    Contestant(
        "taskiq-32",
        "taskiq-aio-sqs",
        "asyncio, 1 process",
        "32",
        "10 a receive",
        taskiq_sqs.worker(32),
        taskiq_sqs.versions,
        {"sleep": 400},
        taskiq_sqs.prepare,
        _taskiq,
        slots=32,
    ),
    Contestant(
        "dramatiq",
        "dramatiq-sqs",
        "threads, 1 process",
        "8",
        "10 (its most)",
        dramatiq_sqs.worker(8),
        dramatiq_sqs.versions,
        {"noop@10": 250},
        dramatiq_sqs.prepare,
        dramatiq_sqs.message,
    ),
    Contestant(
        "dramatiq-32",
        "dramatiq-sqs",
        "threads, 1 process",
        "32",
        "10 (its most)",
        dramatiq_sqs.worker(32),
        dramatiq_sqs.versions,
        {"sleep": 100},
        dramatiq_sqs.prepare,
        dramatiq_sqs.message,
        slots=32,
    ),
    Contestant(
        "boto3-naive",
        "boto3, one loop",
        "1 thread",
        "1",
        "10",
        boto3_loops.loop(0),
        boto3_loops.versions,
        {"noop@10": 70},
        boto3_loops.prepare,
    ),
    Contestant(
        STOCK,
        "Celery on SQS, defaults",
        "prefork",
        str(os.cpu_count()),
        "×4",
        stock_celery.on_sqs(None, stock_celery.DEFAULTS),
        stock_celery.versions_on_sqs,
        {"noop@10": 9},
        stock_celery.prepare,
        _celery_on_sqs,
        note="acknowledges before the task runs",
    ),
    Contestant(
        STOCK_NO_PAUSE,
        "Celery on SQS, polling_interval 0",
        "prefork",
        "2",
        "×64",
        stock_celery.on_sqs(stock_celery.PREFETCH_FOR_SHORT_TASKS, stock_celery.NO_PAUSE),
        stock_celery.versions_on_sqs,
        {"noop@0": 350, "noop@10": 75, "cpu": 50},
        stock_celery.prepare,
        _celery_on_sqs,
        slots=2,
        note="acknowledges before the task runs",
    ),
    Contestant(
        REDIS,
        "Celery on Redis",
        "prefork",
        "2",
        "×64",
        stock_celery.on_redis(stock_celery.PREFETCH_FOR_SHORT_TASKS),
        stock_celery.versions_on_redis,
        {"noop@0": 900, "cpu": 80},
        stock_celery.prepare,
        _celery_on_redis,
        broker="redis",
        slots=2,
        note="acknowledges before the task runs",
    ),
)

BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
