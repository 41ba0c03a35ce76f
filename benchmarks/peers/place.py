"""What a contestant is told, and what it says: addresses in, command lines out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: What any SDK needs to make a request that no server here checks.
AWS_ENV = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # A profile of the person who runs this must not send anything anywhere.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
#: What the peers' own interpreters run. It is their whole PYTHONPATH: none of them sees this project's packages.
APPS = Path(__file__).resolve().parent / "apps"


@dataclass(frozen=True)
class Place:
    """Where one run takes place. ``sqs_url`` is the delay proxy's address, ``redis_url`` and ``s3_url`` as they are."""

    sqs_url: str
    queue: str
    account: str
    s3_url: str = ""
    redis_url: str = ""

    @property
    def queue_url(self) -> str:
        """The queue's URL, by way of the proxy."""
        return f"{self.sqs_url}/{self.account}/{self.queue}"

    @property
    def dead_letter_url(self) -> str:
        """The URL of the queue for dead letters, which must stay empty."""
        return f"{self.queue_url}-dlq"

    def environment(self, **more: str) -> dict[str, str]:
        """The whole environment of a consumer: AWS's own variables, our addresses, and ``more``."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(APPS),
            "PYTHONUNBUFFERED": "1",
            # Containers run as root, which Celery warns of.
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges:RuntimeWarning",
            **AWS_ENV,
            "AWS_ENDPOINT_URL_SQS": self.sqs_url,
            "AWS_ENDPOINT_URL_S3": self.s3_url or self.sqs_url,
            "BENCH_QUEUE": self.queue,
            "BENCH_QUEUE_URL": self.queue_url,
            **more,
        }


@dataclass(frozen=True)
class Command:
    """One process to start, ``copies`` times."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1
