"""``brigade demo --flower``: the demo, seen in Flower."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.servers.redis import RedisServer
from tests.servers.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def demo(**environment: str) -> subprocess.Popen[str]:
    """Start it as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", "--flower"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_flower_shows_the_demo(make_redis: Callable[..., RedisServer]) -> None:
    """Flower is up before the worker, and shows it with the tasks that it runs; SIGTERM ends it all."""
    pytest.importorskip("flower")
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

        wait_until(lambda: any(row.get("task-succeeded") for row in rows()), 60, "a task in Flower")
        assert [row["status"] for row in rows()] == [True]
        process.terminate()
        process.communicate(timeout=40)
        assert process.returncode == 143
    finally:
        process.kill()
        process.communicate()


def test_without_redis_it_says_what_to_install() -> None:
    """No Redis on the PATH: one line, exit code 2, and nothing was started."""
    process = demo(PATH="/nonexistent")
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, len(output.splitlines())) == (2, 1)
    assert "apt-get install redis-server" in output
