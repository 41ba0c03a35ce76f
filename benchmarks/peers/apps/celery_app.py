"""Stock Celery, on SQS or on Redis: whatever the environment does not say is Celery's default."""

from __future__ import annotations

import json
import os

import work
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    broker_transport_options=json.loads(os.environ.get("BENCH_TRANSPORT_OPTIONS", "{}")),
    # The bridge stores no results either; without a result backend Celery has nowhere to put them.
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.noop")
def noop() -> None:
    """Do nothing."""


@app.task(name="bench.sleep")
def sleep() -> None:
    """Wait."""
    work.sleep()


@app.task(name="bench.cpu")
def cpu() -> None:
    """Compute."""
    work.cpu()
