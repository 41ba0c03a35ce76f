"""``brigade backfill``: the options, and which backfill they mean; the work is in bridge/operations/backfill."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.exit_codes import errors_reported
from bridge.cli.quantities import Moment, Rate, Size

if TYPE_CHECKING:
    from bridge.operations.backfill.selection import Selection
    from bridge.settings.loading import OperatorSettings

_EXAMPLES = """
\b
Examples:
  brigade backfill s3://uploads/incoming/ --include '*.csv' --dry-run
  brigade backfill s3://uploads/ --modified-since 2026-03-01 --rate 50
  brigade backfill s3://uploads/ --state uploads.state     # again after Ctrl-C: goes on
  brigade backfill s3://uploads/ --task my_files.import_csv
"""


@click.command("backfill", epilog=_EXAMPLES)
@click.argument("url", metavar="S3://BUCKET/PREFIX")
@click.option("--task", metavar="NAME", help="Send to this task (a message on SQS_TASK_QUEUE_URL), not as an event.")
@click.option("--queue-url", metavar="URL", help="The queue for the events; needed if SQS_QUEUE_URL names several.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only keys that match; several: any of them.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No key that matches; several: none of them.")
@click.option("--min-size", type=Size(), help="Only objects of at least this size: 1, 10MB, 1GiB.")
@click.option("--max-size", type=Size(), help="Only objects of at most this size.")
@click.option("--modified-since", type=Moment(), help="Only objects modified then or later: 2026-03-01, 7d.")
@click.option("--modified-until", type=Moment(), help="Only objects modified before then.")
@click.option("--archived", is_flag=True, help="Also objects in GLACIER and DEEP_ARCHIVE, which a task cannot read.")
@click.option("--no-version-ids", is_flag=True, help="Do not ask for version ids: fewer calls where versions are many.")
@click.option("--rate", type=Rate(), metavar="N", help="At most this many objects per second.")
@click.option("--start-after", metavar="KEY", help="Only keys after this one.")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="Remember here how far it came; go on.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--no-progress", is_flag=True, help="No progress bar; its ETA costs a listing beforehand.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
def command(url: str, **options: Any) -> int:
    """Send objects that are already in a bucket as events to the queue, as if they had just been put.

    They are sent at least once, in the order of their keys, ten per call. Objects under our own output prefixes are
    skipped. Exit code 0: all were sent; 1: it stopped on an error and said how to go on; 130: after Ctrl-C.
    """
    bucket, prefix = bucket_and_prefix(url)
    if options["task"] and options["queue_url"]:
        raise click.UsageError("--task sends to SQS_TASK_QUEUE_URL: --queue-url is for events")
    check_filters(options)
    # Imported here because the SDK and pydantic take half a second, which --help should not.
    from bridge.operations.backfill.run import Backfill, Destination, run
    from bridge.settings.loading import load_operator_settings

    with errors_reported():
        environ = dict(os.environ)
        if options["queue_url"]:
            environ["SQS_QUEUE_URL"] = options["queue_url"]
        settings = load_operator_settings(environ, "SQS_TASK_QUEUE_URL" if options["task"] else "SQS_QUEUE_URL")
        target = Destination(queue_for(settings, options["task"]), options["task"])
        if options["task"]:
            check_task(options["task"], settings.task_modules)
        else:
            check_allowed(bucket, settings.allowed_buckets)
        selection = selected(bucket, options, settings)
        backfill = Backfill(
            prefix=prefix,
            selection=selection,
            target=target,
            region=settings.region,
            version_ids=not options["no_version_ids"],
            rate=options["rate"],
            start_after=options["start_after"],
            state_path=options["state"],
        )
        return run(
            backfill, dry_run=options["dry_run"], progress=not options["no_progress"], as_json=options["as_json"]
        )


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return both parts of s3://bucket/prefix; raises BadParameter."""
    found = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{2,254})(?:/(.*))?", url, re.DOTALL)
    if found is None:
        raise click.BadParameter(f"{url!r} must be s3://bucket/prefix", param_hint="S3://BUCKET/PREFIX")
    return found[1], found[2] or ""


def check_filters(options: dict[str, Any]) -> None:
    """Refuse options that contradict each other; raises UsageError."""
    if options["state"] and options["dry_run"]:
        raise click.UsageError("--state is written when something is sent: not with --dry-run")
    if options["state"] and options["start_after"] is not None:
        raise click.UsageError("--state knows where to go on: not with --start-after")
    since: datetime | None = options["modified_since"]
    until: datetime | None = options["modified_until"]
    if since and until and since >= until:
        raise click.UsageError("--modified-since is not before --modified-until: nothing can match")
    smallest, largest = options["min_size"], options["max_size"]
    if smallest is not None and largest is not None and smallest > largest:
        raise click.UsageError("--min-size is above --max-size: nothing can match")


def queue_for(settings: OperatorSettings, task: str | None) -> str:
    """Return where events go, or messages to a task by its name; raises ClickException when nothing says so."""
    if task:
        if settings.sqs_task_queue_url is None:
            raise click.ClickException("SQS_TASK_QUEUE_URL is not set: --task sends to the queue for Celery's messages")
        return settings.sqs_task_queue_url
    if not settings.sqs_queue_urls:
        raise click.ClickException("SQS_QUEUE_URL is not set, and there is no --queue-url: give one of them")
    if len(settings.sqs_queue_urls) > 1:
        raise click.ClickException("SQS_QUEUE_URL names several queues: say which with --queue-url")
    return settings.sqs_queue_urls[0]


def selected(bucket: str, options: dict[str, Any], settings: OperatorSettings) -> Selection:
    """Return what the filters among the options select, our own outputs left out."""
    from bridge.operations.backfill.selection import Selection
    from bridge.s3.outputs import output_prefixes, pairs

    outputs = output_prefixes(
        results_url=settings.results_url,
        archive_url=settings.archive_url,
        idempotency_url=settings.idempotency_url,
    )
    return Selection(
        bucket=bucket,
        include=options["include"],
        exclude=options["exclude"],
        min_size=options["min_size"],
        max_size=options["max_size"],
        since=options["modified_since"],
        until=options["modified_until"],
        archived=options["archived"],
        own_outputs=pairs(outputs),
    )


def check_task(name: str, modules: tuple[str, ...]) -> None:
    """Refuse a task name that no worker would know, if the modules can be imported here."""
    if not modules:
        return
    from bridge.celery import app
    from bridge.task.registry import import_tasks

    import_tasks(modules)
    route = getattr(app.tasks.get(name), "route", None)
    if route is None or route.kind != "file":
        takers = sorted(n for n, t in app.tasks.items() if getattr(t, "route", None) and t.route.kind == "file")
        raise click.ClickException(f"--task {name}: no file_task of this name, only {', '.join(takers) or 'none'}")


def check_allowed(bucket: str, globs: tuple[str, ...]) -> None:
    """Refuse a bucket whose events the worker would dead-letter; raises ClickException."""
    from bridge.globs import matches

    if not any(matches(glob, bucket) for glob in globs):
        raise click.ClickException(
            f"{bucket} is not in BRIDGE_ALLOWED_BUCKETS: the worker would dead-letter every event as forbidden-bucket"
        )
