"""Stock Celery with its queue in its own memory: the bench's app for the peers, filled and watched from within.

Kombu's ``memory://`` is one process's, so nobody else can fill the queue or ask how far it is.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import signals
from celery.worker.request import Request
from celery_app import app

TASK = os.environ["BENCH_TASK"]
MESSAGES = int(os.environ["BENCH_MESSAGES"])
FIRST, LAST = int(os.environ["BENCH_FIRST"]), int(os.environ["BENCH_LAST"])
SAMPLES = Path(os.environ["BENCH_SAMPLES"])
SAMPLE_SECONDS = 0.02

app.conf.update(task_acks_late=True, worker_enable_remote_control=False, worker_send_task_events=False)


#: One for each task done. Celery's own `total_count` loses some where many threads count, and a list's append does not.
done: list[None] = []


class Counted(Request):
    """Celery's request, which counts when its message is acknowledged."""

    def acknowledge(self) -> None:
        """Acknowledge late: the task has ended."""
        super().acknowledge()
        done.append(None)


@signals.worker_init.connect
def fill(**_: Any) -> None:
    """Send everything before the worker has a pool."""
    app.tasks[TASK].Request = Counted
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _number in range(MESSAGES):
            app.send_task(TASK, producer=producer)


@signals.worker_ready.connect
def watch(**_: Any) -> None:
    """Take samples in a thread from now on: seconds, tasks done, CPU seconds of this process."""
    threading.Thread(target=_take_samples, daemon=True).start()


def _take_samples() -> None:
    first: tuple[float, int, float] | None = None
    while True:
        sample = (time.monotonic(), len(done), time.process_time())
        if first is None and sample[1] >= FIRST:
            first = sample
        if first is not None and sample[1] >= LAST:
            # Whole or not at all: it is read as soon as it is there.
            part = SAMPLES.with_suffix(".part")
            part.write_text(json.dumps([first, sample]))
            part.replace(SAMPLES)
            return
        time.sleep(SAMPLE_SECONDS)
