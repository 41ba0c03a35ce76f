"""Options that commands share: which queue a command means, and the client to ask it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bridge.settings.loading import QueueSettings
    from bridge.sqs.queues import Queue


class QueueUrl(click.ParamType):  # type: ignore[type-arg]  # click has made it generic with 8.5 only
    """A queue's URL or, where ``or_name``, its name; a FIFO queue is refused, for the bridge reads none."""

    name = "queue"

    def __init__(self, *, or_name: bool = True) -> None:
        """``or_name`` False: only a URL."""
        self._or_name = or_name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, stripped."""
        from bridge.settings.rules import queue_url_fault
        from bridge.text import shown

        text = str(value).strip()
        if self._or_name and text and "/" not in text and ":" not in text:
            return text
        if fault := queue_url_fault(text, "SQS_QUEUE_URL"):
            self.fail(f"{shown(text)}: {fault}", param, ctx)
        return text


def is_url(queue: str | None) -> bool:
    """Say whether a QueueUrl's value is a URL and no name."""
    return queue is not None and "/" in queue


def queue_settings(*urls: str | None) -> QueueSettings:
    """Load the settings; where they name no queue at all, a URL among the options may name the region."""
    from bridge.settings.loading import load_queue_settings
    from bridge.settings.rules import in_force

    names = ("SQS_QUEUE_URL", "SQS_TASK_QUEUE_URL", "SQS_DLQ_URL")
    given = in_force(os.environ)
    url = next((u for u in urls if is_url(u)), None)
    if url is not None and not any(name in given for name in names):
        given["SQS_QUEUE_URL"] = url
    return load_queue_settings(given)


def client_for(settings: QueueSettings) -> Any:
    """Return a client with the SDK's own retries: nothing else would try again."""
    from bridge.errors import SettingsError
    from bridge.sqs.clients import sqs_client

    if settings.region is None:  # no queue is named at all, so none could be asked
        raise SettingsError("SQS_QUEUE_URL is not set: set it to the URL of the queue, or name one by an option")
    return sqs_client("send", settings.region, read_seconds=10)


def choose_queue(settings: QueueSettings, wanted: str | None) -> Queue:
    """Return the queue that ``--queue`` means, or the only one for S3 events. Raises SettingsError."""
    from bridge.errors import SettingsError
    from bridge.sqs.queues import Queue, all_queues, queue_name

    queues = all_queues(settings)
    names = ", ".join(queue.name for queue in queues)
    if wanted is None:
        events = [queue for queue in queues if queue.kind == "event"]
        if not queues:
            raise SettingsError("SQS_QUEUE_URL is not set: set it to the URL of the queue, or give --queue URL")
        if len(events) != 1:
            raise SettingsError(f"several queues are set: give --queue with one of {names}, or a URL")
        return events[0]
    for queue in queues:
        if wanted in (queue.name, queue.url):
            return queue
    if not is_url(wanted):
        raise SettingsError(f"--queue {wanted}: the settings name no such queue, only {names or 'none'}; give its URL")
    return Queue(name=queue_name(wanted), url=wanted, kind="event")
