"""Message: the argument of a ``message_task``, one SQS message unchanged.

It converts to JSON and back, so it can be a Celery argument. Binary attribute values become base64. Pure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Message:
    """One SQS message.

    ``attributes`` are SQS's system attributes (SentTimestamp, ApproximateReceiveCount, AWSTraceHeader…) as SQS's
    strings. ``message_attributes`` have SQS's own shape: name → ``{"DataType": …, "StringValue": …}`` or
    ``{"DataType": …, "BinaryValue": bytes}``. ``attempt`` counts from 1.
    Source of the fields: ReceiveMessage, AWS API reference.
    """

    id: str
    body: str
    queue_url: str
    receipt_handle: str
    received_at: datetime
    attempt: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    message_attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def sent_at(self) -> datetime | None:
        """When the message was sent (UTC), or None if the server does not report it."""
        sent = self.attributes.get("SentTimestamp")
        return datetime.fromtimestamp(int(sent) / 1000, UTC) if sent else None

    def json(self) -> Any:
        """Return the body parsed as JSON; raises ValueError when it is not JSON."""
        return json.loads(self.body)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON values from which ``from_dict`` makes an equal message."""
        return {
            "id": self.id,
            "body": self.body,
            "queue_url": self.queue_url,
            "receipt_handle": self.receipt_handle,
            "received_at": self.received_at.isoformat(),
            "attempt": self.attempt,
            "attributes": dict(self.attributes),
            "message_attributes": {n: _encode(v) for n, v in self.message_attributes.items()},
        }

    __json__ = to_dict  # Kombu's JSON encoder calls this name (kombu.utils.json)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Message:
        """Return the message that ``to_dict`` was called on."""
        return cls(
            **{
                **fields,
                "received_at": datetime.fromisoformat(fields["received_at"]),
                "message_attributes": {n: _decode(v) for n, v in fields["message_attributes"].items()},
            }
        )

    @classmethod
    def from_sqs(cls, raw: Mapping[str, Any], *, queue_url: str, received_at: datetime, attempt: int) -> Message:
        """Return the message for one entry of a ReceiveMessage answer."""
        return cls(
            id=raw["MessageId"],
            body=raw["Body"],
            queue_url=queue_url,
            receipt_handle=raw["ReceiptHandle"],
            received_at=received_at,
            attempt=attempt,
            attributes=raw.get("Attributes") or {},
            message_attributes=raw.get("MessageAttributes") or {},
        )

    def __str__(self) -> str:
        """Return a short name for logs and Flower, never the body, which may hold anything."""
        return f"sqs:{self.id}"


def _encode(value: Mapping[str, Any]) -> dict[str, Any]:
    binary = value.get("BinaryValue")
    if binary is None:
        return dict(value)
    return {**value, "BinaryValue": base64.b64encode(binary).decode("ascii")}


def _decode(value: Mapping[str, Any]) -> dict[str, Any]:
    binary = value.get("BinaryValue")
    return dict(value) if binary is None else {**value, "BinaryValue": base64.b64decode(binary)}
