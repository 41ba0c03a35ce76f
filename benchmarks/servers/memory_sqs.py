"""An SQS server in memory, as fast as Python allows: the ceiling for what a consumer can reach.

It speaks SQS's JSON protocol over HTTP with standard queues' semantics: long polls, visibility timeouts, receive
counts, receipt handles that a later receive makes stale, batches of ten. It has no redrive (the attribute is kept and
shown, so that a worker finds its dead-letter queue), no order promises and no checks of permissions.
Source of the forms: AWS SQS API reference, JSON protocol.

    python -m benchmarks.servers.memory_sqs --port 0      # prints "ready http://127.0.0.1:<port>"

This file has the HTTP, ``memory_sqs_actions.py`` the actions, ``memory_sqs_queue.py`` a queue and its messages.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from typing import cast

from benchmarks.servers.memory_sqs_actions import Service
from benchmarks.servers.memory_sqs_queue import Refused


class Connection(asyncio.Protocol):
    """One keep-alive HTTP connection; a client sends its next request after the answer, as SDKs do."""

    def __init__(self, service: Service) -> None:
        """Not connected yet."""
        self._service = service
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer no more."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take bytes; act when a request is whole."""
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end]
            lower = head.lower()
            length = _number_after(lower, b"\r\ncontent-length:")
            if len(self._buffer) < end + 4 + length:
                if b"\r\nexpect: 100-continue" in lower and self._transport:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            at = lower.find(b"\r\nx-amz-target:")
            target = b"" if at < 0 else head[at + 15 : (head.find(b"\r\n", at + 2) + 1 or len(head) + 1) - 1].strip()
            self._act(target.decode().rpartition(".")[2], body)

    def _act(self, action: str, body: bytes) -> None:
        try:
            self._service.act(action, json.loads(body or b"{}"), self._answer)
        except Refused as refusal:
            error = {"__type": f"com.amazonaws.sqs#{refusal.code}", "message": str(refusal)}
            self._answer(json.dumps(error), b"400 Bad Request")
        except (KeyError, TypeError, ValueError) as error:
            text = json.dumps({"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": repr(error)})
            self._answer(text, b"400 Bad Request")

    def _answer(self, text: str, status: bytes = b"200 OK") -> None:
        if self._transport is None:
            return
        body = text.encode()
        head = b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\n" % status
        self._transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))


def _number_after(head: bytes, name: bytes) -> int:
    at = head.find(name)
    if at < 0:
        return 0
    end = head.find(b"\r\n", at + 2)
    return int(head[at + len(name) : end if end >= 0 else len(head)])


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until the process ends."""
    loop = asyncio.get_running_loop()
    service = Service(loop)
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", port)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(f"ready {service.url}", flush=True)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))
