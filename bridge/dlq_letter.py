"""What a dead letter says of itself: its cause, how often it was redriven, the objects it tells of. Pure.

Anyone who may write to a queue may write a ``BridgeCause`` of their own: SQS itself moves a message with whatever
attributes it has. So every field is read as untrusted, and what is not of the form that the bridge writes is absent.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.dead_letter import CAUSE_ATTRIBUTE
from bridge.errors import MalformedEvent
from bridge.s3.event import parse

#: How often a message was sent back from a dead-letter queue; a Number.
REDRIVES_ATTRIBUTE = "BridgeRedrives"
#: The reason of a letter without a cause: SQS itself moved it (maxReceiveCount), or there was no room for a cause.
NO_CAUSE = "no-cause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message of a dead-letter queue.

    ``id`` is the id under which the worker logged it (the task's id), or else the MessageId; ``when`` is the moment it
    was dead-lettered, or else when it was sent, in seconds since the epoch; ``sent_at`` is SQS's own SentTimestamp.
    ``source_arn`` is set by SQS for the messages that it moved itself. ``objects`` are (bucket, key).
    """

    id: str
    message_id: str
    when: float | None
    sent_at: float | None
    reason: str
    task: str | None
    error_type: str | None
    error: str | None
    traceback: str | None
    attempts: int | None
    source_queue: str | None
    source_arn: str | None
    worker: str | None
    redrives: int
    objects: tuple[tuple[str, str], ...]
    cause: Mapping[str, Any] | None
    raw: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return what a list shows of it, ready for JSON."""
        return {
            "id": self.id,
            "message_id": self.message_id,
            "when": iso(self.when),
            "reason": self.reason,
            "task": self.task,
            "error_type": self.error_type,
            "error": self.error,
            "objects": [{"bucket": bucket, "key": key} for bucket, key in self.objects],
            "attempts": self.attempts,
            "redrives": self.redrives,
            "source_queue": self.source_queue,
        }

    def whole(self) -> dict[str, Any]:
        """Return all of it, ready for JSON: from ``body`` and ``message_attributes`` it can be sent again."""
        return {
            **self.summary(),
            "worker": self.worker,
            "cause": self.cause,
            "body": self.raw["Body"],
            "message_attributes": {
                name: _in_json(value) for name, value in (self.raw.get("MessageAttributes") or {}).items()
            },
            "attributes": dict(self.raw.get("Attributes") or {}),
        }


def read_letter(raw: Mapping[str, Any]) -> Letter:
    """Read one entry of a ReceiveMessage answer. Never raises, whatever its body and attributes hold."""
    system = raw.get("Attributes") or {}
    why = _cause(raw)
    told: Mapping[str, Any] = why or {}
    sent = str(system.get("SentTimestamp") or "")
    sent_at = int(sent) / 1000 if re.fullmatch(r"[0-9]{1,15}", sent) else None
    moved = _epoch(_text(told, "dead_lettered_at"))
    arn = _text(system, "DeadLetterQueueSourceArn")
    return Letter(
        id=_text(told, "task_id") or raw["MessageId"],
        message_id=raw["MessageId"],
        when=sent_at if moved is None else moved,
        sent_at=sent_at,
        reason=_text(told, "reason") or NO_CAUSE,
        task=_text(told, "task"),
        error_type=_text(told, "error_type"),
        error=_text(told, "error"),
        traceback=_text(told, "traceback"),
        attempts=_number(told, "attempts"),
        # SQS's own word counts for more than an attribute that anyone may have written.
        source_queue=arn.rpartition(":")[2] if arn else _text(told, "source_queue"),
        source_arn=arn,
        worker=_text(told, "worker"),
        redrives=_redrives(raw),
        objects=_objects(raw["Body"]),
        cause=why,
        raw=raw,
    )


def iso(epoch_seconds: float | None) -> str | None:
    """Return a moment as ISO 8601 text in UTC, to the millisecond."""
    if epoch_seconds is None:
        return None
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds")


def _cause(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        value = json.loads(_attribute(raw, CAUSE_ATTRIBUTE) or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _redrives(raw: Mapping[str, Any]) -> int:
    text = _attribute(raw, REDRIVES_ATTRIBUTE) or ""
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0


def _attribute(raw: Mapping[str, Any], name: str) -> str | None:
    return _text((raw.get("MessageAttributes") or {}).get(name) or {}, "StringValue")


def _objects(body: str) -> tuple[tuple[str, str], ...]:
    try:
        event = parse(body)
    except MalformedEvent:
        return ()
    return tuple((record.bucket, record.key) for record in event) if isinstance(event, tuple) else ()


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) and value else None


def _number(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _epoch(text: str | None) -> float | None:
    try:
        moment = datetime.fromisoformat(text or "")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        epoch_seconds = moment.timestamp()
        datetime.fromtimestamp(epoch_seconds, UTC)  # the last hours of year 9999 cannot be shown in UTC
    except (ValueError, OverflowError):
        return None
    return epoch_seconds


def _in_json(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value[name] for name in ("DataType", "StringValue", "BinaryValue") if name in value}
    if isinstance(kept.get("BinaryValue"), bytes):
        kept["BinaryValue"] = base64.b64encode(kept["BinaryValue"]).decode("ascii")
    return kept
