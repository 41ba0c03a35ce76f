"""A running SQS server with the S3 beside it, queues on it, and the few calls that tests make."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from tests import REPOSITORY

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

REGION = "us-east-1"
ACCOUNT = "123456789012"


@dataclass(frozen=True)
class SqsServer:
    """``name`` is ``moto`` or ``elasticmq``; S3 is moto's in both cases. The clients may be used by any thread."""

    name: str
    endpoint_url: str
    s3_endpoint_url: str
    sqs: SQSClient
    s3: S3Client


@dataclass(frozen=True)
class QueuePair:
    """A queue and the DLQ that its redrive policy names."""

    name: str
    url: str
    arn: str
    dlq_url: str
    dlq_arn: str


@dataclass(frozen=True)
class Counts:
    """Messages of a queue: receivable now, received and not settled, sent with a delay that still runs."""

    visible: int
    in_flight: int
    delayed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.visible + self.in_flight + self.delayed


@contextmanager
def connected(name: str, endpoint_url: str, s3_endpoint_url: str) -> Iterator[SqsServer]:
    """Give the server its clients, and close them at the end: an open socket is a ResourceWarning, an error here."""
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    config = Config(proxies={}, retries={"total_max_attempts": 1}, max_pool_connections=20)
    sqs: SQSClient = session.client("sqs", endpoint_url=endpoint_url, config=config)
    s3: S3Client = session.client("s3", endpoint_url=s3_endpoint_url, config=config)
    try:
        yield SqsServer(name, endpoint_url, s3_endpoint_url, sqs, s3)
    finally:
        sqs.close()
        s3.close()


def environment_for(server: SqsServer) -> dict[str, str]:
    """Return the whole environment of a process that uses ``server`` as if it were AWS, with no way to a real account.

    The process finds the packages `bridge`, `tasks` and `tests` of this checkout wherever it is started.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {
        **inherited,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_SQS": server.endpoint_url,
        "AWS_ENDPOINT_URL_S3": server.s3_endpoint_url,
        # moto serves all of AWS at one address; only DynamoDB is used beside these two.
        "AWS_ENDPOINT_URL_DYNAMODB": server.s3_endpoint_url,
        **no_account(),
    }


def no_account() -> dict[str, str]:
    """Return the variables that keep an AWS SDK from finding the developer's own credentials, profiles and settings."""
    return {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class QueueFactory:
    """Creates queues with names of their own, and deletes them in the end.

    Called, it returns a queue with its DLQ; ``single`` makes one without.
    """

    def __init__(self) -> None:
        self._created: list[tuple[SqsServer, str]] = []

    def __call__(
        self,
        server: SqsServer,
        *,
        prefix: str = "test",
        visibility_timeout_seconds: int = 30,
        max_receive_count: int = 20,
    ) -> QueuePair:
        """Create ``prefix-xxxxxxxx`` and its ``-dlq``; the timeout is the default of its receives."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        dlq_url = self.single(server, name=f"{name}-dlq")
        dlq_arn = arn_of(server, dlq_url)
        redrive = {"deadLetterTargetArn": dlq_arn, "maxReceiveCount": max_receive_count}
        url = self.single(
            server,
            name=name,
            attributes={"VisibilityTimeout": str(visibility_timeout_seconds), "RedrivePolicy": json.dumps(redrive)},
        )
        return QueuePair(name, url, arn_of(server, url), dlq_url, dlq_arn)

    def single(
        self,
        server: SqsServer,
        *,
        name: str | None = None,
        attributes: Mapping[QueueAttributeNameType, str] | None = None,
    ) -> str:
        """Create one queue without a DLQ, and return its URL."""
        name = name or f"test-{uuid.uuid4().hex[:8]}"
        url = server.sqs.create_queue(QueueName=name, Attributes=dict(attributes or {}))["QueueUrl"]
        self._created.append((server, url))
        return url

    def delete_all(self) -> None:
        """Delete what was created, a queue before its DLQ; one that the test has deleted itself is no error."""
        for server, url in reversed(self._created):
            try:
                server.sqs.delete_queue(QueueUrl=url)
            except server.sqs.exceptions.QueueDoesNotExist:
                pass
        self._created.clear()


def arn_of(server: SqsServer, url: str) -> str:
    """Return the ARN of the queue at ``url``."""
    return server.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def send(
    server: SqsServer,
    url: str,
    body: str | Mapping[str, Any],
    *,
    attributes: Mapping[str, MessageAttributeValueTypeDef] | None = None,
    delay_seconds: int = 0,
) -> str:
    """Send ``body``, a mapping as JSON, and return the MessageId."""
    text = body if isinstance(body, str) else json.dumps(body)
    sent = server.sqs.send_message(
        QueueUrl=url, MessageBody=text, MessageAttributes=dict(attributes or {}), DelaySeconds=delay_seconds
    )
    return sent["MessageId"]


def receive(
    server: SqsServer,
    url: str,
    *,
    limit: int = 10,
    wait_seconds: int = 0,
    visibility_timeout_seconds: int = 30,
) -> Sequence[MessageTypeDef]:
    """Return what one ReceiveMessage brings, at most ten, with all attributes; nothing is deleted."""
    answer = server.sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=limit,
        WaitTimeSeconds=wait_seconds,
        VisibilityTimeout=visibility_timeout_seconds,
        MessageSystemAttributeNames=["All"],
        MessageAttributeNames=["All"],
    )
    return answer.get("Messages", [])


def counts(server: SqsServer, url: str) -> Counts:
    """Count the messages of a queue by their states. The test servers count exactly, unlike SQS."""
    found = server.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return Counts(
        visible=int(found["ApproximateNumberOfMessages"]),
        in_flight=int(found["ApproximateNumberOfMessagesNotVisible"]),
        delayed=int(found["ApproximateNumberOfMessagesDelayed"]),
    )
