"""The health server by itself: who asks what, and who cannot hold it up."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.health import server as health
from bridge.health.server import CLIENT_SECONDS, MAX_CONNECTIONS, MAX_HEAD_BYTES, HealthServer, Response, as_json
from tests.e2e.health.asking import ask
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until


@pytest.fixture
def serving() -> Iterator[Callable[..., HealthServer]]:
    """Starts servers with these answers; all are closed after the test."""
    started: list[HealthServer] = []

    def start(answers: dict[str, Callable[[], Response]], host: str = "127.0.0.1") -> HealthServer:
        server = HealthServer(host, 0)
        started.append(server)
        server.start(answers)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()
        wait_until(lambda server=server: not server._open, CLIENT_SECONDS + 10, "the end of all connections")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of one server that has ``/live``, for the tests that do it no harm."""
    with HealthServer("127.0.0.1", 0) as server:
        server.start({"/live": ok})
        yield server.port
        server.shutdown()


def ok() -> Response:
    """An answer."""
    return as_json(200, {"ok": True})


def raw(port: int, data: bytes, *, family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> bytes:
    """Send these bytes and return all that is answered until the connection is closed."""
    with socket.socket(family) as connection:
        connection.settimeout(20)
        connection.connect((host, port))
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_get_and_head(port):
    """GET has the answer; HEAD has its head, with the length, and no body; a query changes nothing."""
    assert ask(port, "/live") == (200, b'{"ok": true}\n')
    assert ask(port, "/live?verbose=1") == (200, b'{"ok": true}\n')
    head, _, body = raw(port, b"HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Content-Length: 13" in head
    assert body == b""


def test_the_status_is_the_answers(serving):
    """A probe that fails is one by its status."""
    port = serving({"/ready": lambda: as_json(503, {"ready": False})}).port
    assert ask(port, "/ready") == (503, b'{"ready": false}\n')


@pytest.mark.parametrize("path", ["/", "/live/", "/%6cive", "/live/x", "/../live", "/etc/passwd", "/metrics"])
def test_other_paths_are_not_found(port, path):
    """Paths are compared, not interpreted; the answer names those there are, and not the one that was asked for."""
    assert ask(port, path) == (404, b'{"error": "not found", "paths": ["/live"]}\n')


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"])
def test_other_methods_are_refused(port, method):
    """GET and HEAD only, and the refusal says so."""
    assert ask(port, "/live", method=method) == (405, b'{"error": "method not allowed"}\n')
    assert b"Allow: GET, HEAD" in raw(port, f"{method} /live HTTP/1.0\r\n\r\n".encode())


def test_answers_say_nothing_of_python_and_are_not_kept(port):
    """No version for an attacker to look up; no cache keeps an old answer; the type is the one that is said."""
    head = raw(port, b"GET /live HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")[0].lower()
    assert b"server: bucket-brigade\r\n" in head
    assert b"python" not in head
    assert b"cache-control: no-store" in head
    assert b"x-content-type-options: nosniff" in head


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /live HTTP/9.9\r\n\r\n",
        b"GET /live HTTP/1.1 and more\r\n\r\n",
        b"<script> /live HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
        b"GET /live HTTP/1.1\r\nno header\r\n\r\n",
        bytes(range(256)) + b"\n\n",
    ],
)
def test_garbage_ends_its_own_connection_only(port, data):
    """Whatever is sent, it is not repeated, no traceback is told, and the next one is answered."""
    said = raw(port, data)
    assert b"Traceback" not in said
    assert b"script" not in said
    assert ask(port, "/live")[0] == 200


def test_a_head_without_end_is_cut_off(port):
    """No client makes the server read more than ``MAX_HEAD_BYTES``."""
    data = b"GET /live HTTP/1.1\r\n" + b"X-Long: y\r\n" * (MAX_HEAD_BYTES // 11)
    assert raw(port, data[: MAX_HEAD_BYTES + 1]).startswith(b"HTTP/1.0 431 ")
    assert ask(port, "/live")[0] == 200


def test_an_error_of_ours_is_told_and_logged(serving, caplog):
    """Whoever asks gets a 500 without details, the log gets them, and the next question is answered."""
    port = serving({"/live": ok, "/ready": lambda: 1 // 0}).port
    assert ask(port, "/ready") == (500, b'{"error": "internal error, see the worker\'s log"}\n')
    assert [(r.msg, r.path) for r in caplog.records] == [("health_bug", "/ready")]
    assert ask(port, "/live")[0] == 200


def test_silent_clients_keep_nobody_waiting(serving, monkeypatch):
    """More connections than there may be, all without a word: a question is answered long before they time out."""
    monkeypatch.setattr(health._Handler, "timeout", 300)
    port = serving({"/live": ok}).port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * MAX_CONNECTIONS)]
    try:
        assert ask(port, "/live", timeout_seconds=60)[0] == 200
    finally:
        for each in silent:
            each.close()


def test_there_are_never_more_threads_than_connections_may_be(serving):
    """A flood of connections makes no flood of threads."""
    server = serving({"/live": ok})
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * MAX_CONNECTIONS)]
    most = 0
    try:
        wait_until(lambda: len(server._open) == MAX_CONNECTIONS, 20, "all places taken")
        for _ in range(20):
            threads = sum(t.name == "bridge-health-connection" for t in threading.enumerate())
            most = max(most, threads)
            time.sleep(0.05)  # looks at it again and again while the flood goes on
        assert most <= MAX_CONNECTIONS + 2  # one that was cut off may not have ended yet
    finally:
        for each in silent:
            each.close()


