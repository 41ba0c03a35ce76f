"""From an SQS message to the Celery message (task protocol 2) that the worker runs. Pure: no clock, no Kombu.

Two kinds of queue, two kinds of envelope: on a queue of S3 events the bridge writes the Celery message itself; on the
task queue Celery wrote it, and the bridge opens it, checks it and hands it on.
Source of the form: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge.errors import MalformedEvent
from bridge.message import Message
from bridge.routing import ToTask

#: How many objects are spelled out in the text that Flower and the logs show.
_SHOWN_OBJECTS = 3
#: Celery and the logs use these unguarded, as texts or as keys.
_TEXT_HEADERS = ("shadow", "root_id", "parent_id", "group", "argsrepr", "kwargsrepr", "expires", "origin")


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


@dataclass(frozen=True, slots=True)
class CeleryMessage:
    """A message that Celery itself sent; ``body`` is the JSON text of ``[args, kwargs, embed]``."""

    task: str
    id: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: str
    eta: datetime | None
    retries: int


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


def open_celery_message(body: str) -> CeleryMessage:
    """Return the Celery message in an SQS body, plain JSON or base64 as Kombu writes it.

    Everything the worker would trip over is looked at here, because the worker runs it unguarded.
    Raises MalformedEvent with the reason.
    """
    envelope = _json(_text(body), "the message")
    if not isinstance(envelope, dict):
        raise MalformedEvent("not a Celery message: no JSON object")
    headers, properties = envelope.get("headers"), envelope.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise MalformedEvent("not a Celery message: no headers or no properties")
    task, task_id = headers.get("task"), headers.get("id")
    if not (isinstance(task, str) and task and isinstance(task_id, str) and task_id):
        raise MalformedEvent("not a Celery message (protocol 2): headers name no task and id")
    if envelope.get("content-type") != "application/json":
        raise MalformedEvent(f"content type {str(envelope.get('content-type'))[:60]!r} is not accepted, only JSON is")
    _check_time_limit(headers.get("timelimit"))
    for name in _TEXT_HEADERS:
        if not isinstance(headers.get(name), str | None):
            raise MalformedEvent(f"header {name} is not a text")
    return CeleryMessage(
        task=task,
        id=task_id,
        headers=headers,
        properties=properties,
        body=_arguments(envelope.get("body"), properties.get("body_encoding")),
        eta=_eta(headers.get("eta")),
        retries=_count(headers.get("retries")),
    )


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


def _text(body: str) -> str:
    if body.lstrip().startswith("{"):
        return body
    try:
        return base64.b64decode(body, validate=True).decode("utf-8")
    except (ValueError, binascii.Error) as error:
        raise MalformedEvent("not a Celery message: neither JSON nor base64 of it") from error


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedEvent(f"{what} is not JSON: {str(error)[:80]}") from error


def _arguments(body: Any, encoding: Any) -> str:
    if not isinstance(body, str):
        raise MalformedEvent("the message's body is not a text")
    if encoding == "base64":
        try:
            body = base64.b64decode(body, validate=True).decode("utf-8")
        except (ValueError, binascii.Error) as error:
            raise MalformedEvent("the message's body is not base64 of a UTF-8 text") from error
    parts = _json(body, "the message's body")
    match parts:
        case [list(), dict(), dict() | None]:
            return str(body)
    raise MalformedEvent("the message's body is not [args, kwargs, embed]")


def _eta(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        eta = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise MalformedEvent(f"invalid ETA {str(value)[:60]!r}") from error
    return eta if eta.tzinfo else eta.replace(tzinfo=UTC)


def _check_time_limit(value: Any) -> None:
    """Celery unpacks it unguarded on the main loop."""
    match value:
        case None | [int() | float() | None, int() | float() | None] if not _has_bool(value):
            return
    raise MalformedEvent(f"invalid timelimit {str(value)[:60]!r}")


def _has_bool(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, bool) for v in value)


def _count(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedEvent(f"invalid retries {str(value)[:60]!r}")
    return value
