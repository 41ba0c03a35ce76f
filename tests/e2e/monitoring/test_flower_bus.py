"""Flower, its password and its bus: nobody comes in with an empty one, and a bus that refuses Flower is told once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests import REPOSITORY
from tests.e2e.monitoring.flower_process import FlowerProcess
from tests.support.servers.redis import RedisServer
from tests.support.servers.waiting import wait_until

WAIT_SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def refused_passwords(redis: RedisServer) -> int:
    """How often the server was given a wrong one, by its own count."""
    found = re.search(rb"errorstat_WRONGPASS:count=(\d+)", redis.ask("INFO", "errorstats"))
    return int(found[1]) if found else 0


def status(flower: FlowerProcess, authorization: str | None) -> int:
    """The status of the page "Workers" for this header."""
    connection = HTTPConnection("127.0.0.1", flower.port, timeout=30)
    try:
        connection.request("GET", "/workers", headers={"Authorization": authorization} if authorization else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_closed_and_quiet(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Each empty password is a 401; a wrong one for the bus is one line with the reason, its end another."""
    with make_redis(password="of-the-bus") as redis:
        bus = redis.url.replace("of-the-bus", "another-one")
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "BRIDGE_MONITOR_URL": bus}
        with FlowerProcess(environment, tmp_path / "output.log") as flower:
            for header in (None, "Basic", "Basic =", "Basic Og==", "Basic bWU6"):  # the last two are ":" and "me:"
                assert status(flower, header) == 401, header
            assert flower.get("/workers")[0] == 200
            wait_until(lambda: "bus_lost" in flower.output(), WAIT_SECONDS, "the warning")
            # Flower's own look at the workers fails with the bus, too, and is done by then.
            wait_until(lambda: flower.output().count("Inspect method") >= 4, WAIT_SECONDS, "Flower's first look")
            before = refused_passwords(redis)
            wait_until(lambda: refused_passwords(redis) >= before + 4, WAIT_SECONDS, "more tries")
            redis.set_password("another-one")
            wait_until(lambda: "bus_back" in flower.output(), WAIT_SECONDS, "the bus again")
            output = flower.output()
    lost = [line for line in output.splitlines() if "bus_lost" in line]
    assert len(lost) == 1, output
    assert lost[0].startswith("[W ")  # Flower's own format
    for field in (
        f"bus='redis://127.0.0.1:{redis.port}'",
        "use='flower'",
        "error_type='OperationalError'",
        "error='invalid username-password pair",
    ):
        assert field in lost[0]
    assert re.search(r"bus_back bus=.*duration_seconds=\d", output)
    for password in ("of-the-bus", "another-one", "me:secret"):
        assert password not in output
