"""What the workers and commands of these tests run; nothing but these takes ``rec/…``."""

from __future__ import annotations

import os
from pathlib import Path

from bridge import S3Object, file_task


@file_task("rec/data/*", name="rec.take", max_retries=0, max_bytes=1000)
def take(obj: S3Object) -> str:
    """Read the object; "bad" ones fail for as long as the file of RECONCILE_BROKEN is there."""
    if "bad" in obj.key and Path(os.environ["TMPDIR"], "broken").exists():
        raise ValueError("broken")
    with obj.open() as body:
        return f"{obj.key} {len(body.read())}"


@file_task("rec/latest/*", name="rec/latest über", latest_only=True)
def newest(obj: S3Object) -> str:
    """Keep one record an object."""
    return obj.key


@file_task("rec/keyed/*", name="rec.keyed", idempotency_key=lambda obj: obj.key.rsplit("/", 1)[-1])
def keyed(obj: S3Object) -> str:
    """Keep records of its own keys."""
    return obj.key


@file_task("rec/plain/*", name="rec.plain", idempotent=False)
def plain(obj: S3Object) -> str:
    """Keep no records."""
    return obj.key
