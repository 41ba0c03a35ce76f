"""``brigade reconcile``: the options, and what they ask for. What it does is in bridge/operations/reconcile/run.py."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import backfill
from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.operations.reconcile.completions import STATUSES, UNFINISHED

if TYPE_CHECKING:
    from bridge.operations.reconcile.run import Reconciliation
    from bridge.settings.loading import OperatorSettings

_EXAMPLES = """
\b
Examples:
  brigade reconcile s3://uploads/incoming/ --task my_files.import_csv
  brigade reconcile s3://uploads/ --task my_files.import_csv --modified-until 12h --json
  brigade reconcile s3://uploads/ --task my_files.import_csv --only failed
  brigade reconcile s3://uploads/ --task my_files.import_csv --enqueue --rate 50
"""

#: Filters and sending are the backfill's own, and so are their options and words.
_NOT_AS_IN_BACKFILL = ("task", "as_json")


@click.command(
    "reconcile", epilog=_EXAMPLES, params=[p for p in backfill.command.params if p.name not in _NOT_AS_IN_BACKFILL]
)
@click.option("--task", required=True, metavar="NAME", help="The file_task whose completions count.")
@click.option(
    "--only", multiple=True, type=click.Choice(STATUSES), help=f"Of these; left alone {', '.join(UNFINISHED)}."
)
@click.option("--enqueue", is_flag=True, help="Send them as brigade backfill does.")
@click.option(
    "--direct", is_flag=True, help="The task gets objects by its name (SQS_TASK_QUEUE_URL), not by its route."
)
@click.option("--no-list", is_flag=True, help="Only the counts.")
@click.option(
    "--json", "as_json", is_flag=True, help="A JSON line for each object, and one with the counts at the end."
)
def command(url: str, **options: Any) -> int:
    """Find the objects that a task has not completed, by the idempotency store; --enqueue sends them again.

    Nothing is sent without --enqueue. Exit code 0: all were compared (and sent); 1: it stopped on an error; 2: there is
    something to correct, or the task's records name no objects; 130: after Ctrl-C.
    """
    bucket, prefix = backfill.bucket_and_prefix(url)
    _check(options)
    # An object that is put from now on is compared with a list of records that is older than it is.
    options["modified_until"] = min(filter(None, (options["modified_until"], datetime.now(UTC))))
    # Imported here because the SDK and Celery take a second, which --help should not.
    from bridge.errors import SettingsError, StoreUnavailable
    from bridge.operations.reconcile.record_index import NoRoom
    from bridge.operations.reconcile.run import refusal, run
    from bridge.settings.loading import load_operator_settings

    with errors_reported():
        environ = dict(os.environ)
        if options["queue_url"]:
            environ["SQS_QUEUE_URL"] = options["queue_url"]
        settings = load_operator_settings(environ, "SQS_TASK_QUEUE_URL" if options["direct"] else "SQS_QUEUE_URL")
        try:
            return run(
                _reconciliation(bucket, prefix, options, settings),
                enqueue=options["enqueue"],
                dry_run=options["dry_run"],
                progress=not options["no_progress"],
                show=not options["no_list"] and (options["dry_run"] or not options["enqueue"]),
                as_json=options["as_json"],
            )
        except (StoreUnavailable, NoRoom) as error:
            if refusal(error):
                raise SettingsError(str(error)) from error
            raise exit_incomplete(str(error)) from error


def _check(options: dict[str, Any]) -> None:
    sending = [name for name in ("rate", "state", "dry_run", "queue_url") if options[name]]
    if sending and not options["enqueue"]:
        raise click.UsageError(f"--{sending[0].replace('_', '-')} is about sending: it goes with --enqueue")
    if options["direct"] and options["queue_url"]:
        raise click.UsageError("--direct sends to SQS_TASK_QUEUE_URL: --queue-url is for events")
    if options["enqueue"] and "completed" in options["only"]:
        raise click.UsageError("--enqueue --only completed: what is completed is left alone; brigade backfill sends it")
    backfill.check_filters(options)


def _reconciliation(bucket: str, prefix: str, options: dict[str, Any], settings: OperatorSettings) -> Reconciliation:
    """Return what the options and settings ask for; raises ClickException for what has to be corrected."""
    from bridge.operations.backfill.run import Backfill, Destination
    from bridge.operations.reconcile.run import Reconciliation
    from bridge.task.registry import declared_routes

    task: str = options["task"]
    if settings.idempotency_url is None:
        raise click.ClickException("BRIDGE_IDEMPOTENCY_URL is not set: which store knows what was completed?")
    if not settings.task_modules:
        raise click.ClickException(
            f"BRIDGE_TASK_MODULES is not set: what {task} takes and claims is read from its module"
        )
    backfill.check_task(task, settings.task_modules)
    _check_claims(task)
    if not options["direct"]:
        backfill.check_allowed(bucket, settings.allowed_buckets)
    target = Destination("", None)
    if options["enqueue"]:
        by_name = task if options["direct"] else None
        target = Destination(backfill.queue_for(settings, by_name), by_name)
    return Reconciliation(
        backfill=Backfill(
            prefix=prefix,
            selection=backfill.selected(bucket, options, settings),
            target=target,
            region=settings.region,
            version_ids=not options["no_version_ids"],
            rate=options["rate"],
            start_after=options["start_after"],
            state_path=options["state"],
        ),
        task=task,
        routes=None if options["direct"] else declared_routes(settings.task_modules),
        store_url=settings.idempotency_url,
        remembered_seconds=settings.idempotency_ttl_seconds,
        only=tuple(s for s in STATUSES if s in (options["only"] or UNFINISHED)),
    )


def _check_claims(name: str) -> None:
    """Refuse a task whose records do not say which object they are of."""
    from bridge.celery import app
    from bridge.idempotency.identity import object_folder

    task: Any = app.tasks[name]
    if task.idempotent is False:
        raise click.ClickException(f"{name} is declared idempotent=False: it leaves no records to compare with")
    try:
        [claim_request] = task.claim_requests({"bucket": "any-bucket", "key": "any-key"})
    except Exception:  # noqa: BLE001 - only the user's own idempotency_key can raise, and then it is that
        claim_request = None
    if claim_request is None or not claim_request.id.startswith(object_folder(name, "any-bucket", "any-key")):
        raise click.ClickException(
            f"{name} has an idempotency_key of its own: its records do not say of which object they are, so they "
            "cannot be compared with a bucket"
        )
