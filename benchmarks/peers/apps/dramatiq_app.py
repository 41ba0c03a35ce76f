"""Dramatiq on SQS, with dramatiq's default middleware."""

from __future__ import annotations

import os

import dramatiq
import work
from dramatiq_sqs import SQSBroker

QUEUE = os.environ["BENCH_QUEUE"]

dramatiq.set_broker(SQSBroker())


@dramatiq.actor(queue_name=QUEUE)
def noop() -> None:
    """Do nothing."""


@dramatiq.actor(queue_name=QUEUE)
def sleep() -> None:
    """Wait."""
    work.sleep()


@dramatiq.actor(queue_name=QUEUE)
def cpu() -> None:
    """Compute."""
    work.cpu()
