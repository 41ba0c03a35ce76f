"""Write and read dead-lettered messages: body and attributes unchanged, plus one attribute with the cause. Pure.

``BridgeCause`` is JSON text with the keys of ``CAUSE_KEYS``. SQS allows ten message attributes, and their names, types
and values count towards the message's size. A message that already has ten gets no cause (the log has it). A long cause
is cut until it fits, its traceback from the front.

The reader trusts no field: anyone with write access to a queue can write a ``BridgeCause``, and SQS itself moves a
message with all its attributes. A field that does not have the form that the bridge writes counts as absent.

Source of the limits: SendMessage, AWS API reference; "Amazon SQS message quotas".
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.errors import MalformedEvent
from bridge.messages.verdicts import DeadLetter
from bridge.s3.event import parse
from bridge.sqs.quotas import MAX_MESSAGE_ATTRIBUTES
from bridge.times import iso_utc

CAUSE_ATTRIBUTE = "BridgeCause"
CAUSE_KEYS = (
    "version",
    "reason",
    "error_type",
    "error",
    "traceback",
    "task",
    "task_id",
    "attempts",
    "source_queue",
    "first_received_at",
    "dead_lettered_at",
    "worker",
)
#: How many times a message was redriven from a dead-letter queue; an attribute of type Number.
REDRIVES_ATTRIBUTE = "BridgeRedrives"
#: Redrives without ``--force``: what has failed after three of them fails for a reason that a fourth does not remove.
MAX_REDRIVES = 3
#: The reason of a message without a cause: SQS itself moved it (maxReceiveCount), or the cause did not fit.
NO_CAUSE = "no-cause"
#: The cause keeps the tail of a longer traceback, where the error is, and the head of a longer error.
MAX_TRACEBACK_CHARACTERS = 8_000
MAX_ERROR_CHARACTERS = 2_000


def cause(
    verdict: DeadLetter,
    *,
    raw: Mapping[str, Any],
    task: str | None,
    task_id: str,
    attempts: int,
    source_queue: str,
    now: float,
    worker: str,
) -> dict[str, Any]:
    """Return the cause as a dict with ``CAUSE_KEYS``; its times are ISO 8601 in UTC, ``now`` is in epoch seconds."""
    first = (raw.get("Attributes") or {}).get("ApproximateFirstReceiveTimestamp")
    return {
        "version": 1,
        "reason": verdict.reason,
        "error_type": verdict.error_type,
        "error": _head(verdict.error, MAX_ERROR_CHARACTERS),
        "traceback": _tail(verdict.traceback, MAX_TRACEBACK_CHARACTERS),
        "task": task,
        "task_id": task_id,
        "attempts": attempts,
        "source_queue": source_queue,
        "first_received_at": iso_utc(int(first) / 1000) if first else None,
        "dead_lettered_at": iso_utc(now),
        "worker": worker,
    }


def send_arguments(raw: Mapping[str, Any], why: Mapping[str, Any], *, queue_url: str, max_bytes: int) -> dict[str, Any]:
    """Return the arguments of SendMessage for a dead-lettered message; without a cause when it does not fit.

    A cause from an earlier stay in a dead-letter queue is replaced. ``max_bytes`` is the size limit of the dead-letter
    queue.
    """
    attributes = {
        name: sendable(value) for name, value in (raw.get("MessageAttributes") or {}).items() if name != CAUSE_ATTRIBUTE
    }
    arguments: dict[str, Any] = {"QueueUrl": queue_url, "MessageBody": raw["Body"]}
    if len(attributes) < MAX_MESSAGE_ATTRIBUTES:
        used = len(raw["Body"].encode("utf-8", "surrogatepass")) + sum(size_bytes(n, v) for n, v in attributes.items())
        text = fitted(why, max_bytes - used - len(CAUSE_ATTRIBUTE) - len("String"))
        if text is not None:
            attributes[CAUSE_ATTRIBUTE] = {"DataType": "String", "StringValue": text}
    if attributes:
        arguments["MessageAttributes"] = attributes
    trace = (raw.get("Attributes") or {}).get("AWSTraceHeader")
    if trace:
        arguments["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
    return arguments


def fitted(why: Mapping[str, Any], max_bytes: int) -> str | None:
    """Return the cause as JSON of at most ``max_bytes``, first traceback, then error cut to fit; None if impossible."""
    # JSON's ASCII escapes also avoid the characters that SQS refuses (control characters, lone surrogates).
    for traceback_share, error_share in ((1.0, 1.0), (0.5, 1.0), (0.2, 1.0), (0.05, 0.5), (0.0, 0.25), (0.0, 0.0)):
        cut = {
            **why,
            "traceback": _tail(why["traceback"], int(MAX_TRACEBACK_CHARACTERS * traceback_share)),
            "error": _head(why["error"], int(MAX_ERROR_CHARACTERS * error_share)),
        }
        text = json.dumps(cut)
        if len(text) <= max_bytes:
            return text
    return None


def sendable(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of a received message attribute in the form that SendMessage accepts."""
    # A receive may also return StringListValues and BinaryListValues, which SendMessage refuses.
    return {k: value[k] for k in ("DataType", "StringValue", "BinaryValue") if k in value}


