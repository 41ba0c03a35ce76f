"""A Redis and a Flower for the demo, on 127.0.0.1, which never outlive the process that started them.

The Redis is the one that is installed, if there is one: no wheel on PyPI brings a server that is kept up.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bridge.errors import BridgeError
from bridge.local import die_with_parent
from bridge.local.worker import PACKAGES

#: Flower's own port, if it is free.
FLOWER_PORT = 5555
START_SECONDS = 30.0
_LOOK_SECONDS = 0.1
#: Linux (from 32,768) and macOS (from 49,152) give the higher ones to any outgoing connection, also while Redis starts.
_PORTS = (20_000, 32_000)


class MonitorNotStarted(BridgeError):  # noqa: N818 - says what is the case
    """Redis or Flower did not come up; the text is the end of what it said."""


def missing_for_flower() -> str | None:
    """Say what has to be installed before the demo can show Flower; None when nothing is missing."""
    if _redis_program() is None:
        return "--flower needs a Redis or Valkey on the PATH; on Debian and Ubuntu: apt-get install redis-server"
    for module in ("redis", "flower"):
        if importlib.util.find_spec(module) is None:
            return f"--flower needs {module}: pip install 'bucket-brigade[flower]'"
    return None


@contextmanager
def local_redis() -> Iterator[str]:
    """Run a Redis that keeps nothing; yields its URL. Raises MonitorNotStarted when it does not start."""
    program = _redis_program()
    if program is None:
        raise MonitorNotStarted(missing_for_flower())
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with _dying_with_us(command, os.environ, Path(folder, "redis.log")):
            _await_port(port, Path(folder, "redis.log"))
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def local_flower(environment: Mapping[str, str]) -> Iterator[str]:
    """Run Flower with this environment; yields its URL, which answers. Raises MonitorNotStarted if not."""
    port = _free_port(FLOWER_PORT)
    # A Flower of the user's own is not this one.
    environment = {name: value for name, value in environment.items() if not name.startswith("FLOWER_")}
    command = [sys.executable, "-m", "celery", "-A", "bridge.monitor", "flower", f"--port={port}"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "flower.log")
        with _dying_with_us(command, environment, log):
            _await_port(port, log)
            yield f"http://127.0.0.1:{port}"


@contextmanager
def _dying_with_us(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-I", die_with_parent.__file__, *command],
            stdin=subprocess.PIPE,  # die_with_parent ends the group when this closes, however we go
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=PACKAGES,
            start_new_session=True,
        )
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # neither holds anything worth a slow end
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _await_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-500:]
                raise MonitorNotStarted(f"nothing answers on port {port}: {tail}") from None
            time.sleep(_LOOK_SECONDS)


def _free_port(wanted: int | None = None) -> int:
    """Return the wanted port if it is free, else another of those that no outgoing connection is given."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or random.SystemRandom().randrange(*_PORTS)))
        except OSError:
            return _free_port()
        return int(probe.getsockname()[1])


def _redis_program() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")
