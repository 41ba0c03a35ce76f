"""Turn an SQS message into the Celery message (task protocol 2) that the worker runs. Pure: no clock, no Kombu.

For an S3 event the bridge writes the Celery message itself. On the task queue Celery wrote it; ``celery_message`` opens
and checks it.
Source of the format: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge.messages.celery_message import CeleryMessage
from bridge.messages.message import Message
from bridge.messages.routing import ToTask

#: How many object URLs the text for Flower and the logs lists.
_SHOWN_OBJECTS = 3


class Delivery(NamedTuple):
    """One receive of a message: the queue, the receipt handle, and the number of the run.

    ``receives`` is SQS's ApproximateReceiveCount, ``retries`` Celery's ``request.retries`` for this run.
    ``received_at_epoch`` is in seconds. ``trace`` is the sender's AWSTraceHeader, unchanged. ``owner`` is the unique
    token of the run's claims. ``republished`` is the number of retries that Celery counted in the message itself.
    """

    queue: str
    queue_url: str
    receipt_handle: str
    receives: int
    retries: int
    received_at_epoch: float
    lease: int = 0
    message_id: str = ""
    trace: str | None = None
    owner: str = ""
    republished: int = 0


def for_event(raw: Mapping[str, Any], target: ToTask, delivery: Delivery) -> dict[str, Any]:
    """Return the Kombu payload that runs ``target`` for this message; the task id is the SQS MessageId.

    Its body is the decoded value and not JSON text, which would only be parsed again in this process.
    """
    argument: Any
    if target.objects is None:
        argument = Message.from_sqs(
            raw,
            queue_url=delivery.queue_url,
            received_at=datetime.fromtimestamp(delivery.received_at_epoch, UTC),
            attempt=delivery.receives,
        ).to_dict()
        shown = f"sqs:{raw['MessageId']}"
    else:
        records = [o.to_dict() for o in target.objects]
        argument = records[0] if len(records) == 1 else records
        shown = _shown([f"s3://{o.bucket}/{o.key}" for o in target.objects])
    message_id = raw["MessageId"]
    headers = {
        "lang": "py",
        "task": target.task,
        "id": message_id,
        "root_id": message_id,
        "parent_id": None,
        "group": None,
        "retries": delivery.retries,
        "timelimit": [None, None],
        "argsrepr": shown,
        "kwargsrepr": "{}",
        "bridge": _bridge_header("event", delivery),
    }
    body = [[argument], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    return _payload(body, headers, {"correlation_id": message_id}, delivery)


def for_celery(message: CeleryMessage, delivery: Delivery) -> dict[str, Any]:
    """Return the Kombu payload for a Celery message; the task id is Celery's.

    The payload has no ETA: the message has already waited for it in SQS. With the ETA, Celery would hold the message in
    memory.
    """
    headers = {
        **message.headers,
        "eta": None,
        "retries": delivery.retries,
        "bridge": _bridge_header("task", delivery),
    }
    properties = {k: v for k, v in message.properties.items() if k in ("correlation_id", "reply_to", "priority")}
    return _payload(message.body, headers, properties, delivery)


def _bridge_header(kind: str, delivery: Delivery) -> dict[str, Any]:
    """Return the header with which a run finds its message; ``lease`` distinguishes two runs with one task id."""
    header = {
        "kind": kind,
        "queue": delivery.queue,
        "message_id": delivery.message_id,
        "receives": delivery.receives,
        "lease": delivery.lease,
        "owner": delivery.owner,
        "republished": delivery.republished,
    }
    return header if delivery.trace is None else header | {"trace": delivery.trace}


def _payload(body: Any, headers: dict[str, Any], properties: Mapping[str, Any], delivery: Delivery) -> dict[str, Any]:
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            **properties,
            "delivery_tag": delivery.receipt_handle,
            # Celery's request and Kombu's restore read both; if one is missing, shutdown raises a KeyError.
            "delivery_info": {
                "exchange": "",
                "routing_key": delivery.queue,
                "redelivered": delivery.receives > 1,
            },
        },
    }


def _shown(urls: list[str]) -> str:
    if len(urls) <= _SHOWN_OBJECTS:
        return ", ".join(urls)
    return f"{', '.join(urls[:_SHOWN_OBJECTS])}, … ({len(urls)} objects)"
