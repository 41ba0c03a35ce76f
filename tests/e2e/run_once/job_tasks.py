"""The tasks of these tests: the first part of a key says what a run does."""

from __future__ import annotations

import os
import time

from bridge import S3Object, file_task


@file_task("ok/*")
def ok(obj: S3Object) -> str:
    """Be done at once."""
    return obj.key


@file_task("bad/*", max_retries=1, retry_backoff=1, retry_jitter=False)
def bad(obj: S3Object) -> None:
    """Fail."""
    raise ValueError("as told")


@file_task("slow/*")
def slow(obj: S3Object) -> None:
    """Say that it runs, and take a minute."""
    os.write(1, b'{"event": "began"}\n')
    time.sleep(60)
