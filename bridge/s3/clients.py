"""The S3 clients of this process and the other clients made from its one session. A forked child makes new ones.

This module imports boto3, so the first read or write imports it, and the start of a worker does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from boto3.session import Session
from botocore.config import Config

T = TypeVar("T")

#: Parallel parts of one download (bridge/s3/reader.py), each on its own connection.
PARALLEL_PARTS = 8


class _Clients:
    """The session of this process and its S3 clients, by region."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        # The lock must be new too: at the fork, another thread of the parent may have held the old one.
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._by_region: dict[str | None, Any] = {}
        self.generation = object()

    def make(self, new: Callable[[Session], T]) -> T:
        """Return ``new(session)`` for this process's session; under a lock, because sessions are not thread-safe."""
        with self._lock:
            # One session for all: a second client of it takes 0.3 MB, a client with its own session 12 MB.
            self._session = self._session or Session()
            return new(self._session)

    def get(self, region: str | None) -> Any:
        with self._lock:
            if region not in self._by_region:
                self._by_region[region] = self.make(lambda session: self._new(session, region))
            return self._by_region[region]

    @staticmethod
    def _new(session: Session, region: str | None) -> Any:
        # boto3 itself does not read AWS_REGION.
        name = region or os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
        return session.client("s3", region_name=name, config=_config())


def _config() -> Config:
    return Config(
        connect_timeout=5,  # seconds; a healthy endpoint takes milliseconds, and botocore's default is 60 s
        read_timeout=60,  # seconds without a byte: a dead connection must not block a process forever
        # The default mode, "legacy", does not retry all temporary errors. Three attempts get past one bad host. Longer
        # outages are left to the task's own retry, which waits in SQS and not in a process.
        retries={"mode": "standard", "total_max_attempts": 3},
        # All parts of two downloads at once; urllib3 discards connections beyond this number after one use.
        max_pool_connections=2 * PARALLEL_PARTS,
    )


_clients = _Clients()


def s3_client(region: str | None = None) -> Any:
    """Return this process's S3 client for a region, made on first use; threads may share it (boto3's guide on clients).

    ``region`` is the region of the event record, if it has one. None means AWS_REGION, else AWS_DEFAULT_REGION or the
    profile's region, else us-east-1. The SDK finds endpoint and credentials (AWS_ENDPOINT_URL_S3, the credential
    chain…).
    """
    return _clients.get(region)


class PerProcess(Generic[T]):
    """Another kind of client, made from this process's session on first use, and again after a fork."""

    def __init__(self, new: Callable[[Session], T]) -> None:
        """``new`` makes the client from the session."""
        self._new = new
        self._made: tuple[object, T] | None = None

    def get(self) -> T:
        """Return this process's client; threads may share it."""
        made = self._made
        if made is None or made[0] is not _clients.generation:
            made = self._made = (_clients.generation, _clients.make(self._new))
        return made[1]


def forget_clients() -> None:
    """Make the next read create new clients: after a fork, or when the environment's endpoint or credentials change."""
    _clients.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # Two processes that share a connection would read each other's answers.
    os.register_at_fork(after_in_child=forget_clients)
