"""A task with a time limit of its own."""

from __future__ import annotations

from bridge import S3Object, file_task


@file_task("*", time_limit=300)
def long_one(obj: S3Object) -> None:
    """May run for five minutes."""
