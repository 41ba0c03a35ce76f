"""S3 as the source of objects.

A read gets exactly the object version that an event announced. It requests the event's version id. Without one it sends
``If-Match`` with the event's eTag, so S3 itself refuses bytes that were written after the event
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).

This module imports boto3, so the first read or write imports it, and the start of a worker does not.
"""

from __future__ import annotations

import io
import itertools
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError
from s3transfer.exceptions import S3DownloadFailedError
from s3transfer.subscribers import BaseSubscriber

from bridge.aws_errors import DELETE_MARKER, NO_SUCH_BUCKET, NO_SUCH_OBJECT, PRECONDITION_FAILED, WRITE_CONFLICT
from bridge.errors import ObjectChanged, ObjectGone, ObjectTooLarge
from bridge.s3.clients import PARALLEL_PARTS, s3_client
from bridge.s3.types import ObjectHead, ReadableObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MEBIBYTE = 1024 * 1024
BUFFER_BYTES = MEBIBYTE
PARALLEL_FROM_BYTES = 16 * MEBIBYTE  # below this, more connections cost more time than they save
PART_BYTES = 8 * MEBIBYTE  # S3's performance guide: ranges of 8 to 16 MB

_CONFLICT_TRIES = 5


def read_arguments(obj: ReadableObject, *, conditional: bool = True) -> dict[str, str]:
    """Return the arguments with which GetObject and HeadObject read exactly this version of the object. Pure.

    The version id ``null`` does not identify the bytes: where versioning is suspended, the next put overwrites that
    version (AWS: "Adding objects to versioning-suspended buckets"). So ``null`` is sent together with the eTag.
    """
    arguments = {"Bucket": obj.bucket, "Key": obj.key}
    if obj.version_id:
        arguments["VersionId"] = obj.version_id
    if conditional and obj.etag and obj.version_id in (None, "", "null"):
        arguments["IfMatch"] = f'"{obj.etag}"'
    return arguments


class _S3Source:
    """An ObjectSource (bridge/s3/object.py) that reads from S3."""

    def open(self, obj: ReadableObject) -> BinaryIO:
        response = _ask(s3_client(obj.region).get_object, obj)
        try:
            obj.check_size(response["ContentLength"])
        except ObjectTooLarge:
            response["Body"].close()
            raise
        return _Stream(_Body(response["Body"]), BUFFER_BYTES)

    def download(self, obj: ReadableObject, path: Path) -> None:
        # The event's size saves the HEAD for small files. If the object has changed, the size may be wrong, which only
        # costs speed.
        head = self.head(obj) if obj.size is None or obj.size >= PARALLEL_FROM_BYTES else None
        if head is not None and head["size"] >= PARALLEL_FROM_BYTES:
            obj.check_size(head["size"])
            try:
                _copy_in_parts(obj, head, path)
            except ObjectChanged:
                if not obj.allow_changed:
                    raise
                # It may change again at any time. A single GET always returns one version.
            else:
                return
        with self.open(obj) as body, path.open("wb") as file:
            shutil.copyfileobj(body, file, BUFFER_BYTES)

    def head(self, obj: ReadableObject) -> ObjectHead:
        response = _ask(s3_client(obj.region).head_object, obj)
        return ObjectHead(
            size=response["ContentLength"],
            etag=response["ETag"].strip('"'),
            content_type=response.get("ContentType"),
            metadata=response["Metadata"],
            last_modified=response["LastModified"],
            version_id=response.get("VersionId"),
            storage_class=response.get("StorageClass", "STANDARD"),
        )

    def put_once(
        self, bucket: str, key: str, body: bytes | BinaryIO, content_type: str | None, metadata: dict[str, str]
    ) -> bool:
        kind = {"ContentType": content_type} if content_type else {}
        start = None if isinstance(body, bytes) else body.tell()
        for attempt in itertools.count(1):
            try:
                s3_client().put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata, IfNoneMatch="*", **kind)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in PRECONDITION_FAILED:
                    return False
                # Another conditional write of this key was in progress; the next try shows whether it succeeded.
                if code not in WRITE_CONFLICT or attempt == _CONFLICT_TRIES:
                    raise
            else:
                return True
            if start is not None:
                cast(BinaryIO, body).seek(start)
            time.sleep(random.uniform(0.05, 0.2) * attempt)  # noqa: S311 - spreads tries, not a secret
        raise AssertionError("unreachable: the loop ends only by return or raise")


