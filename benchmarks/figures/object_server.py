"""An S3 server for one purpose: objects of any size, sent as fast as this machine's loopback takes them.

``python -m benchmarks.figures.object_server`` prints ``ready http://127.0.0.1:PORT`` and serves until it is killed.
Every bucket holds the objects ``text-BYTES.txt`` and ``binary-BYTES.bin``: a fixed 8 MiB block over and over, sent by
sendfile() from memory, so that making the bytes costs next to nothing. GET and HEAD know Range, If-Match and the
version id as S3 does (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html). What is PUT is kept, and
can be got again, until the server ends: manifests, of which there are few.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK_BYTES = 8 * 1024 * 1024
VERSION = "bench-version-1"
_KEY = re.compile(r"(text|binary)-(\d+)\.(?:txt|bin)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def object_key(kind: str, size_bytes: int) -> str:
    """The key of the object with that content, ``text`` or ``binary``, and that size."""
    return f"{kind}-{size_bytes}.{'txt' if kind == 'text' else 'bin'}"


def etag_of(key: str) -> str:
    """The eTag under which the server holds ``key``, without quotes: 32 hex digits as S3 makes them."""
    return hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()


def block(kind: str) -> bytes:
    """The 8 MiB that an object of this kind repeats: lines of CSV with a few letters beyond ASCII, or random bytes."""
    if kind == "binary":
        return random.Random(8).randbytes(BLOCK_BYTES)  # noqa: S311 - content, no secret
    lines = b"".join(b"%08d,Zaehler,2026-11-21T12:00:00Z,%012d,OK\n" % (n, n * 7919 % 10**12) for n in range(20_000))
    lines = lines.replace(b"Zaehler", "Zähler".encode(), 500)
    return (lines * (BLOCK_BYTES // len(lines) + 1))[: BLOCK_BYTES - 1] + b"\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    blocks: ClassVar[dict[str, int]] = {}
    stored: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self._object(with_body=False)

    def do_GET(self) -> None:
        self._object(with_body=True)

    def do_PUT(self) -> None:
        # As sent: an SDK that wraps a body in chunks with checksums (aws-chunked) does so over HTTPS only.
        self.stored[self.path] = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(200, {"ETag": '"00000000000000000000000000000000"'})

    def log_message(self, *_: Any) -> None:
        """A line for each request would only be in the way."""

    def _object(self, *, with_body: bool) -> None:
        if with_body and self.path in self.stored:
            body = self.stored[self.path]
            self._answer(200, {}, length=len(body))
            self.wfile.write(body)
            return
        url = urlsplit(self.path)
        key = unquote(url.path).lstrip("/").partition("/")[2]
        found = _KEY.fullmatch(key)
        version = parse_qs(url.query).get("versionId", [VERSION])[0]
        if found is None or version != VERSION:
            self._error(404, "NoSuchKey" if found is None else "NoSuchVersion")
            return
        tag = f'"{etag_of(key)}"'
        if self.headers.get("If-Match", tag) != tag:
            self._error(412, "PreconditionFailed")
            return
        size = int(found[2])
        start, end, status = 0, size, 200
        headers = {
            "ETag": tag,
            "x-amz-version-id": VERSION,
            "Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT",
            "Content-Type": "binary/octet-stream",
            "Accept-Ranges": "bytes",
        }
        if asked := _RANGE.fullmatch(self.headers.get("Range", "")):
            start, end, status = int(asked[1]), min(size, int(asked[2] or size) + 1), 206
            if start >= size:
                self._error(416, "InvalidRange")
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._answer(status, headers, length=end - start)
        if with_body:
            try:
                self._send(self.blocks[found[1]], start, end)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the reader has gone, which a closed body means

    def _send(self, source: int, start: int, end: int) -> None:
        self.wfile.flush()
        while start < end:
            offset = start % BLOCK_BYTES
            start += os.sendfile(self.connection.fileno(), source, offset, min(end - start, BLOCK_BYTES - offset))

    def _answer(self, status: int, headers: dict[str, str], *, length: int = 0) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(status, {"Content-Type": "application/xml"}, length=0 if self.command == "HEAD" else len(body))
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    """Serve until killed."""
    for kind in ("text", "binary"):
        _Handler.blocks[kind] = os.memfd_create(kind)
        os.write(_Handler.blocks[kind], block(kind))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    sys.stdout.write(f"ready http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
