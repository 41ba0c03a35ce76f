"""Liveness: a worker that is stuck says so, as does ``/live``; one that SQS has left, or that is busy, does not."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.liveness import LOOP_SECONDS, longest_call_seconds
from tests.delivery_e2e.conftest import Scenarios, Site, kill, patient
from tests.health.asking import await_status, free_port, told
from tests.servers.sqs import SqsServer

# The first test that asks for a scenario waits for the start of many workers, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.elasticmq, pytest.mark.timeout(300)]

#: And a lease that no busy machine lets lapse: the tasks here are longer than any usual one.
WAIT = {"BRIDGE_WAIT_TIME_SECONDS": "1", "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "120"}
ALIVE = (200, {"live": True, "reasons": []})
LIMIT_SECONDS = longest_call_seconds(1, 0)
#: How often the worker looks at itself, and a little for the look.
LOOK_SECONDS = 6


class Dripping:
    """A relay that can pass answers on at one byte a second: no time-out of a read ever ends such a call."""

    def __init__(self, upstream_url: str) -> None:
        address = urlsplit(upstream_url)
        self._upstream = (str(address.hostname), int(address.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.flowing = threading.Event()
        self.flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._upstream)
                for source, sink, drips in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=(source, sink, drips), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, drips: bool) -> None:
        with suppress(OSError), closing(source):
            while data := source.recv(65536):
                while drips and data and not self.flowing.is_set():
                    sink.sendall(data[:1])
                    data = data[1:]
                    self.flowing.wait(1)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def dripping(site: Site) -> Iterator[Dripping]:
    """Give the relay for the time of the block."""
    relay = Dripping(site.proxy.url)
    try:
        yield relay
    finally:
        relay.close()


def watch(seconds: float) -> None:
    """Let the time pass in which something must not happen."""
    time.sleep(seconds)


@patient
def stuck(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """A receive that no time-out ends."""
    with Site(servers["elasticmq"], folder) as site, dripping(site) as relay:
        port = free_port()
        worker = site.start("-c", "1", endpoint_url=relay.url, BRIDGE_HEALTH_PORT=str(port), **WAIT)
        assert told(port, "/live") == ALIVE
        relay.flowing.clear()
        began = time.monotonic()
        said = worker.wait_event("worker_stuck", LIMIT_SECONDS + 45)
        assert time.monotonic() - began > LIMIT_SECONDS - 3  # a call of a second was under way already
        assert "in one call for" in said["error"]
        assert said["level"] == "critical"
        status, answer = told(port, "/live")
        assert (status, answer["live"]) == (503, False)
        assert "in one call for" in answer["reasons"][0]
        assert told(port, "/ready")[0] == 503
        relay.flowing.set()
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
    with Site(servers["elasticmq"], folder) as site, dripping(site) as relay:
        task_seconds = LIMIT_SECONDS + LOOK_SECONDS
        settings = {"BRIDGE_DRAIN_SECONDS": str(int(task_seconds) + 10)}
        port = free_port()
        worker = site.start("-c", "2", endpoint_url=relay.url, BRIDGE_HEALTH_PORT=str(port), **settings, **WAIT)
        [message_id] = site.send(f"long/{task_seconds}")
        site.await_begun(message_id)
        relay.flowing.clear()
        kill(worker, signal.SIGTERM)
        watch(LIMIT_SECONDS + 1)
        assert told(port, "/live") == ALIVE
        assert told(port, "/ready") == (503, {"ready": False, "reasons": ["draining"]})
        worker.wait_for(lambda e: e.get("event") == "ended", task_seconds + 45, "end of the task")
        relay.flowing.set()
        worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        assert worker.wait_exit() == 0
        assert not worker.found("worker_stuck")


def test_a_drain_is_not_being_stuck(patient_scenarios: Scenarios) -> None:
    """A worker that drains is alive, whatever its last receive is doing."""
    patient_scenarios.result("draining")
