"""The S3 clients of this process, and what else is made from its one session; anew in a forked child.

This module imports boto3, so it is imported by the first read (or write) and not with the worker.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from boto3.session import Session
from botocore.config import Config

T = TypeVar("T")

#: Of one download (bridge/s3/reader.py), each on a connection of its own.
PARALLEL_PARTS = 8


class _Clients:
    """The session of this process and its S3 clients, by region."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        # A new lock as well: another thread of the parent may have held the old one at the moment of a fork.
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._by_region: dict[str | None, Any] = {}
        self.generation = object()

    def make(self, new: Callable[[Session], T]) -> T:
        """Return what ``new`` makes of this process's session; sessions are not thread-safe, so one at a time."""
        with self._lock:
            # One session for all: its second client takes 0.3 MB, a client with a session of its own 12 MB.
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
        connect_timeout=5,  # seconds; a healthy endpoint takes milliseconds, and botocore would wait for 60
        read_timeout=60,  # seconds without a byte: a dead connection must not hold a process for ever
        # The default mode, "legacy", does not retry all passing errors. Three attempts get past a bad host; longer
        # trouble is for the task's own retry, which waits in SQS and not in a process.
        retries={"mode": "standard", "total_max_attempts": 3},
        # All parts of two downloads at a time; beyond it urllib3 throws connections away after one use.
        max_pool_connections=2 * PARALLEL_PARTS,
    )


_clients = _Clients()


def s3_client(region: str | None = None) -> Any:
    """This process's S3 client for a region, made at its first use; threads may share it (boto3's guide on clients).

    ``region``: the record's, where there is one; None means AWS_REGION, else AWS_DEFAULT_REGION or the profile's,
    else us-east-1. Endpoint and credentials are found by the SDK (AWS_ENDPOINT_URL_S3, the credential chain…).
    """
    return _clients.get(region)


class PerProcess(Generic[T]):
    """A client of another kind, made from this process's session when it is first asked for, and anew after a fork."""

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
    """Let the next read make a new client: after a fork, or when endpoint or credentials in the environment changed."""
    _clients.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # Two processes on one connection would read each other's answers.
    os.register_at_fork(after_in_child=forget_clients)
