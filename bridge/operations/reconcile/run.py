"""Run a reconciliation: list the records, list the objects, compare, show or send."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import click

from bridge.aws_errors import PERMANENT, error_code
from bridge.errors import StoreUnavailable
from bridge.idempotency.factory import open_store
from bridge.messages.routing import Route
from bridge.operations.backfill.report import BackfillTally, say_how_to_go_on
from bridge.operations.backfill.run import Backfill, bar, send
from bridge.operations.backfill.selection import Skipped, chosen
from bridge.operations.backfill.state import open_state
from bridge.operations.reconcile.completions import STATUSES, Standing, Status, as_line, not_taken, standing
from bridge.operations.reconcile.record_index import NoRoom, RecordIndex
from bridge.operations.stopping import StopRequest, stopping
from bridge.s3.clients import s3_client
from bridge.s3.event import ObjectRecord
from bridge.s3.listing import Bucket, find_bucket, listed_objects
from bridge.text import printable


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the command line asks for; ``backfill`` is what would send, ``routes`` None where none are asked."""

    backfill: Backfill
    task: str
    routes: tuple[Route, ...] | None
    store_url: str
    remembered_seconds: float
    only: tuple[Status, ...]

    def identity(self) -> dict[str, Any]:
        """Return what makes it this one and no other, ready for JSON: what a state file belongs to."""
        ours = {"reconcile": self.task, "store": self.store_url, "only": list(self.only)}
        return {**self.backfill.identity(), **ours}


class _Comparison:
    """The objects of a bucket with how they stand, counted as they are compared."""

    def __init__(
        self, wanted: Reconciliation, s3: Any, bucket: Bucket, start_after: str | None, stop: StopRequest
    ) -> None:
        self._wanted = wanted
        self._s3 = s3
        self._bucket = bucket
        self._start_after = start_after
        self._stop = stop
        self.found: Counter[Status] = Counter()
        self.skipped: Counter[str] = Counter()
        self.advance: Callable[[int], None] = lambda _: None

    def objects(self, skipped: Counter[str]) -> Iterator[ObjectRecord]:
        """Yield the objects that the filters leave and the task would get."""
        backfill, by_filter = self._wanted.backfill, Counter[Skipped]()
        versions = backfill.version_ids and bool(self._bucket.has_versions)
        listing = listed_objects(
            self._s3, self._bucket.name, backfill.prefix, start_after=self._start_after, versions=versions
        )
        running = takewhile(lambda _: not self._stop.event.is_set(), listing)
        for obj in chosen(running, backfill.selection, self._bucket.region, by_filter):
            routes = self._wanted.routes
            if routes is not None and (reason := not_taken(routes, self._wanted.task, obj)) is not None:
                skipped[reason] += 1
            else:
                yield obj
        skipped.update(by_filter)

    def unfinished(self, index: RecordIndex) -> Iterator[tuple[ObjectRecord, Standing]]:
        """Compare all, and yield those that are asked for."""
        for obj, records in index.records_of(self.objects(self.skipped)):
            found = standing(obj, records, now=time.time(), remembered_seconds=self._wanted.remembered_seconds)
            self.found[found.status] += 1
            self.advance(1)
            if found.status in self._wanted.only:
                yield obj, found


