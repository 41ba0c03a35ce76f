"""Types for objects: an entry of a listing, the answer to a HEAD, and what a reader needs of an object. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypedDict


class ObjectHead(TypedDict):
    """What S3 reports about an object without its bytes (HeadObject)."""

    size: int  # bytes
    etag: str  # without the quotes of the HTTP header, as in events
    content_type: str | None
    metadata: dict[str, str]  # the user's own, x-amz-meta-*
    last_modified: datetime  # with its time zone
    version_id: str | None  # None where the bucket has never had versioning
    storage_class: str  # S3 omits STANDARD from its answer; here it is filled in


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object of a listing: ``size`` in bytes, ``modified`` with its time zone, ``etag`` without quotes.

    ``version_id`` is None when the listing has none, and for the version ``null``, which S3 events omit too.
    """

    key: str
    size: int
    modified: datetime
    etag: str | None = None
    version_id: str | None = None
    storage_class: str = "STANDARD"


class ReadableObject(Protocol):
    """The parts of ``S3Object`` that the reader uses; ``S3Object`` documents them."""

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
