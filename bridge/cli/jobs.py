"""``brigade jobs``: the Kubernetes Jobs of ``tasks.launch_job``; requeueing is in bridge/operations/jobs_requeue.py."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.cli.options import QueueUrl
from bridge.cli.quantities import Moment
from bridge.operations.stopping import Stop

if TYPE_CHECKING:
    from bridge.kubernetes.job_api import JobApi
    from bridge.kubernetes.launched_jobs import LaunchedJob

_F = TypeVar("_F", bound=Callable[..., Any])
_SHOWN_COMMAND = 60

_LIST_EXAMPLES = """
\b
Examples:
  brigade jobs list
  brigade jobs list --failed
  brigade jobs list --running --json | jq -r '.[].name'
  brigade jobs list --selector ''        # also those of the queue-watcher
"""
_REQUEUE_EXAMPLES = """
\b
Examples:
  brigade jobs requeue task-6e8f5b7c-3c0e-4b57-9a36-0d7c7c0f3a11
  brigade jobs requeue --all
  brigade jobs requeue --all --selector '' --queue-url "$QUEUE_URL"
"""
_CLEAN_EXAMPLES = """
\b
Examples:
  brigade jobs clean --completed --older-than 7d
  brigade jobs clean --completed --failed --older-than 30d --dry-run
