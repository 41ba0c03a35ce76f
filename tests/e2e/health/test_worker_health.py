"""A real worker's health: ready or not, draining, busy, refused. On moto: all of it happens on the worker's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.health.server import HealthServer
from tests.e2e.delivery.conftest import Scenarios, Site, kill
from tests.e2e.health.asking import ask, await_status, samples, told
from tests.e2e.health.conftest import scenario
from tests.support.servers.port import free_port
from tests.support.servers.sqs import environment_for
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.elasticmq]

ALIVE = (200, {"live": True, "reasons": []})


def start(site: Site, port: int, *args: str, **settings: str) -> WorkerProcess:
    """Start a worker that serves its health on this port."""
    settings = {"BRIDGE_HEALTH_PORT": str(port), "BRIDGE_WAIT_TIME_SECONDS": "1", **settings}
    return site.start("-c", "1", *args, **settings)


@scenario("moto")
def outage(site: Site) -> None:
    """SQS fails while the worker runs."""
    port = free_port()
    worker = start(site, port)
    assert worker.found("worker_starting")[0]["health_url"] == f"http://127.0.0.1:{port}"
    assert await_status(port, "/ready", 200) == {"ready": True, "reasons": []}
    [message_id] = site.send("quick/1")
    worker.wait_event("message_settled", message_id=message_id, outcome="deleted")

    status, said = told(port, "/health")
    assert (status, said["status"], said["reasons"], said["draining"]) == (200, "healthy", [], False)
    assert (said["messages_processed"], said["settled"], said["in_flight"]) == (1, {"deleted": 1}, 0)
    assert said["last_poll"].endswith("Z")
    [queue] = said["queues"]
    assert (queue["name"], queue["kind"], queue["receiving"]) == (site.queue.name, "event", True)
    assert queue["last_call"]["result"] == "ok"

    site.proxy.fail("*", times=None)
    said = await_status(port, "/ready", 503)
    assert said == {"ready": False, "reasons": [f"{site.queue.name}: ReceiveMessage failed (ServiceUnavailable)"]}
    assert told(port, "/health")[1]["status"] == "unhealthy"
    assert told(port, "/live") == ALIVE
    site.proxy.clear()
    await_status(port, "/ready", 200)


def test_a_worker_is_ready_while_sqs_answers_and_alive_in_an_outage(scenarios: Scenarios) -> None:
    """Ready from the start; not while SQS fails, with the reason; ready again after it; alive all the time."""
    scenarios.result("outage")


@scenario("moto")
def away_at_the_start(site: Site) -> dict[tuple[str, tuple[str, ...]], float]:
    """No connection to SQS when the worker starts."""
    port = free_port()
    with site.proxy.refusing():
        start(site, port)
        assert await_status(port, "/live", 200) == ALIVE[1]
        said = await_status(port, "/ready", 503)
        assert said["reasons"] == [f"{site.queue.name}: GetQueueAttributes failed (EndpointConnectionError)"]
    await_status(port, "/ready", 200)
    return {sample: value for sample, value in samples(port).items() if sample[1] == (site.queue.name,)}


def test_sqs_away_at_the_start_is_not_ready_and_alive(scenarios: Scenarios) -> None:
    """A worker that waits for SQS says so, and becomes ready by itself."""
    scenarios.result("away_at_the_start")


def test_a_fresh_worker_tells_the_counters_of_its_queues(scenarios: Scenarios) -> None:
    """They are 0 before the first message: an alert on their growth does not see what a series begins with."""
    told_at_once = {name: value for (name, _), value in scenarios.result("away_at_the_start").items()}
    assert told_at_once["bridge_messages_received_total"] == 0
    assert told_at_once["bridge_messages_expired_total"] == told_at_once["bridge_messages_lapsed_total"] == 0


@scenario("moto")
def drain(site: Site) -> None:
    """SIGTERM while a task runs."""
    port = free_port()
    worker = start(site, port)
    [message_id] = site.send("long/8")
    site.await_begun(message_id)
    kill(worker, signal.SIGTERM)
    assert await_status(port, "/ready", 503) == {"ready": False, "reasons": ["draining"]}
    status, said = told(port, "/health")
    assert (status, said["status"], said["draining"], said["in_flight"]) == (503, "draining", True, 1)
    assert told(port, "/live") == ALIVE
    assert samples(port)[("bridge_draining", ())] == 1
    worker.wait_event("message_settled", 30, message_id=message_id, outcome="deleted")
    assert worker.wait_exit() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/live")


def test_a_drain_is_told_until_the_process_ends(scenarios: Scenarios) -> None:
    """After SIGTERM: not ready, draining, alive; the port is closed by the end of the process, whose code is 0."""
    scenarios.result("drain")


def busy(site: Site, pool: str) -> None:
    """A task runs on the main loop, or in the only thread, and beyond its limit."""
    port = free_port()
    worker = start(site, port, "-P", pool, BRIDGE_TASK_TIME_LIMIT_SECONDS="1")
    [message_id] = site.send("long/8")
    site.await_begun(message_id)
    assert told(port, "/live") == ALIVE
    assert told(port, "/ready")[0] == 200
    assert told(port, "/health")[1]["in_flight"] == 1
    assert not worker.found("message_settled"), "the task has to be running still"
    worker.wait_event("time_limit_overrun", 30, message_id=message_id, time_limit_seconds=1.0)
    assert samples(port)[("bridge_time_limit_overruns_total", ("tests.e2e.delivery.delivery_tasks.long",))] == 1


@scenario("moto")
def busy_solo(site: Site) -> None:
    """The solo pool."""
    busy(site, "solo")


@scenario("moto")
def busy_threads(site: Site) -> None:
    """The threads pool."""
    busy(site, "threads")


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_busy_worker_answers_and_counts_overruns(scenarios: Scenarios, pool: str) -> None:
    """A task on the main loop, or in its only thread, keeps nobody waiting; its overrun of its limit is counted."""
    scenarios.result(f"busy_{pool}")


@scenario("moto")
def orphans(site: Site) -> None:
    """A pool child that was forked while the server answers; its parent is killed while it works."""
    port = free_port()
    worker = start(site, port)
    await_status(port, "/ready", 200)
    [first] = worker.children()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: set(worker.children()) - {first}, 20, "another child")
    [message_id] = site.send("long/60")
    site.await_begun(message_id)
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait(10)
    HealthServer("127.0.0.1", port).server_close()


def test_children_do_not_keep_the_port(scenarios: Scenarios) -> None:
    """A killed worker's children, which on Linux die a moment later, have no part in the port: it is free at once."""
    scenarios.result("orphans")


