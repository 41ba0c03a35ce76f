"""What a backfill sends: listed objects → those that are chosen → the message of each. Pure.

A synthetic event has the form that S3 itself sends (``notification-content-structure.html`` in the S3 user guide), so
that a worker, and any other reader of the queue, takes it like a real one. Two things S3 lists of no object: how it
came to be, so the name is always ``ObjectCreated:Put``, and its sequencer, so there is none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote_plus

from bridge.globs import matches
from bridge.routing import is_own_output
from bridge.s3_event import ObjectRecord

#: The name of the notification configuration in a real event; here it says where the event comes from.
CONFIGURATION_ID = "brigade-backfill"
EVENT_NAME = "ObjectCreated:Put"

#: Objects of these classes cannot be read before they are restored (RestoreObject, S3 API reference).
_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})

Skipped = Literal["own-output", "archived", "key", "size", "modified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object as S3 lists it: ``size`` in bytes, ``modified`` with its time zone, ``etag`` without quotes.

    ``version_id`` is None where the listing has none, and for the version ``null``, which S3's events leave out too.
    """

    key: str
    size: int
    modified: datetime
    etag: str | None = None
    version_id: str | None = None
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects of a bucket are sent.

    ``include`` (any must match, none given: all) and ``exclude`` (none may match) are globs for whole keys as in
    ``file_task``. Sizes are in bytes, both ends included; ``since`` is included, ``until`` is not. ``own_outputs`` are
    (bucket, prefix): what lies there is never sent, for its event would only be ignored.
    """

    bucket: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    archived: bool = False
    own_outputs: tuple[tuple[str, str], ...] = ()

    def skips(self, listed: Listed) -> Skipped | None:
        """Return why this object is not sent, or None when it is."""
        if is_own_output(ObjectRecord(bucket=self.bucket, key=listed.key), self.own_outputs):
            return "own-output"
        if self.include and not any(matches(glob, listed.key) for glob in self.include):
            return "key"
        if any(matches(glob, listed.key) for glob in self.exclude):
            return "key"
        if not (self.min_size or 0) <= listed.size or (self.max_size is not None and listed.size > self.max_size):
            return "size"
        if (self.since and listed.modified < self.since) or (self.until and listed.modified >= self.until):
            return "modified"
        if listed.storage_class in _ARCHIVED and not self.archived:
            return "archived"
        return None


def chosen(
    listing: Iterable[Listed], selection: Selection, region: str | None, skipped: Counter[Skipped]
) -> Iterator[ObjectRecord]:
    """Yield the record of each object that is to be sent, in the order of the listing.

    ``region`` is the bucket's. What is left out is counted in ``skipped`` by its reason.
    """
    for listed in listing:
        if (reason := selection.skips(listed)) is not None:
            skipped[reason] += 1
        else:
            yield record_of(selection.bucket, listed, region)


def record_of(bucket: str, listed: Listed, region: str | None) -> ObjectRecord:
    """Return what the event of a listed object says; its time is when the object was last modified."""
    return ObjectRecord(
        bucket=bucket,
        key=listed.key,
        version_id=listed.version_id,
        etag=listed.etag,
        size=listed.size,
        event_name=EVENT_NAME,
        event_time=event_time(listed.modified),
        region=region,
    )


def event_body(record: ObjectRecord) -> str:
    """Return the message body that announces one object as S3 would."""
    described = {"key": encoded_key(record.key), "size": record.size, "eTag": record.etag}
    event = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": record.region,
        "eventTime": record.event_time,
        "eventName": record.event_name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": CONFIGURATION_ID,
            "bucket": {"name": record.bucket, "arn": f"arn:aws:s3:::{record.bucket}"},
            "object": _without_none({**described, "versionId": record.version_id}),
        },
    }
    return json.dumps({"Records": [_without_none(event)]})


def task_body(record: ObjectRecord, task: str, task_id: str, origin: str) -> str:
    """Return the body with which ``task.delay(obj)`` would send this object to the task queue.

    Celery's protocol 2 (docs.celeryq.dev/en/stable/internals/protocol.html) in the envelope of Kombu's SQS transport.
    Written here because Kombu sends one message a call, and a backfill sends ten. ``origin`` names the sending process.
    """
    arguments = [[record.to_dict()], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    message = {
        "body": json.dumps(arguments),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": task_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": f"s3://{record.bucket}/{record.key}",
            "kwargsrepr": "{}",
            "origin": origin,
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": ""},
            "priority": 0,
            "delivery_tag": task_id,
        },
    }
    return json.dumps(message)


def encoded_key(key: str) -> str:
    """Return a key as S3 writes it into an event: as HTML forms do, with "/" left as it is."""
    return quote_plus(key, safe="/")


def event_time(moment: datetime) -> str:
    """Return a moment as S3's events have it: UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
