"""The work itself, the same for every contestant in Python."""

from __future__ import annotations

import hashlib
import time

SLEEP_SECONDS = 0.05
CPU_SECONDS = 0.02
OBJECT_BYTES = 100 * 1024
BUCKET = "bench-bucket"


def sleep() -> None:
    """Wait for 50 ms, as a task waits for a database or a web service."""
    time.sleep(SLEEP_SECONDS)


def cpu() -> None:
    """Use 20 ms of this thread's CPU time, whatever else runs on the machine."""
    end = time.thread_time() + CPU_SECONDS
    while time.thread_time() < end:
        for _ in range(500):
            pass


def hash_stream(body: object) -> str:
    """Read to the end, in pieces of 64 KiB, and return the SHA-256."""
    digest = hashlib.sha256()
    size = 0
    while piece := body.read(65536):  # type: ignore[attr-defined]  # boto3's body and ours have no common type
        digest.update(piece)
        size += len(piece)
    if size != OBJECT_BYTES:
        raise ValueError(f"{size} bytes instead of {OBJECT_BYTES}")
    return digest.hexdigest()
