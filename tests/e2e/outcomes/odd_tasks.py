"""Tasks that end in ways nobody plans: odd retries, reasons that do not print or unpickle, and worse."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from bridge import S3Object, file_task
from tests.e2e.outcomes.outcome_tasks import note


class Two(Exception):  # noqa: N818 - a reason, not an error
    """Pickles, and does not unpickle: its constructor takes other arguments than it keeps."""

    def __init__(self, a: int, b: int) -> None:
        """Keep one text of two numbers."""
        super().__init__(f"two: {a}, {b}")


class Unprintable:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Ended(BaseException):
    """A user's own way out."""


@file_task("odd/*", bind=True, max_retries=0)
def odd(self: Any, obj: S3Object) -> None:
    """End as the key says."""
    match obj.key.removeprefix("odd/"):
        case "countdown":
            raise self.retry(countdown=timedelta(seconds=1))
        case "eta":
            raise self.retry(eta="2026-01-01T00:00:00Z")
        case "when":
            raise Retry(when="soon")
        case "reject-unprintable":
            raise Reject(Unprintable(), requeue=False)
        case "reject-two":
            raise Reject(Two(1, 2), requeue=False)
        case "ignore-two":
            raise Ignore(Two(1, 2))
        case "error-two":
            raise Two(1, 2)
        case "keyboard":
            raise KeyboardInterrupt
        case "generator":
            raise GeneratorExit
        case "own":
            raise Ended("enough")
        case "sys-exit":
            raise SystemExit("bye")


@file_task("good/*", bind=True)
def good(self: Any, obj: S3Object) -> None:
    """Do what is asked, after all that."""
    note("run", message_id=self.request.id, key=obj.key)


@file_task("long/*", bind=True)
def long(self: Any, obj: S3Object) -> None:
    """Take a while."""
    note("run", message_id=self.request.id, key=obj.key, pid=os.getpid())
    time.sleep(6)
