"""The demo's own tasks: one works at the third run, one never does. All other files go to ``tasks.describe``."""

from __future__ import annotations

from typing import Any

from bridge import S3Object, file_task


@file_task("flaky/*", bind=True, max_retries=3, retry_backoff=1, retry_jitter=False)
def flaky(self: Any, obj: S3Object) -> str:
    """Fail twice, then succeed."""
    if self.request.retries < 2:
        raise ConnectionError(f"run {self.request.retries + 1}: the service is not there yet")
    return f"worked at run {self.request.retries + 1}"


@file_task("broken/*", bind=True, max_retries=2, retry_backoff=1, retry_jitter=False)
def broken(self: Any, obj: S3Object) -> None:
    """Fail at every run."""
    raise ConnectionError(f"run {self.request.retries + 1}: the service is gone for good")