def run(wanted: Reconciliation, *, enqueue: bool, dry_run: bool, progress: bool, show: bool, as_json: bool) -> int:
    """Carry it out and return the exit code.

    Raises SettingsError, StoreUnavailable, NoRoom and the SDK's errors while nothing is sent.
    """
    backfill = wanted.backfill
    s3 = s3_client(backfill.region)
    bucket = find_bucket(s3, backfill.selection.bucket)
    start_after, state = backfill.start_after, None
    if backfill.state_path is not None:
        state = open_state(backfill.state_path, wanted.identity())
        if state.complete:
            click.echo(f"brigade: {state.path} says that all is sent; remove it to compare anew", err=True)
            return 0
        start_after = state.last_key
    tally, error = BackfillTally(), None
    with stopping() as stop, RecordIndex(open_store(wanted.store_url, backfill.region), wanted.task) as index:
        comparison = _Comparison(wanted, s3, bucket, start_after, stop)
        index.fill(lambda: not stop.event.is_set())
        _tell_what_is_odd(index)
        sending = enqueue and not dry_run
        draw = progress and sending and not as_json and sys.stderr.isatty()
        total = sum(1 for _ in comparison.objects(Counter())) if draw else None
        with bar(total, "comparing") as comparison.advance:
            unfinished = _listed(comparison.unfinished(index), show=show, as_json=as_json)
            try:
                if sending:
                    error = send(backfill, unfinished, tally, state, stop.event, lambda _: None)
                else:
                    for obj in unfinished:
                        tally.add((obj,))
            except (StoreUnavailable, NoRoom) as fault:
                if not (sending and tally.objects):
                    raise
                error = str(fault)
        tally.complete = error is None and not stop.event.is_set()
    if state is not None:
        state.complete = tally.complete
        try:
            state.write()
        except OSError as failed:
            error, tally.complete = error or f"{state.path} cannot be written: {failed}", False
    _report(wanted, comparison, tally, enqueue=enqueue, dry_run=dry_run, as_json=as_json)
    if not tally.complete:
        say_how_to_go_on(tally.last_key or start_after, error, state, dry_run=not sending)
    return stop.exit_code or (1 if error else 0)


def refusal(error: BaseException) -> bool:
    """Say whether the store answered that there is something to mend: no such table, no permission."""
    return error.__cause__ is not None and error_code(error.__cause__) in PERMANENT


def _tell_what_is_odd(index: RecordIndex) -> None:
    if not index.records:
        click.echo(f"brigade: {index.store.url} has no record of {index.task}: is it the workers' store?", err=True)
    if index.own_keys:
        click.echo(
            f"brigade: {index.own_keys} records of {index.task} are of an idempotency_key: what was completed under "
            "one is not known here",
            err=True,
        )


def _listed(
    unfinished: Iterator[tuple[ObjectRecord, Standing]], *, show: bool, as_json: bool
) -> Iterator[ObjectRecord]:
    for obj, found in unfinished:
        if show:
            click.echo(as_line(obj, found) if as_json else _row(obj, found))
        yield obj


def _row(obj: ObjectRecord, found: Standing) -> str:
    status = f"{found.status} ({found.failures})" if found.failures else found.status
    version = f"  version {obj.version_id}" if obj.version_id else ""
    return f"{status:<12}  s3://{obj.bucket}/{printable(obj.key)}  {obj.size} bytes  {obj.event_time}{version}"


def _report(
    wanted: Reconciliation,
    comparison: _Comparison,
    tally: BackfillTally,
    *,
    enqueue: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    counts = {status: comparison.found[status] for status in STATUSES if comparison.found[status]}
    sent = tally.objects if enqueue and not dry_run else 0
    if as_json:
        summary = {
            **wanted.identity(),
            "dry_run": dry_run,
            "compared": comparison.found.total(),
            "counts": {status: comparison.found[status] for status in STATUSES},
            "skipped": dict(sorted(comparison.skipped.items())),
            "selected": tally.objects,
            "selected_bytes": tally.size_bytes,
            "sent": sent,
            "last_key": tally.last_key,
            "complete": tally.complete,
        }
        click.echo(json.dumps({"summary": summary}))
        return
    line = f"{wanted.task}: {comparison.found['completed']} of {comparison.found.total()} objects are completed"
    if rest := ", ".join(f"{status} {count}" for status, count in counts.items() if status != "completed"):
        line += f"; {rest}"
    if comparison.skipped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(comparison.skipped.items()))
        line += f"; skipped {comparison.skipped.total()}: {reasons}"
    click.echo(line)
    if enqueue:
        target = wanted.backfill.target
        verb = "would send" if dry_run else "sent"
        to = f"task {target.task}" if target.task else target.queue_url
        click.echo(f"{verb} {tally.objects} objects ({tally.size_bytes} bytes) to {to}")
