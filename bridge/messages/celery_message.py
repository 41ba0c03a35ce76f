"""Celery messages (task protocol 2) on the task queue: recognize, open and check, write. Pure.

Source of the format: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.errors import MalformedEvent
from bridge.s3.event import ObjectRecord

#: Celery and the logs use these headers as strings or dict keys without checking them.
_TEXT_HEADERS = ("shadow", "root_id", "parent_id", "group", "argsrepr", "kwargsrepr", "expires", "origin")


@dataclass(frozen=True, slots=True)
class CeleryMessage:
    """A message sent by Celery itself; ``body`` is the JSON text of ``[args, kwargs, embed]``."""

    task: str
    id: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: str
    eta: datetime | None
    retries: int


def is_celery_message(body: str) -> bool:
    """Return whether a body is a Celery task message as Kombu's SQS transport (5.7) sends it. Never raises.

    On a queue of S3 events such a message never runs. Otherwise anyone with write access to the queue could run any
    task.

    The envelope has ``body``, ``headers`` and ``properties`` and is base64 unless ``sqs_base64_encoding`` is off.
    Protocol 2 names its task in the headers; protocol 1 is ``{"task", "id", "args"}``, in the envelope's ``body`` or
    bare (docs.celeryq.dev/en/stable/internals/protocol.html).
    """
    message = _object_in(body)
    if _is_protocol_1(message):
        return True
    inner, headers = message.get("body"), message.get("headers")
    if not isinstance(inner, str) or not isinstance(headers, dict) or not isinstance(message.get("properties"), dict):
        return False
    return isinstance(headers.get("task"), str) or _is_protocol_1(_object_in(inner))


def open_celery_message(body: str) -> CeleryMessage:
    """Return the Celery message in an SQS body, which is plain JSON or base64 as Kombu writes it.

    It checks every field that could make Celery's worker fail, because the worker uses them without checking.
    Raises MalformedEvent with the reason.
    """
    envelope = _json(_text(body), "the message")
    if not isinstance(envelope, dict):
        raise MalformedEvent("not a Celery message: not a JSON object")
    headers, properties = envelope.get("headers"), envelope.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise MalformedEvent("not a Celery message: headers or properties are missing")
    task, task_id = headers.get("task"), headers.get("id")
    if not (isinstance(task, str) and task and isinstance(task_id, str) and task_id):
        raise MalformedEvent("not a Celery message of protocol 2: the headers have no task or no id")
    if envelope.get("content-type") != "application/json":
        content_type = str(envelope.get("content-type"))[:60]
        raise MalformedEvent(f"content type {content_type!r} is not supported, only application/json is")
    _check_time_limit(headers.get("timelimit"))
    for name in _TEXT_HEADERS:
        if not isinstance(headers.get(name), str | None):
            raise MalformedEvent(f"header {name} is not text")
    return CeleryMessage(
        task=task,
        id=task_id,
        headers=headers,
        properties=properties,
        body=_arguments(envelope.get("body"), properties.get("body_encoding")),
        eta=_eta(headers.get("eta")),
        retries=_count(headers.get("retries")),
    )


def task_body(record: ObjectRecord, task: str, task_id: str, origin: str) -> str:
    """Return the message body that ``task.delay(obj)`` sends for this object to the task queue.

    The format is Celery's protocol 2 (docs.celeryq.dev/en/stable/internals/protocol.html) in the envelope of Kombu's
    SQS transport. The bridge writes it itself, because Kombu sends one message per call and a backfill sends ten.
    ``origin`` names the sending process.
    """
    arguments = [[record.to_dict()], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    message = {
        "body": json.dumps(arguments),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": task_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": f"s3://{record.bucket}/{record.key}",
            "kwargsrepr": "{}",
            "origin": origin,
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": ""},
            "priority": 0,
            "delivery_tag": task_id,
        },
    }
    return json.dumps(message)


def _object_in(text: str) -> dict[str, Any]:
    """Return the JSON object in a text, plain or in base64; an empty dict if there is none."""
    return _object(text) or _object(_from_base64(text))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text.strip(), validate=True).decode()
    except ValueError:  # not base64, not ASCII, or not UTF-8 within
        return ""


def _is_protocol_1(message: dict[str, Any]) -> bool:
    return isinstance(message.get("task"), str) and "id" in message and "args" in message


def _text(body: str) -> str:
    if body.lstrip().startswith("{"):
        return body
    try:
        return base64.b64decode(body, validate=True).decode("utf-8")
    except (ValueError, binascii.Error) as error:
        raise MalformedEvent("not a Celery message: neither JSON nor base64 of JSON") from error


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedEvent(f"{what} is not JSON: {str(error)[:80]}") from error


def _arguments(body: Any, encoding: Any) -> str:
    if not isinstance(body, str):
        raise MalformedEvent("the message's body is not text")
    if encoding == "base64":
        try:
            body = base64.b64decode(body, validate=True).decode("utf-8")
        except (ValueError, binascii.Error) as error:
            raise MalformedEvent("the message's body is not base64 of UTF-8 text") from error
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
    """Check the timelimit header: Celery unpacks it without a check, on its main loop. Raises MalformedEvent."""
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
