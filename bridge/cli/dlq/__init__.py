"""``brigade dlq``: look into a dead-letter queue, send letters back, take them along, throw them away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.dlq import purge, redrive
from bridge.cli.dlq.options import dlq_option, filter_options, find_dlq
from bridge.cli.dlq.text import in_full, table
from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.cli.options import client_for, queue_settings
from bridge.cli.printing import messages, progress
from bridge.messages.dead_letter import Letter, read_letter
from bridge.operations.stopping import HANDING_BACK, Stop

if TYPE_CHECKING:
    from bridge.operations.dlq.filter import Filter
    from bridge.operations.dlq.reader import Reader


@click.group("dlq", no_args_is_help=False)
def command() -> None:
    """List, show, redrive, export and purge dead letters.

    The dead-letter queue is SQS_DLQ_URL, else the one that the RedrivePolicy of SQS_QUEUE_URL (and SQS_TASK_QUEUE_URL)
    names; --dlq chooses another. Reading hides messages for the time it takes and adds one to their receive count.
    """


@command.command(
    "list",
    epilog="""Examples:

\b
  brigade dlq list
  brigade dlq list --reason exhausted --task 'my_files.*' --newer-than 1d
  brigade dlq list --key 'incoming/*.csv' --json | jq -r .[].id""",
)
@dlq_option
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many that match (in SQS's order, not by age).")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
@filter_options
def list_(chosen: Filter, dlq: str | None, limit: int | None, as_json: bool) -> int:
    """List the dead letters, the oldest first."""
    found: list[dict[str, Any]] = []
    with errors_reported(), Stop(HANDING_BACK) as stop:
        with _reading(dlq, stop) as reader:
            for letter in _letters(reader, chosen, limit):
                found.append(letter.summary())
                progress(f"{len(found):,} of about {reader.expected:,} read")
        progress("")
        text = json.dumps(found, indent=2) if as_json else table(found)
        if text:
            click.echo(text)
        _say_what_is_missing(reader, len(found))
        return stop.exit_code


@command.command(
    epilog="""Examples:

\b
  brigade dlq show 6f1c0e0e-2b3d-4c55-9d3e-0a8b5c1d2e3f
  brigade dlq show 6f1c0e0e-2b3d-4c55-9d3e-0a8b5c1d2e3f --json | jq -r .body""",
)
@click.argument("id_", metavar="ID")
@dlq_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def show(id_: str, dlq: str | None, as_json: bool) -> int:
    """Show one dead letter: cause, traceback, attributes, body.

    ID is the task's id (the MessageId in the worker's logs), or the MessageId in the dead-letter queue. Exit code 1
    when there is no such letter.
    """
    from bridge.operations.dlq.filter import Filter

    with errors_reported(), Stop(HANDING_BACK) as stop:
        with _reading(dlq, stop) as reader:
            letter = next(_letters(reader, Filter(ids=(id_,)), 1), None)
        if letter is None:
            if stop:
                return stop.exit_code
            _say_what_is_missing(reader, 1)
            raise exit_incomplete(f"no dead letter {id_} among {messages(reader.read)} of {reader.url}")
        click.echo(json.dumps(letter.whole(), indent=2) if as_json else in_full(letter))
        return stop.exit_code


@command.command(
    epilog="""Examples:

\b
  brigade dlq export > letters.jsonl
  brigade dlq export --reason malformed | jq -r .body""",
)
@dlq_option
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many that match.")
@filter_options
def export(chosen: Filter, dlq: str | None, limit: int | None) -> int:
    """Write dead letters to standard output, one JSON object per line; they stay in the queue.

    Each has all that `show --json` has; binary attribute values are base64.
    """
    number = 0
    with errors_reported(), Stop(HANDING_BACK) as stop:
        with _reading(dlq, stop) as reader:
            for letter in _letters(reader, chosen, limit):
                click.echo(json.dumps(letter.whole()))
                number += 1
        _say_what_is_missing(reader, number)
        return stop.exit_code


@contextmanager
def _reading(dlq: str | None, stop: Stop) -> Iterator[Reader]:
    from bridge.operations.dlq.reader import Reader

    settings = queue_settings(dlq)
    client = client_for(settings)
    with Reader(client, find_dlq(client, settings, dlq), stop) as reader:
        yield reader


def _letters(reader: Reader, chosen: Filter, limit: int | None) -> Iterator[Letter]:
    number = 0
    for batch in reader.batches():
        for raw in batch:
            letter = read_letter(raw)
            if chosen.takes(letter):
                yield letter
                number += 1
                if number == limit:
                    return


def _say_what_is_missing(reader: Reader, shown: int) -> None:
    if not shown:
        click.echo("brigade: no dead letter matches" if reader.read else "brigade: no dead letters", err=True)
    if reader.elsewhere:
        click.echo(
            f"brigade: about {messages(reader.elsewhere)} could not be read: another reader holds them", err=True
        )
    if reader.unread:
        click.echo(f"brigade: about {messages(reader.unread)} more were not delivered by SQS", err=True)


command.add_command(redrive.command)
command.add_command(purge.command)
