"""Whether a message body is one that Celery sent. Pure; never raises.

On a queue of S3 events such a body is never executed: whoever may write to the queue could otherwise name any task.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from bridge.s3.event import ObjectRecord


def is_celery_message(body: str) -> bool:
    """Say whether a body is a Celery task message as Kombu's SQS transport (5.7) sends it.

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


def task_body(record: ObjectRecord, task: str, task_id: str, origin: str) -> str:
    """Return the body with which ``task.delay(obj)`` would send this object to the task queue.

    Celery's protocol 2 (docs.celeryq.dev/en/stable/internals/protocol.html) in the envelope of Kombu's SQS transport.
    Written here because Kombu sends one message a call, and a backfill sends ten. ``origin`` names the sending process.
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
    """Return the JSON object that a text is, plain or in base64; empty when it is none."""
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
