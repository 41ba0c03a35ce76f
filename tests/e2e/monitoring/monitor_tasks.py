"""Tasks for the tests of the monitor: each ends in another way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery.exceptions import Reject

from bridge import Message, S3Object, file_task, message_task


@message_task(where={"kind": "noop"}, name="noop")
def noop(message: Message) -> None:
    """Do nothing."""


@file_task("good/*", name="good")
def good(obj: S3Object) -> dict[str, str]:
    """Succeed."""
    return {"key": obj.key}


@file_task("flaky/*", name="flaky", bind=True, max_retries=2, retry_backoff=1, retry_jitter=False)
def flaky(self: Any, obj: S3Object) -> str:
    """Fail once, then succeed."""
    if not self.request.retries:
        raise ConnectionError("not yet")
    return "at last"


@file_task("bad/*", name="bad", max_retries=0)
def bad(obj: S3Object) -> None:
    """Fail for good."""
    raise ValueError("this file is broken")


@file_task("rejected/*", name="rejected")
def rejected(obj: S3Object) -> None:
    """Give the message up."""
    raise Reject("not for us", requeue=False)


@file_task("gate/*", name="gate")
def gate(obj: S3Object) -> str:
    """Run until the test opens the gate of this key; at most 40 s."""
    flag = Path(os.environ["MONITOR_GATES"], obj.key.replace("/", "_"))
    for _ in range(400):
        if flag.exists():
            return "opened"
        time.sleep(0.1)
    return "waited in vain"


@file_task("own/*", name="own", bind=True)
def own(self: Any, obj: S3Object) -> None:
    """Tell the bus something of its own, from inside the pool."""
    self.send_event("task-progress", percent=50)
