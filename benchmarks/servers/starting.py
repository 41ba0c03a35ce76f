"""The servers of the bench, each in a process of its own on 127.0.0.1, started in ``with`` and ended with the block.

Every one is ended by its process id, and by the tether when this process is gone, however it went: Ctrl-C, SIGTERM or
SIGKILL leave none behind. Ports are free ones that the servers take and print themselves.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import REPOSITORY
from tests.support.servers import elasticmq as elasticmq_files
from tests.support.servers.process import running_server
from tests.support.servers.redis import RedisServer, missing_server

READY = r"ready (http://\S+)"


@dataclass(frozen=True)
class Proxy:
    """A running delay proxy; ``url`` is where clients connect to instead of the server."""

    url: str

    def set_delay(self, milliseconds: float) -> None:
        """Delay every request from now on by this."""
        self._ask("POST", f"delay?ms={milliseconds:g}")

    def counts(self) -> dict[str, int]:
        """Return the calls since the last reset, by SQS action or HTTP method."""
        return {str(name): int(number) for name, number in self._ask("GET", "counts").items()}

    def reset(self) -> dict[str, int]:
        """Return the calls since the last reset, and begin to count anew."""
        return {str(name): int(number) for name, number in self._ask("POST", "reset").items()}

    def _ask(self, method: str, what: str) -> dict[str, float]:
        request = urllib.request.Request(f"{self.url}/_proxy/{what}", method=method)  # noqa: S310 - our own http:// address
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return dict(json.load(answer))


@contextmanager
def delay_proxy(upstream: str, delay_ms: float = 0, python: str = sys.executable) -> Iterator[Proxy]:
    """Run a delay proxy before the server at ``upstream`` (``http://HOST:PORT``)."""
    options = ["--upstream", _origin(upstream), "--delay-ms", f"{delay_ms:g}"]
    with _started([python, "-m", "benchmarks.servers.delay_proxy", *options], READY) as url:
        yield Proxy(url)


@contextmanager
def memory_sqs(python: str = sys.executable) -> Iterator[str]:
    """Run the in-memory SQS server; yields ``http://127.0.0.1:PORT``."""
    with _started([python, "-m", "benchmarks.servers.memory_sqs", "--port", "0"], READY) as url:
        yield url


@contextmanager
def elasticmq() -> Iterator[str]:
    """Run ElasticMQ; yields ``http://127.0.0.1:PORT``. Raises RuntimeError, saying what it lacks, when it cannot run.

    Not with the options of the tests, which are there for a fast start: with the JVM's own compilers, and memory for
    a full queue.
    """
    missing = elasticmq_files.missing_tool()
    if missing:
        raise RuntimeError(missing)
    for_tests = ("-XX:TieredStopAtLevel=1", "-Xmx256m")
    command = [word for word in elasticmq_files.command() if word not in for_tests]
    command.insert(1, "-Xmx1g")
    with _started(command, elasticmq_files.ANNOUNCEMENT) as url:
        yield url.rstrip("/")


@contextmanager
def redis() -> Iterator[str]:
    """Run Redis; yields ``redis://127.0.0.1:PORT``. Raises RuntimeError when there is none on this machine."""
    missing = missing_server()
    if missing:
        raise RuntimeError(missing)
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder) / "redis.log") as server:
        yield server.url


@contextmanager
def memory_s3(python: str = sys.executable) -> Iterator[str]:
    """Run the in-memory S3 server; yields ``http://127.0.0.1:PORT``."""
    with _started([python, "-m", "benchmarks.servers.memory_s3", "--port", "0"], READY) as url:
        yield url


@contextmanager
def _started(command: Sequence[str], announcement: str) -> Iterator[str]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        # Our own servers are modules of this package. They may run in another Python, which finds it by PYTHONPATH.
        environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY)}
        yield stack.enter_context(running_server(command, announcement, folder / "output.log", environment))


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
