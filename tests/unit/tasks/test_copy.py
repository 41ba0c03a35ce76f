"""tasks.copy: parts, resuming, and one copy whoever completes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import S3Object
from bridge.errors import ObjectChanged, ObjectGone, SettingsError
from bridge.s3.clients import forget_clients, s3_client
from tasks import copy as copying
from tests.support.servers.sqs import SqsServer, environment_for

MEBIBYTE = 1024 * 1024


@pytest.fixture
def bucket(moto_server: SqsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of S3, with results beside the objects, and parts as small as S3 takes them."""
    for name, value in environment_for(moto_server).items():
        monkeypatch.setenv(name, value)
    name = f"copy-{uuid4().hex[:8]}"
    moto_server.s3.create_bucket(Bucket=name)
    monkeypatch.setenv("BRIDGE_RESULTS_URL", f"s3://{name}/copies/")
    monkeypatch.setattr(copying, "PART_BYTES", 5 * MEBIBYTE)
    forget_clients()
    yield name
    s3_client("us-east-1").close()
    forget_clients()


def stored(server: SqsServer, bucket: str, size: int) -> S3Object:
    """An object of ``size`` random bytes."""
    etag = server.s3.put_object(Bucket=bucket, Key="big file", Body=os.urandom(size))["ETag"].strip('"')
    return S3Object(bucket=bucket, key="big file", etag=etag, size=size)


def content(server: SqsServer, url: str) -> bytes:
    """The bytes of an object."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return server.s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def test_an_interrupted_copy_goes_on_where_it_stopped(moto_server: SqsServer, bucket: str) -> None:
    """A second run copies only the parts that the first one did not, and the copy has every byte."""
    obj = stored(moto_server, bucket, 17 * MEBIBYTE)
    events = s3_client("us-east-1").meta.events
    numbers: list[int] = []

    def fail_at_the_third(params: dict[str, Any], **_: Any) -> None:
        numbers.append(int(params["query_string"]["partNumber"]))
        if len(numbers) == 3:
            raise ConnectionError("the third part does not get through")

    events.register("before-call.s3.UploadPartCopy", fail_at_the_third)
    with pytest.raises(ConnectionError):
        copying.copy(obj)
    result = copying.copy(obj)
    events.unregister("before-call.s3.UploadPartCopy", fail_at_the_third)
    assert numbers == [1, 2, 3, 3, 4]
    assert result["parts"] == 2
    assert content(moto_server, result["copy"]) == content(moto_server, obj.url)
    uploads = moto_server.s3.list_multipart_uploads(Bucket=bucket)
    assert not uploads.get("Uploads")


def test_a_second_copy_changes_nothing(moto_server: SqsServer, bucket: str) -> None:
    """A run that finds the copy made leaves it alone and leaves no upload behind."""
    obj = stored(moto_server, bucket, 6 * MEBIBYTE)
    first = copying.copy(obj)
    written = moto_server.s3.head_object(Bucket=bucket, Key=first["copy"].partition(f"{bucket}/")[2])["LastModified"]
    again = copying.copy(S3Object.from_dict(obj.to_dict()))
    assert again["copy"] == first["copy"]
    after = moto_server.s3.head_object(Bucket=bucket, Key=first["copy"].partition(f"{bucket}/")[2])["LastModified"]
    assert after == written
    assert not moto_server.s3.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_an_upload_that_was_removed_is_begun_anew(moto_server: SqsServer, bucket: str) -> None:
    """A checkpoint whose upload is gone does not end the job."""
    obj = stored(moto_server, bucket, 6 * MEBIBYTE)
    obj.progress.save({"upload_id": "removed-by-a-lifecycle-rule"})
    assert copying.copy(obj)["parts"] == 2


def test_an_empty_object_is_copied_too(moto_server: SqsServer, bucket: str) -> None:
    """An object without a byte becomes one without a byte."""
    obj = stored(moto_server, bucket, 0)
    assert content(moto_server, copying.copy(obj)["copy"]) == b""


@pytest.mark.parametrize("size", [0, 10])
def test_a_copy_has_the_type_and_the_metadata(moto_server: SqsServer, bucket: str, size: int) -> None:
    """An upload in parts takes nothing over by itself: the copy of a page must still be one to a browser."""
    told = {"ContentType": "text/html", "Metadata": {"order": "17"}}
    moto_server.s3.put_object(Bucket=bucket, Key="page", Body=os.urandom(size), **told)
    made = copying.copy(S3Object(bucket=bucket, key="page"))["copy"]
    head = moto_server.s3.head_object(Bucket=bucket, Key=made.partition(f"{bucket}/")[2])
    assert {name: head[name] for name in told} == told


def test_gone_and_changed_objects_are_told(moto_server: SqsServer, bucket: str) -> None:
    """A copy of what is no longer there, or no longer the same, ends as a read of it would."""
    obj = stored(moto_server, bucket, 10)
    moto_server.s3.put_object(Bucket=bucket, Key=obj.key, Body=b"something else")
    with pytest.raises(ObjectChanged):
        copying.copy(obj)
    moto_server.s3.delete_object(Bucket=bucket, Key=obj.key)
    with pytest.raises(ObjectGone):
        copying.copy(obj)


def test_without_results_url_it_says_so(moto_server: SqsServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting that is missing is named."""
    monkeypatch.delenv("BRIDGE_RESULTS_URL")
    with pytest.raises(SettingsError, match="BRIDGE_RESULTS_URL"):
        copying.copy(stored(moto_server, bucket, 1))


@given(st.integers(1, 6 * 1024**4))
def test_ranges_cover_every_byte_once(size: int) -> None:
    """The parts follow one another from the first byte to the last, and are never more than S3 takes."""
    parts = copying.ranges(size)
    assert len(parts) <= copying.MOST_PARTS
    assert parts[0][0] == 0
    assert parts[-1][1] == size - 1
    assert all(after[0] == before[1] + 1 for before, after in pairwise(parts))
    assert all(last - first + 1 == parts[0][1] + 1 for first, last in parts[:-1])