@scenario("moto")
def taken(site: Site) -> None:
    """Another server has the port."""
    with HealthServer("127.0.0.1", 0) as other:
        environment = environment_for(site.server) | {
            "AWS_ENDPOINT_URL_SQS": site.proxy.url,
            "SQS_QUEUE_URL": site.queue.url,
            "BRIDGE_TASK_MODULES": "tests.e2e.delivery.delivery_tasks",
            "BRIDGE_HEALTH_PORT": str(other.port),
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
        }
        command = [sys.executable, "-m", "celery", "-A", "bridge", "worker", "-c", "1"]
        done = subprocess.run(
            command, env=environment, cwd=site.folder, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr == (
        f"bridge: BRIDGE_HEALTH_PORT={other.port}: the port is taken on 127.0.0.1: set another one for this worker, "
        "or 0 for no health server\n"
    )
    assert site.proxy.count("ReceiveMessage") == 0


def test_a_taken_port_is_refused_before_anything_is_received(scenarios: Scenarios) -> None:
    """Exit code 2 and one line that names the setting."""
    scenarios.result("taken")


@scenario("moto")
def switched_off(site: Site) -> None:
    """Port 0."""
    worker = start(site, 0)
    assert worker.found("worker_starting")[0]["health_url"] is None
    links = [str(fd.readlink()) for fd in Path(f"/proc/{worker.pid}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    rows = [line.split() for line in Path(f"/proc/{worker.pid}/net/tcp").read_text().splitlines()[1:]]
    listening = "0A"  # the state of a socket in /proc/net/tcp
    assert not [row for row in rows if row[3] == listening and row[9] in inodes]


def test_the_server_is_switched_off_by_zero(scenarios: Scenarios) -> None:
    """With port 0 nothing listens, and the start says so."""
    scenarios.result("switched_off")