def test_a_client_that_drips_is_cut_off(serving, monkeypatch):
    """A byte now and then keeps a connection only until its place is wanted."""
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 1)
    port = serving({"/live": ok}).port
    with socket.create_connection(("127.0.0.1", port)) as dripping:
        dripping.sendall(b"GET /li")
        assert ask(port, "/live", timeout_seconds=20)[0] == 200
        dripping.settimeout(20)
        assert dripping.recv(100) == b""


def test_a_silent_client_is_let_go_of(serving, monkeypatch):
    """Nobody has to want its place: its time is limited anyhow."""
    monkeypatch.setattr(health._Handler, "timeout", 0.2)
    server = serving({"/live": ok})
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.settimeout(20)
        assert silent.recv(100) == b""
    wait_until(lambda: not server._open, 10, "no connection left")


def test_a_client_that_does_not_read_is_let_go_of(serving, monkeypatch):
    """An answer larger than what the network holds does not keep its thread for ever."""
    monkeypatch.setattr(health._Handler, "timeout", 0.2)
    server = serving({"/metrics": lambda: Response(200, b"x" * 50_000_000, "text/plain"), "/live": ok})
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        wait_until(lambda: server._open, 10, "the connection")
        wait_until(lambda: not server._open, 20, "no connection left")
    assert ask(server.port, "/live")[0] == 200


def test_ipv6_and_both(serving):
    """``::1`` is served, and ``::`` for IPv4 too."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    request = b"GET /live HTTP/1.0\r\n\r\n"
    only = serving({"/live": ok}, "::1").port
    assert b" 200 " in raw(only, request, family=socket.AF_INET6, host="::1")
    both = serving({"/live": ok}, "::").port
    assert b" 200 " in raw(both, request, family=socket.AF_INET6, host="::1")
    assert b" 200 " in raw(both, request)


def test_a_taken_port_names_its_setting():
    """As text of a SettingsError, one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"^BRIDGE_HEALTH_PORT={port}: the port is taken on 127.0.0.1: "):
            HealthServer("127.0.0.1", port)


def test_an_address_of_another_machine_names_its_setting():
    """192.0.2.1 is in no machine (RFC 5737)."""
    with pytest.raises(SettingsError, match=r"^BRIDGE_HEALTH_HOST=192\.0\.2\.1: is not an address of this machine$"):
        HealthServer("192.0.2.1", free_port())


def test_a_port_of_the_system_names_its_setting():
    """Below 1024 a user may not serve; root may, so this asks as somebody else."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("here everybody may open every port, as in Docker's containers")
    code = (
        "import os\n"
        "from bridge.errors import SettingsError\n"
        "from bridge.health.server import HealthServer\n"
        "os.getuid() or os.setuid(65534)\n"
        "try:\n    HealthServer('127.0.0.1', 1)\n"
        "except SettingsError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "BRIDGE_HEALTH_PORT=1: this user may not open that port; choose one from 1024 on\n"


def test_a_forked_child_has_no_part_in_the_port():
    """Neither in the port nor in the connections that are open when it is born; alone the parent answers them."""
    code = (
        "import os, socket\n"
        "from contextlib import suppress\n"
        "from bridge.health.server import HealthServer, as_json\n"
        "def inodes():\n"
        "    for fd in range(3, 100):\n"
        "        with suppress(OSError):\n"
        "            yield os.fstat(fd).st_ino\n"
        "server = HealthServer('127.0.0.1', 0)\n"
        "server.start({'/live': lambda: as_json(200, {})})\n"
        "client = socket.create_connection(('127.0.0.1', server.port))\n"
        "while not server._open: pass\n"
        "own = {os.fstat(s.fileno()).st_ino for s in (server.socket, *server._open)}\n"
        "assert len(own) == 2 and own <= set(inodes())\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(len(own & set(inodes())))\n"
        "assert os.waitpid(pid, 0)[1] == 0, 'the child holds a socket of the server'\n"
        "client.sendall(b'GET /live HTTP/1.0\\r\\n\\r\\n')\n"
        "assert b' 200 ' in client.recv(100)\n"
    )
    warnings = ("-W", "ignore:This process:DeprecationWarning")  # Python 3.12 warns of a fork beside threads
    subprocess.run([sys.executable, *warnings, "-c", code], timeout=30, check=True)
