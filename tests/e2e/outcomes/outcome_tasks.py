"""The tasks that the workers of these tests run: the first part of a key says what is going to happen.

A task notes each run as a JSON line on the worker's output, between the lines of its log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from celery import signals
from celery.exceptions import Ignore, Reject
from celery.worker import state

from bridge import Message, S3Object, file_task, message_task
from bridge.celery import app


def note(event: str, **fields: Any) -> None:
    """Print one JSON line; a single write, for several processes share the pipe."""
    os.write(1, (json.dumps({"event": event, **fields}) + "\n").encode())


@signals.task_received.connect
def on_received(request: Any, **_: Any) -> None:
    """Note what Celery shows of the arguments, and revoke what is to be revoked before it starts."""
    note("received", message_id=request.id, argsrepr=request.argsrepr)
    if "/revoked/" in str(request.argsrepr):
        state.revoked.add(request.id)


def _ran(task: Any, obj: S3Object, **more: Any) -> int:
    retries: int = task.request.retries
    note("run", message_id=task.request.id, task=task.name, key=obj.key, retries=retries, pid=os.getpid(), **more)
    return retries


@file_task("ok/*", bind=True)
def ok(self: Any, obj: S3Object) -> None:
    """Succeed, having read the object."""
    with obj.open() as body:
        _ran(self, obj, content=body.read().decode())


@file_task("once/*", bind=True, max_retries=0)
def once(self: Any, obj: S3Object) -> None:
    """Succeed, with no retry allowed."""
    _ran(self, obj)


@file_task("flaky/*", bind=True, max_retries=3, retry_backoff=1, retry_jitter=False)
def flaky(self: Any, obj: S3Object) -> None:
    """Fail twice."""
    if _ran(self, obj) < 2:
        raise RuntimeError("not yet")


def _first() -> None:
    raise RuntimeError("the first attempt failed")


def _second() -> None:
    raise RuntimeError("the second attempt failed")


def _third() -> None:
    raise LookupError("the third attempt failed – für immer")


ATTEMPTS = {0: _first, 1: _second, 2: _third}


@file_task("exhausted/*", bind=True, max_retries=2, retry_backoff=1, retry_jitter=False)
def exhausted(self: Any, obj: S3Object) -> None:
    """Fail each time, with another error at another line."""
    ATTEMPTS[_ran(self, obj)]()


@file_task("permanent/*", bind=True, dont_autoretry_for=(ValueError,))
def permanent(self: Any, obj: S3Object) -> None:
    """Fail in a way that no retry mends."""
    _ran(self, obj)
    raise ValueError("no retry mends this")


@file_task("narrow/*", bind=True, autoretry_for=(OSError,))
def narrow(self: Any, obj: S3Object) -> None:
    """Fail with an error that is not among those to be retried."""
    _ran(self, obj)
    raise KeyError("not an OSError")


@file_task("by-hand/*", bind=True, max_retries=1)
def by_hand(self: Any, obj: S3Object) -> None:
    """Ask for a retry once."""
    if _ran(self, obj) == 0:
        raise self.retry(countdown=1)


@file_task("reject/*", bind=True)
def reject(self: Any, obj: S3Object) -> None:
    """Refuse the message for good."""
    _ran(self, obj)
    raise Reject("not for us", requeue=False)


@file_task("requeue/*", bind=True)
def requeue(self: Any, obj: S3Object) -> None:
    """Hand the first receive back."""
    if _ran(self, obj) == 0:
        raise Reject("not now", requeue=True)


@file_task("ignore/*", bind=True)
def ignore(self: Any, obj: S3Object) -> None:
    """Find nothing to do."""
    _ran(self, obj)
    raise Ignore


@file_task("exit/*", bind=True, max_retries=1, retry_backoff=1)
def leave(self: Any, obj: S3Object) -> None:
    """Call sys.exit, as scripts do that became tasks."""
    _ran(self, obj)
    sys.exit(3)


@file_task("revoked/*", bind=True)
def revoked(self: Any, obj: S3Object) -> None:
    """Never run: see ``on_received``."""
    _ran(self, obj)


# The soft limit is left to the default, a tenth of the hard one sooner: for a busy machine to tell them apart.
@file_task("hard/*", bind=True, max_retries=1, time_limit=5)
def hard(self: Any, obj: S3Object) -> None:
    """Pass the hard time limit (the soft one is caught)."""
    _ran(self, obj)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(60)
        except Exception as error:  # noqa: BLE001 - the soft limit, of which a task may take no notice
            note("caught", message_id=self.request.id, error=type(error).__name__)


@file_task("soft/*", bind=True, max_retries=1, soft_time_limit=1, time_limit=30, retry_backoff=1, retry_jitter=False)
def soft(self: Any, obj: S3Object) -> None:
    """Pass the soft time limit."""
    _ran(self, obj)
    time.sleep(60)


@file_task("killed-once/*", bind=True, max_retries=2)
def killed_once(self: Any, obj: S3Object) -> None:
    """Take the pool's process down the first time."""
    if _ran(self, obj) == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@file_task("killed/*", bind=True, max_retries=1)
def killed(self: Any, obj: S3Object) -> None:
    """Take the pool's process down each time."""
    _ran(self, obj)
    os.kill(os.getpid(), signal.SIGKILL)


@file_task("changed-is-fine/*", bind=True, allow_changed=True)
def changed_is_fine(self: Any, obj: S3Object) -> None:
    """Read whatever is there now."""
    with obj.open() as body:
        _ran(self, obj, content=body.read().decode())


@file_task("may-be-gone/*", bind=True, missing_ok=True)
def may_be_gone(self: Any, obj: S3Object) -> None:
    """Read what may be gone."""
    _ran(self, obj)
    obj.open().close()


@file_task("read/*", bind=True)
def read(self: Any, obj: S3Object) -> None:
    """Read what has to be there, as announced."""
    _ran(self, obj)
    obj.open().close()


@file_task("sleep/*", bind=True)
def sleep(self: Any, obj: S3Object) -> None:
    """Run for as many seconds as the object says, and say so ten times a second."""
    with obj.open() as body:
        seconds = float(body.read())
    _ran(self, obj)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        note("tick", message_id=self.request.id, at=time.monotonic())
    note("slept", message_id=self.request.id)


@message_task(where={"kind": "no*"}, bind=True)
def take_message(self: Any, message: Message) -> None:
    """Note a message that is not an S3 event."""
    values = {n: v.get("StringValue", v.get("BinaryValue", b"")) for n, v in message.message_attributes.items()}
    shown = {n: v.hex() if isinstance(v, bytes) else v for n, v in values.items()}
    fields = {"id": message.id, "body": message.body, "attempt": message.attempt, "queue_url": message.queue_url}
    note("message", message_id=self.request.id, attributes=shown, **fields)


@app.task
def add(x: int, y: int) -> int:
    """Celery's own kind of task, for the task queue."""
    note("added", x=x, y=y)
    return x + y
