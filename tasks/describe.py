"""Describe every object: stream it once, write what is in it as a JSON manifest under ``BRIDGE_RESULTS_URL``.

A manifest is made of the object and its event alone: no time of the run, no name of the worker. So a message that is
delivered twice writes the same bytes to the same key, and the second time changes nothing.

    {"manifest_version": 1, "sha256": "…", "size": 12, "media_type": "text/csv", "lines": 3,
     "object": {"bucket", "key", "version_id", "etag", "content_type", "metadata", "last_modified"}, "event": {…}}

``size`` is in bytes, ``lines`` is null for what is not text, ``object`` is S3's answer, ``event`` is as it came. The
storage class is left out: a lifecycle rule changes it while the object stays the same.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC
from mimetypes import MimeTypes
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypedDict
from urllib.parse import quote

from bridge import S3Object, file_task
from bridge.errors import SettingsError
from bridge.s3.types import ObjectHead
from bridge.settings.loading import load_results_settings

MANIFEST_VERSION = 1
CHUNK_BYTES = 1024 * 1024
HASHED_BESIDE_BYTES = 256 * 1024  # a smaller chunk is hashed sooner than handed to a thread
CHUNKS_AHEAD = 2  # that may wait for the hash, all of them in memory
MAX_KEY_BYTES = 1024  # of UTF-8, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html

# First bytes that identify a format, with their offset.
_SIGNATURES = (
    (0, b"%PDF-", "application/pdf"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/x-wav"),
    (4, b"ftypiso", "video/mp4"),
    (4, b"ftypmp4", "video/mp4"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
)
# Formats that are zip inside, where the name says more than the signature.
_ZIP_INSIDE = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
# Types that are only believed when the content shows it.
_SIGNED = {media_type for _, _, media_type in _SIGNATURES} | set(_ZIP_INSIDE.values())
# An instance has Python's own table alone; the functions of the module add the machine's /etc/mime.types, with which
# two workers could write two manifests for one object.
_TYPE_BY_SUFFIX = MimeTypes().types_map[True] | _ZIP_INSIDE


class Description(TypedDict):
    """What is in a stream: ``size`` in bytes, ``lines`` None unless it is text."""

    sha256: str
    size: int
    media_type: str
    lines: int | None


@file_task("*", max_retries=5)
def describe(obj: S3Object) -> dict[str, Any]:
    """Write the manifest of an object; return its description and ``manifest``, the URL of what was written.

    Raises SettingsError without ``BRIDGE_RESULTS_URL``, and what reading raises (``S3Object``). An object overwritten
    while it is read raises ``ObjectChanged``, for its head and its bytes must be of the same version.
    """
    from bridge.s3.clients import s3_client  # here, not above: boto3 is not for the worker's parent process

    settings = load_results_settings()
    if settings.results_url is None:
        raise SettingsError(
            "BRIDGE_RESULTS_URL is not set: tasks.describe writes its manifests there, s3://bucket/prefix/"
        )
    head = obj.head()
    with replace(obj, version_id=head["version_id"], etag=head["etag"], allow_changed=False).open() as stream:
        description = describe_stream(stream, obj.key)
    bucket, _, prefix = settings.results_url.removeprefix("s3://").partition("/")
    key = manifest_key(prefix, obj.bucket, obj.key, version_id=head["version_id"], etag=head["etag"])
    body = manifest(obj, head, description)
    s3_client(settings.region).put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")
    return {**description, "manifest": f"s3://{bucket}/{key}"}


def describe_stream(stream: BinaryIO, key: str = "", *, chunk_bytes: int = CHUNK_BYTES) -> Description:
    """Read a stream to its end, ``chunk_bytes`` at a time, and describe it. ``key`` helps to name the media type.

    Text is what decodes as UTF-8 and has no NUL; nothing at all is text of 0 lines. A line ends with LF, the last one
    also with the end of the stream.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, last, is_text, size, ends = b"", b"", True, 0, 0
    with _Sha256() as digest:
        while chunk := stream.read(chunk_bytes):
            digest.update(chunk)
            size += len(chunk)
            if len(start) < 16:
                start = (start + chunk)[:16]
            is_text = is_text and b"\0" not in chunk and _decodes(decoder, chunk)
            if is_text:  # counting goes on only as long as it is of use
                ends += chunk.count(b"\n")
                last = chunk[-1:]
        sha256 = digest.hexdigest()
    is_text = is_text and _decodes(decoder, b"", final=True)
    lines = ends + (last not in (b"", b"\n")) if is_text else None
    media_type = media_type_of(start, key, is_text=is_text)
    return Description(sha256=sha256, size=size, media_type=media_type, lines=lines)


