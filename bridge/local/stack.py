"""S3 and SQS inside this process, wired as the bridge expects them: bucket → notification → queue → DLQ.

The server is moto, spoken to over HTTP, so that a worker in another process uses it exactly as it uses AWS. It runs in
threads of the process that starts it: when that process ends, however it ends, there is no server left behind.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.session import Session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from bridge.local.moto_locks import serialize_requests

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

REGION = "eu-central-1"
ACCOUNT = "123456789012"

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

# What a shell may hold that would send a local worker somewhere else: to a real account, or to another broker.
_FOREIGN_PREFIXES = ("AWS_", "SQS_", "BRIDGE_", "CELERY_")


@dataclass(frozen=True)
class LocalStack:
    """One bucket that notifies one queue, with its DLQ, and a bucket for results.

    ``endpoint_url`` serves S3 and SQS alike. The results bucket has no notification: writing into it starts nothing.
    """

    endpoint_url: str
    uploads_bucket: str
    results_bucket: str
    queue_url: str
    dlq_url: str

    def s3(self) -> S3Client:
        """A new S3 client for this stack, whatever the environment says about AWS."""
        client: S3Client = _client("s3", self.endpoint_url)
        return client

    def sqs(self) -> SQSClient:
        """A new SQS client for this stack, whatever the environment says about AWS."""
        client: SQSClient = _client("sqs", self.endpoint_url)
        return client

    def settings(self) -> dict[str, str]:
        """Environment variables that point the AWS SDK and a worker at this stack."""
        return {
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "SQS_QUEUE_URL": self.queue_url,
        }


@contextmanager
def local_stack(
    name: str = "uploads", *, max_receive_count: int = 20, visibility_timeout_seconds: int = 30
) -> Iterator[LocalStack]:
    """Start the server on a free port of 127.0.0.1, create the buckets and queues, and stop it all at the end.

    ``name`` names the uploads bucket and the queue; the DLQ is ``<name>-dlq``, the results bucket ``results`` (or
    ``<name>-results`` for any other name). moto keeps one state a process: two stacks at the same time need two names.
    ``max_receive_count`` is the redrive policy's, as provision sets it; ``visibility_timeout_seconds`` the queue's own.
    """
    with moto_server() as endpoint_url:
        yield create_resources(
            endpoint_url,
            name,
            max_receive_count=max_receive_count,
            visibility_timeout_seconds=visibility_timeout_seconds,
        )


@contextmanager
def moto_server(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve S3 and SQS; yields the endpoint URL for this machine, with no bucket and no queue made yet.

    ``host`` is 127.0.0.1, or 0.0.0.0 for all; port 0 is any free one. Raises SystemExit, after a line of werkzeug's
    on standard error, when the port is taken.
    """
    # One line per request otherwise, in the middle of whatever this process shows. Set before the first request:
    # werkzeug gives its logger the level INFO only when it has none.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    serialize_requests()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server(host, port, application, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="local-aws", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def create_resources(
    endpoint_url: str, name: str, *, max_receive_count: int, visibility_timeout_seconds: int
) -> LocalStack:
    """Create buckets, queue, DLQ, queue policy and the notification on any S3 + SQS endpoint, and name them.

    S3 sends its ``s3:TestEvent`` to the queue when the notification is set, so the queue holds one message afterwards.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/how-to-enable-disable-notification-intro.html
    """
    s3, sqs = _client("s3", endpoint_url), _client("sqs", endpoint_url)
    results = "results" if name == "uploads" else f"{name}-results"
    for bucket in (name, results):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    dlq_url = sqs.create_queue(QueueName=f"{name}-dlq", Attributes={"MessageRetentionPeriod": "1209600"})["QueueUrl"]
    redrive = {"deadLetterTargetArn": _queue_arn(sqs, dlq_url), "maxReceiveCount": max_receive_count}
    queue_url = sqs.create_queue(
        QueueName=name,
        Attributes={"VisibilityTimeout": str(visibility_timeout_seconds), "RedrivePolicy": json.dumps(redrive)},
    )["QueueUrl"]
    queue_arn = _queue_arn(sqs, queue_url)
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"Policy": json.dumps(queue_policy(queue_arn, name))})

    notification = {"Id": "bridge", "QueueArn": queue_arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration={"QueueConfigurations": [notification]}
    )
    return LocalStack(endpoint_url, name, results, queue_url, dlq_url)


def queue_policy(queue_arn: str, bucket: str) -> dict[str, object]:
    """Allow S3 to send to the queue, and only for this bucket of this account.

    Without the two conditions any bucket of any account could fill the queue.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/grant-destinations-permissions-to-s3.html
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {
                    "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"},
                    "StringEquals": {"aws:SourceAccount": ACCOUNT},
                },
            }
        ],
    }


def without_foreign_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``environment`` from which nothing can reach a real AWS account, another broker or a proxy.

    Profiles and the files under ``~/.aws`` are shut out too: they may hold credentials, an endpoint or a role.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith(_FOREIGN_PREFIXES)}
    no_proxy = ",".join(part for part in (kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1") if part)
    return {
        **kept,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }


def forget_foreign_settings(environment: MutableMapping[str, str]) -> None:
    """Make ``environment``, this process's own, one from which nothing can reach a real AWS account."""
    kept = without_foreign_settings(environment)
    environment.clear()
    environment.update(kept)


def _queue_arn(sqs: Any, queue_url: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


def _client(service: str, endpoint_url: str) -> Any:
    # A session of its own, with no profile and no files: AWS_PROFILE naming one that does not exist, or a
    # ~/.aws/config with another addressing style, would break the local stack of whoever has them.
    session = Session()
    for variable, value in (("profile", None), ("config_file", os.devnull), ("credentials_file", os.devnull)):
        session.set_config_variable(variable, value)
    return session.create_client(
        service,
        region_name=REGION,
        endpoint_url=endpoint_url,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        # No proxies: 127.0.0.1 is this machine, whatever HTTP_PROXY says.
        config=Config(proxies={}, connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 2}),
    )
