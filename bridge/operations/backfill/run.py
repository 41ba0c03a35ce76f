"""Run a backfill: list, choose, send, remember, and end in order at a signal."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from bridge.aws_errors import aws_text
from bridge.messages.celery_message import task_body
from bridge.operations.backfill.report import BackfillTally, report, say_how_to_go_on
from bridge.operations.backfill.selection import Selection, Skipped, chosen
from bridge.operations.backfill.state import BackfillState, open_state
from bridge.operations.stopping import stopping
from bridge.s3.clients import s3_client
from bridge.s3.event import ObjectRecord
from bridge.s3.event_body import event_body
from bridge.s3.listing import find_bucket, listed_objects
from bridge.sqs.batches import PARALLEL, BatchSender, Outgoing, SendFailed
from bridge.sqs.clients import sqs_client
from bridge.text import printable


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the messages go: as events to a queue, or to a task by its name."""

    queue_url: str
    task: str | None


@dataclass(frozen=True, slots=True)
class Backfill:
    """What the command line asks for."""

    prefix: str
    selection: Selection
    target: Destination
    region: str | None
    version_ids: bool
    rate: float | None
    start_after: str | None
    state_path: Path | None

    def identity(self) -> dict[str, Any]:
        """Return what makes it this backfill and no other, ready for JSON: what a state file belongs to."""
        selection = self.selection
        return {
            "url": f"s3://{selection.bucket}/{self.prefix}",
            "queue": self.target.queue_url,
            "task": self.target.task,
            "include": list(selection.include),
            "exclude": list(selection.exclude),
            "min_size": selection.min_size,
            "max_size": selection.max_size,
            "archived": selection.archived,
        }


def run(backfill: Backfill, *, dry_run: bool, progress: bool, as_json: bool) -> int:
    """Carry it out and return the exit code. Raises SettingsError and the SDK's errors before anything is sent."""
    s3 = s3_client(backfill.region)
    bucket = find_bucket(s3, backfill.selection.bucket)
    versions = backfill.version_ids and bool(bucket.has_versions)
    if backfill.version_ids and bucket.has_versions is None:
        click.echo("brigade: s3:GetBucketVersioning is denied: events are sent without version ids", err=True)
    start_after, state = backfill.start_after, None
    if backfill.state_path is not None:
        state = open_state(backfill.state_path, backfill.identity())
        if state.complete:
            click.echo(f"brigade: {state.path} says that all is sent; remove it to begin anew", err=True)
            report(backfill.identity(), bucket.region, BackfillTally(complete=True), dry_run=False, as_json=as_json)
            return 0
        start_after = state.last_key
    tally = BackfillTally()
    with stopping() as stop:

        def records(skipped: Counter[Skipped]) -> Iterator[ObjectRecord]:
            listing = listed_objects(s3, bucket.name, backfill.prefix, start_after=start_after, versions=versions)
            # Asked for every object: where the filters leave out millions, no batch would come to ask in between.
            running = takewhile(lambda _: not stop.event.is_set(), listing)
            return chosen(running, backfill.selection, bucket.region, skipped)

        if dry_run:
            error = _rehearse(records(tally.skipped), tally, as_json=as_json)
        else:
            show = progress and not as_json and sys.stderr.isatty()
            total = _count(records(Counter())) if show else None
            with bar(total) as advance:
                error = send(backfill, records(tally.skipped), tally, state, stop.event, advance)
        tally.complete = error is None and not stop.event.is_set()
    if state is not None:
        state.complete = tally.complete
        try:
            state.write()
        except OSError as fault:
            error = error or f"{state.path} cannot be written: {fault}; after key {tally.last_key!r}"
            tally.complete = False
    report(backfill.identity(), bucket.region, tally, dry_run=dry_run, as_json=as_json)
    if not tally.complete:
        say_how_to_go_on(tally.last_key or start_after, error, state, dry_run=dry_run)
    return stop.exit_code or (1 if error else 0)


def send(
    backfill: Backfill,
    records: Iterator[ObjectRecord],
    tally: BackfillTally,
    state: BackfillState | None,
    stop: threading.Event,
    advance: Callable[[int], None],
) -> str | None:
    """Send all, and return what went wrong behind the first batch; raises what went wrong before."""
    client = sqs_client("send", backfill.region, connections=PARALLEL)
    target = backfill.target
    sender: BatchSender[ObjectRecord] = BatchSender(client, target.queue_url, rate=backfill.rate, stop=stop)
    origin = f"{os.getpid()}@{socket.gethostname()}"

    def body(record: ObjectRecord) -> str:
        return task_body(record, target.task, str(uuid4()), origin) if target.task else event_body(record)

    try:
        for batch in sender.send(Outgoing(record, body(record)) for record in records):
            tally.add(tuple(batch))
            if state is not None:
                state.advance(batch[-1].key, len(batch))
            advance(len(batch))
    except SendFailed as error:
        return str(error)
    except Exception as error:
        if not tally.objects:
            raise  # nothing is confirmed, so there is nothing to go on from: no such queue, access denied…
        # The SDK's first: some of its time-outs are OSErrors too.
        if (text := aws_text(error)) is not None:
            return text
        if isinstance(error, OSError):
            return f"the state cannot be written: {error}"
        raise
    finally:
        tally.calls = sender.calls
        client.close()
    return None


def _rehearse(records: Iterator[ObjectRecord], tally: BackfillTally, *, as_json: bool) -> str | None:
    try:
        for record in records:
            tally.add((record,))
            if not as_json:
                version = f"  version {record.version_id}" if record.version_id else ""
                click.echo(
                    f"s3://{record.bucket}/{printable(record.key)}  {record.size} bytes  {record.event_time}{version}"
                )
    except Exception as error:
        text = aws_text(error)
        if text is None:
            raise
        return text
    return None


def _count(records: Iterator[ObjectRecord]) -> int:
    """Count what will be sent: an ETA costs a second listing, a thousand objects per call."""
    click.echo("counting the objects (--no-progress skips this) …", err=True)
    return sum(1 for _ in records)


@contextmanager
def bar(total: int | None, label: str = "sending") -> Iterator[Callable[[int], None]]:
    """Draw a bar on standard error, advanced by what is yielded; with nothing to count there is none."""
    if not total:
        yield lambda _: None
        return
    drawn: AbstractContextManager[Any] = click.progressbar(
        length=total, label=label, file=sys.stderr, show_pos=True, show_eta=True
    )
    with drawn as shown:
        yield shown.update
