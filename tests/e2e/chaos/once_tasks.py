"""Tasks under claims whose every run leaves marks on disk, so that runs and completions can be counted from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bridge import S3Object, file_task

MARKS = Path(os.environ.get("CHAOS_MARKS", "."))
BUCKET = os.environ.get("CHAOS_BUCKET", "")


@file_task("*", bind=True, time_limit=10, max_retries=None, retry_backoff=1, retry_backoff_max=2)
def effect(self: Any, obj: S3Object) -> None:
    """Fail as often as the key says, then work a little and write what may be written once only."""
    mark(obj, f"start {self.request.retries}")
    if self.request.retries < int(obj.key.split("/")[1]):
        mark(obj, "fail")
        raise RuntimeError("planted")
    time.sleep(0.05)
    wrote = obj.put_once(f"s3://{BUCKET}/once/{obj.key}", "done")
    mark(obj, "wrote" if wrote else "found")


def mark(obj: S3Object, what: str) -> None:
    """Add a line to the object's file, in one write that cannot be torn."""
    descriptor = os.open(MARKS / obj.key.replace("/", "_"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{what}\n".encode())
    finally:
        os.close(descriptor)
