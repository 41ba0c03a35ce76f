"""Our tasks: one for each workload, told apart by the object's key."""

from __future__ import annotations

import work

from bridge import S3Object, file_task


@file_task("noop/*")
def noop(obj: S3Object) -> None:
    """Do nothing."""


@file_task("sleep/*")
def sleep(obj: S3Object) -> None:
    """Wait."""
    work.sleep()


@file_task("cpu/*")
def cpu(obj: S3Object) -> None:
    """Compute."""
    work.cpu()


@file_task("hash/*")
def hash_object(obj: S3Object) -> None:
    """Read the object and hash it."""
    with obj.open() as body:
        work.hash_stream(body)
