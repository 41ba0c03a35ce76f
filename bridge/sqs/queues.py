"""The queues of a worker, as its settings name them. No SDK: a process that only sends needs these names too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from bridge.sqs.quotas import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from bridge.settings.loading import QueueSettings


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue that the worker reads; its ``kind`` is ``event`` for S3 events, ``task`` for Celery messages."""

    name: str
    url: str
    kind: Literal["event", "task"]
    dlq_url: str = ""
    dlq_max_bytes: int = MAX_MESSAGE_BYTES
    max_receives: int | None = None


def named_queues(event_urls: Sequence[str], task_url: str | None) -> tuple[Queue, ...]:
    """Return the queues under their SQS names; queues of the same name get their account as a prefix."""
    urls = [*event_urls, *([task_url] if task_url else [])]
    names = [queue_name(url) for url in urls]
    return tuple(
        Queue(
            name=name if names.count(name) == 1 else f"{_account(url)}-{name}",
            url=url,
            kind="task" if url == task_url else "event",
        )
        for url, name in zip(urls, names, strict=True)
    )


def queue_name(url: str) -> str:
    """Return the queue's name, which is the last part of its URL."""
    return urlsplit(url).path.rstrip("/").rsplit("/", 1)[-1]


def all_queues(settings: QueueSettings) -> tuple[Queue, ...]:
    """Return the queues in the settings, those of S3 events first; dead-letter queues are not looked up."""
    return named_queues(settings.sqs_queue_urls, settings.sqs_task_queue_url)


def _account(url: str) -> str:
    parts = urlsplit(url).path.strip("/").split("/")
    return parts[-2] if len(parts) > 1 else "0"
