"""Archive a queue: every message of it, whatever its body is, becomes a JSON object under ``BRIDGE_ARCHIVE_URL``.

    s3://bucket/sqs-messages/2025/11/28/14/<message-id>.json

    {"message_id": "…", "body": "…", "parsed_body": {…}, "attributes": {…}, "message_attributes": {…},
     "received_at": "2025-11-28T14:30:00.123456", "receipt_handle": "…"}

The day and the hour are those in which the message was sent (``SentTimestamp``), in UTC: a message delivered twice, an
hour apart or to two workers at once, is written to the same key. The message is deleted after S3 has confirmed the
object; while S3 refuses it the message waits in its queue.

Give the module a worker and a queue of its own: it takes every message, so tasks of later modules would get none.
"""

from __future__ import annotations

import json
import os
from datetime import UTC
from typing import Any

from celery import signals

from bridge import Message, message_task
from bridge.errors import SettingsError, refuse
from bridge.log import get_logger

log = get_logger(__name__)


# No limit of retries: a bucket that is away for an hour must not fill the dead-letter queue. SQS itself moves a message
# there at last, by the queue's maxReceiveCount.
@message_task(everything=True, max_retries=None, time_limit=120)
def archive(message: Message) -> dict[str, Any]:
    """Write a message to its object; return ``archived``, the URL of the object, and its size in ``bytes``.

    Raises SettingsError without ``BRIDGE_ARCHIVE_URL``, and botocore's errors when S3 does not confirm the object.
    """
    from bridge.s3.clients import s3_client  # here, not above: boto3 is not for the worker's parent process

    url, region = _target()
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    key, content = archive_key(prefix, message), archived(message)
    s3_client(region).put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/json")
    log.info("archived", message_id=message.id, bucket=bucket, key=key, bytes=len(content))
    return {"archived": f"s3://{bucket}/{key}", "bytes": len(content)}


def archive_key(prefix: str, message: Message) -> str:
    """Where a message lies: ``prefix + YYYY/MM/DD/HH/<message-id>.json``, by the time it was sent, in UTC.

    Only where the server says no ``SentTimestamp`` (SQS always does) the time of this delivery takes its place.
    """
    sent = (message.sent_at or message.received_at).astimezone(UTC)
    return f"{prefix}{sent:%Y/%m/%d/%H}/{message.id}.json"


def archived(message: Message) -> bytes:
    """The object's content: JSON in UTF-8.

    ``parsed_body`` is there if the body is JSON (as RFC 8259 has it, so without NaN) and can be written as such again.
    ``received_at`` is in UTC and has no zone, as in the service that wrote this form first. Binary values of message
    attributes are in base64.
    """
    fields = message.to_dict()
    head = {"message_id": message.id, "body": message.body}
    tail = {
        "attributes": fields["attributes"],
        "message_attributes": fields["message_attributes"],
        "received_at": message.received_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds"),
        "receipt_handle": message.receipt_handle,
    }
    try:
        parsed = json.loads(message.body, parse_constant=_no_json)
        return _encoded({**head, "parsed_body": parsed, **tail})
    except (ValueError, RecursionError):  # no JSON, nested too deep for us, or a number beyond a float
        return _encoded({**head, **tail})


def _encoded(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    # JSON may escape half of a surrogate pair, which is not a character: it is written as the same escape again.
    return text.encode("utf-8", "backslashreplace")


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _target() -> tuple[str, str | None]:
    """The archive's URL and the region of the clients; raises SettingsError when there is none."""
    from bridge.settings.loading import load_archive_settings  # here, not above: importing tasks reads no settings

    settings = load_archive_settings(os.environ)
    if settings.archive_url is None:
        raise SettingsError(
            "BRIDGE_ARCHIVE_URL is not set: tasks.archive writes there, for example s3://bucket/sqs-messages/"
        )
    return settings.archive_url, settings.region


@signals.worker_init.connect(weak=False, dispatch_uid="tasks.archive")
def _refuse_without_target(**_: Any) -> None:
    # Without this every message would be tried again and again, and only the log would say why.
    try:
        _target()
    except SettingsError as error:
        refuse(str(error))
