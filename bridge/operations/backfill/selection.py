"""Which listed objects a backfill sends, and the record of each. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bridge.globs import matches
from bridge.messages.routing import is_own_output
from bridge.s3.event import ObjectRecord
from bridge.s3.event_body import EVENT_NAME, event_time
from bridge.s3.types import Listed

#: Objects of these classes cannot be read before they are restored (RestoreObject, S3 API reference).
_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})

Skipped = Literal["own-output", "archived", "key", "size", "modified"]


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
