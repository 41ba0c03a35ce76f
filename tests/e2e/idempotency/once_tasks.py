"""The tasks of these tests: each notes its runs, and leaves an object a run as its effect.

The first part of a key says what a run does, the second how many seconds it takes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from bridge import S3Object, file_task
from bridge.s3.clients import s3_client


def note(event: str, **fields: Any) -> None:
    """Print one JSON line, in a single write, for several processes share the pipe."""
    os.write(1, (json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n").encode())


def effect(obj: S3Object) -> None:
    """Leave a trace that counts: every run leaves another, and ``put_once`` one for the object."""
    s3_client().put_object(Bucket=obj.bucket, Key=f"effects/{obj.key}/{uuid4()}", Body=b"")
    obj.put_once(f"s3://{obj.bucket}/once/{obj.key}", "done")


def begin(task: Any, obj: S3Object) -> None:
    """Note that a run begins."""
    request = task.request
    note("began", message_id=request.id, key=obj.key, retries=request.retries, pid=os.getpid())


@file_task("work/*", bind=True, time_limit=20, retry_backoff=1, retry_jitter=False)
def work(self: Any, obj: S3Object) -> str:
    """Take the seconds of the key."""
    begin(self, obj)
    time.sleep(float(obj.key.split("/")[1]))
    effect(obj)
    note("worked", message_id=self.request.id)
    return "worked"


@file_task("short/*", bind=True, time_limit=6, retry_backoff=1, retry_jitter=False, max_retries=8)
def short(self: Any, obj: S3Object) -> str:
    """Take the seconds of the key, in the threads pool also beyond the time limit."""
    begin(self, obj)
    time.sleep(float(obj.key.split("/")[1]))
    effect(obj)
    note("worked", message_id=self.request.id)
    return "worked"


@file_task("fails/*", bind=True, max_retries=3, retry_backoff=1, retry_jitter=False)
def fails(self: Any, obj: S3Object) -> None:
    """Fail always."""
    begin(self, obj)
    raise RuntimeError("as told")


@file_task("killed/*", bind=True, max_retries=2, retry_backoff=1, retry_jitter=False)
def killed(self: Any, obj: S3Object) -> None:
    """Lose the child that runs it, always."""
    begin(self, obj)
    os.kill(os.getpid(), signal.SIGKILL)


@file_task("limit/*", bind=True, time_limit=2, soft_time_limit=1.9, max_retries=1, retry_backoff=1, retry_jitter=False)
def limit(self: Any, obj: S3Object) -> None:
    """Outlast the hard time limit the first time, and heed no soft one."""
    begin(self, obj)
    until = time.monotonic() + (30 if self.request.retries == 0 else 0)
    while time.monotonic() < until:
        try:
            time.sleep(1)
        except Exception as error:  # noqa: BLE001 - the soft limit
            note("soft", error=type(error).__name__)
    effect(obj)


@file_task("held/*", bind=True, time_limit=600)
def held(self: Any, obj: S3Object) -> None:
    """Go on until a file says otherwise; its path is in the environment."""
    begin(self, obj)
    gate = Path(os.environ["TMPDIR"]) / "gate"
    while not gate.exists():
        time.sleep(0.05)
    effect(obj)


@file_task("steps/*", bind=True, max_retries=5, retry_backoff=1, retry_jitter=False)
def steps(self: Any, obj: S3Object) -> None:
    """Do six steps, and fail, or lose the child, after two."""
    begin(self, obj)
    done = obj.progress.load().get("done", 0)
    for step in range(done + 1, 7):
        note("step", message_id=self.request.id, step=step)
        obj.progress.save({"done": step})
        if step == 2:
            raise RuntimeError("as told")
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
    effect(obj)


@file_task("latest/*", bind=True, latest_only=True, allow_changed=True)
def latest(self: Any, obj: S3Object) -> None:
    """Note which version it works on."""
    begin(self, obj)
    note("version", key=obj.key, sequencer=obj.sequencer)


@file_task("records/*", bind=True, max_retries=3, retry_backoff=1, retry_jitter=False)
def records(self: Any, obj: S3Object) -> str:
    """Fail for the object whose key says so, the first time."""
    begin(self, obj)
    if "/bad" in obj.key and self.request.retries == 0:
        raise RuntimeError("as told")
    effect(obj)
    return obj.key
