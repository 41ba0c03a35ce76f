"""Records as S3 objects: ``s3://bucket/prefix/<id>.json``, written with If-None-Match and If-Match.

S3 decides which of two conditional writes comes first, and reads return the newest write at once
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). The store needs only a bucket; a
lifecycle rule on the prefix removes expired records. The worker needs s3:GetObject and s3:PutObject on the prefix, and
s3:ListBucket on the bucket. Without s3:ListBucket, S3 answers 403 for a record that does not exist yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header

from bridge.aws_errors import NO_SUCH_OBJECT, PRECONDITION_FAILED, WRITE_CONFLICT
from bridge.idempotency.store import Refused, Stored, unavailable
from bridge.s3.clients import PerProcess

#: 412: the condition does not hold. 409: another conditional write was in progress, so it may or may not hold. 404
#: (with If-Match): the object no longer exists.
_REFUSALS = PRECONDITION_FAILED | WRITE_CONFLICT | NO_SUCH_OBJECT
_SUFFIX = ".json"

#: Short timeouts: a pool process waits for each call, so it gives up early and lets the message wait in SQS instead.
CONFIG = Config(
    connect_timeout=2,
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=32,
    tcp_keepalive=True,
)


class S3Store:
    """A Store (bridge/idempotency/store.py) in a bucket."""

    refusal_tells = False

    def __init__(self, bucket: str, prefix: str, region: str | None) -> None:
        """Make no call yet; the first call of each process makes its client."""
        self.url = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._client: PerProcess[Any] = PerProcess(lambda session: _client(session, region))

    def read(self, record_id: str) -> Stored | None:
        """Implement ``Store.read`` with one GetObject."""
        try:
            answer = self._client.get().get_object(Bucket=self._bucket, Key=self._key(record_id))
            return Stored(answer["Body"].read().decode("utf-8", "replace"), answer["ETag"])
        except ClientError as error:
            if error.response["Error"]["Code"] in NO_SUCH_OBJECT:
                return None
            raise unavailable(self.url, error) from error
        except (BotoCoreError, OSError) as error:  # OSError: from urllib3, while reading the body
            raise unavailable(self.url, error) from error

    def create(self, record_id: str, text: str, expires_at: int) -> str | Refused:
        """Implement ``Store.create`` with one PutObject; a lifecycle rule takes the place of ``expires_at``."""
        return self._put(record_id, text, {"IfNoneMatch": "*"})

    def replace(self, record_id: str, text: str, tag: str, expires_at: int) -> str | Refused:
        """Implement ``Store.replace`` with one PutObject."""
        return self._put(record_id, text, {"IfMatch": tag})

    def records(self, folder: str) -> Iterator[tuple[str, str | None]]:
        """Implement ``Store.records``, without texts, by one ListObjectsV2 (s3:ListBucket) per thousand records."""
        pages = self._client.get().get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/{folder}"):
                for entry in page.get("Contents", ()):
                    if entry["Key"].endswith(_SUFFIX):
                        yield entry["Key"].removeprefix(f"{self._prefix}/").removesuffix(_SUFFIX), None
        except (ClientError, BotoCoreError) as error:
            raise unavailable(self.url, error) from error

    def _put(self, record_id: str, text: str, condition: dict[str, str]) -> str | Refused:
        try:
            answer = self._client.get().put_object(
                Bucket=self._bucket,
                Key=self._key(record_id),
                Body=text.encode(),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _REFUSALS:
                return Refused()
            raise unavailable(self.url, error) from error
        except (BotoCoreError, OSError) as error:
            raise unavailable(self.url, error) from error
        return str(answer["ETag"])

    def _key(self, record_id: str) -> str:
        return f"{self._prefix}/{record_id}{_SUFFIX}"


def _client(session: Session, region: str | None) -> Any:
    client = session.client("s3", region, config=CONFIG)
    # Before each PUT body botocore sends "Expect: 100-continue" and waits up to a second for the answer. That pays off
    # for large bodies; for half a kilobyte it only costs a round trip.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client
