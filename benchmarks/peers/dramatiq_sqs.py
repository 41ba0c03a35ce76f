"""Dramatiq with dramatiq-sqs: one process with 8 threads, dramatiq's default number.

Prefetch is left alone: dramatiq asks for two messages a thread, and dramatiq-sqs never takes more than ten at a time.
Its README (https://github.com/Bogdanp/dramatiq_sqs) names nothing that would make it faster, nor does
https://dramatiq.io/advanced.html beyond more processes and threads. A DeleteMessage for each message.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable

from benchmarks.peers.installing import python_environment, python_versions
from benchmarks.peers.place import Command, Place


def prepare() -> None:
    """Install dramatiq-sqs."""
    python_environment("dramatiq")


def versions() -> dict[str, str]:
    """What it runs on."""
    return python_versions("dramatiq", "dramatiq", "dramatiq-sqs", "boto3")


def worker(threads: int) -> Callable[[Place, str], Command]:
    """Return what starts one process with so many threads."""

    def command(place: Place, workload: str) -> Command:
        argv = [str(python_environment("dramatiq")), "-m", "dramatiq", "dramatiq_app"]
        return Command([*argv, "--processes", "1", "--threads", str(threads)], place.environment())

    return command


def message(queue: str, workload: str, number: int) -> str:
    """Return a dramatiq message as dramatiq-sqs writes it (https://dramatiq.io/reference.html#dramatiq.Message)."""
    whole = {
        "queue_name": queue,
        "actor_name": workload,
        "args": [],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.UUID(int=number + (1 << 80))),
        "message_timestamp": 1_795_000_000_000,
    }
    return base64.b64encode(json.dumps(whole, separators=(",", ":")).encode()).decode()
