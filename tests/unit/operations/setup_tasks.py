"""What the workers and commands of these tests run."""

from __future__ import annotations

from bridge import S3Object, file_task


@file_task("data/*", name="setup.take", max_retries=3)
def take(obj: S3Object) -> str:
    """Read the object."""
    with obj.open() as body:
        return f"{obj.key} {len(body.read())}"
