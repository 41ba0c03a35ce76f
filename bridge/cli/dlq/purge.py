"""``brigade dlq purge``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.dlq.options import dlq_option, filter_options, find_dlq
from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.cli.options import client_for, queue_settings
from bridge.cli.printing import messages, progress
from bridge.messages.dead_letter import read_letter
from bridge.operations.stopping import HANDING_BACK, Stop

if TYPE_CHECKING:
    from bridge.operations.dlq.filter import Filter


@click.command(
    "purge",
    epilog="""Examples:

\b
  brigade dlq purge
  brigade dlq purge --reason malformed --older-than 7d --yes""",
)
@dlq_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
@filter_options
def command(chosen: Filter, dlq: str | None, yes: bool, as_json: bool) -> int:
    """Delete dead letters permanently: all of them, or those that match.

    Asks first. Without conditions it is SQS's own PurgeQueue, which takes up to a minute and also deletes what somebody
    is reading.
    """
    from bridge.sqs.queue_lookup import attributes_of, count
    from bridge.sqs.queues import queue_name

    with errors_reported():
        settings = queue_settings(dlq)
        client = client_for(settings)
        url = find_dlq(client, settings, dlq)
        attributes = attributes_of(client, url)
        about = messages(sum(count(attributes, which) for which in ("", "NotVisible", "Delayed")))
        if not yes:
            _ask(
                f"Delete all of about {about} in {queue_name(url)} permanently?"
                if chosen.takes_all
                else f"Delete what matches among about {about} in {queue_name(url)} permanently?"
            )
        if chosen.takes_all:
            _purge_all(client, url)
            result: dict[str, Any] = {"dlq": url, "purged": "all"}
            text, code = f"purged {queue_name(url)}: SQS takes up to 60 s", 0
        else:
            number, failed, code = _purge_some(client, url, chosen)
            result = {"dlq": url, "purged": number, "failed": failed}
            text = f"deleted {messages(number)} of {queue_name(url)}" + (f", {failed} failed" if failed else "")
        click.echo(json.dumps(result) if as_json else text)
        return code


def _purge_all(client: Any, url: str) -> None:
    from bridge.aws_errors import error_code

    try:
        client.purge_queue(QueueUrl=url)
    except Exception as error:
        if "PurgeQueueInProgress" not in error_code(error):
            raise
        raise exit_incomplete("SQS purges a queue once in 60 s at most: try again in a minute") from error


def _purge_some(client: Any, url: str, chosen: Filter) -> tuple[int, int, int]:
    from bridge.operations.dlq.reader import Reader
    from bridge.sqs.batches import delete_batch

    number = failed = 0
    with Stop(HANDING_BACK) as stop:
        with Reader(client, url, stop) as reader:
            for batch in reader.batches():
                meant = [letter for letter in map(read_letter, batch) if chosen.takes(letter)]
                handles = {letter.message_id: reader.handle(letter.message_id) for letter in meant}
                ids = [message_id for message_id, handle in handles.items() if handle]
                if ids:
                    answer = delete_batch(client, url, [handles[message_id] or "" for message_id in ids])
                    for position in answer.done:
                        reader.gone(ids[position])
                    number, failed = number + len(answer.done), failed + len(answer.failed)
                progress(f"{number:,} deleted")
        progress("")
        return number, failed, stop.exit_code or int(failed > 0)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is there to answer: --yes")
    click.confirm(question, abort=True, err=True)
