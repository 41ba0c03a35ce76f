"""The dead letter: the original body, byte for byte, with its attributes and one more that says why it is here.

``BridgeCause`` is a JSON text with the keys of ``CAUSE_KEYS``. SQS allows ten message attributes and counts them, their
names and types included, in the message's size: a message that already has ten goes without a cause (it is logged),
and a long cause is cut, its traceback from the front, to what still fits.
Source of the limits: SendMessage, AWS API reference; "Amazon SQS message quotas".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.sqs.quotas import MAX_MESSAGE_ATTRIBUTES
from bridge.verdicts import DeadLetter

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
#: A cause longer than this helps nobody; the tail of a traceback is where the error is.
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
    """Return the cause as a dict of ``CAUSE_KEYS``; times are ISO 8601 in UTC, ``now`` is seconds since the epoch."""
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
        "first_received_at": _iso(int(first) / 1000) if first else None,
        "dead_lettered_at": _iso(now),
        "worker": worker,
    }


def send_arguments(raw: Mapping[str, Any], why: Mapping[str, Any], *, queue_url: str, max_bytes: int) -> dict[str, Any]:
    """Return the arguments of SendMessage for a dead letter; without a cause when there is no room for one.

    A cause left over from an earlier stay in a dead-letter queue is replaced.
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
    """Return the cause as JSON of at most ``max_bytes``, traceback and then error cut to fit; None if that fails."""
    # ASCII escapes also keep out the characters that SQS refuses (control characters, lone surrogates).
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
    """Return a received message attribute's value as SendMessage takes it."""
    # A receive may also answer StringListValues and BinaryListValues, which SendMessage refuses.
    return {k: value[k] for k in ("DataType", "StringValue", "BinaryValue") if k in value}


def size_bytes(name: str, value: Mapping[str, Any]) -> int:
    """Return what a message attribute adds to the size of its message, as SQS counts it."""
    content = value.get("StringValue", "").encode("utf-8", "surrogatepass") or value.get("BinaryValue", b"")
    return len(name.encode()) + len(str(value.get("DataType", ""))) + len(content)


def _head(text: str | None, characters: int) -> str | None:
    return text if text is None or len(text) <= characters else text[:characters] + "…"


def _tail(text: str | None, characters: int) -> str | None:
    if text is None or len(text) <= characters:
        return text
    return "…" + text[len(text) - characters :]


def _iso(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds")
