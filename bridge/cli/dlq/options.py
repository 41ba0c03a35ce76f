"""The options that the commands of ``brigade dlq`` share: which dead-letter queue, and which of its messages."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.options import QueueUrl, is_url
from bridge.operations.dlq.filter import Filter, age_seconds
from bridge.sqs.queues import all_queues

if TYPE_CHECKING:
    from bridge.settings.loading import QueueSettings


class Age(click.ParamType):  # type: ignore[type-arg]  # click has made it generic with 8.5 only
    """An age in seconds, from a text such as 30m."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds."""
        try:
            return age_seconds(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


def dlq_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--dlq``."""
    return click.option("--dlq", type=QueueUrl(), help="The dead-letter queue: URL, or name when settings name it.")(
        command
    )


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a Filter, and hand the command one as ``chosen``."""
    many: dict[str, Any] = {"multiple": True, "metavar": "GLOB"}

    @functools.wraps(command)
    def with_filter(**options: Any) -> Any:
        older, newer = options.pop("older_than"), options.pop("newer_than")
        if older is not None and newer is not None and older > newer:
            raise click.UsageError("--older-than is longer than --newer-than: no message can match both")
        now = time.time()
        chosen = Filter(
            ids=options.pop("ids"),
            reasons=options.pop("reason"),
            tasks=options.pop("task"),
            buckets=options.pop("bucket"),
            keys=options.pop("key"),
            not_after=None if older is None else now - older,
            not_before=None if newer is None else now - newer,
        )
        return command(chosen=chosen, **options)

    for option in (
        click.option("--newer-than", type=Age(), help="Dead for at most so long."),
        click.option("--older-than", type=Age(), help="Dead for at least so long: 90s, 30m, 12h, 7d, 2w."),
        click.option("--key", **many, help="The object's key."),
        click.option("--bucket", **many, help="The object's bucket."),
        click.option("--task", **many, help="The task that failed."),
        click.option("--reason", **many, help="exhausted, permanent, malformed… ('no-cause': SQS itself moved it)."),
        click.option("--id", "ids", multiple=True, metavar="ID", help="The task's id or the MessageId."),
    ):
        with_filter = option(with_filter)
    return with_filter


def find_dlq(client: Any, settings: QueueSettings, wanted: str | None) -> str:
    """Return the URL of the dead-letter queue: ``--dlq``, else SQS_DLQ_URL, else that of the queues.

    Raises SettingsError when there is none, or more than one to choose from.
    """
    from bridge.errors import SettingsError
    from bridge.sqs.queue_lookup import look_up
    from bridge.sqs.queues import queue_name

    if wanted is not None and is_url(wanted):
        return wanted
    if settings.sqs_dlq_url is not None:
        found = {settings.sqs_dlq_url}
    else:
        queues = all_queues(settings)
        if not queues:
            raise SettingsError("no dead-letter queue is named: set SQS_QUEUE_URL or SQS_DLQ_URL, or give --dlq URL")
        found = {look_up(client, queue, None).dlq_url for queue in queues}
    if wanted is not None:
        found = {url for url in found if queue_name(url) == wanted}
        if not found:
            raise SettingsError(f"--dlq {wanted}: no dead-letter queue of the settings has this name; give its URL")
    if len(found) > 1:
        names = ", ".join(sorted(queue_name(url) for url in found))
        raise SettingsError(f"there are several dead-letter queues: choose one with --dlq: {names}")
    return found.pop()
