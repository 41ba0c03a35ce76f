"""The task that the redriven messages run: it notes each run as a line on the worker's output."""

from __future__ import annotations

import json
import os

from bridge import S3Object, file_task


@file_task("in/*")
def note(obj: S3Object) -> None:
    """Succeed, and say for which object."""
    os.write(1, (json.dumps({"event": "run", "key": obj.key}) + "\n").encode())


@file_task("bad/*", max_retries=0, dont_autoretry_for=(ValueError,))
def fail(obj: S3Object) -> None:
    """Fail for good, at once."""
    os.write(1, (json.dumps({"event": "run", "key": obj.key}) + "\n").encode())
    raise ValueError("still bad")
