"""Node's sqs-consumer: processes of one consumer each, receives of ten, a batch handler: ten are deleted at once.

``batchSize`` and ``handleMessageBatch`` are what its documentation offers for more than one message at a time
(https://bbc.github.io/sqs-consumer/interfaces/ConsumerOptions.html). A consumer receives again when its batch has been
deleted, so more throughput means more consumers. Version 14: 15 asks for node 22.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.installing import node_environment, node_versions
from benchmarks.peers.place import Command, Place


def prepare() -> None:
    """Install sqs-consumer."""
    node_environment()


def versions() -> dict[str, str]:
    """What it runs on."""
    return node_versions()


def consumers(copies: int) -> Callable[[Place, str], Command]:
    """Return what starts so many node processes."""

    def command(place: Place, workload: str) -> Command:
        script = node_environment() / "sqs_consumer.mjs"
        return Command(["node", str(script), workload], place.environment(), copies)

    return command
