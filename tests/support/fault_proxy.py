"""An HTTP proxy between AWS SDK clients and an SQS server that records every call and injects faults.

It stands in for the network and for SQS on a bad day, so that tests can say "the third delete of this batch fails"
and afterwards read, from one clock, in which order the worker called SQS. Both SQS protocols are understood: JSON
(``X-Amz-Target: AmazonSQS.<Action>``) and the older query protocol (``Action=`` in a form). Every client connection
has a thread and a server connection of its own, so a long poll holds up nobody else.

SDK clients post to their endpoint, whatever host the QueueUrl in the request names: give them
``endpoint_url=proxy.url`` (``AWS_ENDPOINT_URL_SQS`` for processes) and the server's own queue URLs. The server is
asked under its own Host, so the queue URLs in its answers are its own too; nothing in a body is rewritten.
"""

from __future__ import annotations

import json
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

Outcome = Literal["forwarded", "failed", "hung", "dropped", "refused"]

_OUTCOMES: dict[str, Outcome] = {"fail": "failed", "hang": "hung", "reset": "refused", "drop": "dropped"}
# What SQS answers these codes with; a code not listed here is answered with 400.
_STATUSES = {"ServiceUnavailable": 503, "InternalError": 500, "InternalFailure": 500, "ExpiredToken": 403}
# Headers that belong to one connection, not to the message; http.client sets its own.
_HOP_HEADERS = {"host", "connection", "keep-alive", "content-length", "accept-encoding", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as the proxy saw it; times are ``time.monotonic()`` seconds, comparable between processes.

    ``queue`` is the last path segment of the queue URL (or the queue name), empty for calls without one. While a call
    is under way ``finished_at`` is None. ``status`` and ``response`` (parsed JSON) are what the client was answered,
    or, with outcome ``dropped``, what the server answered. Outcomes:

    - ``forwarded``: the server's answer was passed on (also when it is an error, or some batch entries were withheld);
    - ``failed``: answered by the proxy alone, with an error, the server saw nothing;
    - ``hung``: never answered, the server saw nothing;
    - ``dropped``: the server did it, the client was not told, by command or because it had gone away;
    - ``refused``: the connection was reset, by command (the server saw nothing) or because the server gave no answer.
    """

    index: int
    started_at: float
    finished_at: float | None
    action: str
    queue: str
    request: dict[str, Any]
    status: int | None
    response: dict[str, Any] | None
    outcome: Outcome


@dataclass(slots=True)
class _Fault:
    kind: Literal["fail", "hang", "reset", "drop", "entries", "delay"]
    action: str  # a glob
    queue: str | None
    times_left: float  # infinite until cleared
    status: int = 0
    code: str = ""
    seconds: float | None = None
    positions: frozenset[int] = frozenset()
    sender_fault: bool = False

    def matches(self, action: str, queue: str, params: dict[str, Any]) -> bool:
        if self.times_left < 1 or not fnmatchcase(action, self.action) or self.queue not in (None, queue):
            return False
        # A batch too short to hold one of the positions must not use the fault up.
        return self.kind != "entries" or any(at < len(params.get("Entries", ())) for at in self.positions)

    def outcome(self, params: dict[str, Any]) -> Outcome:
        if self.kind == "entries" and self.positions.issuperset(range(len(params["Entries"]))):
            return "failed"
        return _OUTCOMES.get(self.kind, "forwarded")


class _Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Reply(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultProxy:
    """The proxy, in threads of this process while the ``with`` block lasts; it listens on a free port of 127.0.0.1.

    ``upstream_url`` is the SQS server, such as ``http://127.0.0.1:9324``. A fault applies to the next ``times`` calls
    that match ``action`` (a glob such as ``*Batch``) and ``queue`` (a name; None is any), or with ``times=None`` until
    ``clear()``. When several match, the first one set is used; a delay goes together with any other fault.
    ``latency_seconds`` is added to every call before anything else happens to it.
    """

    url: str
    latency_seconds: float = 0.0

    def __init__(self, upstream_url: str) -> None:
        address = urlsplit(upstream_url)
        self._upstream_address = (address.hostname or "127.0.0.1", address.port or 80)
        self._changed = threading.Condition()  # its lock guards everything below
        self._calls: list[Call] = []
        self._history: list[int] = []  # the index of a call, once when it began and again when it ended
        self._faults: list[_Fault] = []
        self.random_failures(rate=0.0, seed=0)
        self._connections: dict[socket.socket, HTTPConnection] = {}
        self._hung: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._listener = _bound_socket(0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start_listening()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._stop_listening()
        with self._changed:
            for client, upstream in self._connections.items():
                _wake(client)
                _wake(upstream.sock)
        for thread in self._threads:
            thread.join(timeout=10)
        if any(thread.is_alive() for thread in self._threads):
            raise RuntimeError("the fault proxy left a thread behind")

    # ---- what was called

    @property
    def calls(self) -> list[Call]:
        """All calls so far in the order of their arrival, those under way included (``finished_at`` is None)."""
        with self._changed:
            return list(self._calls)

    def actions(self, queue: str | None = None) -> list[str]:
        """The actions in the order of their arrival, of one queue or of all."""
        return [call.action for call in self.calls if queue in (None, call.queue)]

    def count(self, action: str, queue: str | None = None) -> int:
        """How many calls matched ``action`` (a glob), whatever became of them."""
        return sum(fnmatchcase(name, action) for name in self.actions(queue))

    def for_message(self, identifier: str) -> list[Call]:
        """The calls whose request or answer mentions a receipt handle or a message id, in order.

        A message id stands for all handles that were received with it. Text inside attributes and bodies counts, so
        a dead letter whose cause names the message id is found too.
        """
        calls = self.calls
        delivered = [message for call in calls for message in (call.response or {}).get("Messages", ())]
        handles = {message["ReceiptHandle"] for message in delivered if message["MessageId"] == identifier}
        return [call for call in calls if _mentions([call.request, call.response], handles | {identifier})]

    def wait_for(self, predicate: Callable[[Call], bool], timeout_seconds: float, what: str) -> Call:
        """The first call, past or to come, that the predicate accepts; TimeoutError naming ``what`` if there is none.

        A call is shown to the predicate when it begins and again when it ends: ask for ``call.finished_at`` or
        ``call.status`` where the answer matters.
        """
        deadline, seen = time.monotonic() + timeout_seconds, 0
        with self._changed:
            while True:
                for index in self._history[seen:]:
                    if predicate(self._calls[index]):
                        return self._calls[index]
                seen, left_seconds = len(self._history), deadline - time.monotonic()
                if left_seconds <= 0:
                    last = ", ".join(f"{call.action}({call.queue}) {call.outcome}" for call in self._calls[-10:])
                    raise TimeoutError(f"{what}: not within {timeout_seconds} s; the last calls were: {last or 'none'}")
                self._changed.wait(left_seconds)

    # ---- what goes wrong

    def fail(
        self,
        action: str = "*",
        status: int | None = None,
        code: str = "ServiceUnavailable",
        times: int | None = 1,
        queue: str | None = None,
    ) -> None:
        """Answer with an AWS error, which botocore raises as ClientError with this code; the server sees nothing.

        Without ``status`` it is the one SQS uses with that code.
        """
        self._add("fail", action, queue, times, status=status or _STATUSES.get(code, 400), code=code)

    def hang(
        self, action: str = "*", times: int | None = 1, seconds: float | None = None, queue: str | None = None
    ) -> None:
        """Take the request and never answer; the connection is closed after ``seconds`` or at ``clear()``."""
        self._add("hang", action, queue, times, seconds=seconds)

    def reset(self, action: str = "*", times: int | None = 1, queue: str | None = None) -> None:
        """Read the request, then reset the connection (TCP RST); the server sees nothing."""
        self._add("reset", action, queue, times)

    def drop_response(self, action: str = "*", times: int | None = 1, queue: str | None = None) -> None:
        """Let the server do it, then close the connection without an answer."""
        self._add("drop", action, queue, times)

    def fail_entries(
        self,
        action: str = "*Batch",
        positions: Collection[int] = (0,),
        times: int | None = 1,
        code: str = "InternalError",
        sender_fault: bool = False,
        queue: str | None = None,
    ) -> None:
        """Withhold these entries (counted from 0) of a batch from the server and answer them as Failed.

        The other entries go through. JSON protocol only; a batch that has none of the positions is left alone,
        and one that has nothing else is recorded as ``failed``.
        """
        self._add("entries", action, queue, times, code=code, positions=frozenset(positions), sender_fault=sender_fault)

    def delay(self, action: str = "*", seconds: float = 1.0, times: int | None = 1, queue: str | None = None) -> None:
        """Hold the request back, then forward it even if the client has given up: a late call still takes effect."""
        self._add("delay", action, queue, times, seconds=seconds)

    def random_failures(self, rate: float, seed: int, codes: Sequence[str] = ("ServiceUnavailable",)) -> None:
        """Fail every call that no other fault applies to with this probability (0 to 1), with one of the codes."""
        with self._changed:
            self._failure_rate, self._failure_codes = rate, list(codes)
            self._random = random.Random(seed)  # noqa: S311 - a test that can be repeated, no secret

    def clear(self) -> None:
        """Remove all faults and close the connections that hang; ``latency_seconds`` stays."""
        with self._changed:
            self._faults.clear()
            self._failure_rate = 0.0
            for client in self._hung:
                _wake(client)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut all connections and refuse new ones while the block lasts; afterwards the same port answers again.

        Calls that had reached the server go on there, as they would on AWS, and end as ``dropped``: a message that a
        cut long poll still receives is invisible for its visibility timeout.
        """
        self._stop_listening()
        with self._changed:
            for client in self._connections:
                _wake(client)
        try:
            yield
        finally:
            self._start_listening()

    def _add(self, kind: Any, action: str, queue: str | None, times: int | None, **details: Any) -> None:
        with self._changed:
            self._faults.append(_Fault(kind, action, queue, math.inf if times is None else times, **details))

    # ---- connections

    def _start_listening(self) -> None:
        self._accepting = True
        self._listener.listen(512)
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)
        self._acceptor.start()

    def _stop_listening(self) -> None:
        """Refuse connections from now on, but keep the port: bound and not listening, nobody else can be given it."""
        self._accepting = False
        socket.create_connection(self._listener.getsockname(), timeout=10).close()  # wakes accept()
        self._acceptor.join()
        address = self._listener.getsockname()
        self._listener.close()
        if not self._closing.is_set():
            self._listener = _bound_again(address[1])

    def _accept(self) -> None:
        while True:
            client = self._listener.accept()[0]
            if not self._accepting:
                client.close()
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client,), name="fault-proxy-connection", daemon=True)
            with self._changed:
                self._connections[client] = HTTPConnection(*self._upstream_address)
            thread.start()
            self._threads = [*(known for known in self._threads if known.is_alive()), thread]

    def _serve(self, client: socket.socket) -> None:
        upstream = self._connections[client]
        reader = client.makefile("rb")
        try:
            while (request := _read_request(reader)) and self._answer(client, upstream, request):
                pass
        except OSError:
            pass  # the client went away, which is what killing a worker looks like from here
        finally:
            with self._changed:  # out of the tables before it is closed: a closed descriptor may soon be another's
                del self._connections[client]
                self._hung.discard(client)
            reader.close()
            client.close()
            upstream.close()

    # ---- calls

    def _answer(self, client: socket.socket, upstream: HTTPConnection, request: _Request) -> bool:
        """Answer one request; False when the connection is to be closed."""
        call, delay_seconds, fault = self._begin(client, request)
        if delay_seconds:
            self._closing.wait(delay_seconds)
        if fault and fault.kind == "hang":
            client.settimeout(fault.seconds)
            with suppress(OSError):  # among them TimeoutError: the seconds have passed
                client.recv(1, socket.MSG_PEEK)  # returns when the client gives up or clear() shuts the socket down
            self._end(call, "hung")
            return False
        if fault and fault.kind == "reset":
            return self._reset(client, call)
        if fault and fault.kind == "fail":
            reply = _error_reply("x-amz-target" in request.headers, fault.status, fault.code)
        else:
            try:
                reply = self._forward(upstream, request, call, fault)
            except (OSError, HTTPException):
                return self._reset(client, call)
        outcome = call.outcome
        if outcome == "forwarded" and _peer_left(client):
            outcome = "dropped"
        self._end(call, outcome, reply)  # before the client is told: what it does next must come later in the record
        if outcome == "dropped":
            return False
        try:
            client.sendall(_encoded(reply))
        except OSError:
            self._end(call, "dropped" if outcome == "forwarded" else outcome, reply)
            return False
        return request.headers.get("connection", "").lower() != "close"

    def _begin(self, client: socket.socket, request: _Request) -> tuple[Call, float, _Fault | None]:
        """Record the call and choose what becomes of it: how long it is held back, and its fault."""
        action, queue, params = _understood(request)
        with self._changed:
            chosen: dict[bool, _Fault] = {}
            for fault in self._faults:
                if fault.matches(action, queue, params):
                    chosen.setdefault(fault.kind == "delay", fault)
            for fault in chosen.values():
                fault.times_left -= 1
            if False not in chosen and self._random.random() < self._failure_rate:
                code = self._random.choice(self._failure_codes)
                chosen[False] = _Fault("fail", action, queue, 0, status=_STATUSES.get(code, 400), code=code)
            delay_seconds = self.latency_seconds + (chosen[True].seconds or 0.0 if True in chosen else 0.0)
            breakage = chosen.get(False)
            outcome: Outcome = breakage.outcome(params) if breakage else "forwarded"
            if outcome == "hung":
                self._hung.add(client)
            call = Call(len(self._calls), time.monotonic(), None, action, queue, params, None, None, outcome)
            self._calls.append(call)
            self._history.append(call.index)
            self._changed.notify_all()
        return call, delay_seconds, breakage

    def _end(self, call: Call, outcome: Outcome, reply: _Reply | None = None) -> None:
        status, response = (reply.status, _json_object(reply.body)) if reply else (None, None)
        with self._changed:
            self._calls[call.index] = replace(
                call, finished_at=time.monotonic(), status=status, response=response, outcome=outcome
            )
            self._history.append(call.index)
            self._changed.notify_all()

    def _reset(self, client: socket.socket, call: Call) -> bool:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() will send RST
        self._end(call, "refused")
        return False

    def _forward(self, upstream: HTTPConnection, request: _Request, call: Call, fault: _Fault | None) -> _Reply:
        body, failed = request.body, []
        if fault and fault.kind == "entries":
            entries = call.request["Entries"]
            failed = [entry for at, entry in enumerate(entries) if at in fault.positions]
            passed = [entry for at, entry in enumerate(entries) if at not in fault.positions]
            body = json.dumps({**call.request, "Entries": passed}).encode()
            if not passed:  # servers refuse an empty batch
                reply = _Reply(200, [("Content-Type", "application/x-amz-json-1.0")], b'{"Successful": []}')
                return _with_failed(reply, failed, fault)
        if upstream.sock is not None and _peer_left(upstream.sock):
            upstream.close()  # an idle connection that the server has closed
        if upstream.sock is None:
            upstream.connect()
        if self._closing.is_set():  # only now: __exit__ wakes the sockets it can see
            raise ConnectionAbortedError
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_HEADERS}
        upstream.request(request.method, request.path, body, headers)
        with upstream.getresponse() as response:
            reply = _Reply(response.status, response.getheaders(), response.read())
        return _with_failed(reply, failed, fault) if failed and fault and reply.status == 200 else reply


