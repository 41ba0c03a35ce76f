"""Waiting for something to become true, with a deadline instead of a sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

PAUSE_SECONDS = 0.05


def wait_until(predicate: Callable[[], Answer], timeout_seconds: float, what: str) -> Answer:
    """Ask ``predicate`` every 0.05 s until its answer is true, and return that answer.

    Raises AssertionError, naming ``what`` was awaited and the last answer, when ``timeout_seconds`` have passed.
    Whatever ``predicate`` raises goes straight through: a broken question is no reason to wait.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g} s: {what} (last answer: {answer!r})")
        time.sleep(PAUSE_SECONDS)
    return answer
