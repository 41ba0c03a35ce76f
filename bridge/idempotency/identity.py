"""Which deliveries are the same event: the identity of an event, and the id of its record. Pure.

Two notifications are the same event when bucket, key, event family, version id, eTag and sequencer are equal. For
events without a sequencer (tags, ACLs, restores) the full event name and the event time take its place. The family is
the part before the colon of S3's event name. So a removal, a tag change and a creation of one version are three events,
while the S3 and the EventBridge notification of one creation are the same event
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from bridge.s3.event import ObjectRecord

#: Hex digits, so 128 bits of SHA-256: enough that no two events share a record, at half the length.
_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a run wants to claim: the ``id`` of the record, and the ``event`` to claim it for.

    With ``latest_only`` all events of an object share one record, and ``sequencer`` orders them. ``about`` names the
    subject of the record for people. ``version`` (see ``version_of``) identifies the object's version, for a comparison
    with a listing.
    """

    id: str
    event: str
    sequencer: str | None = None
    latest_only: bool = False
    about: str = ""
    version: Mapping[str, str] = field(default_factory=dict, hash=False)


def of_record(task: str, record: ObjectRecord, *, latest_only: bool = False) -> ClaimRequest:
    """Return the claim request of a task for one record of an S3 event."""
    event = _event(record)
    folder = f"{_name(task)}/{_digest(record.bucket, record.key)}"
    return ClaimRequest(
        id=f"{folder}/latest" if latest_only else f"{folder}/{event}",
        event=event,
        sequencer=record.sequencer,
        latest_only=latest_only,
        about=f"s3://{record.bucket}/{record.key}",
        version=version_of(record),
    )


def of_key(task: str, key: str) -> ClaimRequest:
    """Return the claim request for a task's own key (``idempotency_key=``); raises TypeError for an empty key."""
    if not isinstance(key, str) or not key:
        raise TypeError(f"idempotency_key must return a non-empty str, not {key!r}")
    digest = _digest(key)
    return ClaimRequest(id=f"{_name(task)}/key/{digest}", event=digest, about=key[:200])


def of_message(task: str, message_id: str) -> ClaimRequest:
    """Return the claim request of a task for one SQS message."""
    return ClaimRequest(id=f"{_name(task)}/message/{_digest(message_id)}", event=message_id, about=f"sqs:{message_id}")


def version_of(record: ObjectRecord) -> dict[str, str]:
    """Return those of ``family``, ``version_id`` and ``etag`` that an event has, for comparison with a listing.

    The record's id is a digest, from which they cannot be recovered, and no S3 listing has the sequencer.
    """
    values = {"family": _family(record), "version_id": record.version_id, "etag": record.etag}
    return {name: value for name, value in values.items() if value}


def task_folder(task: str) -> str:
    """Return the prefix of the ids of all records of a task."""
    return f"{_name(task)}/"


def object_folder(task: str, bucket: str, key: str) -> str:
    """Return the prefix of the ids of all records of a task for one object."""
    return f"{_name(task)}/{_digest(bucket, key)}/"


def is_older(sequencer: str | None, than: str | None) -> bool:
    """Return whether one sequencer of an object's key comes before another; False when one of them is unknown.

    AWS: pad the shorter one with zeros on the right, then compare them as strings
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html, "sequencer").
    """
    if sequencer is None or than is None:
        return False
    return _ordered(sequencer) < _ordered(than)


def is_same(sequencer: str | None, other: str | None) -> bool:
    """Return whether two sequencers of an object's key are equal; False when one of them is unknown."""
    return sequencer is not None and other is not None and _ordered(sequencer) == _ordered(other)


def _ordered(sequencer: str) -> str:
    # Strings without zeros on the right compare like strings padded with zeros to the same length.
    return sequencer.upper().rstrip("0")


def _event(record: ObjectRecord) -> str:
    if record.sequencer:
        which: list[str | None] = [_family(record), _ordered(record.sequencer)]
    else:
        # Setting and deleting a tag within one second differ only in the event name.
        which = [record.event_name, record.event_time]
    return _digest(json.dumps([record.version_id, record.etag, which]))


def _family(record: ObjectRecord) -> str:
    return record.event_name.partition(":")[0]


def _digest(*parts: str) -> str:
    text = json.dumps(parts)  # not joined by a separator, because keys may contain any character
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _name(task: str) -> str:
    quoted = quote(task, safe="")  # a task name may contain "/", which would be another folder
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")  # some S3 clients resolve ".." as the parent
