"""The tasks of these tests' workers: the first part of a key says what a run does, the second how many seconds
it takes.

A run prints JSON lines between those of the worker's log: when it began, that it still goes on, when it ended. The
times are those of the monotonic clock, which the fault proxy reads too.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge import S3Object, file_task
from bridge.scratch import directory

#: How often a run says that it goes on: what a kill leaves behind tells when it worked to this exactness.
TICK_SECONDS = 0.02


def note(event: str, **fields: Any) -> None:
    """Print one JSON line, in a single write, for several processes share the pipe."""
    os.write(1, (json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n").encode())


@contextmanager
def noted(task: Any, obj: S3Object, **more: Any) -> Iterator[None]:
    """Note the beginning and the end of a run."""
    message_id = task.request.id
    note("began", message_id=message_id, key=obj.key, pid=os.getpid(), retries=task.request.retries, **more)
    yield
    note("ended", message_id=message_id)


def work(task: Any, obj: S3Object) -> None:
    """Be busy for as long as the key says, and say so all the time."""
    until = time.monotonic() + float(obj.key.split("/")[1])
    while time.monotonic() < until:
        note("tick", message_id=task.request.id, pid=os.getpid())
        time.sleep(TICK_SECONDS)


@file_task("quick/*", bind=True)
def quick(self: Any, obj: S3Object) -> None:
    """Be done at once."""
    with noted(self, obj):
        pass


@file_task("small/*")
def small(obj: S3Object) -> None:
    """Be done at once, without a word: a thousand of these are counted by their calls."""


@file_task("long/*", bind=True)
def long(self: Any, obj: S3Object) -> None:
    """Take the seconds of the key."""
    with noted(self, obj):
        time.sleep(float(obj.key.split("/")[1]))


@file_task("leased/*", bind=True, visibility_timeout=20)
def leased(self: Any, obj: S3Object) -> None:
    """Take the seconds of the key, under a lease of 20 s."""
    with noted(self, obj):
        time.sleep(float(obj.key.split("/")[1]))


@file_task("first-long/*", bind=True)
def first_long(self: Any, obj: S3Object) -> None:
    """Take the seconds of the key in the first run; be done at once when it comes again."""
    with noted(self, obj):
        if self.request.retries == 0:
            work(self, obj)


@file_task("native/*", bind=True)
def native(self: Any, obj: S3Object) -> None:
    """Never come back from a call into C in the first run: no signal is seen by Python until such a call returns."""
    with noted(self, obj):
        if self.request.retries == 0:
            mutex = ctypes.create_string_buffer(64)  # zeros are an unlocked one
            libc = ctypes.CDLL(None)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)


@file_task("short-delay/*", bind=True, retry_backoff=3, retry_jitter=False, max_retries=3)
def short_delay(self: Any, obj: S3Object) -> None:
    """Fail once, to be tried again sooner than a renewal would allow."""
    with noted(self, obj):
        if self.request.retries == 0:
            time.sleep(float(obj.key.split("/")[1]))
            raise RuntimeError("the first run fails")


@file_task("long-delay/*", bind=True, retry_backoff=15, retry_jitter=False, max_retries=3)
def long_delay(self: Any, obj: S3Object) -> None:
    """Fail once, to be tried again later than a renewal of 12 s would make it."""
    with noted(self, obj):
        if self.request.retries == 0:
            time.sleep(float(obj.key.split("/")[1]))
            raise RuntimeError("the first run fails")


@file_task("bad/*", bind=True, dont_autoretry_for=(ValueError,))
def bad(self: Any, obj: S3Object) -> None:
    """Fail for good."""
    with noted(self, obj):
        raise ValueError("no retry mends this")


@file_task("scratch/*", bind=True, max_retries=3, retry_backoff=1, retry_jitter=False)
def scratch(self: Any, obj: S3Object) -> None:
    """Fill the scratch directory and take the seconds of the key in the first run; then only look at what is there."""
    folder = directory()
    left = sorted(path.name for path in folder.iterdir())
    if self.request.retries == 0:
        (folder / "half-done").write_bytes(b"x" * 4096)
    with noted(self, obj, folder=str(folder), left=left):
        if self.request.retries == 0:
            work(self, obj)
