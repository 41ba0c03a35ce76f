"""``brigade queue``: what SQS says of a queue, and emptying one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.cli.options import QueueUrl, choose_queue, client_for, queue_settings
from bridge.cli.printing import aligned, messages
from bridge.sqs.queues import all_queues
from bridge.text import printable

if TYPE_CHECKING:
    from bridge.settings.loading import QueueSettings
    from bridge.sqs.queues import Queue


@click.group("queue", no_args_is_help=False)
def command() -> None:
    """Show the queues, or empty one."""


@command.command(
    epilog="""Examples:

\b
  brigade queue show
  brigade queue show --queue uploads --json | jq .[0].messages.visible""",
)
@click.option("--queue", type=QueueUrl(), help="Name of a queue of the settings, or any queue's URL; default: all.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def show(queue: str | None, as_json: bool) -> int:
    """Show depths, dead-letter queue, redrive policy and the attributes that matter.

    Numbers of messages are SQS's own approximations.
    """
    with errors_reported():
        settings = queue_settings(queue)
        client = client_for(settings)
        chosen = (choose_queue(settings, queue),) if queue is not None else all_queues(settings)
        described = [_described(client, settings, each) for each in chosen or (choose_queue(settings, None),)]
        click.echo(json.dumps(described, indent=2) if as_json else "\n\n".join(_in_words(each) for each in described))
        return 0


@command.command(
    epilog="""Examples:

\b
  brigade queue purge
  brigade queue purge --queue uploads --yes uploads""",
)
@click.option("--queue", type=QueueUrl(), help="Name of a queue of the settings, or any queue's URL.")
@click.option("--yes", metavar="NAME", help="The queue's name, instead of being asked for it.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def purge(queue: str | None, yes: str | None, as_json: bool) -> int:
    """Delete every message of a queue permanently, those in flight included.

    Asks for the queue's name. SQS takes up to a minute, and does it once in a minute at most.
    """
    from bridge.aws_errors import error_code
    from bridge.sqs.queue_lookup import attributes_of, count
    from bridge.sqs.queues import queue_name

    with errors_reported():
        settings = queue_settings(queue)
        target = choose_queue(settings, queue)
        client = client_for(settings)
        attributes = attributes_of(client, target.url)
        name = queue_name(target.url)
        if yes is None:
            if not sys.stdin.isatty():
                raise click.UsageError(f"there is no terminal to ask: give --yes {name}")
            about = messages(sum(count(attributes, which) for which in ("", "NotVisible", "Delayed")))
            yes = click.prompt(f"About {about} would be deleted permanently. Name of the queue", err=True)
        if yes != name:
            raise click.UsageError(f"{yes!r} is not the queue's name, which is {name}: nothing was deleted")
        try:
            client.purge_queue(QueueUrl=target.url)
        except Exception as error:
            if "PurgeQueueInProgress" not in error_code(error):
                raise
            raise exit_incomplete("SQS purges a queue once in 60 s at most: try again in a minute") from error
        click.echo(json.dumps({"queue": target.url, "purged": "all"}) if as_json else f"purged {name}")
        return 0


def _described(client: Any, settings: QueueSettings, queue: Queue) -> dict[str, Any]:
    from bridge.sqs.queue_lookup import attributes_of

    attributes = attributes_of(client, queue.url)
    dlq_url, note = _dlq(client, settings, queue, attributes)
    policy = attributes.get("RedrivePolicy")
    return {
        "name": queue.name,
        "url": queue.url,
        "kind": "Celery's own messages" if queue.kind == "task" else "S3 events",
        "messages": _depths(attributes),
        "dlq": {"url": dlq_url, "messages": _dlq_depths(client, dlq_url), "note": note},
        "redrive_policy": json.loads(policy) if policy else None,
        "attributes": {name: value for name, value in sorted(attributes.items()) if name != "RedrivePolicy"},
    }


def _dlq(
    client: Any, settings: QueueSettings, queue: Queue, attributes: dict[str, str]
) -> tuple[str | None, str | None]:
    """Return the URL of the dead-letter queue, or why there is none to show."""
    if settings.sqs_dlq_url is not None:
        return settings.sqs_dlq_url, "SQS_DLQ_URL"
    from bridge.errors import SettingsError
    from bridge.sqs.queue_lookup import look_up

    if not attributes.get("RedrivePolicy"):
        return None, "none: no RedrivePolicy, and SQS_DLQ_URL is not set"
    try:
        return look_up(client, queue, None).dlq_url, "RedrivePolicy"
    except SettingsError as error:
        return None, str(error)


def _dlq_depths(client: Any, url: str | None) -> dict[str, int] | None:
    from bridge.errors import SettingsError
    from bridge.sqs.queue_lookup import attributes_of

    if url is None:
        return None
    try:
        return _depths(attributes_of(client, url))
    except SettingsError:  # not ours to look at: its URL is worth showing all the same
        return None


def _depths(attributes: dict[str, str]) -> dict[str, int]:
    from bridge.sqs.queue_lookup import count

    return {
        "visible": count(attributes),
        "in_flight": count(attributes, "NotVisible"),
        "delayed": count(attributes, "Delayed"),
    }


def _in_words(described: dict[str, Any]) -> str:
    dlq = described["dlq"]
    policy = described["redrive_policy"] or {}
    rows = [
        ("queue", described["url"]),
        ("for", described["kind"]),
        ("messages", _counted(described["messages"])),
        ("DLQ", f"{dlq['url']} ({dlq['note']})" if dlq["url"] else dlq["note"]),
        ("  messages", _counted(dlq["messages"])),
        ("  moved after", f"{policy['maxReceiveCount']} receives" if "maxReceiveCount" in policy else "-"),
        *((f"  {name}", value) for name, value in described["attributes"].items() if name not in _SHOWN_ABOVE),
    ]
    rows.insert(6, ("attributes", ""))
    return aligned([(name, printable(str(value))) for name, value in rows])


def _counted(depths: dict[str, int] | None) -> str:
    if depths is None:
        return "not known"
    return f"{depths['visible']:,} visible, {depths['in_flight']:,} in flight, {depths['delayed']:,} delayed"


_SHOWN_ABOVE = frozenset(
    {"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"}
)
