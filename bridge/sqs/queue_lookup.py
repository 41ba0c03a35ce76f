"""What SQS says of the queues of a worker: their dead-letter queues and attributes.

A worker refuses to start when a queue does not exist, has no dead-letter queue or denies access, because a person must
correct that. When SQS is unreachable, the worker starts, and the deferred queue lookup retries until SQS answers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import NoCredentialsError, PartialCredentialsError, ProfileNotFound

from bridge.aws_errors import ACCESS_DENIED, INVALID_CREDENTIALS, NO_SUCH_QUEUE, PERMANENT, error_code
from bridge.errors import SettingsError
from bridge.log import get_logger
from bridge.settings.region import is_aws_host, region_of_queue_url
from bridge.settings.rules import same_queue
from bridge.sqs.clients import sqs_client
from bridge.sqs.queue_policy import redrive_policy
from bridge.sqs.queues import Queue, named_queues
from bridge.sqs.quotas import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from bridge.settings.loading import WorkerSettings

log = get_logger(__name__)


def look_up(client: Any, queue: Queue, dlq_url: str | None) -> Queue:
    """Return the queue with its dead-letter queue, as SQS describes them (GetQueueAttributes, GetQueueUrl).

    Raises SettingsError for an error that must be corrected by a person, and the SDK's own error for a temporary one.
    """
    attributes = _attributes(client, queue.url, "SQS_TASK_QUEUE_URL" if queue.kind == "task" else "SQS_QUEUE_URL")
    redrive = redrive_policy(attributes)
    if dlq_url is None:
        dlq_url = _dlq_from(client, queue, redrive)
    if dlq_url == queue.url:
        raise SettingsError(f"{queue.url} is its own dead-letter queue: use another queue as dead-letter queue")
    dlq = _attributes(client, dlq_url, f"the dead-letter queue of {queue.name}")
    count = redrive.get("maxReceiveCount")
    return Queue(
        name=queue.name,
        url=queue.url,
        kind=queue.kind,
        dlq_url=dlq_url,
        dlq_max_bytes=int(dlq.get("MaximumMessageSize") or MAX_MESSAGE_BYTES),
        max_receives=int(count) if count is not None else None,
    )


def find_queues(settings: WorkerSettings, session: Any) -> tuple[Queue, ...]:
    """Return the queues with their dead-letter queues, or without them when SQS is unreachable (looked up again later).

    Raises SettingsError for an error that must be corrected by a person.
    """
    queues = named_queues(settings.sqs_queue_urls, settings.sqs_task_queue_url)
    try:
        client = sqs_client("settle", settings.region, session=session)
        for queue in queues:
            check_endpoint(client, queue.url)
        found = tuple(look_up(client, queue, settings.sqs_dlq_url) for queue in queues)
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        raise SettingsError(f"AWS credentials: {error}") from error
    except SettingsError:
        raise
    except Exception as error:  # network errors, throttling, 5xx
        if error_code(error) in ACCESS_DENIED | INVALID_CREDENTIALS:
            raise SettingsError(f"AWS refuses the credentials for {queues[0].url}: {error}") from error
        log.warning("sqs_unreachable", queue=queues[0].name, error_type=error_code(error), error=str(error))
        return queues
    for queue in found:
        if any(same_queue(queue.dlq_url, other.url) for other in found):
            raise SettingsError(
                f"{queue.dlq_url} is a dead-letter queue and also a queue that the worker reads: use another "
                "dead-letter queue, or the worker would receive dead-lettered messages again and again"
            )
    return found


def check_endpoint(client: Any, queue_url: str) -> None:
    """Raise SettingsError when the SDK's endpoint is not the SQS that holds the queue.

    boto3 sends to its client's endpoint, whatever host the QueueUrl names. SQS would answer that the queue does not
    exist.
    """
    endpoint = client.meta.endpoint_url
    if not is_aws_host(endpoint):
        return
    if not is_aws_host(queue_url):
        raise SettingsError(f"{queue_url} is not on AWS: set AWS_ENDPOINT_URL_SQS to the address of its server")
    region = region_of_queue_url(queue_url)
    if region not in (None, client.meta.region_name):
        in_use = client.meta.region_name
        raise SettingsError(f"{queue_url} is in {region}, but the region in use is {in_use}: set AWS_REGION={region}")


def attributes_of(client: Any, url: str) -> dict[str, str]:
    """Return a queue's attributes (GetQueueAttributes).

    Raises SettingsError when the queue does not exist or access is denied, and the SDK's own error otherwise.
    """
    try:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    except Exception as error:
        code = error_code(error)
        if code in NO_SUCH_QUEUE:
            raise SettingsError(f"there is no queue {url} at {client.meta.endpoint_url}") from error
        if code in PERMANENT:
            raise SettingsError(f"access to {url} is denied (sqs:GetQueueAttributes): {code}") from error
        raise
    attributes: dict[str, str] = answer.get("Attributes", {})
    return attributes


def count(attributes: dict[str, str], which: str = "") -> int:
    """Return ApproximateNumberOfMessages; ``which`` is ``""``, ``NotVisible`` or ``Delayed``."""
    return int(attributes.get(f"ApproximateNumberOfMessages{which}") or 0)


def _attributes(client: Any, url: str, role: str) -> dict[str, str]:
    try:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    except Exception as error:
        code = error_code(error)
        if code in NO_SUCH_QUEUE:
            raise SettingsError(f"{role}: there is no queue {url}") from error
        if code in ACCESS_DENIED:
            raise SettingsError(f"{role}: access to {url} is denied (sqs:GetQueueAttributes)") from error
        raise
    attributes: dict[str, str] = answer.get("Attributes", {})
    if attributes.get("FifoQueue") == "true":
        raise SettingsError(f"{role}: {url} is a FIFO queue, but only standard queues are supported")
    return attributes


def _dlq_from(client: Any, queue: Queue, redrive: Mapping[str, Any]) -> str:
    arn = str(redrive.get("deadLetterTargetArn") or "")
    if not arn:
        raise SettingsError(
            f"{queue.url} has no dead-letter queue for messages that cannot be processed: give it a RedrivePolicy, "
            "or set SQS_DLQ_URL"
        )
    account, name = arn.split(":")[-2:]
    try:
        return str(client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"])
    except Exception as error:
        code = error_code(error)
        if code in NO_SUCH_QUEUE:
            raise SettingsError(f"{queue.url}: its dead-letter queue {arn} does not exist") from error
        if code in ACCESS_DENIED:
            raise SettingsError(
                f"{queue.url}: access to its dead-letter queue is denied (sqs:GetQueueUrl on {arn}): "
                "allow it, or set SQS_DLQ_URL"
            ) from error
        raise


def deferred_queue_lookup(
    client: Any,
    queue: Queue,
    dlq_url: str | None,
    *,
    closed: Callable[[], bool],
    found: Callable[[Queue], None],
    refused: Callable[[], None],
) -> None:
    """Look the queue up in a separate thread, retrying until SQS answers, and pass it to ``found``.

    For an error that must be corrected by a person it calls ``refused`` instead. ``closed`` returns True once the
    worker shuts down, which ends the thread.
    """

    def run() -> None:
        while not closed():
            try:
                looked_up = look_up(client, queue, dlq_url)
            except SettingsError as error:
                log.critical("worker_refused", error=str(error))
                refused()
                return
            except Exception as error:  # noqa: BLE001 - temporary: network errors, throttling, 5xx
                log.warning("sqs_unreachable", queue=queue.name, error_type=error_code(error), error=str(error))
                time.sleep(random.uniform(1.0, 3.0))  # noqa: S311 - spreads retries, not a secret
                continue
            found(looked_up)
            return

    threading.Thread(target=run, name="bridge-look-up", daemon=True).start()
