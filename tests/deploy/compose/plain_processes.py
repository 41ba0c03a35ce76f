"""The services of docker-compose.yml as plain processes of this machine, each on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from bridge.local import die_with_parent
from tests.deploy.compose import compose_file as compose
from tests.support.servers import elasticmq
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until

#: How long a service may take until its health check is content, on a busy machine.
START_SECONDS = 90.0
#: Where each service listens in its container.
ADDRESSES = {"elasticmq": "elasticmq:9324", "s3": "s3:5000", "valkey": "valkey:6379"}


class Machine:
    """Gives every service a port and a folder, and translates what the file says for containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services = compose.services()
        self.ports = {name: free_port() for name in (*ADDRESSES, "worker", "flower")}

    def translated(self, service: str, text: str) -> str:
        """Return ``text`` with host names, ports and folders of the container replaced by those of this machine."""
        for name, address in ADDRESSES.items():
            text = text.replace(f"//{address}", f"//127.0.0.1:{self.ports[name]}")
        text = text.replace("0.0.0.0", "127.0.0.1").replace("/var/lib/bucket-brigade", str(self.folder))  # noqa: S104 - read
        inside = {"s3": "5000", "flower": "5555"}.get(service)
        return re.sub(rf"(?<!\d){inside}(?!\d)", str(self.ports[service]), text) if inside else text

    def environment(self, service: str) -> dict[str, str]:
        """Return the whole environment of a service; the image's own variables are left to PATH and HOME."""
        given = compose.environment(self.services[service])
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            # Containers run tests as root, and the image's user is none.
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges:RuntimeWarning",
            "BRIDGE_HEALTH_PORT": str(self.ports["worker"]),
            **{name: self.translated(service, value) for name, value in given.items()},
        }

    def command_line(self, service: str) -> list[str]:
        """Return what the container would run; of the servers of others, this machine's own programs."""
        if service == "elasticmq":
            return _elasticmq_command(self.ports["elasticmq"])
        words = [self.translated(service, word) for word in compose.command_line(self.services[service])]
        if service == "valkey":
            program = shutil.which("valkey-server") or shutil.which("redis-server")
            assert program
            return [program, *words[1:], "--port", str(self.ports["valkey"]), "--bind", "127.0.0.1", "--dir", "/"]
        return words

    def run(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``docker compose run --rm SERVICE ARGUMENTS…``: the entrypoint with other arguments than the command's."""
        entrypoint = self.services[service]["entrypoint"]
        return subprocess.run(
            [*entrypoint, *arguments],
            cwd=self.folder,
            env=self.environment(service),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def is_healthy(self, service: str) -> bool:
        """Ask the service's own health check, once."""
        words = [self.translated(service, word) for word in self.services[service]["healthcheck"]["test"][1:]]
        if service in ("elasticmq", "valkey"):  # what their images have to ask with need not be on this machine
            return _listens(self.ports[service])
        return (
            subprocess.run(
                words, env=self.environment(service), cwd=self.folder, capture_output=True, timeout=60, check=False
            ).returncode
            == 0
        )


class Service:
    """One service's process in ``with``; it is healthy when the block begins."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self._name = name
        self.log = machine.folder / f"{name}.log"

    def __enter__(self) -> Self:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(die_with_parent.__file__), *self._machine.command_line(self._name)],
                cwd=self._machine.folder,
                env=self._machine.environment(self._name),
                stdin=subprocess.PIPE,  # the tether ends the service when this pipe closes
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._healthy, START_SECONDS, f"{self._name} is healthy; its output: {self.log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stdin is not None
        self._process.stdin.close()

    def stop(self) -> int:
        """``docker compose stop``: SIGTERM to process 1, and its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _healthy(self) -> bool:
        assert self._process.poll() is None, f"{self._name} ended:\n{self.output()[-4000:]}"
        return self._machine.is_healthy(self._name)


def _elasticmq_command(port: int) -> Sequence[str]:
    """The Java server with the config file that the native image gets; only address and port are this machine's."""
    words = [word for word in elasticmq.command() if not word.startswith("-Dconfig.file=")]
    mounted = {"rest-sqs.bind-hostname": "127.0.0.1", "node-address.host": "127.0.0.1"}
    numbers = {"rest-sqs.bind-port": port, "node-address.port": port}
    settings: Mapping[str, Any] = {"config.file": compose.REPOSITORY / "compose/elasticmq.conf", **mounted, **numbers}
    return [words[0], *(f"-D{name}={value}" for name, value in settings.items()), *words[1:]]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
