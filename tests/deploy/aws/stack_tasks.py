"""The tasks of the worker that runs on the stack: what a task may do with AWS, each under a folder of its own."""

from __future__ import annotations

from typing import Any

from bridge import S3Object, file_task
from bridge.settings.loading import load_results_settings
from tasks.copy import copy as shipped_copy


@file_task("incoming/bad/*", dont_autoretry_for=(ValueError,))
def refuse(obj: S3Object) -> None:
    """Fail for good: a dead letter."""
    raise ValueError(f"row 7 of {obj.key} has 11 columns")


@file_task("incoming/flaky/*", bind=True, max_retries=3, retry_backoff=1, retry_jitter=False)
def flaky(self: Any, obj: S3Object) -> None:
    """Fail once."""
    if not self.request.retries:
        raise ConnectionError("not yet")


@file_task("incoming/once/*")
def once(obj: S3Object) -> dict[str, Any]:
    """Write where nothing is."""
    results = load_results_settings().results_url
    return {"written": obj.put_once(f"{results}once/{obj.key}", b"one", content_type="text/plain")}


@file_task("incoming/copy/*", max_retries=3, retry_backoff=1, retry_jitter=False)
def copied(obj: S3Object) -> dict[str, Any]:
    """Copy in parts, as tasks.copy does."""
    made: dict[str, Any] = shipped_copy.run(obj)
    return made