class _Sha256:
    """A SHA-256 that takes large chunks in a thread of its own, used in ``with``.

    hashlib lets go of the GIL for them (https://docs.python.org/3/library/hashlib.html), so a second core hashes while
    this one receives the next bytes and counts lines: of text 1.7 times as many bytes a second (2 cores, Python 3.11).
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "describe-sha256")  # starts with the first chunk it is given
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> _Sha256:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever ended the task, be it a soft time limit at any line: at most the chunk at hand is awaited.
        self._thread.shutdown(cancel_futures=True)

    def update(self, chunk: bytes) -> None:
        if len(chunk) < HASHED_BESIDE_BYTES:
            self._wait(0)  # the bytes go into the hash in their order
            self._digest.update(chunk)
            return
        self._pending.append(self._thread.submit(self._digest.update, chunk))
        self._wait(CHUNKS_AHEAD)

    def hexdigest(self) -> str:
        self._wait(0)
        return self._digest.hexdigest()

    def _wait(self, most: int) -> None:
        while len(self._pending) > most:
            self._pending.popleft().result()


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> bool:
    # The decoder keeps the start of a character that a chunk has cut in two, until the rest comes.
    if not final and chunk.isascii() and not decoder.getstate()[0]:
        return True  # without making a text of it
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def media_type_of(start: bytes, key: str, *, is_text: bool) -> str:
    """The media type of content that starts with ``start`` (16 bytes are enough) and lies under ``key``.

    A signature in the content counts first, then the name's last suffix, unless it promises a signature that is not
    there; then ``text/plain`` or ``application/octet-stream``.
    """
    suffix = PurePosixPath(key).suffix.lower()
    if not is_text or start.startswith(b"%PDF-"):  # other signatures in text are chance: "BZh" may begin a word
        for place, signature, media_type in _SIGNATURES:
            if start.startswith(signature, place):
                return _ZIP_INSIDE.get(suffix, media_type) if media_type == "application/zip" else media_type
    named = _TYPE_BY_SUFFIX.get(suffix)
    if named and named not in _SIGNED:
        return named
    return "text/plain" if is_text else "application/octet-stream"


def manifest(obj: S3Object, head: ObjectHead, description: Description) -> bytes:
    """The manifest as it is stored: JSON in UTF-8 with sorted keys and a line end, the same for the same arguments."""
    content = {
        "manifest_version": MANIFEST_VERSION,
        **description,
        "object": {
            "bucket": obj.bucket,
            "key": obj.key,
            "version_id": head["version_id"],
            "etag": head["etag"],
            "content_type": head["content_type"],
            "metadata": head["metadata"],
            "last_modified": head["last_modified"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "event": obj.to_dict(),
    }
    return (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def manifest_key(prefix: str, bucket: str, key: str, *, version_id: str | None, etag: str) -> str:
    """Where the manifest of an object lies: ``prefix + bucket/key@version-ID.json``, or ``@etag-TAG`` without versions.

    No two objects share a key. The version or eTag is percent-encoded, so the last ``@`` in it is always ours, and a
    bucket's name has no slash. What would be longer than S3's 1,024 bytes keeps as much of the object's key as fits and
    ends with ``@sha256-…``, a hash of all that would have stood there. Raises SettingsError when the prefix leaves no
    room for that.
    """
    if version_id and version_id != "null":  # "null" identifies nothing: the next put under it overwrites the object
        identity = "version-" + quote(version_id, safe="")
    else:
        identity = "etag-" + quote(etag, safe="")
    name = f"{bucket}/{key}@{identity}.json"
    if len((prefix + name).encode()) <= MAX_KEY_BYTES:
        return prefix + name
    start, end = f"{prefix}{bucket}/", f"@sha256-{hashlib.sha256(name.encode()).hexdigest()}.json"
    room_bytes = MAX_KEY_BYTES - len((start + end).encode())
    if room_bytes < 0:
        raise SettingsError(f"BRIDGE_RESULTS_URL has a prefix too long for S3's {MAX_KEY_BYTES} bytes: {prefix[:40]}…")
    return start + key.encode()[:room_bytes].decode(errors="ignore") + end
