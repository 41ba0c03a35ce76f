"""Taskiq on SQS, with receives of ten."""

from __future__ import annotations

import asyncio
import os

import work
from taskiq_aio_sqs import SQSBroker

broker = SQSBroker(
    os.environ["BENCH_QUEUE"],
    endpoint_url=os.environ["AWS_ENDPOINT_URL_SQS"],
    region_name=os.environ["AWS_REGION"],
    aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
    aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    max_number_of_messages=10,
)


@broker.task(task_name="bench:noop")
async def noop() -> None:
    """Do nothing."""


@broker.task(task_name="bench:sleep")
async def sleep() -> None:
    """Wait."""
    await asyncio.sleep(work.SLEEP_SECONDS)
