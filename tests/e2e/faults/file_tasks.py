"""The tasks of the worker whose SQS fails now and then."""

from __future__ import annotations

from typing import Any

from bridge import S3Object, file_task


@file_task("good/*")
def good(obj: S3Object) -> str:
    """Succeed."""
    return obj.key


@file_task("once/*", bind=True, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=3)
def fails_once(self: Any, obj: S3Object) -> int:
    """Fail in the first run."""
    if self.request.retries == 0:
        raise OSError("the first run fails")
    return int(self.request.retries)


@file_task("bad/*", dont_autoretry_for=(ValueError,))
def bad(obj: S3Object) -> None:
    """Fail for good."""
    raise ValueError(f"{obj.key} is not to be had")
