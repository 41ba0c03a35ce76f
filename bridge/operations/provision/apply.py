"""Reading what is there for ``brigade provision``, and carrying out its plan, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bridge.aws_errors import NO_SUCH_BUCKET, NO_SUCH_QUEUE, error_code
from bridge.errors import SettingsError
from bridge.operations.provision.plan import TAG, ExistingQueue, Found, Step, Wanted, resolved, resolved_configuration

#: A policy may take seconds until S3 sees it; meanwhile S3 cannot "validate the destination".
_NOT_YET = "Unable to validate the following destination configurations"
_TRIES, _PAUSE_SECONDS = 8, 2.0


def find(sqs: Any, s3: Any, wanted: Wanted) -> Found:
    """Read the two queues and the bucket's notifications.

    Raises SettingsError when the bucket does not exist, and the SDK's errors.
    """
    notification = None
    if wanted.bucket is not None:
        try:
            answer = s3.get_bucket_notification_configuration(Bucket=wanted.bucket)
        except Exception as error:
            if error_code(error) in NO_SUCH_BUCKET:
                raise SettingsError(f"there is no bucket {wanted.bucket}: create it first") from error
            raise
        notification = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    return Found(_queue(sqs, wanted.queue), _queue(sqs, wanted.dlq), notification)


def carry_out(sqs: Any, s3: Any, steps: list[Step], found: Found, done: Callable[[Step], None]) -> None:
    """Do the steps in order, and call ``done`` after each. After an interruption the next run does the rest."""
    arns = {queue.name: queue.arn for queue in (found.dlq, found.queue) if queue is not None}
    for step in steps:
        match step.do:
            case "create-queue":
                values = resolved(step.values, arns)
                url = sqs.create_queue(QueueName=step.name, Attributes=values, tags=dict([TAG]))["QueueUrl"]
                answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
                arns[step.name] = answer["Attributes"]["QueueArn"]
            case "set-attributes":
                url = sqs.get_queue_url(QueueName=step.name)["QueueUrl"]
                sqs.set_queue_attributes(QueueUrl=url, Attributes=resolved(step.values, arns))
            case _:
                _put_notification(s3, step.name, resolved_configuration(step.values, arns))
        done(step)


def queue_url(sqs: Any, name: str) -> str | None:
    """Return the URL of a queue, or None when there is none of this name."""
    try:
        return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])
    except Exception as error:
        if error_code(error) in NO_SUCH_QUEUE:
            return None
        raise


def _queue(sqs: Any, name: str) -> ExistingQueue | None:
    url = queue_url(sqs, name)
    if url is None:
        return None
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return ExistingQueue(name, attributes, sqs.list_queue_tags(QueueUrl=url).get("Tags") or {})


def _put_notification(s3: Any, bucket: str, configuration: dict[str, Any]) -> None:
    for left in reversed(range(_TRIES)):
        try:
            s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
        except Exception as error:
            if not left or _NOT_YET not in str(error):
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
