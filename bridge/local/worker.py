"""A real Celery worker in processes of its own, which never outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.local import die_with_parent

# The folder that holds the packages `bridge` and `tasks`: the checkout, or site-packages.
PACKAGES = Path(__file__).resolve().parents[2]

KEPT_LINES = 200


class WorkerProcess:
    """``celery -A bridge worker`` with two pool processes; a context manager that stops it.

    ``environment`` is the worker's whole environment. ``on_line`` is called in a thread of ours with every line the
    worker writes, to either stream, without its line end. ``drain_seconds`` is how long a stop waits for running tasks
    before everything is killed.
    """

    def __init__(
        self, environment: Mapping[str, str], on_line: Callable[[str], None], *, drain_seconds: float = 10
    ) -> None:
        self._on_line = on_line
        self._drain_seconds = drain_seconds
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-I", die_with_parent.__file__, *self.command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            # Celery puts the current folder first on the module path: a `tasks.py` in the user's own folder would
            # otherwise stand in for the shipped package of that name.
            cwd=PACKAGES,
            # Ctrl-C in a terminal goes to every process of the foreground group. The worker must get SIGTERM instead,
            # and from us, or its pool would break under it.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._reader.start()

    @staticmethod
    def command() -> list[str]:
        """The worker's command line, as a user would type it."""
        return [sys.executable, "-m", "celery", "-A", "bridge", "worker", "-c", "2", "-l", "WARNING"]

    @property
    def process_group(self) -> int:
        """Id of the process group that holds the worker and all its children."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while the worker runs, else its exit code (128 + n when signal n ended it)."""
        code = self._process.poll()
        return None if code is None else (code if code >= 0 else 128 - code)

    def last_lines(self, count: int) -> list[str]:
        """The last ``count`` lines the worker wrote (at most ``KEPT_LINES``)."""
        return list(self._lines)[-count:]

    def stop(self) -> int:
        """Let running tasks finish within the drain budget, kill what is left, and return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(self._drain_seconds)
            except subprocess.TimeoutExpired:
                pass  # The kill below is the answer to it.
        # Pool children that a dying worker left behind are in the same group; an empty group is the normal case.
        try:
            os.killpg(self.process_group, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return self.exit_code() or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        for raw in stream:
            line = raw.decode("utf-8", errors="replace").rstrip()
            self._lines.append(line)
            self._on_line(line)
