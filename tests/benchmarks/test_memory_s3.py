"""The S3 server in memory, as boto3 sees it."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from benchmarks.peers import s3_events
from benchmarks.peers.apps import work
from benchmarks.servers.memory_s3 import OBJECT_BYTES
from tests.benchmarks.conftest import client

pytestmark = pytest.mark.slow


def test_the_announced_object_is_there(s3_url: str):
    """A GET with the event's eTag brings 100 KB, and a HEAD their length."""
    s3 = client("s3", s3_url)
    key = "hash/2026/11/21/file-00000001.csv"
    answer = s3.get_object(Bucket=work.BUCKET, Key=key, IfMatch=s3_events.etag(key))
    assert len(answer["Body"].read()) == OBJECT_BYTES == work.OBJECT_BYTES
    assert answer["ETag"] == f'"{s3_events.etag(key)}"'
    assert s3.head_object(Bucket=work.BUCKET, Key=key)["ContentLength"] == OBJECT_BYTES


def test_another_etag_is_refused(s3_url: str):
    """If-Match with an eTag that is not the object's is a 412, as at S3."""
    with pytest.raises(ClientError) as caught:
        client("s3", s3_url).get_object(Bucket=work.BUCKET, Key="k", IfMatch="0" * 32)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