def size_bytes(name: str, value: Mapping[str, Any]) -> int:
    """Return how many bytes a message attribute adds to the size of its message, as SQS counts it."""
    content = value.get("StringValue", "").encode("utf-8", "surrogatepass") or value.get("BinaryValue", b"")
    return len(name.encode()) + len(str(value.get("DataType", ""))) + len(content)


def _head(text: str | None, characters: int) -> str | None:
    return text if text is None or len(text) <= characters else text[:characters] + "…"


def _tail(text: str | None, characters: int) -> str | None:
    if text is None or len(text) <= characters:
        return text
    return "…" + text[len(text) - characters :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message of a dead-letter queue.

    ``id`` is the task id under which the worker logged it, else the MessageId. ``when`` is the time it was
    dead-lettered, else the time it was sent, in epoch seconds. ``sent_at`` is SQS's SentTimestamp in epoch seconds. SQS
    sets ``source_arn`` for messages that it moved itself. ``objects`` are pairs (bucket, key).
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
        """Return the fields that a list shows, as JSON values."""
        return {
            "id": self.id,
            "message_id": self.message_id,
            "when": None if self.when is None else iso_utc(self.when),
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
        """Return the whole message as JSON values; ``body`` and ``message_attributes`` suffice to send it again."""
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
    """Read one message of a ReceiveMessage answer. Never raises, whatever its body and attributes hold."""
    system = raw.get("Attributes") or {}
    why = _cause(raw)
    fields: Mapping[str, Any] = why or {}
    sent = str(system.get("SentTimestamp") or "")
    sent_at = int(sent) / 1000 if re.fullmatch(r"[0-9]{1,15}", sent) else None
    moved = _epoch(_text(fields, "dead_lettered_at"))
    arn = _text(system, "DeadLetterQueueSourceArn")
    return Letter(
        id=_text(fields, "task_id") or raw["MessageId"],
        message_id=raw["MessageId"],
        when=sent_at if moved is None else moved,
        sent_at=sent_at,
        reason=_text(fields, "reason") or NO_CAUSE,
        task=_text(fields, "task"),
        error_type=_text(fields, "error_type"),
        error=_text(fields, "error"),
        traceback=_text(fields, "traceback"),
        attempts=_number(fields, "attempts"),
        # SQS's own attribute takes precedence over one that anyone may have written.
        source_queue=arn.rpartition(":")[2] if arn else _text(fields, "source_queue"),
        source_arn=arn,
        worker=_text(fields, "worker"),
        redrives=_redrives(raw),
        objects=_objects(raw["Body"]),
        cause=why,
        raw=raw,
    )


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
        datetime.fromtimestamp(epoch_seconds, UTC)  # raises for the last hours of 9999, which UTC cannot represent
    except (ValueError, OverflowError):
        return None
    return epoch_seconds


def _in_json(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value[name] for name in ("DataType", "StringValue", "BinaryValue") if name in value}
    if isinstance(kept.get("BinaryValue"), bytes):
        kept["BinaryValue"] = base64.b64encode(kept["BinaryValue"]).decode("ascii")
    return kept
