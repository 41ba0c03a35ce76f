"""An S3 server for one purpose: every object exists, has 100 KB, and costs next to nothing to send.

``python -m benchmarks.servers.memory_s3 --port 0`` prints ``ready http://127.0.0.1:PORT``. The eTag of an object is
the MD5 of its key. GET and HEAD answer If-Match as S3 does, with 412 when it names another eTag
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html); there are no other operations, and no versions.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import re
import sys
from typing import cast
from urllib.parse import unquote, urlsplit

OBJECT_BYTES = 100 * 1024
CONTENT = random.Random(8).randbytes(OBJECT_BYTES)  # noqa: S311 - content, no secret
_IF_MATCH = re.compile(rb'\r\nif-match:[ \t]*"?([^"\r]+)', re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests have no body."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head, self._unread = self._unread[: end + 2], self._unread[end + 4 :]
            self.transport.writelines(answer(head))


def answer(head: bytes) -> list[bytes]:
    """Return the pieces of the answer to a request with this head."""
    method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
    key = unquote(urlsplit(target.decode("latin-1")).path).lstrip("/").partition("/")[2]
    if method not in (b"GET", b"HEAD"):
        return _error("405 Method Not Allowed", "MethodNotAllowed")
    etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    wanted = _IF_MATCH.search(head)
    if wanted and wanted[1].decode("latin-1") != etag:
        return _error("412 Precondition Failed", "PreconditionFailed")
    lines = (
        f"HTTP/1.1 200 OK\r\nContent-Length: {OBJECT_BYTES}\r\nContent-Type: application/octet-stream\r\n"
        f'ETag: "{etag}"\r\nLast-Modified: Sat, 21 Nov 2026 12:00:00 GMT\r\nAccept-Ranges: bytes\r\n\r\n'
    )
    return [lines.encode(), CONTENT] if method == b"GET" else [lines.encode()]


def _error(status: str, code: str) -> list[bytes]:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nContent-Type: application/xml\r\n\r\n"
    return [head.encode(), text]


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    sys.stdout.write(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve 100 KB objects.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default) takes a free one")
    arguments = parser.parse_args()
    try:
        import uvloop  # not in the project: the bench puts it into a place of its own
    except ImportError:
        asyncio.run(serve(arguments.port))
    else:
        uvloop.run(serve(arguments.port))
