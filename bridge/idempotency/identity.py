"""Which deliveries are the same: the identity of an event, and the id of its record. Pure.

Two notifications are one event when bucket, key, event family, version id, eTag and sequencer are the same; where S3
gives no sequencer (tags, ACLs, restores) the event's whole name and its time take its place. The family is what stands
before the colon of S3's event name, so a removal, a tag change and a creation of one version are three events, and the
S3 and the EventBridge notification of one creation are one
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from bridge.s3.event import ObjectRecord

#: 128 bits of SHA-256: enough that two different events never share a record, and half as long.
_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a run wants to claim: the record's ``id``, and the ``event`` it wants to claim it for.

    With ``latest_only`` the record is one for all events of an object, which ``sequencer`` puts in order. ``about``
    says to people what the record is of, ``version`` (see ``version_of``) which version of the object, for what has
    only the object to compare with.
    """

    id: str
    event: str
    sequencer: str | None = None
    latest_only: bool = False
    about: str = ""
    version: Mapping[str, str] = field(default_factory=dict, hash=False)


def of_record(task: str, record: ObjectRecord, *, latest_only: bool = False) -> ClaimRequest:
    """Return what a task claims for one record of an S3 event."""
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
    """Return what a task claims for a key of its own (``idempotency_key=``); raises TypeError for an empty one."""
    if not isinstance(key, str) or not key:
        raise TypeError(f"idempotency_key must give a text that is not empty, not {key!r}")
    digest = _digest(key)
    return ClaimRequest(id=f"{_name(task)}/key/{digest}", event=digest, about=key[:200])


def of_message(task: str, message_id: str) -> ClaimRequest:
    """Return what a task claims for one SQS message."""
    return ClaimRequest(id=f"{_name(task)}/message/{_digest(message_id)}", event=message_id, about=f"sqs:{message_id}")


def version_of(record: ObjectRecord) -> dict[str, str]:
    """Return ``family``, ``version_id`` and ``etag`` of an event, those that it has: what a listing can be held to.

    A digest tells nothing of what went into it, and no listing of S3 has the sequencer.
    """
    values = {"family": _family(record), "version_id": record.version_id, "etag": record.etag}
    return {name: value for name, value in values.items() if value}


def task_folder(task: str) -> str:
    """Return what the ids of all records of a task begin with."""
    return f"{_name(task)}/"


def object_folder(task: str, bucket: str, key: str) -> str:
    """Return what the ids of all records of a task and an object begin with."""
    return f"{_name(task)}/{_digest(bucket, key)}/"


def is_older(sequencer: str | None, than: str | None) -> bool:
    """Say whether one sequencer of an object's key comes before another; False when one of them is unknown.

    AWS: pad the shorter one with zeros on the right, then compare as texts
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html, "sequencer").
    """
    if sequencer is None or than is None:
        return False
    return _ordered(sequencer) < _ordered(than)


def is_same(sequencer: str | None, other: str | None) -> bool:
    """Say whether two sequencers of an object's key are of one event; False when one of them is unknown."""
    return sequencer is not None and other is not None and _ordered(sequencer) == _ordered(other)


def _ordered(sequencer: str) -> str:
    # Without the zeros on the right the texts compare as they do with enough of them.
    return sequencer.upper().rstrip("0")


def _event(record: ObjectRecord) -> str:
    if record.sequencer:
        which: list[str | None] = [_family(record), _ordered(record.sequencer)]
    else:
        # A tag that is set and deleted within a second differs by the name alone.
        which = [record.event_name, record.event_time]
    return _digest(json.dumps([record.version_id, record.etag, which]))


def _family(record: ObjectRecord) -> str:
    return record.event_name.partition(":")[0]


def _digest(*parts: str) -> str:
    text = json.dumps(parts)  # not joined by a separator: keys may hold every character
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _name(task: str) -> str:
    quoted = quote(task, safe="")  # a task's name is free: "/" in it would be another folder
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")  # ".." is a way up to some clients of S3
