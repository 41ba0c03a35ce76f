"""``S3Object``, the argument of a file task. It reads exactly the object version that its event announced.

Reading goes through an ``ObjectSource``. The default source is S3 (bridge/s3/reader.py). ``use_source`` replaces it;
``bridge.testing`` uses that to let a task read local bytes without a server.

Importing this module does not import boto3. A process that uses ``S3Object`` but reads no object (a command, a user's
test, the parent of a pool) stays small: boto3 with its first client takes 26 MB (boto3 1.44).
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

    With ``allow_changed=True`` an overwritten object is read in its current version. An object larger than
    ``max_bytes`` is not read (ObjectTooLarge). A task declared with these options gets its objects with them.

    Every read raises ``ObjectGone`` when the object, its version or its bucket no longer exists, ``ObjectChanged``
    when it was overwritten after its event (unless ``allow_changed``), and otherwise botocore's own ``ClientError``.
    Without the permission ``s3:ListBucket`` S3 answers 403 instead of 404, so a missing object is then a
    ``ClientError`` with the code AccessDenied
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, "Permissions").
    """

    allow_changed: bool = False
    max_bytes: int | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the object of a ``to_dict()``. Unknown names are ignored, so a newer sender is compatible.

        Raises ValueError when the bucket or the key is missing, empty or not a str.
        """
        for name in ("bucket", "key"):
            if not isinstance(record.get(name), str) or not record[name]:
                raise ValueError(f"an S3 object needs a {name}, not {record.get(name)!r}")
        return cls(**{name: record[name] for name in field_names(cls) if name in record})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not None, as JSON values; ``allow_changed`` only when it is True."""
        record = super().to_dict()
        if not self.allow_changed:
            del record["allow_changed"]
        return record

    def __json__(self) -> dict[str, Any]:
        """Return the form in which Kombu's JSON encoder sends this object as a Celery argument (kombu.utils.json)."""
        return self.to_dict()

    @property
    def progress(self) -> Progress:
        """The checkpoint of the work on this object, kept for the next attempt: ``load()`` and ``save(dict)``."""
        kept: Progress = vars(self).setdefault("_progress", Progress())
        return kept

    def with_progress(self, progress: Progress) -> Self:
        """Return this object with that checkpoint."""
        vars(self)["_progress"] = progress
        return self

    @property
    def url(self) -> str:
        """``s3://bucket/key``, with the decoded key."""
        return f"s3://{self.bucket}/{self.key}"

    def __str__(self) -> str:
        return self.url

    def open(self) -> BinaryIO:
        """Return the bytes as a binary stream with ``read(n)``, ``for line in …``, ``with`` and ``io.TextIOWrapper``.

        The stream holds about a megabyte in memory, whatever the object's size; a line is always held whole. The bytes
        come as stored, without decompression. A broken connection raises one of botocore's ``BotoCoreError``s
        (``IncompleteReadError``, ``ReadTimeoutError``…); the stream never ends early without an error.
        """
        return current_source().open(self)

    def download(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the object to ``path``, replacing an existing file, and return the path.

        Without a path the file goes into the run's scratch directory (``bridge.scratch``), named after the last part of
        the key. An object of 16 MiB or more is downloaded over up to eight connections at once, which take about 60 MB
        of memory (measured with 1 GiB), whatever its size. The bytes go to a hidden file beside ``path``, which is
        renamed when complete, so a failure leaves no partial file. Raises NotEnoughDisk when the size in the event
        exceeds the free space, and OSError, for example when the directory does not exist.
        """
        target = Path(path) if path is not None else self._scratch_path()
        free_bytes = shutil.disk_usage(target.parent).free
        if self.size is not None and self.size > free_bytes:
            raise NotEnoughDisk(f"{self.url} has {self.size} bytes, but {target.parent} has only {free_bytes} free")
        # A short random name: one made from the target's name could exceed the 255 bytes of a file name.
        partial = target.parent / f".{secrets.token_hex(8)}.part"
        try:
            current_source().download(self, partial)
            partial.replace(target)
        finally:
            # "finally", because Celery's soft time limit raises an exception that can come at any line.
            partial.unlink(missing_ok=True)
        return target

    def head(self) -> ObjectHead:
        """Return what S3 reports about the object without its bytes (HeadObject)."""
        return current_source().head(self)

    def put_once(
        self,
        url: str,
        body: bytes | str | BinaryIO,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Write ``body`` to ``s3://bucket/key`` unless an object exists there; return True when this call wrote it.

        False means that an object exists. It may be this call's own, if S3's answer was lost. S3 itself decides
        (If-None-Match), so only one of two runs writes the key, whatever happens between that write and the completion
        in the idempotency store. Derive the key only from this object (its key, its eTag). A str is written as UTF-8; a
        file must be seekable. The limit is 5 GB, S3's limit for one PUT. Raises ValueError for another kind of URL, and
        botocore's errors (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
        """
        bucket, slash, key = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not bucket or not slash or not key:
            raise ValueError(f"put_once writes to s3://bucket/key, not {url!r}")
        content = body.encode() if isinstance(body, str) else body
        return current_source().put_once(bucket, key, content, content_type, dict(metadata or {}))

    def check_size(self, size: int) -> None:
        """Raise ObjectTooLarge when ``size`` bytes exceed the task's ``max_bytes``; the sources call it."""
        if self.max_bytes is not None and size > self.max_bytes:
            raise ObjectTooLarge(f"{self.url} has {size} bytes, but its task takes at most {self.max_bytes}")

    def _scratch_path(self) -> Path:
        # The last part of a key may be empty, or a name that leaves the directory.
        name = self.key.rsplit("/", 1)[-1]
        return directory() / (name if name not in ("", ".", "..") and len(name.encode()) <= 255 else "object")


class ObjectSource(Protocol):
    """Where the bytes of an ``S3Object`` come from; tests replace it, see ``use_source``."""

    def open(self, obj: S3Object) -> BinaryIO:
        """Return a readable, closeable binary stream of the object's bytes."""
        ...

    def download(self, obj: S3Object, path: Path) -> None:
        """Create ``path`` with the object's bytes. The caller passes a new name and removes the file on any error."""
        ...

    def head(self, obj: S3Object) -> ObjectHead:
        """Return the object's size, eTag, metadata and so on."""
        ...

    def put_once(
        self, bucket: str, key: str, body: bytes | BinaryIO, content_type: str | None, metadata: dict[str, str]
    ) -> bool:
        """Write an object unless one exists; return whether this call wrote it."""
        ...


_source: ContextVar[ObjectSource | None] = ContextVar("bridge_object_source", default=None)


def current_source() -> ObjectSource:
    """Return the source in use here: the one of ``use_source``, else S3."""
    source = _source.get()
    if source is None:
        from bridge.s3.reader import S3_SOURCE  # here, not above: it imports boto3

        return S3_SOURCE
    return source


@contextmanager
def use_source(source: ObjectSource) -> Iterator[None]:
    """Make every ``S3Object`` read from ``source`` inside the ``with``, in this thread (a context variable).

    ``bridge.testing`` builds on it. A source is any object with the four methods of ``ObjectSource``.
    """
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
