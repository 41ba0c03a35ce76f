"""``brigade dlq redrive``: the options, and what is said afterwards; the work is in bridge/operations/dlq."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bridge.cli.dlq.options import dlq_option, filter_options, find_dlq
from bridge.cli.exit_codes import errors_reported
from bridge.cli.options import QueueUrl, client_for, queue_settings
from bridge.cli.printing import messages, progress
from bridge.cli.quantities import Rate
from bridge.messages.dead_letter import MAX_REDRIVES
from bridge.operations.stopping import Stop
from bridge.text import printable

if TYPE_CHECKING:
    from bridge.operations.dlq.filter import Filter
    from bridge.operations.dlq.redrive import RedriveTally


@click.command(
    "redrive",
    epilog="""Examples:

\b
  brigade dlq redrive --dry-run
  brigade dlq redrive --reason exhausted --older-than 1h --rate 20
  brigade dlq redrive --id 6f1c0e0e-2b3d-4c55-9d3e-0a8b5c1d2e3f --force
  brigade dlq redrive --to https://sqs.eu-west-1.amazonaws.com/123456789012/uploads""",
)
@dlq_option
@click.option(
    "--to", type=QueueUrl(or_name=False), help="Send to this queue, not to the one that each message came from."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--rate", type=Rate(), help="At most so many messages per second.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent where; send nothing.")
@click.option("--force", is_flag=True, help=f"Also what was redriven {MAX_REDRIVES} times already.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
@filter_options
def command(
    chosen: Filter,
    dlq: str | None,
    to: str | None,
    limit: int | None,
    rate: float | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Send dead letters back to the queue they came from, then delete them here.

    Body and attributes are the original ones; the cause stays behind, and BridgeRedrives counts. No letter is sent
    twice by one run. May be interrupted, and may run more than once at a time. Exit code 1 when a letter that was meant
    could not be sent back.
    """
    from bridge.operations.dlq.reader import Reader
    from bridge.operations.dlq.redrive import Redriver
    from bridge.operations.dlq.sources import Sources

    with errors_reported(), Stop("finishing this batch and handing back the rest") as stop:
        settings = queue_settings(dlq, to)
        client = client_for(settings)
        url = find_dlq(client, settings, dlq)
        sources = Sources(client, url, settings, to)
        reader = Reader(client, url, stop)

        def on_progress(tally: RedriveTally) -> None:
            progress(f"{tally.redriven.total():,} redriven, {tally.seen:,} of about {reader.expected:,} read")

        redriver = Redriver(
            client,
            reader,
            sources,
            stop,
            chosen=chosen,
            force=force,
            limit=limit,
            rate=rate,
            dry_run=dry_run,
            on_progress=on_progress,
        )
        try:
            with reader:
                redriver.run()
        finally:
            progress("")
            _report(redriver.tally, url, dry_run=dry_run, as_json=as_json, interrupted=bool(stop))
        return stop.exit_code or (1 if redriver.tally.incomplete and not dry_run else 0)


def _report(tally: RedriveTally, url: str, *, dry_run: bool, as_json: bool, interrupted: bool) -> None:
    if as_json:
        # Not dataclasses.asdict: it makes a Counter of a Counter's items.
        click.echo(json.dumps({"dlq": url, "dry_run": dry_run, "interrupted": interrupted, **vars(tally)}))
        return
    did = "would redrive" if dry_run else "redrove"
    for name, number in tally.redriven.items():
        click.echo(f"{did} {messages(number)} to {name}")
    if not tally.redriven:
        click.echo(f"{did} nothing")
    for reason, number in tally.left.items():
        click.echo(f"left {messages(number)}: {_LEFT[reason]}")
    if tally.uncounted:
        click.echo(f"{messages(tally.uncounted)} had no room for BridgeRedrives and went without a count")
    for why in tally.failed:
        click.echo(f"not sent: {printable(why)}")
    if tally.sent_not_deleted:
        ids = ", ".join(tally.sent_not_deleted)
        click.echo(f"sent, and still here, so that a further redrive would send them twice: {ids}")


_LEFT = {
    "redriven-too-often": f"redriven {MAX_REDRIVES} times already (--force sends them once more)",
    "no-source": "nothing says which queue they came from (set SQS_QUEUE_URL, or give --to)",
    "came-back": "sent back by this run, and dead-lettered again",
}
