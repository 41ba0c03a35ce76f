"""What the doctor reads, by calls that change nothing: attributes, configurations, and what we may do.

A permission whose use would change something is asked for with arguments that AWS refuses after it has looked at the
permission: a receipt handle that is none, a batch without entries, a key that does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

from bridge.aws_errors import ACCESS_DENIED, HEAD_DENIED, NO_SUCH_OBJECT, error_code
from bridge.operations.doctor.access import Probe
from bridge.s3.outputs import Output
from bridge.sqs.queues import queue_name

_BAD_HANDLE = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"})
_BAD_COUNT = frozenset({"InvalidParameterValue", "ReadCountOutOfRange", "InvalidAttributeValue"})
_NO_ENTRIES = frozenset({"EmptyBatchRequest", "MissingParameter"})
_NO_HANDLE = "brigade-doctor"


@dataclass(frozen=True, slots=True)
class QueueRead:
    """A queue as it is: its attributes, or why they could not be read. ``skew_seconds``: our clock minus SQS's."""

    url: str
    name: str
    attributes: Mapping[str, str] | None
    fault: str | None = None
    skew_seconds: float | None = None

    @property
    def arn(self) -> str:
        """The queue's ARN, "" when unknown."""
        return (self.attributes or {}).get("QueueArn", "")


def read_queue(client: Any, url: str) -> QueueRead:
    """Read all attributes (GetQueueAttributes). Raises nothing of AWS's."""
    name = queue_name(url)
    try:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    except Exception as error:  # noqa: BLE001 - the doctor reports every failure and goes on
        return QueueRead(url, name, None, _told(error))
    return QueueRead(url, name, answer.get("Attributes", {}), None, _skew(answer))


def dead_letter_queue_url(client: Any, arn: str) -> tuple[str | None, str | None]:
    """Return the URL of the queue with this ARN (GetQueueUrl), or None and why not."""
    account, name = arn.split(":")[-2:]
    try:
        return str(client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]), None
    except Exception as error:  # noqa: BLE001 - as above
        return None, _told(error)


def probe_source(client: Any, queue: QueueRead) -> list[Probe]:
    """Ask what a worker does with a queue it reads; ``client`` must not check parameters itself."""
    at, name, arn = {"QueueUrl": queue.url}, queue.name, queue.arn
    return [
        _probe(
            "sqs:ReceiveMessage", name, arn, lambda: client.receive_message(**at, MaxNumberOfMessages=0), _BAD_COUNT
        ),
        _probe(
            "sqs:DeleteMessage",
            name,
            arn,
            lambda: client.delete_message(**at, ReceiptHandle=_NO_HANDLE),
            _BAD_HANDLE,
        ),
        _probe(
            "sqs:ChangeMessageVisibility",
            name,
            arn,
            lambda: client.change_message_visibility(**at, ReceiptHandle=_NO_HANDLE, VisibilityTimeout=0),
            _BAD_HANDLE,
        ),
    ]


def probe_sending(client: Any, queue: QueueRead) -> Probe:
    """Ask whether we may send to a queue."""
    return _probe(
        "sqs:SendMessage",
        queue.name,
        queue.arn,
        lambda: client.send_message_batch(QueueUrl=queue.url, Entries=[]),
        _NO_ENTRIES,
    )


def probe_bucket(client: Any, bucket: str, takes: Callable[[str], bool], head: str = "") -> list[Probe]:
    """Ask whether we may list the bucket and read of it: a key that a task takes, where the first thousand have one.

    Else one that is not there and begins with ``head``.
    """
    found: list[str] = []

    def listing() -> None:
        answer = client.list_objects_v2(Bucket=bucket)
        found.extend(entry["Key"] for entry in answer.get("Contents", ()))

    probes = [_probe("s3:ListBucket", bucket, f"arn:aws:s3:::{bucket}", listing, frozenset())]
    if probes[0].code is not None:
        return probes
    key = next(filter(takes, found), None) or f"{head}{_NO_HANDLE}-{uuid4().hex}"
    subject = f"arn:aws:s3:::{bucket}/*"
    probes.append(
        _probe("s3:GetObject", bucket, subject, lambda: client.head_object(Bucket=bucket, Key=key), NO_SUCH_OBJECT)
    )
    return probes


def read_notification(client: Any, bucket: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return the bucket's notification configuration, or None and why it cannot be read."""
    try:
        answer: dict[str, Any] = client.get_bucket_notification_configuration(Bucket=bucket)
    except Exception as error:  # noqa: BLE001 - as above
        if error_code(error) in ACCESS_DENIED | HEAD_DENIED:
            return None, "s3:GetBucketNotification is denied to these credentials"
        return None, _told(error)
    return answer, None


def write_and_delete(client: Any, output: Output) -> str | None:
    """Put an empty object under an output prefix and delete it; returns what went wrong.

    In a bucket with versions the version is deleted, not hidden behind a delete marker.
    """
    key = f"{output.prefix}{_NO_HANDLE}-{uuid4().hex}.json"
    try:
        version = client.put_object(Bucket=output.bucket, Key=key, Body=b"").get("VersionId")
    except Exception as error:  # noqa: BLE001 - as above
        return f"s3:PutObject: {_told(error)}"
    try:
        client.delete_object(Bucket=output.bucket, Key=key, **({"VersionId": version} if version else {}))
    except Exception as error:  # noqa: BLE001 - as above
        return f"s3:DeleteObject: {_told(error)}; s3://{output.bucket}/{key} is left"
    return None


def _probe(action: str, subject: str, resource: str, call: Callable[[], object], harmless: frozenset[str]) -> Probe:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return Probe(action, subject, error_code(error), harmless, resource)
    return Probe(action, subject, None, harmless, resource)


def _skew(answer: Mapping[str, Any]) -> float | None:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return time.time() - parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