def _bound_again(port: int) -> socket.socket:
    """The port once more: a process that is just being forked holds a copy of the listener for a moment."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return _bound_socket(port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or the connections just cut would keep the port
    bound.bind(("127.0.0.1", port))
    return bound


def _wake(sock: socket.socket | None) -> None:
    """Shut a socket down, so that the thread reading it returns; only that thread closes it."""
    if sock is not None:
        with suppress(OSError):  # not connected any more
            sock.shutdown(socket.SHUT_RDWR)


def _peer_left(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _read_request(reader: BinaryIO) -> _Request | None:
    """The next request, or None when the client closed the connection, in the middle of a request or between two."""
    first = reader.readline().decode("latin-1")
    headers: dict[str, str] = {}
    line = ""
    while first and (line := reader.readline().decode("latin-1")).strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if not line.endswith("\n"):
        return None
    length = int(headers.get("content-length", "0"))
    body = reader.read(length)
    method, path, _ = first.split(maxsplit=2)
    return _Request(method, path, headers, body) if len(body) == length else None


def _understood(request: _Request) -> tuple[str, str, dict[str, Any]]:
    """The action, the queue's name and the parameters of a request of either protocol; empty where there is none."""
    path, headers = urlsplit(request.path), request.headers
    if target := headers.get("x-amz-target"):
        params = _json_object(request.body) or {}
        action = target.rpartition(".")[2]
        queue = params.get("QueueUrl") or params.get("QueueName") or ""
    else:
        form = request.body.decode() if "form-urlencoded" in headers.get("content-type", "") else ""
        params = dict(parse_qsl(path.query, keep_blank_values=True) + parse_qsl(form, keep_blank_values=True))
        action = params.get("Action", "")
        queue = params.get("QueueUrl") or params.get("QueueName") or path.path
    return action, str(queue).rstrip("/").rpartition("/")[2], params


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):  # the query protocol answers in XML
        return None
    return value if isinstance(value, dict) else None


