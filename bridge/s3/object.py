"""The object a task gets: ``S3Object`` reads the very object that its event announced.

Reading goes through an ``ObjectSource``. The default one is S3 (bridge/s3/reader.py); ``use_source`` puts another in
its place, which is how ``bridge.testing`` lets a task read local bytes without a server.

Importing this module does not import boto3, so that a process which knows ``S3Object`` but reads no object (a command,
a user's test, the parent of a pool) stays small: boto3 with its first client takes 26 MB (boto3 1.44).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from bridge.errors import NotEnoughDisk, ObjectTooLarge
from bridge.s3.event import ObjectRecord, field_names
from bridge.s3.progress import Progress
from bridge.s3.types import ObjectHead
from bridge.scratch import directory


@dataclass(frozen=True, kw_only=True)
class S3Object(ObjectRecord):
    """One S3 object, as its event announced it: ``bucket``, ``key`` (decoded), ``version_id``, ``etag``, ``size``…

    ``allow_changed=True`` reads the object as it is now when it was overwritten since, and an object larger than
    ``max_bytes`` is not read (ObjectTooLarge); a task declared with these options gets its objects so.

    Every read raises ``ObjectGone`` when the object, its version or its bucket no longer exists, ``ObjectChanged``
    when it was overwritten since its event (unless ``allow_changed``), and else botocore's own ``ClientError``.
    Who may not list a bucket gets 403 from S3 where others get 404, so without the permission ``s3:ListBucket`` a
    missing object is a ``ClientError`` with the code AccessDenied
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, "Permissions").
    """

    allow_changed: bool = False
    max_bytes: int | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The object of a ``to_dict()``. Names it does not know are left out, so that a newer sender does no harm.

        Raises ValueError when the bucket or the key is missing, empty or no text.
        """
        for name in ("bucket", "key"):
            if not isinstance(record.get(name), str) or not record[name]:
                raise ValueError(f"an S3 object needs a {name}, not {record.get(name)!r}")
        return cls(**{name: record[name] for name in field_names(cls) if name in record})

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None, as JSON values; ``allow_changed`` only when it is on."""
        record = super().to_dict()
        if not self.allow_changed:
            del record["allow_changed"]
        return record

    def __json__(self) -> dict[str, Any]:
        """What kombu's JSON encoder sends for this object as a Celery argument (kombu.utils.json)."""
        return self.to_dict()

    @property
    def progress(self) -> Progress:
        """The checkpoint of the work on this object: ``load()`` and ``save(dict)``, kept for the next attempt."""
        kept: Progress = vars(self).setdefault("_progress", Progress())
        return kept

    def with_progress(self, progress: Progress) -> Self:
        """Return this object with that checkpoint."""
        vars(self)["_progress"] = progress
        return self

    @property
    def url(self) -> str:
        """``s3://bucket/key``, the key as it is."""
        return f"s3://{self.bucket}/{self.key}"

    def __str__(self) -> str:
        return self.url

    def open(self) -> BinaryIO:
        """The bytes as a binary stream: ``read(n)``, ``for line in …``, ``with`` and ``io.TextIOWrapper`` work on it.

        It holds about a megabyte at a time, whatever the size (a line is held whole, however long it is). The bytes
        come as stored: nothing is decompressed. A connection that breaks raises one of botocore's ``BotoCoreError``s
        (``IncompleteReadError``, ``ReadTimeoutError``…): the stream never just ends early.
        """
        return current_source().open(self)

    def download(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the object to ``path``, over a file that is there, and return the path.

        Without a path the file goes into the run's scratch directory (``bridge.scratch``), named as the last part of
        the key. An object of 16 MiB and more comes over up to eight connections at a time, which take some 60 MB of
        memory (measured with 1 GiB), whatever its size. The bytes go to a hidden file beside ``path`` that takes its
        place when complete, so a failure leaves no half file. Raises NotEnoughDisk when the announced size does not
        fit, and OSError: no such directory…
        """
        target = Path(path) if path is not None else self._scratch_path()
        free_bytes = shutil.disk_usage(target.parent).free
        if self.size is not None and self.size > free_bytes:
            raise NotEnoughDisk(f"{self.url} has {self.size} bytes, {target.parent} has {free_bytes} left")
        # A short name of its own: one made from the target's could exceed the 255 bytes that a file name may have.
        partial = target.parent / f".{secrets.token_hex(8)}.part"
        try:
            current_source().download(self, partial)
            partial.replace(target)
        finally:
            # "finally", because Celery's soft time limit is an exception that can arrive at any line.
            partial.unlink(missing_ok=True)
        return target

    def head(self) -> ObjectHead:
        """What S3 knows about the object (HeadObject), without its bytes."""
        return current_source().head(self)

    def put_once(
        self,
        url: str,
        body: bytes | str | BinaryIO,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Write ``body`` to ``s3://bucket/key`` unless an object is there; True when this call wrote it.

        False means that an object is there, be it this call's own, of which the answer was lost. S3 itself decides
        (If-None-Match), so of two runs that write the same key one writes, whatever happens between an effect and its
        completion in the idempotency store. Derive the key from this object (its key, its eTag) and nothing else.
        Text is written as UTF-8; a file must be seekable; at most 5 GB, S3's limit for one PUT. Raises ValueError for
        another kind of URL, and botocore's errors
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
        """
        bucket, slash, key = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not bucket or not slash or not key:
            raise ValueError(f"put_once writes to s3://bucket/key, not {url!r}")
        content = body.encode() if isinstance(body, str) else body
        return current_source().put_once(bucket, key, content, content_type, dict(metadata or {}))

    def check_size(self, size: int) -> None:
        """Raise ObjectTooLarge when an object of ``size`` bytes is more than the task takes; asked by the sources."""
        if self.max_bytes is not None and size > self.max_bytes:
            raise ObjectTooLarge(f"{self.url} has {size} bytes, its task takes {self.max_bytes}")

    def _scratch_path(self) -> Path:
        # The last part of a key may be empty, or a name that leads out of the directory.
        name = self.key.rsplit("/", 1)[-1]
        return directory() / (name if name not in ("", ".", "..") and len(name.encode()) <= 255 else "object")


class ObjectSource(Protocol):
    """Where the bytes of an ``S3Object`` come from: the seam for tests, see ``use_source``."""

    def open(self, obj: S3Object) -> BinaryIO:
        """A readable, closeable binary stream of the object's bytes."""
        ...

    def download(self, obj: S3Object, path: Path) -> None:
        """Create ``path`` with the object's bytes. The caller gives a new name and removes the file on any error."""
        ...

    def head(self, obj: S3Object) -> ObjectHead:
        """The object's size, eTag, metadata and so on."""
        ...

    def put_once(
        self, bucket: str, key: str, body: bytes | BinaryIO, content_type: str | None, metadata: dict[str, str]
    ) -> bool:
        """Write an object unless there is one; say whether this call wrote it."""
        ...


_source: ContextVar[ObjectSource | None] = ContextVar("bridge_object_source", default=None)


def current_source() -> ObjectSource:
    """The source that reads go to here and now: the one of ``use_source``, else S3."""
    source = _source.get()
    if source is None:
        from bridge.s3.reader import S3_SOURCE  # here, not above: it imports boto3

        return S3_SOURCE
    return source


@contextmanager
def use_source(source: ObjectSource) -> Iterator[None]:
    """Let every ``S3Object`` read from ``source`` inside the ``with``, in this thread (a context variable).

    The seam that ``bridge.testing`` stands on: a source is any object with the three methods of ``ObjectSource``.
    """
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
