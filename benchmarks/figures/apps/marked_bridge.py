"""Our task that says when it ran."""

from __future__ import annotations

from marks import mark

from bridge import S3Object, file_task


@file_task("mark/*")
def marked(obj: S3Object) -> None:
    """Note the object's key and the time."""
    mark(obj.key)
