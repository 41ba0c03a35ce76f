"""Taskiq with taskiq-aio-sqs: one worker process, uvloop, receives of ten.

``max_number_of_messages=10`` is the receive size its README offers (the default is 1; its "message batching" concerns
sending only: the README of taskiq-aio-sqs). 100 tasks at once is taskiq's default
(https://taskiq-python.github.io/guide/cli.html); its worker runs on uvloop when that is installed, and it is here.
A DeleteMessage for each message.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from benchmarks.peers.installing import python_environment, python_versions
from benchmarks.peers.place import Command, Place


def prepare() -> None:
    """Install taskiq-aio-sqs and uvloop."""
    python_environment("taskiq")


def versions() -> dict[str, str]:
    """What it runs on."""
    return python_versions("taskiq", "taskiq", "taskiq-aio-sqs", "aiobotocore", "uvloop")


def worker(tasks: int) -> Callable[[Place, str], Command]:
    """Return what starts one worker process that runs so many tasks at once."""

    def command(place: Place, workload: str) -> Command:
        argv = [str(python_environment("taskiq")), "-m", "taskiq", "worker", "taskiq_app:broker"]
        argv += ["--workers", "1", "--max-async-tasks", str(tasks), "--log-level", "WARNING"]
        return Command(argv, place.environment())

    return command


def message(workload: str, number: int) -> str:
    """Return a taskiq message (https://taskiq-python.github.io/guide/message-format.html)."""
    whole = {
        "task_id": uuid.UUID(int=number + (1 << 80)).hex,
        "task_name": f"bench:{workload}",
        "labels": {},
        "labels_types": {},
        "args": [],
        "kwargs": {},
    }
    return json.dumps(whole, separators=(",", ":"))
