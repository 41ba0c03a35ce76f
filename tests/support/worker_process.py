"""A real worker in a process of its own: ``celery -A bridge worker``, its JSON log lines read as events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests import REPOSITORY

#: How long a worker may take to say that it is ready, on a busy machine.
START_SECONDS = 60.0
#: How long a worker may take for what it does in a second when the machine has nothing else to do.
PATIENCE_SECONDS = 45.0


class WorkerProcess:
    """Started in ``with``; ended by SIGTERM and then, with all its children, by SIGKILL."""

    def __init__(
        self,
        env: Mapping[str, str],
        *args: str,
        cwd: Path | None = None,
        wait_ready: bool = True,
    ) -> None:
        """``env`` is everything the worker gets beside PATH; ``args`` follow ``celery -A bridge worker``."""
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            # Containers run tests as root. A class of Celery's cannot be named here: this is read before any import.
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges:RuntimeWarning",
            "BRIDGE_LOG_FORMAT": "json",
            # Many workers run at once here, and the default port is one; a test of the health server names its own.
            "BRIDGE_HEALTH_PORT": "0",
            **env,
        }
        self._args = args
        self._cwd = cwd
        self._wait_ready = wait_ready
        self._changed = threading.Condition()
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.process: subprocess.Popen[str]

    def __enter__(self) -> WorkerProcess:
        # "-l INFO" makes Celery say when it is ready; a session of its own lets the test end every child with it.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "bridge", "worker", "-l", "INFO", *self._args],
            env=self._env,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if self._wait_ready:
            try:
                self.wait_for(lambda e: str(e.get("event", "")).endswith("ready."), START_SECONDS, "ready")
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                pass
        self.kill_group()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def kill_group(self) -> None:
        """End the worker and all its children at once."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def children(self) -> list[int]:
        """The process ids of the worker's children that are alive."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def found(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The events so far with this name and these fields."""
        with self._changed:
            return [e for e in self.events if e.get("event") == event and fields.items() <= e.items()]

    def wait_event(self, event: str, timeout_seconds: float = PATIENCE_SECONDS, **fields: Any) -> dict[str, Any]:
        """The first event with this name and these fields, waited for."""
        return self.wait_for(
            lambda e: e.get("event") == event and fields.items() <= e.items(), timeout_seconds, f"{event} {fields}"
        )

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout_seconds: float, what: str) -> dict[str, Any]:
        """The first event that is wanted, waited for; fails with the worker's last lines."""
        deadline = time.monotonic() + timeout_seconds
        seen = 0
        with self._changed:
            while True:
                for event in self.events[seen:]:
                    if wanted(event):
                        return event
                seen = len(self.events)
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    tail = "\n".join(self.lines[-40:])
                    raise AssertionError(f"no {what} within {timeout_seconds} s; the worker said:\n{tail}")
                self._changed.wait(min(left, 0.5))

    def wait_exit(self, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code, waited for."""
        code = self.process.wait(timeout_seconds)
        self._reader.join(5)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text = line.rstrip("\n")
            try:
                event = json.loads(text)
            except ValueError:
                event = {}
            with self._changed:
                self.lines.append(text)
                if isinstance(event, dict) and event:
                    self.events.append(event)
                self._changed.notify_all()
