"""Tasks that talk: through the standard library's ``logging``, as a user's own code does."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from bridge import Message, S3Object, file_task, message_task
from bridge.celery import app

log = logging.getLogger("my_module")


@file_task("talk/*")
def talk(obj: S3Object) -> None:
    """Say something in the middle of the run, with fields of its own and without."""
    log.warning("halfway through %s", obj.key)
    log.warning("own field wins", extra={"step": 2, "queue": "mine"})


@file_task("fail/*", bind=True, max_retries=1, retry_backoff=1, retry_jitter=False, retry_backoff_max=1)
def fail(self: Any, obj: S3Object) -> None:
    """Fail for good, after one retry."""
    log.warning("about to fail")
    raise ValueError(f"no good: {obj.key}")


@file_task("nest/*")
def nest(obj: S3Object) -> None:
    """Run another task inside this one."""
    log.warning("before")
    inner.apply()
    log.warning("after")


@app.task(name="tests.inner")
def inner() -> None:
    """Say something."""
    log.warning("inside")


@file_task("bound/*")
def bound(obj: S3Object) -> None:
    """Bind something to the lines of this run, the way structlog's documentation shows it."""
    structlog.contextvars.bind_contextvars(customer="c-1")
    log.warning("with a customer")
    structlog.contextvars.unbind_contextvars("customer")


@message_task({"kind": "note"})
def note(message: Message) -> None:
    """Take a message that is not an S3 event."""
    log.warning("a note")


@app.task(name="tests.add")
def add(x: int, y: int) -> int:
    """Run from the task queue."""
    log.warning("adding")
    return x + y