"""


def _common(function: _F) -> _F:
    function = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
    function = click.option(
        "-l",
        "--selector",
        metavar="LABELS",
        help="Other Jobs than those of tasks.launch_job; '' means all of the namespace that have the annotation task.",
    )(function)
    return click.option("-n", "--namespace", metavar="NAME", help="Default: the pod's, or kubeconfig's.")(function)


@click.group("jobs")
def command() -> None:
    """Look at the Jobs that tasks.launch_job made of messages, requeue those that failed, and clear up.

    The cluster is KUBECONFIG's, else the one this pod is in, else that of ~/.kube/config. Exit code 0: done; 1:
    something was left exit_incomplete, or the cluster cannot be reached; 2: wrong arguments or settings.
    """


@command.command("list", epilog=_LIST_EXAMPLES)
@click.option("--failed", is_flag=True, help="Those that failed.")
@click.option("--completed", is_flag=True, help="Those that completed.")
@click.option("--running", is_flag=True, help="Those that have not ended.")
@_common
def list_(namespace: str | None, selector: str | None, as_json: bool, **wanted: bool) -> int:
    """List Jobs, oldest first: name, command, status, age, message id. Several of the options are an or."""
    now = datetime.now(UTC)
    statuses = {status for status, is_wanted in wanted.items() if is_wanted}
    with _told():
        jobs = [job for job in _jobs(_connect(namespace), selector) if not statuses or job.status in statuses]
    jobs.sort(key=lambda job: (job.created_at or now, job.name))
    if as_json:
        click.echo(json.dumps([_as_dict(job) for job in jobs], indent=2))
        return 0
    rows = [("NAME", "COMMAND", "STATUS", "AGE", "MESSAGE ID")]
    rows += [(job.name, _command(job), job.status, age(job.created_at, now), job.message_id or "-") for job in jobs]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


@command.command("requeue", epilog=_REQUEUE_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[JOBNAME]...")
@click.option("--all", "all_failed", is_flag=True, help="Every Job that failed.")
@click.option("--force", is_flag=True, help="Also a Job named that has not failed; one that runs is stopped.")
@click.option("--queue-url", type=QueueUrl(or_name=False), metavar="URL", help="Default: the queue the message was in.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@_common
def requeue(
    names: tuple[str, ...],
    all_failed: bool,
    force: bool,
    queue_url: str | None,
    dry_run: bool,
    namespace: str | None,
    selector: str | None,
    as_json: bool,
) -> int:
    """Send the messages of Jobs back to their queue, with their attributes, and delete the Jobs.

    A Job is deleted when SQS has confirmed its message, which gets a new id and so becomes a new Job. After Ctrl-C the
    Job at hand is finished. A process killed between the two leaves the Job: its message would then be sent once more.
    """
    if all_failed == bool(names):
        raise click.UsageError("name the Jobs, or say --all")
    if names and selector is not None:
        raise click.UsageError("--selector chooses among all Jobs: it goes with --all")
    if all_failed and force:
        raise click.UsageError("--force is for Jobs that are named; --all takes those that failed")
    from bridge.operations.jobs_requeue import Requeue

    with _told(), Stop("finishing the Job at hand") as stop:
        api = _connect(namespace)
        work = Requeue(api, queue_url=queue_url, dry_run=dry_run, stop=stop, report=None if as_json else click.echo)
        if all_failed:
            work.run((job.name, job) for job in list(_jobs(api, selector)) if job.status == "failed")
        else:
            work.run(((name, _named(api, name)) for name in dict.fromkeys(names)), force=force)
    if as_json:
        click.echo(json.dumps(work.done, indent=2))
    elif not work.done and not work.failures:
        click.echo("no Job to requeue")
    return stop.exit_code or (1 if work.failures else 0)


@command.command("clean", epilog=_CLEAN_EXAMPLES)
@click.option("--completed", is_flag=True, help="Those that completed.")
@click.option("--failed", is_flag=True, help="Those that failed: they are then lost.")
@click.option(
    "--older-than", type=Moment(), required=True, metavar="AGE", help="Ended so long ago: 12h, 7d; or a date."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@_common
def clean(
    older_than: datetime, dry_run: bool, namespace: str | None, selector: str | None, as_json: bool, **wanted: bool
) -> int:
    """Delete Jobs that have ended, with their pods and logs."""
    statuses = {status for status, is_wanted in wanted.items() if is_wanted}
    if not statuses:
        raise click.UsageError("say which: --completed, --failed or both")
    deleted: list[str] = []
    with _told(), Stop("stopping") as stop:
        api = _connect(namespace)
        for job in list(_jobs(api, selector)):
            if stop:
                break
            if job.status not in statuses or job.ended_at is None or job.ended_at > older_than:
                continue
            if dry_run or api.delete(job.name, job.uid):
                deleted.append(job.name)
                if not as_json:
                    click.echo(f"{'would delete' if dry_run else 'deleted'} {job.name} ({job.status})")
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "deleted": deleted}))
    elif not deleted:
        click.echo("no Job to delete")
    return stop.exit_code


def age(since: datetime | None, now: datetime) -> str:
    """Return how long ago that was, as kubectl says it: ``45s``, ``12m``, ``5h``, ``3d``; ``-`` when nobody knows."""
    if since is None:
        return "-"
    seconds = max(0, int((now - since).total_seconds()))
    for unit, size, limit in (("s", 1, 120), ("m", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"


def _jobs(api: JobApi, selector: str | None) -> Iterable[LaunchedJob]:
    from bridge.kubernetes.job_api import OURS
    from bridge.kubernetes.launched_jobs import launched_job

    found = api.list(OURS if selector is None else selector)
    return (job for job in map(launched_job, found) if job is not None)


def _named(api: JobApi, name: str) -> LaunchedJob | str:
    """The Job, or why it cannot be requeued."""
    from bridge.kubernetes.launched_jobs import launched_job

    found = api.get(name)
    if found is None:
        return f"there is no such Job in {api.namespace}"
    return launched_job(found) or "has no annotation task: it came from no message"


def _connect(namespace: str | None) -> JobApi:
    try:
        from bridge.kubernetes.job_api import connected
    except ModuleNotFoundError as error:
        raise click.ClickException(f"needs {error.name}: pip install 'bucket-brigade[k8s]'") from error
    return connected(namespace)


@contextmanager
def _told() -> Iterator[None]:
    from bridge.errors import JobNotAccepted

    with errors_reported():
        try:
            yield
        except JobNotAccepted as error:
            raise exit_incomplete(str(error)) from error


def _command(job: LaunchedJob) -> str:
    from bridge.text import shown

    text = shown(shlex.join(job.command))  # a message gave its arguments, so it may hold anything
    return text if len(text) <= _SHOWN_COMMAND else text[: _SHOWN_COMMAND - 1] + "…"


def _as_dict(job: LaunchedJob) -> dict[str, Any]:
    return {
        "name": job.name,
        "command": list(job.command),
        "status": job.status,
        "created_at": job.created_at.isoformat() if job.created_at else None,
        "ended_at": job.ended_at.isoformat() if job.ended_at else None,
        "message_id": job.message_id,
        "queue_url": job.queue_url,
        "task": job.body,
        "task_url": job.task_url,
    }
