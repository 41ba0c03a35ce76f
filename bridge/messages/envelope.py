"""From an SQS message to the Celery message (task protocol 2) that the worker runs. Pure: no clock, no Kombu.

On a queue of S3 events the bridge writes the Celery message itself. On the task queue Celery wrote it: see
``celery_message`` for how it is opened and checked.
Source of the form: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge.messages.celery_message import CeleryMessage
from bridge.messages.message import Message
from bridge.messages.routing import ToTask

#: How many objects are spelled out in the text that Flower and the logs show.
_SHOWN_OBJECTS = 3


class Delivery(NamedTuple):
    """What is known about this receive: the queue, the receipt handle, and which run it will be.

    ``received_at_epoch`` is in seconds. ``trace`` is the sender's AWSTraceHeader, as it came. ``owner`` is the token
    under which the run claims what it works on: no other run ever has the same. ``republished`` are retries that Celery
    counted in the message itself.
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

    Its body is not text but what the text would be read to: written here, it would only be parsed again.
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
    """Return the Kombu payload for one of Celery's own messages; the task id is Celery's.

    The ETA is taken out: the message waited in place for it, and Celery would otherwise hold it in memory.
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
    """What a run knows of its message; ``lease`` tells two runs apart that have one task id."""
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
            # Celery's request and Kombu's restore both read these two; a missing one is a KeyError at shutdown.
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
