"""How an object of a bucket stands with a task: its records in the idempotency store → completed, or why not. Pure.

Compared are objects, not events: a record is of the object's present version when its version id is the same or, where
one of the two has none (a bucket without versioning, a listing without version ids), its eTag. An object that was
written again with the very same bytes has the same eTag, and so counts as completed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from bridge.idempotency.identity import task_folder
from bridge.idempotency.record import Record, UnreadableRecord, from_json, to_json
from bridge.messages.routing import Route
from bridge.s3.event import ObjectRecord

Status = Literal["completed", "in-progress", "failed", "released", "outdated", "never-seen", "too-old", "unreadable"]
STATUSES: tuple[Status, ...] = get_args(Status)
#: What is sent unless the user says otherwise: all of which it is known that no run has completed it or is at it.
UNFINISHED: tuple[Status, ...] = ("never-seen", "failed", "released", "outdated")

#: The events that say "this object is there now"; a record of another kind (tags, removal) completes no creation.
_CREATION = "ObjectCreated"
_REMOVAL = "ObjectRemoved"
_OWN_KEYS = ("key", "message")
_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one object: ``failures`` counts failed runs on its present version."""

    status: Status
    failures: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    """One event of an object as a record has it."""

    version: Mapping[str, str]
    state: Literal["completed", "in-progress", "released"]
    failures: int = 0


def standing(
    obj: ObjectRecord, records: Iterable[tuple[str, str]], *, now: float, remembered_seconds: float
) -> Standing:
    """Return how a listed object stands by all records of its task and itself, as (name in the folder, text).

    ``now`` is seconds since 1970. The store remembers a completion for ``remembered_seconds``: an object without any
    record that was modified before that is ``too-old`` to tell. ``released`` were begun and let go without a failure
    (handed back, or their worker died); ``outdated`` have records of other versions only.
    """
    runs: list[_Run] = []
    for name, text in records:
        try:
            runs += _runs(from_json(text), now, latest=name == _LATEST)
        except UnreadableRecord:
            return Standing("unreadable")
    present = [run for run in runs if _is_present(run.version, obj)]
    failures = sum(run.failures for run in present)
    states = {run.state for run in present}
    if "completed" in states:
        return Standing("completed", failures)
    if "in-progress" in states:
        return Standing("in-progress", failures)
    if present:
        return Standing("failed" if failures else "released", failures)
    if runs:
        return Standing("outdated")
    modified = datetime.fromisoformat(obj.event_time).timestamp() if obj.event_time else now
    return Standing("too-old" if modified < now - remembered_seconds else "never-seen")


def slim(text: str) -> str:
    """Return a record's text without what ``standing`` does not ask for; "" for an unreadable one, which stays so."""
    try:
        return to_json(replace(from_json(text), progress=None, result=None, about=""))
    except UnreadableRecord:
        return ""


def place(task: str, record_id: str) -> tuple[str, str] | None:
    """Return folder and name of a record within its task's folder; None for an id that is none of ours."""
    parts = record_id.removeprefix(task_folder(task)).split("/")
    return (parts[0], parts[1]) if len(parts) == 2 and all(parts) else None


def is_own_key(folder: str) -> bool:
    """Say whether records in this folder are of keys of the user's own, or of messages: no object is in their ids."""
    return folder in _OWN_KEYS


def not_taken(routes: Sequence[Route], task: str, obj: ObjectRecord) -> str | None:
    """Return why a worker would not give this object's event to the task, None when it would."""
    takers = (route for route in routes if route.takes_object(obj) or (route.everything and route.takes_attributes({})))
    first = next(takers, None)
    if first is None or first.task != task:
        return "other-task" if first else "unrouted"
    return "too-large" if first.max_bytes is not None and (obj.size or 0) > first.max_bytes else None


def as_line(obj: ObjectRecord, found: Standing) -> str:
    """Return one JSON line about an object."""
    return json.dumps(
        {
            "status": found.status,
            "failures": found.failures,
            "bucket": obj.bucket,
            "key": obj.key,
            "version_id": obj.version_id,
            "etag": obj.etag,
            "size": obj.size,
            "modified": obj.event_time,
        }
    )


def _runs(record: Record, now: float, *, latest: bool) -> Iterator[_Run]:
    # With latest_only one record has two events: the newest completed one, and one that was claimed after it.
    failures = sum(record.failures.values())
    if record.done_event is not None and _counts(record.completed_version, latest=latest):
        yield _Run(record.completed_version, "completed", 0 if latest else failures)
    if record.status != "completed" and _counts(record.version, latest=latest):
        live = record.status == "in-progress" and record.claimed_until > now
        yield _Run(record.version, "in-progress" if live else "released", failures)


def _counts(version: Mapping[str, str], *, latest: bool) -> bool:
    # latest_only keeps the newest event alone: a tag that was set after the object was put stands for both.
    family = version.get("family")
    return family == _CREATION or (latest and family != _REMOVAL)


def _is_present(version: Mapping[str, str], obj: ObjectRecord) -> bool:
    theirs, ours = version.get("version_id"), obj.version_id
    if theirs and ours and "null" not in (theirs, ours):
        return theirs == ours
    return obj.etag is not None and version.get("etag") == obj.etag
