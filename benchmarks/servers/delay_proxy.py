"""An HTTP proxy that adds a fixed delay to every request and counts the calls: the round trip to AWS, on one machine.

Run in a process of its own: ``python -m benchmarks.servers.delay_proxy --upstream http://127.0.0.1:9324``. It prints
``ready http://127.0.0.1:PORT`` and runs until it is killed.

It reads no more of HTTP than where a request begins and ends, and hands bytes on. Every connection of a client has one
of its own to the server, so a long poll holds up nobody. A request waits once, for the whole delay, before its first
byte goes to the server; the answer is not delayed. All waits are timers of one event loop: a thousand requests under
way cost a thousand timers.

A request on the path ``/_proxy/...`` is meant for the proxy itself, and neither delayed nor counted:

=================================  ====================================================================
``GET /_proxy/counts``             the calls so far: ``{"ReceiveMessage": 12, "DeleteMessageBatch": 3}``
``POST /_proxy/reset``             the same, then counting starts at nothing
``POST /_proxy/delay?ms=10``       from the next request on, wait that many milliseconds
=================================  ====================================================================

Calls are counted by the action in ``X-Amz-Target`` (SQS, JSON protocol), else by HTTP method (S3).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
from collections import Counter
from typing import cast
from urllib.parse import parse_qs, urlsplit

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
#: A client that sends more than this ahead of a delayed request is not read until the request has gone.
MAX_WAITING_BYTES = 1024 * 1024

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target:[ \t]*(?:[^\r.]*\.)?([^\r]+)", re.IGNORECASE)


class State:
    """What all connections share: the server, the delay and the counts."""

    def __init__(self, host: str, port: int, delay_seconds: float) -> None:
        self.host = host
        self.port = port
        self.delay_seconds = delay_seconds
        self.counts: Counter[str] = Counter()

    def answer(self, method: str, target: str) -> bytes:
        """Do what a request to ``/_proxy/...`` asks for; return the whole HTTP answer."""
        url = urlsplit(target)
        if (method, url.path) == ("GET", "/_proxy/counts"):
            return _answer("200 OK", dict(self.counts))
        if (method, url.path) == ("POST", "/_proxy/reset"):
            counts = dict(self.counts)
            self.counts.clear()
            return _answer("200 OK", counts)
        if (method, url.path) == ("POST", "/_proxy/delay"):
            try:
                self.delay_seconds = max(0.0, float(parse_qs(url.query)["ms"][0]) / 1000)
            except (KeyError, ValueError):
                return _answer("400 Bad Request", {"error": "wanted: ?ms=NUMBER"})
            return _answer("200 OK", {"delay_ms": self.delay_seconds * 1000})
        return _answer("404 Not Found", {"error": f"no {method} {url.path}"})


class ServerSide(asyncio.Protocol):
    """The connection to the server: whatever comes goes to the client."""

    def __init__(self, client: ClientSide) -> None:
        self._client = client
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._client.server_ready(self.transport)

    def data_received(self, data: bytes) -> None:
        self._client.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.transport.close()

    def pause_writing(self) -> None:
        self._client.hold_reading("server")

    def resume_writing(self) -> None:
        self._client.go_on_reading("server")


class ClientSide(asyncio.Protocol):
    """The connection of a client: cut into requests, each of which goes on when its time has come."""

    transport: asyncio.Transport

    def __init__(self, state: State) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Transport | None = None
        self._unread = b""  # what is not yet known to belong to a request
        self._body_left = 0  # of the request whose head was read last
        # Pieces of requests in their order, each with whether it begins a request. Nothing passes a request that
        # still waits, so a client that sends several at once gets its answers in order.
        self._waiting: list[tuple[bytes, bool]] = []
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[object] | None = None
        self._holds: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._server is not None:
            self._server.close()

    def data_received(self, data: bytes) -> None:
        if self._unread:
            data = self._unread + data
            self._unread = b""
        while data:
            if self._body_left:
                piece, data = data[: self._body_left], data[self._body_left :]
                self._body_left -= len(piece)
                self._pass_on(piece, begins=False)
                continue
            end = data.find(HEAD_END)
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    self._refuse("431 Request Header Fields Too Large", "a head of more than 64 KiB")
                    return
                self._unread = data
                return
            end += len(HEAD_END)
            head = data[:end]
            line = head[: head.find(b"\r\n")].split(b" ")
            if len(line) != 3:
                self._refuse("400 Bad Request", "no HTTP request")
                return
            if _CHUNKED.search(head):
                self._refuse("411 Length Required", "this proxy wants Content-Length")
                return
            length = _LENGTH.search(head)
            body = int(length[1]) if length else 0
            if line[1].startswith(b"/_proxy/"):
                if len(data) < end + body:
                    self._unread = data
                    return
                self.transport.write(self._state.answer(line[0].decode("latin-1"), line[1].decode("latin-1")))
                data = data[end + body :]
                continue
            action = _TARGET.search(head)
            self._state.counts[(action[1] if action else line[0]).decode("latin-1")] += 1
            # Head and body in one piece where they came together: one write, one segment.
            whole = min(len(data), end + body)
            self._body_left = body - (whole - end)
            piece, data = data[:whole], data[whole:]
            self._pass_on(piece, begins=True)

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause_reading()

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.resume_reading()

    def server_ready(self, transport: asyncio.Transport) -> None:
        """Take the connection to the server, and send what has waited for it."""
        self._server = transport
        if self.transport.is_closing():
            transport.close()
        elif self._timer is None:
            self._send_waiting()

    def hold_reading(self, why: str) -> None:
        """Read no more from the client until ``go_on_reading`` is called for the same reason."""
        if not self._holds and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds.add(why)

    def go_on_reading(self, why: str) -> None:
        """Take one reason back; read again when none is left."""
        if why in self._holds:
            self._holds.remove(why)
            if not self._holds and not self.transport.is_closing():
                self.transport.resume_reading()

    def _pass_on(self, piece: bytes, *, begins: bool) -> None:
        if self._server is None and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())
        if self._waiting or self._timer is not None:
            self._queue(piece, begins)
        elif begins and self._state.delay_seconds:
            self._queue(piece, begins)
            self._timer = self._loop.call_later(self._state.delay_seconds, self._time_is_up)
        elif self._server is None:
            self._queue(piece, False)
        else:
            self._server.write(piece)

    def _queue(self, piece: bytes, begins: bool) -> None:
        self._waiting.append((piece, begins))
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.hold_reading("waiting")

    def _time_is_up(self) -> None:
        self._timer = None
        piece, _ = self._waiting[0]
        self._waiting[0] = (piece, False)
        self._send_waiting()

    def _send_waiting(self) -> None:
        if self._server is None:
            return  # server_ready comes back to it
        while self._waiting:
            piece, begins = self._waiting[0]
            if begins and self._state.delay_seconds:
                self._timer = self._loop.call_later(self._state.delay_seconds, self._time_is_up)
                return
            del self._waiting[0]
            self._waiting_bytes -= len(piece)
            self._server.write(piece)
        self.go_on_reading("waiting")

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: ServerSide(self), self._state.host, self._state.port)
        except OSError as error:
            self._refuse("502 Bad Gateway", f"{self._state.host}:{self._state.port}: {error}")

    def _refuse(self, status: str, why: str) -> None:
        self.transport.write(_answer(status, {"error": why}))
        self.transport.close()


def _answer(status: str, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


async def serve(upstream: str, port: int, delay_ms: float) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT; port 0 takes a free one. The first line printed says which."""
    url = urlsplit(upstream)
    if url.scheme != "http" or not url.hostname or not url.port:
        raise SystemExit(f"--upstream {upstream}: wanted http://HOST:PORT")
    loop = asyncio.get_running_loop()
    state = State(url.hostname, url.port, delay_ms / 1000)
    # The backlog of a peer that opens a connection for each of many requests.
    server = await loop.create_server(lambda: ClientSide(state), "127.0.0.1", port, backlog=1024)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    sys.stdout.write(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stopped.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description="Hand HTTP on to a server after a delay, and count the calls.")
    parser.add_argument("--upstream", required=True, help="http://HOST:PORT of the server")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default) takes a free one")
    parser.add_argument("--delay-ms", type=float, default=0, help="delay of every request, in milliseconds")
    arguments = parser.parse_args()
    try:
        import uvloop  # not in the project: the bench puts it into a place of its own
    except ImportError:
        asyncio.run(serve(arguments.upstream, arguments.port, arguments.delay_ms))
    else:
        uvloop.run(serve(arguments.upstream, arguments.port, arguments.delay_ms))


if __name__ == "__main__":
    main()
