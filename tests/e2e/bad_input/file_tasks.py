"""The tasks of the worker that is given bad bodies."""

from __future__ import annotations

from pathlib import Path

from bridge import S3Object, file_task
from bridge.celery import app

TRACE = Path("executed")


@file_task("good/*")
def good(obj: S3Object) -> str:
    """Take the good events."""
    return obj.key


@app.task
def leave_a_trace() -> None:
    """Be named by Celery messages on the queue of S3 events, which must never run it."""
    TRACE.touch()
