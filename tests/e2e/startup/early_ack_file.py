"""A file_task that wants its message deleted before it runs."""

from __future__ import annotations

from bridge import S3Object, file_task


@file_task("*", acks_late=False)
def early(obj: S3Object) -> None:
    """Would be lost in a crash."""
