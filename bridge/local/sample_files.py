"""The demo's files: several kinds, with names that break careless decoding, and the end each of them must come to.

All are generated, and the same on every machine. Nothing here is kept in memory that is larger than a block.
"""

from __future__ import annotations

import hashlib
import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MEBIBYTE = 1024 * 1024
LARGE_BYTES = 50 * MEBIBYTE

FLAKY_KEY = "flaky/recovers at the third run.txt"
BROKEN_KEY = "broken/never works.txt"

# What someone might type into the SQS console: no event, not even JSON.
GARBAGE = "this is no S3 event"


class Ending(StrEnum):
    """What must have become of a file when the demo ends, in the words of the final table."""

    DESCRIBED = "manifest with its sha256"
    RECOVERED = "two retries, then success"
    DEAD_LETTERED = "two retries, then DLQ: exhausted"


@dataclass(frozen=True)
class SampleFile:
    """One file: where it goes, what it holds, how it must end. ``repeats`` writes ``content`` that many times."""

    key: str
    content: bytes
    content_type: str
    ending: Ending = Ending.DESCRIBED
    repeats: int = 1

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.content) * self.repeats

    def sha256(self) -> str:
        """Hex digest of the whole file, computed here, to hold against what the worker found."""
        digest = hashlib.sha256()
        for _ in range(self.repeats):
            digest.update(self.content)
        return digest.hexdigest()

    def put(self, s3: S3Client, bucket: str) -> None:
        """Upload it with one PutObject, streaming. Raises botocore's errors.

        One PutObject even for the large one: for a multipart upload moto sends two events, where S3 sends one.
        """
        body: Any = _Repeated(self.content, self.repeats)
        s3.put_object(Bucket=bucket, Key=self.key, Body=body, ContentLength=self.size, ContentType=self.content_type)


def sample_files() -> list[SampleFile]:
    """Every file of the demo, in the order in which they are uploaded; the two troublemakers come first."""
    return [
        SampleFile(FLAKY_KEY, b"works at the third try\n", "text/plain", Ending.RECOVERED),
        SampleFile(BROKEN_KEY, b"works never\n", "text/plain", Ending.DEAD_LETTERED),
        SampleFile("incoming/orders.csv", _csv(20_000), "text/csv"),
        SampleFile("incoming/summer report 2024.txt", b"a name with spaces\n", "text/plain"),
        SampleFile("incoming/c++ & a+b.txt", b"a plus is a plus\n", "text/plain"),
        SampleFile("incoming/Grüße aus Köln.txt", "Schöne Grüße!\n".encode(), "text/plain"),
        SampleFile("incoming/100%25 sure.json", b'{"literal": "%25"}\n', "application/json"),
        SampleFile("incoming/picture.png", _png(64, 64), "image/png"),
        SampleFile("incoming/empty.dat", b"", "application/octet-stream"),
        SampleFile(
            "incoming/large.bin",
            random.Random(0).randbytes(MEBIBYTE),  # noqa: S311 - sample bytes, not secrets
            "application/octet-stream",
            repeats=LARGE_BYTES // MEBIBYTE,
        ),
    ]


class _Repeated(io.RawIOBase):
    """``block`` over and over as a file that can be read again: the SDK reads once for the checksum, once to send."""

    def __init__(self, block: bytes, repeats: int) -> None:
        self._block = block
        self._size = len(block) * repeats
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces = b"".join(self._pieces(wanted))
        self._position += wanted
        return pieces

    def _pieces(self, wanted: int) -> Iterator[bytes]:
        offset = self._position % len(self._block) if self._block else 0
        while wanted > 0:
            piece = self._block[offset : offset + wanted]
            yield piece
            wanted -= len(piece)
            offset = 0


def _csv(rows: int) -> bytes:
    lines = (f"{number},customer {number % 97},{number * 7 % 10_000 / 100:.2f}\n" for number in range(1, rows + 1))
    return ("order,customer,amount\n" + "".join(lines)).encode()


def _png(width: int, height: int) -> bytes:
    """A real picture, a diagonal gradient. Source of the format: https://www.w3.org/TR/png/ ."""
    rows = b"".join(b"\0" + bytes((x + y) * 255 // (width + height) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits a pixel, greyscale
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
