"""List the objects of a bucket page by page: at most a thousand of them are in memory at a time.

Keys are sorted by their UTF-8 bytes (ListObjectsV2, S3 API reference), so one key is enough to resume a backfill.
S3 Express buckets list in no order and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bridge.aws_errors import ACCESS_DENIED, HEAD_DENIED, NO_SUCH_BUCKET, error_code
from bridge.errors import SettingsError
from bridge.s3.types import Listed

_DENIED = ACCESS_DENIED | HEAD_DENIED
_EXPRESS_SUFFIX = "--x-s3"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that can be listed. ``region`` is None when the server does not report it.

    ``has_versions`` says whether the bucket has versions; None when s3:GetBucketVersioning is denied.
    """

    name: str
    region: str | None
    has_versions: bool | None


def find_bucket(client: Any, name: str) -> Bucket:
    """Look a bucket up in S3 (HeadBucket, GetBucketVersioning).

    Raises SettingsError when the bucket does not exist or listing it is denied, and the SDK's own error otherwise.
    """
    if name.endswith(_EXPRESS_SUFFIX):
        raise SettingsError(f"s3://{name} is an S3 Express directory bucket: these list objects in no order")
    try:
        head = client.head_bucket(Bucket=name)
    except Exception as error:
        code = error_code(error)
        if code in NO_SUCH_BUCKET:
            raise SettingsError(f"there is no bucket {name}") from error
        if code in _DENIED:
            raise SettingsError(
                f"access to bucket {name} is denied: it needs s3:ListBucket, or it belongs to another account"
            ) from error
        raise
    region = head.get("BucketRegion") or head["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return Bucket(name, region, _has_versions(client, name))


def listed_objects(
    client: Any, bucket: str, prefix: str, *, start_after: str | None = None, versions: bool = False
) -> Iterator[Listed]:
    """Yield the objects whose keys start with ``prefix`` and come after ``start_after``, sorted by key.

    With ``versions`` it calls ListObjectVersions, because only that answer has version ids. Older versions and delete
    markers are skipped, but they count towards the thousand entries per call.
    """
    for page in _pages(client, bucket, prefix, start_after, versions=versions):
        for entry in page.get("Versions" if versions else "Contents", ()):
            # Some servers start at the marker instead of after it, which must not yield an object twice.
            if entry.get("IsLatest", True) and (start_after is None or entry["Key"].encode() > start_after.encode()):
                version_id = entry.get("VersionId")
                yield Listed(
                    key=entry["Key"],
                    size=entry["Size"],
                    modified=entry["LastModified"],
                    etag=(entry.get("ETag") or "").strip('"') or None,
                    version_id=None if version_id == "null" else version_id,
                    storage_class=entry.get("StorageClass") or "STANDARD",
                )


def _pages(client: Any, bucket: str, prefix: str, start_after: str | None, *, versions: bool) -> Any:
    arguments: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    if start_after is not None:
        arguments["KeyMarker" if versions else "StartAfter"] = start_after
    return client.get_paginator("list_object_versions" if versions else "list_objects_v2").paginate(**arguments)


def _has_versions(client: Any, name: str) -> bool | None:
    try:
        # Without "Status" the bucket has never had versioning. With suspended versioning it still has versions.
        return "Status" in client.get_bucket_versioning(Bucket=name)
    except Exception as error:
        if error_code(error) in _DENIED:
            return None
        raise
