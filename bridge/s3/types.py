"""What S3 says of an object, in a listing or in answer to a HEAD, and what a reader needs to know of one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypedDict


class ObjectHead(TypedDict):
    """What S3 says about an object without sending it (HeadObject)."""

    size: int  # bytes
    etag: str  # as events have it: without the quotes that HTTP puts around it
    content_type: str | None
    metadata: dict[str, str]  # the user's own, x-amz-meta-*
    last_modified: datetime  # with its time zone
    version_id: str | None  # None where the bucket has never had versioning
    storage_class: str  # S3 leaves STANDARD out of its answer; here it is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object as S3 lists it: ``size`` in bytes, ``modified`` with its time zone, ``etag`` without quotes.

    ``version_id`` is None where the listing has none, and for the version ``null``, which S3's events leave out too.
    """

    key: str
    size: int
    modified: datetime
    etag: str | None = None
    version_id: str | None = None
    storage_class: str = "STANDARD"


class ReadableObject(Protocol):
    """The parts of ``S3Object`` that the reader uses; see there for what each means."""

    @property
    def bucket(self) -> str: ...  # noqa: D102 - as in S3Object

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def version_id(self) -> str | None: ...  # noqa: D102

    @property
    def etag(self) -> str | None: ...  # noqa: D102

    @property
    def size(self) -> int | None: ...  # noqa: D102

    @property
    def region(self) -> str | None: ...  # noqa: D102

    @property
    def allow_changed(self) -> bool: ...  # noqa: D102

    @property
    def url(self) -> str: ...  # noqa: D102

    def check_size(self, size: int) -> None: ...  # noqa: D102
