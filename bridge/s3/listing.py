"""The objects of a bucket, page by page: at no moment are more than a thousand of them in memory.

Keys come in the order of their UTF-8 bytes (ListObjectsV2, S3 API reference), which is what makes a backfill resumable
by one key. Buckets of S3 Express list in no order and are refused.
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
    """A bucket that can be listed: its region (None where the server does not say), and whether it has versions.

    ``has_versions`` is None when it may not be asked (s3:GetBucketVersioning is denied).
    """

    name: str
    region: str | None
    has_versions: bool | None


def find_bucket(client: Any, name: str) -> Bucket:
    """Ask S3 about a bucket (HeadBucket, GetBucketVersioning).

    Raises SettingsError when there is no such bucket or it may not be listed, and the SDK's own error for the rest.
    """
    if name.endswith(_EXPRESS_SUFFIX):
        raise SettingsError(f"s3://{name} is a directory bucket of S3 Express, which lists its objects in no order")
    try:
        head = client.head_bucket(Bucket=name)
    except Exception as error:
        code = error_code(error)
        if code in NO_SUCH_BUCKET:
            raise SettingsError(f"there is no bucket {name}") from error
        if code in _DENIED:
            raise SettingsError(
                f"the bucket {name} may not be listed (s3:ListBucket), or is somebody else's"
            ) from error
        raise
    region = head.get("BucketRegion") or head["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return Bucket(name, region, _has_versions(client, name))


def listed_objects(
    client: Any, bucket: str, prefix: str, *, start_after: str | None = None, versions: bool = False
) -> Iterator[Listed]:
    """Yield the objects whose keys start with ``prefix`` and come after ``start_after``, in the order of their keys.

    ``versions`` asks ListObjectVersions instead, which alone names the version ids; older versions and delete markers
    are passed over, but they are listed, a thousand a call like the others.
    """
    for page in _pages(client, bucket, prefix, start_after, versions=versions):
        for entry in page.get("Versions" if versions else "Contents", ()):
            # A server may start at the marker instead of after it; none may make us send an object twice.
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
        # Without "Status" the bucket has never had versioning; suspended, it still has versions.
        return "Status" in client.get_bucket_versioning(Bucket=name)
    except Exception as error:
        if error_code(error) in _DENIED:
            return None
        raise
