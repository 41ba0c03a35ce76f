"""Flower as a user starts it, and what its pages and its JSON say; a headless Chromium to look at them."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.servers.waiting import wait_until

START_SECONDS = 60.0


class FlowerProcess:
    """``celery -A bridge.monitor flower`` on a free port, with basic auth (its API wants some)."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log

    def __enter__(self) -> Self:
        options = ["--port=0", "--basic-auth=me:secret"]
        command = [sys.executable, "-m", "celery", "-A", "bridge.monitor", "flower", *options]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=dict(self._environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        found = wait_until(lambda: re.search(r"Visit me at http://(\S+):(\d+)", self.output()), START_SECONDS, "Flower")
        self.host, self.port = found[1], int(found[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)

    def output(self) -> str:
        """What Flower has written so far."""
        return self._log.read_text(errors="replace")

    def get(self, path: str, *, credentials: str = "me:secret") -> tuple[int, str]:
        """Status and body of a page."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        header = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
        try:
            connection.request("GET", path, headers=header)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """What an address of Flower's API answers."""
        status, body = self.get(path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def workers(self) -> dict[str, dict[str, Any]]:
        """The rows of the page "Workers", by name: counts of events, and ``status`` (True: online)."""
        return {row["hostname"]: row for row in self.json("/workers?json=1")["data"]}

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks that Flower knows."""
        return list(self.json("/api/tasks").values())


def chromium() -> str | None:
    """Return the browser's path, None when there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def needs_chromium() -> None:
    """Skip without a browser, but fail in CI, which has to have it."""
    if chromium() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs `chromium` on the PATH")
        pytest.skip("needs `chromium` on the PATH")


def browse(url: str, profile: Path, *options: str) -> str:
    """Open a page, let its scripts run, and return what it then holds (the DOM)."""
    program = chromium()
    assert program
    command: Sequence[str] = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--window-size=1400,640",
        "--virtual-time-budget=8000",
        *options,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
