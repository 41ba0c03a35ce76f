"""Liveness: a worker that is stuck says so, as does ``/live``; one that SQS has left, or that is busy, does not."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.health.liveness import LOOP_SECONDS, longest_call_seconds
from tests.e2e.delivery.conftest import Scenarios, Site, kill, patient
from tests.e2e.health.asking import await_status, told
from tests.support.servers.port import free_port
from tests.support.servers.sqs import SqsServer

# The first test that asks for a scenario waits for the start of many workers, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq, pytest.mark.timeout(300)]

#: And a lease that no busy machine lets lapse: the tasks here are longer than any usual one.
WAIT = {"BRIDGE_WAIT_TIME_SECONDS": "1", "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "120"}
ALIVE = (200, {"live": True, "reasons": []})
LIMIT_SECONDS = longest_call_seconds(1, 0)
#: How often the worker looks at itself, and a little for the look.
LOOK_SECONDS = 6


class SlowCredentials:
    """Credentials of a program (``credential_process``) that can take for ever: no time-out of a call ends the wait.

    They are always about to expire, so the SDK asks for them again before each call.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
    """

    def __init__(self, folder: Path) -> None:
        self._flag = folder / "no-credentials"
        program = folder / "credentials.py"
        program.write_text(
            "import datetime, json, os, sys, time\n"
            "while os.path.exists(sys.argv[1]):\n"
            "    time.sleep(0.2)\n"
            "soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)\n"
            "keys = {'AccessKeyId': 'test', 'SecretAccessKey': 'test', 'Expiration': soon.isoformat()}\n"
            "print(json.dumps({'Version': 1, **keys}))\n"
        )
        config = folder / "aws-config"
        config.write_text(f"[profile slow]\ncredential_process = {sys.executable} {program} {self._flag}\n")
        # Keys in the environment would come first.
        no_keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        self.settings = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "slow", **no_keys}

    def stop(self) -> None:
        """Give none from now on."""
        self._flag.touch()

    def go_on(self) -> None:
        """Give them again, also to who is waiting."""
        self._flag.unlink(missing_ok=True)


@contextmanager
def slow_credentials(site: Site) -> Iterator[SlowCredentials]:
    """Credentials for the time of the block."""
    credentials = SlowCredentials(site.folder)
    try:
        yield credentials
    finally:
        credentials.go_on()


def watch(seconds: float) -> None:
    """Let the time pass in which something must not happen."""
    time.sleep(seconds)


@patient
def stuck(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """A receive that no time-out ends."""
    with Site(servers["elasticmq"], folder) as site, slow_credentials(site) as credentials:
        port = free_port()
        worker = site.start("-c", "1", BRIDGE_HEALTH_PORT=str(port), **credentials.settings, **WAIT)
        assert told(port, "/live") == ALIVE
        credentials.stop()
        began = time.monotonic()
        said = worker.wait_event("worker_stuck", LIMIT_SECONDS + 45)
        assert time.monotonic() - began > LIMIT_SECONDS - 3  # a call of a second was under way already
        assert "in one call for" in said["error"]
        assert said["level"] == "critical"
        status, answer = told(port, "/live")
        assert (status, answer["live"]) == (503, False)
        assert "in one call for" in answer["reasons"][0]
        assert told(port, "/ready")[0] == 503
        credentials.go_on()
        worker.wait_event("worker_unstuck")
        await_status(port, "/live", 200)
        [message_id] = site.send("quick/1")
        worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        assert len(worker.found("worker_stuck")) == 1


def test_a_stuck_receive_is_told(patient_scenarios: Scenarios) -> None:
    """A receive that goes on for three times its time is logged as ``worker_stuck``, and its end as ``worker_unstuck``.

    On ElasticMQ alone, as are all of this file: what is shown happens on this side of the network.
    """
    patient_scenarios.result("stuck")


@patient
def refused(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """No connection for longer than a receive may last."""
    with Site(servers["elasticmq"], folder) as site:
        port = free_port()
        worker = site.start("-c", "1", BRIDGE_HEALTH_PORT=str(port), **WAIT)
        with site.proxy.refusing():
            watch(LIMIT_SECONDS + LOOK_SECONDS)
            assert told(port, "/live") == ALIVE
            assert told(port, "/ready")[0] == 503
        assert worker.found("receive_failed")
        assert not worker.found("worker_stuck")


@patient
def hanging(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """No answer for longer than a receive may last."""
    with Site(servers["elasticmq"], folder) as site:
        port = free_port()
        worker = site.start("-c", "1", BRIDGE_HEALTH_PORT=str(port), **WAIT)
        site.proxy.hang(times=None)
        watch(LIMIT_SECONDS + LOOK_SECONDS)
        assert told(port, "/live") == ALIVE
        assert told(port, "/ready")[0] == 503
        assert worker.found("receive_failed")
        assert not worker.found("worker_stuck")


@pytest.mark.parametrize("kind", ["refused", "hanging"])
def test_an_outage_is_not_being_stuck(patient_scenarios: Scenarios, kind: str) -> None:
    """While SQS is away calls fail, but they end: the worker is alive."""
    patient_scenarios.result(kind)


@patient
def full(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """No receive for longer than one may last."""
    with Site(servers["elasticmq"], folder) as site:
        port = free_port()
        worker = site.start("-c", "1", BRIDGE_HEALTH_PORT=str(port), **WAIT)
        ids = site.send(f"long/{LIMIT_SECONDS + LOOK_SECONDS}/1", "quick/1")
        watch(LIMIT_SECONDS + 1)
        assert told(port, "/live") == ALIVE
        assert told(port, "/ready")[0] == 200
        for message_id in ids:
            worker.wait_event("message_settled", LIMIT_SECONDS + LOOK_SECONDS + 45, message_id=message_id)
        assert not worker.found("worker_stuck")


def test_a_full_window_is_not_being_stuck(patient_scenarios: Scenarios) -> None:
    """A worker that receives nothing because its window is full of long tasks is alive."""
    patient_scenarios.result("full")


@patient
def busy_solo(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """No turn of the main loop for longer than that may take."""
    with Site(servers["elasticmq"], folder) as site:
        port = free_port()
        worker = site.start("-P", "solo", BRIDGE_HEALTH_PORT=str(port), **WAIT)
        [message_id] = site.send(f"long/{LOOP_SECONDS + LOOK_SECONDS}")
        watch(LOOP_SECONDS + 2)
        assert told(port, "/live") == ALIVE
        worker.wait_event("message_settled", LOOP_SECONDS + LOOK_SECONDS + 45, message_id=message_id)
        assert not worker.found("worker_stuck")


def test_a_busy_solo_worker_is_not_stuck(patient_scenarios: Scenarios) -> None:
    """The main loop of a solo worker may stand still for as long as its task runs."""
    patient_scenarios.result("busy_solo")


@patient
def draining(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """A receive that no time-out ends, in a drain."""
    with Site(servers["elasticmq"], folder) as site, slow_credentials(site) as credentials:
        task_seconds = LIMIT_SECONDS + LOOK_SECONDS
        settings = {"BRIDGE_DRAIN_SECONDS": str(int(task_seconds) + 10)}
        port = free_port()
        worker = site.start("-c", "2", BRIDGE_HEALTH_PORT=str(port), **credentials.settings, **settings, **WAIT)
        [message_id] = site.send(f"long/{task_seconds}")
        site.await_begun(message_id)
        credentials.stop()
        kill(worker, signal.SIGTERM)
        watch(LIMIT_SECONDS + 1)
        assert told(port, "/live") == ALIVE
        assert told(port, "/ready") == (503, {"ready": False, "reasons": ["draining"]})
        worker.wait_for(lambda e: e.get("event") == "ended", task_seconds + 45, "end of the task")
        credentials.go_on()
        worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        assert worker.wait_exit() == 0
        assert not worker.found("worker_stuck")


def test_a_drain_is_not_being_stuck(patient_scenarios: Scenarios) -> None:
    """A worker that drains is alive, whatever its last receive is doing."""
    patient_scenarios.result("draining")
