"""``brigade provision``: a queue with its dead-letter queue, and a bucket that notifies it."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.exit_codes import errors_reported

if TYPE_CHECKING:
    from bridge.operations.provision.plan import ProvisionPlan, Step, Wanted
    from bridge.settings.loading import OperatorSettings

_PAST = {"create-queue": "created queue", "set-attributes": "changed queue", "put-notification": "changed bucket"}
_FUTURE = {
    "create-queue": "would create queue",
    "set-attributes": "would change queue",
    "put-notification": "would change bucket",
}
_EXAMPLES = """
\b
Examples:
  brigade provision --bucket uploads --queue uploads --dry-run
  brigade provision --bucket uploads --queue uploads --prefix incoming/ --suffix .csv
  brigade provision --queue tasks                 # a queue for SQS_TASK_QUEUE_URL
"""


@click.command("provision", epilog=_EXAMPLES)
@click.option("--queue", required=True, metavar="NAME", help="The queue for the events.")
@click.option("--dlq", metavar="NAME", help="Its dead-letter queue.  [default: NAME-dlq]")
@click.option("--bucket", metavar="NAME", help="The bucket that is to notify the queue; it must exist.")
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that start so.")
@click.option("--suffix", default="", metavar="TEXT", help="Only keys that end so.")
@click.option("--event", "events", multiple=True, metavar="NAME", help="Default: ObjectCreated:*; several.")
@click.option("--max-receive-count", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N")
@click.option("--force", is_flag=True, help="Change queues too that this command did not create.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
def command(queue: str, dlq: str | None, force: bool, dry_run: bool, as_json: bool, **options: Any) -> int:
    """Create queue, dead-letter queue, redrive policy, queue policy and bucket notification.

    For development and small installations. A second run does what is left to do, and nothing when all is there.
    What this command creates it tags `bucket-brigade: provisioned`; nothing else is changed without --force, and the
    notifications that a bucket has already stay as they are. Exit code 2: refused, and nothing was done.
    """
    dlq = dlq or f"{queue}-dlq"
    _check(queue, dlq, options)
    # Imported here because the SDK takes a third of a second, which --help should not.
    from bridge.operations.provision.apply import carry_out, find, queue_url
    from bridge.operations.provision.plan import plan
    from bridge.s3.clients import s3_client
    from bridge.settings.loading import load_operator_settings
    from bridge.sqs.clients import sqs_client

    with errors_reported():
        settings = load_operator_settings()
        wanted = _wanted(queue, dlq, options, settings)
        region = _region(settings)
        with closing(sqs_client("send", region)) as sqs:
            s3 = s3_client(region)
            found = find(sqs, s3, wanted)
            made = plan(found, wanted, force=force)
            if made.refusals:
                raise click.ClickException("; ".join(made.refusals))
            _warn(made, wanted, settings)
            if not dry_run:
                carry_out(sqs, s3, made.steps, found, lambda step: None if as_json else _say(step, _PAST))
            urls = {name: queue_url(sqs, name) for name in (queue, dlq)}
    if as_json:
        steps = [step.to_dict() for step in made.steps]
        summary = {"dry_run": dry_run, "steps": steps, "kept": made.kept, "notes": made.notes}
        click.echo(json.dumps({**summary, "queue_url": urls[queue], "dlq_url": urls[dlq]}, indent=1))
        return 0
    if dry_run:
        for step in made.steps:
            _say(step, _FUTURE)
    for kept in made.kept:
        click.echo(f"{kept}: as wanted")
    if urls[queue] and not dry_run:
        click.echo(f"export {'SQS_QUEUE_URL' if wanted.bucket else 'SQS_TASK_QUEUE_URL'}={urls[queue]}")
    return 0


def _check(queue: str, dlq: str, options: dict[str, Any]) -> None:
    for name, value in (("--queue", queue), ("--dlq", dlq)):
        if value.endswith(".fifo"):
            raise click.BadParameter("S3 cannot notify a FIFO queue", param_hint=name)
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", value):
            raise click.BadParameter(f"{value!r}: at most 80 letters, digits, - and _", param_hint=name)
    if queue == dlq:
        raise click.BadParameter("must be another queue than --queue", param_hint="--dlq")
    if options["bucket"] is None and (options["prefix"] or options["suffix"] or options["events"]):
        raise click.UsageError("--prefix, --suffix and --event are about a notification: name the --bucket")
    if options["bucket"] is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}", options["bucket"]):
        raise click.BadParameter(f"{options['bucket']!r} is not a bucket name", param_hint="--bucket")
    for event in options["events"]:
        if not re.fullmatch(r"(?:s3:)?[A-Z][A-Za-z]+(?::(?:\*|[A-Za-z]+))?", event):
            raise click.BadParameter(
                f"{event!r}: such as ObjectCreated:* or ObjectRemoved:Delete", param_hint="--event"
            )


def _wanted(queue: str, dlq: str, options: dict[str, Any], settings: OperatorSettings) -> Wanted:
    from bridge.operations.provision.plan import Wanted
    from bridge.s3.outputs import output_prefixes

    events = tuple(f"s3:{event.removeprefix('s3:')}" for event in options["events"] or ("ObjectCreated:*",))
    return Wanted(
        queue=queue,
        dlq=dlq,
        bucket=options["bucket"],
        events=events,
        prefix=options["prefix"],
        suffix=options["suffix"],
        max_receive_count=options["max_receive_count"],
        outputs=output_prefixes(
            results_url=settings.results_url, archive_url=settings.archive_url, idempotency_url=settings.idempotency_url
        ),
    )


def _region(settings: OperatorSettings) -> str:
    from bridge.settings.region import EMULATOR_REGION

    if settings.region:
        return settings.region
    if any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS")):
        return EMULATOR_REGION
    raise click.ClickException("AWS_REGION is not set: in which region shall the queues be?")


def _warn(made: ProvisionPlan, wanted: Wanted, settings: OperatorSettings) -> None:
    needed = settings.max_retries + 1 + settings.spare_receives
    if wanted.max_receive_count <= needed:
        made.notes.append(
            f"--max-receive-count {wanted.max_receive_count}: SQS may move a message before our retries are used up; "
            f"more than {needed} are needed with BRIDGE_MAX_RETRIES and BRIDGE_SPARE_RECEIVES as they are"
        )
    for note in made.notes:
        click.echo(f"brigade: {note}", err=True)


def _say(step: Step, words: dict[str, str]) -> None:
    click.echo(f"{words[step.do]} {step.name}: {step.why}")
