"""Ordinary Celery tasks, called with ``.delay()``; each notes its runs in a file of the folder it runs in."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from bridge import S3Object, file_task
from bridge.celery import app

RUNS = Path("runs.jsonl")


@file_task("files/*")
def on_file(obj: S3Object) -> None:
    """Give the queue of S3 events something to do."""


def _note(task: Any, **more: Any) -> None:
    """Append a line; short ones written at once do not mix."""
    request = task.request
    line = {"task": task.name.rpartition(".")[2], "id": request.id, "retries": request.retries, "at": time.time()}
    with RUNS.open("a") as runs:
        runs.write(json.dumps(line | more) + "\n")


@app.task(bind=True)
def add(self: Any, x: int, y: int) -> int:
    """Return the sum."""
    _note(self, x=x, y=y)
    return x + y


@app.task(bind=True)
def total(self: Any, numbers: list[int]) -> int:
    """Return the sum of a list, as the body of a chord."""
    _note(self)
    return sum(numbers)


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=2)
def fails_twice(self: Any) -> str:
    """Succeed in the third run."""
    _note(self)
    if self.request.retries < 2:
        raise OSError("not yet")
    return "third time lucky"


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=1)
def always_fails(self: Any) -> None:
    """Use up its retries."""
    _note(self)
    raise OSError("never")


@app.task(bind=True, max_retries=2)
def loses_its_child(self: Any) -> str:
    """Kill its own process in the first run."""
    _note(self)
    if self.request.retries == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return "another child took over"