S3_SOURCE = _S3Source()


class _Body(io.RawIOBase):
    """botocore's StreamingBody as the raw stream of a BufferedReader.

    A StreamingBody iterates over pieces of 1 KB where a file iterates over lines, and its ``with`` returns the urllib3
    response, which verifies no checksum. Both read methods used here verify length and checksum at the end.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = int(self._body.readinto(buffer))
        self._position += count
        return count

    def readall(self) -> bytes:
        return self._counted(self._body.read())

    def take(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end of the object, where the empty read verifies the length."""
        content = self._counted(self._body.read(size))
        while len(content) < size and (more := self._counted(self._body.read(size - len(content)))):
            content += more
        return content

    def _counted(self, content: bytes) -> bytes:
        self._position += len(content)
        return content

    def close(self) -> None:
        # Closing a body before its end also closes the connection, because the unread bytes are still in it.
        self._body.close()
        super().close()


class _Stream(io.BufferedReader):
    """The stream that a task reads: a BufferedReader whose large reads bypass ``readinto``.

    For ``readinto`` urllib3 (2.8) reads into its own bytes and copies them. A read of one mebibyte then takes 0.5 ms
    instead of 0.2 ms.
    """

    raw: _Body

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= BUFFER_BYTES and self.tell() == self.raw.tell():  # nothing is buffered
            return self.raw.take(size)
        return super().read(size)


def _ask(call: Callable[..., Any], obj: ReadableObject, *, conditional: bool = True) -> Any:
    """Return a client method's answer for this object; raises ObjectGone or ObjectChanged if S3's error means that."""
    try:
        return call(**read_arguments(obj, conditional=conditional))
    except ClientError as error:
        refusal = _refusal(obj, error)
        if refusal is None:
            raise
        if isinstance(refusal, ObjectChanged) and obj.allow_changed and conditional:
            return _ask(call, obj, conditional=False)
        raise refusal from error


def _refusal(obj: ReadableObject, error: ClientError) -> ObjectGone | ObjectChanged | None:
    """Return ObjectGone or ObjectChanged if the ClientError means that, else None."""
    code = error.response["Error"]["Code"]
    version = f" (version {obj.version_id})" if obj.version_id else ""
    if code in NO_SUCH_OBJECT | NO_SUCH_BUCKET | DELETE_MARKER:
        return ObjectGone(f"{obj.url}{version} no longer exists: S3 answered {code}")
    if code in PRECONDITION_FAILED:
        return ObjectChanged(f"{obj.url}{version} was overwritten after its event (eTag {obj.etag})")
    return None


def _copy_in_parts(obj: ReadableObject, head: ObjectHead, path: Path) -> None:
    """Write the object version of ``head`` to ``path`` over several connections. Raises ObjectChanged, ObjectGone.

    boto3's ``download_file`` accepts VersionId but not IfMatch (s3transfer.constants.ALLOWED_DOWNLOAD_ARGS). The
    transfer manager below it sends If-Match with every range when a subscriber provides the eTag.
    """

    class Pin(BaseSubscriber):
        def on_queued(self, future: Any, **_: Any) -> None:
            future.meta.provide_transfer_size(head["size"])
            future.meta.provide_object_etag(f'"{head["etag"]}"')

    config = TransferConfig(
        multipart_threshold=PARALLEL_FROM_BYTES,  # a transfer below it sends no If-Match
        multipart_chunksize=PART_BYTES,
        max_concurrency=PARALLEL_PARTS,
        io_chunksize=MEBIBYTE,
        max_io_queue=2 * PARALLEL_PARTS,  # chunks of io_chunksize that may wait for a slow disk: 16 MiB
        preferred_transfer_client="classic",  # the CRT client sends no If-Match and does not survive a fork
    )
    version = {"VersionId": obj.version_id} if obj.version_id else {}
    try:
        # A file object, because for a file name the manager would create a second temporary file.
        with path.open("wb") as file, create_transfer_manager(s3_client(obj.region), config) as manager:
            manager.download(obj.bucket, obj.key, file, version, [Pin()]).result()
    except S3DownloadFailedError as error:  # raised for 412 and nothing else
        raise ObjectChanged(f"{obj.url} was overwritten during its download") from error
    except ClientError as error:
        refusal = _refusal(obj, error)
        if refusal is None:
            raise
        raise refusal from error
