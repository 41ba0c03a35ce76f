"""Tasks whose every run leaves a mark on disk, so that runs can be counted from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bridge import S3Object, file_task

MARKS = Path(os.environ.get("CHAOS_MARKS", "."))


@file_task("poison/*", dont_autoretry_for=(ValueError,))
def poison(obj: S3Object) -> None:
    """Fail for good."""
    raise ValueError("planted")


@file_task("*")
def effect(obj: S3Object) -> None:
    """Mark the start of the run, work a little, mark its end: one line each, in one write that cannot be torn."""
    path = MARKS / obj.key.replace("/", "_")
    _append(path, "start")
    time.sleep(0.05)
    _append(path, "end")


def _append(path: Path, what: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{what} {os.getppid()}\n".encode())
    finally:
        os.close(descriptor)
