"""The health server: HTTP on a port of the worker's parent process, in threads of its own.

It answers while a solo worker is inside its task, and no client can hold it up: a connection has a time
limit, a request a largest size, and there are so many connections at a time; then the oldest is cut off. It knows
nothing of what it serves: ``health_answers`` does.
"""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from bridge.errors import SettingsError
from bridge.log import get_logger

log = get_logger(__name__)

#: Connections at a time; a probe, a scrape and a person together are three.
MAX_CONNECTIONS = 16
#: When all are taken, the oldest is cut off, but not before it had this long: an honest client needs milliseconds.
GRACE_SECONDS = 0.5
#: How long the server waits for a client to send, or to read on.
CLIENT_SECONDS = 5.0
#: The request line and all headers; a browser sends 1 KB.
MAX_HEAD_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Response:
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = "application/json"


def as_json(status: int, value: Any) -> Response:
    """Return ``value`` as JSON in one line."""
    return Response(status, json.dumps(value).encode() + b"\n")


class HealthServer(socketserver.TCPServer):
    """Takes its port when it is made, and answers from ``start`` on until the process ends.

    Raises SettingsError, naming the setting, when the address cannot be had.
    """

    allow_reuse_address = True  # a worker that is started again must not wait for the last connections of the old one
    request_queue_size = 64

    def __init__(self, host: str, port: int) -> None:
        """``host`` is an IP address or ``localhost``; ``::`` serves IPv4 too."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._answers: Mapping[str, Callable[[], Response]] = {}
        self._changed = threading.Condition()
        self._open: dict[socket.socket, float] = {}  # in the order of their beginning
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise SettingsError(_fault(host, port, error)) from error
        # A forked pool child would keep the port beyond its parent's death, and the next worker could not have it.
        os.register_at_fork(after_in_child=self._leave_to_parent)

    @property
    def port(self) -> int:
        """The port it has."""
        return int(self.server_address[1])

    def start(self, answers: Mapping[str, Callable[[], Response]]) -> None:
        """Answer from now on; ``answers`` has a function for each path. Nothing stops it but the process's end."""
        self._answers = answers
        threading.Thread(target=self.serve_forever, name="bridge-health", daemon=True).start()

    def answer(self, path: str) -> Response:
        """Return what this path answers now."""
        found = self._answers.get(path)
        if found is None:
            return as_json(HTTPStatus.NOT_FOUND, {"error": "not found", "paths": sorted(self._answers)})
        try:
            return found()
        except Exception:  # a bug: the client gets an answer, and the server goes on
            log.exception("health_bug", path=path)
            return as_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "internal error, see the worker's log"})

    def server_bind(self) -> None:
        """Take the port; on ``::`` for IPv4 too."""
        if self.server_address[0] == "::" and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, as soon as a connection is free."""
        with self._changed:
            self._make_room()
            self._open[request] = time.monotonic()
        threading.Thread(
            target=self._serve, args=(request, client_address), name="bridge-health-connection", daemon=True
        ).start()

    def shutdown_request(self, request: Any) -> None:
        """End a connection, and give its place to another."""
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Take note of a connection that could not even be given to a thread; socketserver goes on."""
        error = sys.exception()
        log.error("health_bug", error_type=type(error).__name__, error=str(error))

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client was too slow, or has gone: its own affair
        except Exception:  # an error of ours
            log.exception("health_bug")
        finally:
            self.shutdown_request(request)

    def _make_room(self) -> None:
        while len(self._open) >= MAX_CONNECTIONS:
            oldest, since = next(iter(self._open.items()))
            left = since + GRACE_SECONDS - time.monotonic()
            if left > 0:
                self._changed.wait(left)
                continue
            del self._open[oldest]
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread waits for it, and ends now

    def _leave_to_parent(self) -> None:
        for each in (self.socket, *self._open):
            if (fd := each.detach()) >= 0:
                os.close(fd)


class _Handler(BaseHTTPRequestHandler):
    """One request: GET or HEAD, then the connection is closed."""

    server: HealthServer
    timeout = CLIENT_SECONDS

    def handle(self) -> None:
        """Read no more of a request than its head may have."""
        head = self._read_head()
        if head is None:
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self.rfile = io.BytesIO(head)
        super().handle()

    def do_GET(self) -> None:
        """Answer with the head and the body."""
        self._send(self.server.answer(self.path.partition("?")[0]))

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's; ``_send`` leaves the body out

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error, which repeats nothing of the request."""
        # http.server says "not implemented" to every method that it finds no function for.
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(as_json(status, {"error": status.phrase.lower()}))

    def version_string(self) -> str:
        """Name us, and not the version of Python."""
        return "bucket-brigade"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: probes come every few seconds."""

    def _send(self, answer: Response) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _read_head(self) -> bytes | None:
        head = bytearray()
        while line := self.rfile.readline(MAX_HEAD_BYTES + 1 - len(head)):
            head += line
            if len(head) > MAX_HEAD_BYTES:
                return None
            if line in (b"\r\n", b"\n"):
                break
        return bytes(head)


def _fault(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"BRIDGE_HEALTH_PORT={port}: the port is taken on {host}: set another one for this worker, "
            "or 0 for no health server"
        )
    if error.errno == errno.EACCES:
        return f"BRIDGE_HEALTH_PORT={port}: this user may not open that port; choose one from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"BRIDGE_HEALTH_HOST={host}: is not an address of this machine"
    return f"BRIDGE_HEALTH_HOST={host}, BRIDGE_HEALTH_PORT={port}: cannot be opened: {error.strerror or error}"
