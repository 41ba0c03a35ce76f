"""Hand-written consumers with boto3: receives of ten and long polls, as the SQS developer guide advises.

- naive: one thread, one DeleteMessage for each message.
- tuned: threads that each receive, work and delete by batches of ten
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-throughput-horizontal-scaling-and-batching.html:
  more threads per client, and batches). One client for all threads, with a connection for each
  (https://boto3.amazonaws.com/v1/documentation/api/latest/guide/clients.html#multithreading-or-multiprocessing-with-clients).

Neither renews a lease, retries, knows dead letters, metrics or a shutdown.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.installing import python_environment, python_versions
from benchmarks.peers.place import APPS, Command, Place


def prepare() -> None:
    """Install boto3."""
    python_environment("boto3")


def versions() -> dict[str, str]:
    """What it runs on."""
    return python_versions("boto3", "boto3", "botocore", "urllib3")


def loop(threads: int) -> Callable[[Place, str], Command]:
    """Return what starts the tuned loop on so many threads, or the naive one with 0."""

    def command(place: Place, workload: str) -> Command:
        argv = [str(python_environment("boto3")), str(APPS / "boto3_consumer.py"), workload, str(threads)]
        return Command(argv, place.environment())

    return command
