"""A server on 127.0.0.1 that answers each HTTP request with what a test wrote, byte for byte, or not at all."""

from __future__ import annotations

import contextlib
import enum
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self


class End(enum.Enum):
    """How a connection ends, where the answer does not keep it open."""

    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


@dataclass(frozen=True)
class Received:
    """One request; ``connection`` counts from 0, header names are in lower case."""

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def parameters(self) -> dict[str, Any]:
        return json.loads(self.body)


Script = Callable[[Received], Iterable[bytes | End]]


def answered(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer that keeps the connection; in names of ``headers`` an underscore stands for a hyphen."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}Content-Length: {len(body)}\r\n\r\n".encode() + body


class ScriptedServer:
    """The server while the ``with`` block lasts. ``script`` yields the pieces of the answer to a request.

    ``tls`` is used at once, ``tls_behind_proxy`` after a CONNECT, which is answered with ``connect_answer``.
    """

    def __init__(
        self,
        script: Script = lambda _: [answered()],
        *,
        tls: ssl.SSLContext | None = None,
        tls_behind_proxy: ssl.SSLContext | None = None,
        connect_answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
    ) -> None:
        self.script = script
        self.requests: list[Received] = []
        self._tls, self._tls_behind_proxy, self._connect_answer = tls, tls_behind_proxy, connect_answer
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=10).close()  # wakes accept()
        for connected in list(self._sockets):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads)

    @property
    def connections(self) -> int:
        """How many connections brought a request."""
        return len({request.connection for request in self.requests})

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        for number in range(10_000):
            connected = self._listener.accept()[0]
            if self._closing.is_set():
                connected.close()
                return
            self._sockets.append(connected)
            self._start(self._serve, connected, number)

    def _serve(self, connected: socket.socket, number: int) -> None:
        try:
            if self._tls:
                connected = self._wrapped(connected, self._tls)
            while (request := _read(connected, number)) is not None:
                self.requests.append(request)
                if request.line.startswith("CONNECT "):
                    connected.sendall(self._connect_answer)
                    if b" 200 " not in self._connect_answer or self._tls_behind_proxy is None:
                        return
                    connected = self._wrapped(connected, self._tls_behind_proxy)
                elif not self._answer(connected, request):
                    return
        except OSError:
            pass  # the client went away, or refused our certificate
        finally:
            connected.close()

    def _wrapped(self, connected: socket.socket, context: ssl.SSLContext) -> socket.socket:
        self._sockets.remove(connected)  # its descriptor is the wrapper's from now on
        wrapper = context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
        self._sockets.append(wrapper)
        try:
            wrapper.do_handshake()
        except OSError:
            wrapper.close()
            raise
        return wrapper

    def _answer(self, connected: socket.socket, request: Received) -> bool:
        for piece in self.script(request):
            if piece is End.HANG:
                self._closing.wait()
            if piece is End.RESET:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if isinstance(piece, End):
                return False
            connected.sendall(piece)
        return True


def _read(connected: socket.socket, number: int) -> Received | None:
    """The next request, or None when there is no further one."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connected.recv(65536)):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        if not (more := connected.recv(65536)):
            return None
        body += more
    return Received(number, line, headers, body)