def _mentions(value: Any, needles: set[str]) -> bool:
    if isinstance(value, dict):
        return any(_mentions(item, needles) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, needles) for item in value)
    return isinstance(value, str) and any(needle in value for needle in needles)


def _error_reply(speaks_json: bool, status: int, code: str) -> _Reply:
    """An error in the shape SQS gives it (Amazon SQS API reference, "Common errors")."""
    text, number = "injected by the fault proxy", "00000000-0000-0000-0000-000000000000"
    if speaks_json:
        kind = f"com.amazonaws.sqs#{code}"
        body = json.dumps({"__type": kind, "message": text})
        headers = [("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-ErrorType", kind)]
    else:
        fault = "Sender" if status < 500 else "Receiver"
        error = f"<Error><Type>{fault}</Type><Code>{escape(code)}</Code><Message>{text}</Message></Error>"
        body = f"<ErrorResponse>{error}<RequestId>{number}</RequestId></ErrorResponse>"
        headers = [("Content-Type", "text/xml")]
    return _Reply(status, [*headers, ("x-amzn-RequestId", number)], body.encode())


def _with_failed(reply: _Reply, failed: list[dict[str, Any]], fault: _Fault) -> _Reply:
    """The server's answer to the entries that went through, with those withheld added as Failed."""
    answer = _json_object(reply.body) or {}
    blame = {"SenderFault": fault.sender_fault, "Code": fault.code, "Message": "injected by the fault proxy"}
    withheld = [{"Id": entry["Id"], **blame} for entry in failed]
    return reply._replace(body=json.dumps({**answer, "Failed": [*(answer.get("Failed") or []), *withheld]}).encode())


def _encoded(reply: _Reply) -> bytes:
    kept = [f"{name}: {value}\r\n" for name, value in reply.headers if name.lower() not in _HOP_HEADERS]
    head = f"HTTP/1.1 {reply.status} \r\n{''.join(kept)}Content-Length: {len(reply.body)}\r\n\r\n"
    return head.encode("latin-1") + reply.body
