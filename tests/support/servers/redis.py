"""A real Redis (or Valkey) on a port of its own, to be stopped, frozen and brought back in the middle of a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from bridge.local import die_with_parent
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until

START_SECONDS = 30


def server_program() -> str | None:
    """Return the path of the server, None when there is none on the PATH."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def missing_server() -> str | None:
    """Say what is needed and not there."""
    return None if server_program() else "needs `redis-server` or `valkey-server` on the PATH"


class RedisServer:
    """Started in ``with``; its port stays the same over stops and starts, so that others can come back to it."""

    def __init__(self, log: Path, *options: str, password: str | None = None) -> None:
        """``options`` are the server's own, such as ``--maxmemory 1mb``."""
        self._log = log
        self._options = (*options, *(("--requirepass", password) if password else ()))
        self.password = password
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:…``, with the password if there is one."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again after ``kill`` too, and wait until it answers. Nothing is kept over a restart."""
        program = server_program()
        assert program, missing_server()
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "/", *self._options]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(die_with_parent.__file__), *command],
                stdin=subprocess.PIPE,  # the tether ends the server when this pipe closes
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers, START_SECONDS, f"Redis: {self._log}")

    def kill(self) -> None:
        """End it at once; connections break."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            if process.stdin is not None:
                process.stdin.close()

    def freeze(self) -> None:
        """Let it hang: it takes connections and bytes, and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def set_password(self, password: str) -> None:
        """Want another password from now on; whoever is connected stays so."""
        self.ask("CONFIG", "SET", "requirepass", password)
        self.password = password

    def ask(self, *words: str) -> bytes:
        """Send one command, inline, and return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            if self.password:
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                connection.recv(100)
            connection.sendall(f"{' '.join(words)}\r\n".encode())
            return connection.recv(65_536)

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith(b"+PONG")
        except OSError:
            return False
