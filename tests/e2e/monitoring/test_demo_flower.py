"""``brigade demo --flower``: the demo, seen in Flower."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests import REPOSITORY
from tests.e2e.monitoring.flower_process import browse, needs_chromium
from tests.support.servers.redis import RedisServer
from tests.support.servers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone]

#: Set to 1, the picture in the docs is taken anew; a test run otherwise leaves the tree as it is.
WRITE_PICTURE = "WRITE_FLOWER_PICTURE"
PICTURE = REPOSITORY / "docs" / "images" / "flower.png"


def demo(**environment: str) -> subprocess.Popen[str]:
    """Start it as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", "--flower"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_browser_shows_the_demo(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Chromium shows the demo's worker online and its tasks by name, end and object; SIGTERM ends it all."""
    needs_chromium()
    process = demo()
    try:
        assert process.stdout is not None
        address = next(found[1] for line in process.stdout if (found := re.search(r"Flower is at (\S+),", line)))

        def rows() -> list[dict[str, Any]]:
            connection = HTTPConnection(address.removeprefix("http://"), timeout=30)
            try:
                connection.request("GET", "/workers?json=1")
                return list(json.load(connection.getresponse())["data"])
            finally:
                connection.close()

        wait_until(lambda: sum(row.get("task-failed", 0) for row in rows()), 60, "the task that fails for good")
        [row] = rows()
        assert row["status"]
        assert row["task-succeeded"] >= 3
        assert row["task-retried"] >= 4  # two of the file that works at the third run, two of the one that never does
        tasks, workers = (shown(f"{address}/{page}", tmp_path) for page in ("tasks", "workers"))
        names = ("tasks.describe", "bridge.local.demo_tasks.flaky", "bridge.local.demo_tasks.broken")
        for wanted in (*names, "SUCCESS", "FAILURE", "s3://uploads/flaky/", "s3://uploads/broken/", row["hostname"]):
            assert wanted in tasks, f"{wanted} is not on the page: {tasks[:2000]}"
        assert "Online" in workers
        assert row["hostname"] in workers
        picture = tmp_path / "flower.png"
        browse(f"{address}/tasks", tmp_path / "profile", f"--screenshot={picture}")
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 20_000  # an empty page has a tenth of it
        if os.environ.get(WRITE_PICTURE):
            shutil.copy(picture, PICTURE)
        process.terminate()
        process.communicate(timeout=40)
        assert process.returncode == 143
    finally:
        process.kill()
        process.communicate()


def shown(url: str, folder: Path) -> str:
    """The text of a page, as a browser shows it."""
    return " ".join(re.sub(r"<[^>]*>", " ", browse(url, folder / "profile", "--dump-dom")).split())


def test_without_redis_it_says_what_to_install() -> None:
    """No Redis on the PATH: one line, exit code 2, and nothing was started."""
    process = demo(PATH="/nonexistent")
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, len(output.splitlines())) == (2, 1)
    assert "apt-get install redis-server" in output
