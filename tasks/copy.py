"""Copy every object under ``BRIDGE_RESULTS_URL``, in parts, and go on where the last attempt stopped.

An example of a long job: the upload's id is its checkpoint (``obj.progress``), S3 itself knows which parts are there,
and the upload completes only where nothing is (If-None-Match), so that two runs make one copy. No byte passes through
the worker: S3 copies each part from the version that the event announced. An abandoned upload costs
storage until a lifecycle rule (AbortIncompleteMultipartUpload) removes it.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from bridge import S3Object, file_task
from bridge.aws_errors import NO_SUCH_OBJECT, PRECONDITION_FAILED
from bridge.errors import ObjectChanged, ObjectGone, SettingsError
from bridge.s3.types import ObjectHead
from bridge.settings.loading import load_results_settings

MEBIBYTE = 1024 * 1024
#: S3 takes up to 10,000 parts of 5 MiB to 5 GiB; an object may have 5 TB and more
#: (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
PART_BYTES = 64 * MEBIBYTE
MOST_PARTS = 10_000


@file_task("*", time_limit=6 * 3600)
def copy(obj: S3Object) -> dict[str, Any]:
    """Copy the object; return ``copy``, the URL of the copy, and how many parts this run copied.

    Raises SettingsError without ``BRIDGE_RESULTS_URL``, ObjectGone and ObjectChanged as a read does, botocore's errors.
    """
    from bridge.s3.clients import s3_client  # here, not above: boto3 is not for the worker's parent process

    settings = load_results_settings()
    if settings.results_url is None:
        raise SettingsError("BRIDGE_RESULTS_URL is not set: tasks.copy writes there, s3://bucket/prefix/")
    bucket, _, prefix = settings.results_url.removeprefix("s3://").partition("/")
    head = obj.head()
    target = {"Bucket": bucket, "Key": f"{prefix}{obj.bucket}/{obj.key}@{head['version_id'] or head['etag']}"}
    source = {"Bucket": obj.bucket, "Key": obj.key}
    if head["version_id"]:
        source["VersionId"] = head["version_id"]
    client = s3_client(settings.region)
    url = f"s3://{target['Bucket']}/{target['Key']}"
    if head["size"] == 0:  # an upload in parts has at least one byte
        obj.put_once(url, b"", content_type=head["content_type"], metadata=head["metadata"])
        return {"copy": url, "parts": 0}

    upload_id, there = _resume(client, target, obj, head)
    copied = 0
    for number, (first, last) in enumerate(ranges(head["size"]), start=1):
        if number in there:
            continue
        try:
            answer = client.upload_part_copy(
                **target,
                UploadId=upload_id,
                PartNumber=number,
                CopySource=source,
                CopySourceRange=f"bytes={first}-{last}",
                CopySourceIfMatch=f'"{head["etag"]}"',
            )
        except ClientError as error:
            raise _refusal(obj, error) or error from error
        there[number] = answer["CopyPartResult"]["ETag"]
        copied += 1
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(there.items())]
    try:
        client.complete_multipart_upload(
            **target, UploadId=upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
        )
    except ClientError as error:
        if error.response["Error"]["Code"] not in PRECONDITION_FAILED:
            raise
        client.abort_multipart_upload(**target, UploadId=upload_id)  # the copy is there: another run has made it
    return {"copy": url, "parts": copied}


def ranges(size: int) -> list[tuple[int, int]]:
    """Return the first and last byte of each part of an object of ``size`` bytes; the same for the same size."""
    part = PART_BYTES
    while size > part * MOST_PARTS:
        part *= 2
    return [(first, min(first + part, size) - 1) for first in range(0, size, part)]


def _resume(client: Any, target: dict[str, str], obj: S3Object, head: ObjectHead) -> tuple[str, dict[int, str]]:
    """Return the upload of an earlier attempt with its parts, eTags by number; else a new one."""
    upload_id = obj.progress.load().get("upload_id")
    if upload_id:
        try:
            pages = client.get_paginator("list_parts").paginate(**target, UploadId=upload_id)
            return upload_id, {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", [])}
        except ClientError as error:
            # Removed by a lifecycle rule, or completed by a run whose end was lost: begin anew, it completes only once.
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise
    kind = {"ContentType": head["content_type"]} if head["content_type"] else {}
    upload_id = client.create_multipart_upload(**target, **kind, Metadata=head["metadata"])["UploadId"]
    obj.progress.save({"upload_id": upload_id})
    return upload_id, {}


def _refusal(obj: S3Object, error: ClientError) -> Exception | None:
    code = error.response["Error"]["Code"]
    if code in PRECONDITION_FAILED:
        return ObjectChanged(f"{obj.url} was overwritten while it was copied")
    if code in NO_SUCH_OBJECT:
        return ObjectGone(f"{obj.url} no longer exists: S3 answered {code}")
    return None
