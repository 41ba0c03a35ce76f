"""What a backfill says of itself: its summary, and how to go on after it was stopped."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from bridge.operations.backfill.selection import Skipped
from bridge.operations.backfill.state import BackfillState
from bridge.s3.event import ObjectRecord


@dataclass
class BackfillTally:
    """What has happened so far: objects sent (or, in a dry run, to be sent), up to ``last_key``."""

    objects: int = 0
    size_bytes: int = 0
    last_key: str | None = None
    complete: bool = False
    skipped: Counter[Skipped] = field(default_factory=Counter)
    calls: int = 0

    def add(self, records: Sequence[ObjectRecord]) -> None:
        """Count these, at least one, in their order."""
        self.objects += len(records)
        self.size_bytes += sum(r.size or 0 for r in records)
        self.last_key = records[-1].key


def report(
    identity: Mapping[str, Any], region: str | None, tally: BackfillTally, *, dry_run: bool, as_json: bool
) -> None:
    """Print the summary; ``identity`` is Backfill.identity(), ``region`` the bucket's."""
    if as_json:
        summary = {
            **identity,
            "dry_run": dry_run,
            "objects": tally.objects,
            "bytes": tally.size_bytes,
            "skipped": dict(sorted(tally.skipped.items())),
            "last_key": tally.last_key,
            "complete": tally.complete,
            "send_calls": tally.calls,
            "region": region,
        }
        click.echo(json.dumps(summary))
        return
    target = f"task {identity['task']}" if identity["task"] else identity["queue"]
    verb = "would send" if dry_run else "sent"
    line = f"{verb} {tally.objects} objects ({tally.size_bytes} bytes) to {target}"
    if tally.skipped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.skipped.items()))
        line += f"; skipped {tally.skipped.total()}: {reasons}"
    click.echo(line)


def say_how_to_go_on(last_key: str | None, error: str | None, state: BackfillState | None, *, dry_run: bool) -> None:
    """Print, in one line on standard error, why it ended early and what goes on behind ``last_key``."""
    why = f"stopped: {error}" if error else "stopped"
    if dry_run:
        how = "nothing was sent"
    elif state is not None:
        how = "the same command again goes on"
    elif last_key is None:
        how = "nothing was confirmed as sent: the same command again begins anew"
    elif last_key.isprintable():
        how = f"go on with the same command and --start-after {shlex.quote(last_key)}"
    else:
        how = f"go on with the same command and --start-after the key {last_key!r} (--state FILE remembers such keys)"
    click.echo(f"brigade: {why}; {how}", err=True)
