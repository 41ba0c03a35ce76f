"""Events and remote control of a real worker, over a real Redis; the queue is ElasticMQ's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bridge.celery import app as bridge_app
from tests.e2e.monitoring.site import END_SECONDS, Listener, Site, bus_in_this_process
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq]


@pytest.fixture(scope="module")
def listener(site: Site) -> Iterator[Listener]:
    """Hears the module's bus from before the worker starts."""
    with Listener(site.bus_url) as listener:
        yield listener


@pytest.fixture(scope="module")
def worker(site: Site, listener: Listener) -> Iterator[WorkerProcess]:
    """One worker with one process, so that a second task waits; this process asks it over the bus."""
    undo = bus_in_this_process(site.bus_url)
    with site.worker("-c", "1", "--prefetch-multiplier", "4") as worker:
        yield worker
    undo()


def test_events_tell_the_whole_story(site: Site, worker: WorkerProcess, listener: Listener) -> None:
    """Each run is heard with Celery's event types, and names, arguments, retries, runtime and error are right."""
    good, flaky, bad, rejected, own = (site.put(f"{kind}/ä 1") for kind in ("good", "flaky", "bad", "rejected", "own"))
    listener.wait(lambda _: listener.types(flaky)[-1:] == ["task-succeeded"], END_SECONDS, "the end of flaky")
    for task_id, last in ((good, "task-succeeded"), (bad, "task-failed"), (own, "task-succeeded")):
        listener.wait(lambda _, i=task_id, k=last: listener.of(i, k), END_SECONDS, last)
    run = ["task-received", "task-started"]
    assert listener.types(good) == [*run, "task-succeeded"]
    assert listener.types(flaky) == [*run, "task-retried", *run, "task-succeeded"]
    assert listener.types(bad) == [*run, "task-failed"]
    listener.wait(lambda _: listener.of(rejected, "task-rejected"), END_SECONDS, "task-rejected")
    assert sorted(listener.types(rejected)) == sorted([*run, "task-failed", "task-rejected"])

    received = listener.of(flaky, "task-received")
    assert [(e["name"], e["args"], e["retries"]) for e in received] == [
        ("flaky", "s3://uploads/flaky/ä 1", 0),
        ("flaky", "s3://uploads/flaky/ä 1", 1),
    ]
    (retried,) = listener.of(flaky, "task-retried")
    assert retried["exception"] == "ConnectionError('not yet')"
    assert "not yet" in retried["traceback"]
    (failed,) = listener.of(bad, "task-failed")
    assert failed["exception"] == "ValueError('this file is broken')"
    (succeeded,) = listener.of(good, "task-succeeded")
    assert succeeded["result"] == "{'key': 'good/ä 1'}"
    assert 0 <= succeeded["runtime"] < 60
    assert listener.of(own, "task-progress")[0]["percent"] == 50  # sent from inside the pool child


def test_inspect(site: Site, worker: WorkerProcess) -> None:
    """ping, active, reserved, stats and registered answer with what is true."""
    running = site.put("gate/inspect")
    worker.wait_event("task_started", END_SECONDS, task_id=running)
    waiting = site.put("good/waits")
    assert site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}
    (active,) = site.asked(worker, lambda i: i.active())
    assert (active["id"], active["name"], active["args"][0]["key"]) == (running, "gate", "gate/inspect")

    def reserved() -> list[str]:
        return [request["id"] for request in site.asked(worker, lambda i: i.reserved())]

    wait_until(lambda: reserved() == [waiting], END_SECONDS, "the waiting task")
    stats = site.asked(worker, lambda i: i.stats())
    assert stats["pid"] == worker.pid
    assert stats["pool"]["max-concurrency"] == 1
    assert {"good", "gate", "noop"} <= set(site.asked(worker, lambda i: i.registered()))
    assert site.asked(worker, lambda i: i.active_queues())[0]["name"] == site.queue.name
    site.open_gate("gate/inspect")
    site.wait_empty()


def test_revoke_of_a_waiting_task(site: Site, worker: WorkerProcess, listener: Listener) -> None:
    """A task that waits and is revoked never starts; its message is settled as ignored, not lost, not left."""
    running, waiting = site.put("gate/revoke"), site.put("good/revoked")
    worker.wait_event("task_started", END_SECONDS, task_id=running)
    assert "ok" in site.told("revoke", task_id=waiting)
    assert waiting in site.asked(worker, lambda i: i.revoked())
    site.open_gate("gate/revoke")
    settled = worker.wait_event("message_settled", END_SECONDS, message_id=waiting)
    assert (settled["outcome"], settled["reason"]) == ("ignored", "revoked")
    assert not worker.found("task_started", task_id=waiting)
    listener.wait(lambda _: listener.of(waiting, "task-revoked"), END_SECONDS, "task-revoked")
    assert worker.wait_event("message_settled", END_SECONDS, message_id=running)["outcome"] == "deleted"
    site.wait_empty()


def test_revoke_with_terminate(site: Site, worker: WorkerProcess, listener: Listener) -> None:
    """A running task is stopped on somebody's word; its message is settled as ignored, and the worker works on."""
    running = site.put("gate/never")
    worker.wait_event("task_started", END_SECONDS, task_id=running)
    assert "ok" in site.told("revoke", task_id=running, terminate=True, signal="SIGTERM")
    settled = worker.wait_event("message_settled", END_SECONDS, message_id=running)
    assert (settled["outcome"], settled["reason"]) == ("ignored", "revoked")
    (revoked,) = listener.wait(lambda _: listener.of(running, "task-revoked"), END_SECONDS, "task-revoked")
    assert revoked["terminated"] is True
    after = site.put("good/after")
    assert worker.wait_event("message_settled", END_SECONDS, message_id=after)["outcome"] == "deleted"


def test_time_limit_and_pool_size_take_effect(site: Site, worker: WorkerProcess) -> None:
    """A new time limit ends the next run, and a larger pool runs two tasks at once."""
    assert site.told("pool_grow", n=1) == {"ok": "pool will grow"}
    first, second = (site.put(f"gate/{name}") for name in ("a", "b"))
    for task_id in (first, second):
        worker.wait_event("task_started", END_SECONDS, task_id=task_id)
    assert len(site.asked(worker, lambda i: i.active())) == 2
    for name in ("a", "b"):
        site.open_gate(f"gate/{name}")
    site.wait_empty()
    assert site.told("time_limit", task_name="gate", soft=None, hard=1) == {"ok": "time limits set successfully"}
    stopped = site.put("gate/never")
    settled = worker.wait_event("message_settled", END_SECONDS, message_id=stopped)
    assert settled["outcome"] == "retried"
    site.told("revoke", task_id=stopped)
    site.told("time_limit", task_name="gate", soft=None, hard=60)
    site.wait_empty()


def test_what_would_do_harm_is_refused(site: Site, worker: WorkerProcess) -> None:
    """Commands for queues that are not SQS's, unknown ones and nonsense get an error, and the worker lives on."""
    assert "SQS_QUEUE_URL" in site.told("add_consumer", queue="other")["error"]
    assert "SIGTERM" in site.told("cancel_consumer", queue=site.queue.name)["error"]
    assert "error" in site.told("no_such_command")
    assert "error" in site.told("rate_limit", task_name="no-such-task", rate_limit="1/s")
    assert site.told("rate_limit", task_name="good", rate_limit="100/s") == {"ok": "new rate limit set successfully"}
    bridge_app.control.broadcast("ping", arguments={"nonsense": object.__name__})
    assert site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}


def test_command_line(site: Site, worker: WorkerProcess) -> None:
    """``celery -A bridge inspect`` and ``-A bridge.monitor inspect`` answer; without a bus one line says so."""
    found = site.celery("inspect", "ping", "--json", "--timeout", "10", "-d", f"celery@{_host(site, worker)}")
    assert (found.returncode, next(iter(json.loads(found.stdout).values()))) == (0, {"ok": "pong"}), found
    found = site.celery("inspect", "active", "--timeout", "3", app="bridge.monitor")
    assert found.returncode == 0, found
    assert "1 node online" in found.stdout
    found = site.celery("inspect", "ping", BRIDGE_MONITOR_URL="")
    assert found.returncode != 0
    assert len(found.stderr.strip().splitlines()) == 1
    assert "set BRIDGE_MONITOR_URL" in found.stderr


def test_shutdown_by_remote_control(site: Site, worker: WorkerProcess, listener: Listener) -> None:
    """``control shutdown`` is answered, drains like SIGTERM, and the worker's last event says that it is gone."""
    assert site.told("shutdown") == {"ok": "shutting down"}
    assert worker.wait_exit(40) == 0
    assert worker.found("drain_finished")
    listener.wait(lambda events: events[-1]["type"] == "worker-offline", 20, "worker-offline")
    assert listener.types().count("worker-offline") == 1


def test_solo_worker_in_its_task(site: Site) -> None:
    """A solo worker's main loop is its task: it still answers, can be told to skip what waits, and beats."""
    undo = bus_in_this_process(site.bus_url)
    try:
        with Listener(site.bus_url) as listener, site.worker("-P", "solo", "--prefetch-multiplier", "4") as worker:
            assert site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}
            running, waiting = site.put("gate/solo"), site.put("good/revoked")
            worker.wait_event("task_started", END_SECONDS, task_id=running)
            before = listener.types().count("worker-heartbeat")
            assert [request["id"] for request in site.asked(worker, lambda i: i.active())] == [running]
            assert "ok" in site.told("revoke", task_id=waiting)
            assert "cannot be stopped" in site.told("revoke", task_id=running, terminate=True)["error"]
            assert "busy" in site.told("time_limit", task_name="good", hard=5)["error"]
            listener.wait(lambda _: listener.types().count("worker-heartbeat") > before, 30, "heartbeats")
            site.open_gate("gate/solo")
            settled = worker.wait_event("message_settled", END_SECONDS, message_id=waiting)
            assert (settled["outcome"], settled["reason"]) == ("ignored", "revoked")
            assert worker.wait_event("message_settled", END_SECONDS, message_id=running)["outcome"] == "deleted"
    finally:
        undo()


def test_shutdown_of_a_solo_worker_in_its_task(site: Site) -> None:
    """It answers at once, goes on hearing, and leaves when the task has ended; nothing is lost."""
    undo = bus_in_this_process(site.bus_url)
    try:
        with site.worker("-P", "solo") as worker:
            assert site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}
            running = site.put("gate/last")
            worker.wait_event("task_started", END_SECONDS, task_id=running)
            assert site.told("shutdown") == {"ok": "shutting down"}
            assert site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}
            site.open_gate("gate/last")
            assert worker.wait_exit(END_SECONDS) == 0
            [settled] = worker.found("message_settled", message_id=running)
            assert settled["outcome"] == "deleted"
    finally:
        undo()


def test_the_last_words_of_a_replaced_child(site: Site) -> None:
    """A pool process that is replaced after its task sends that task's own events before it ends."""
    with Listener(site.bus_url) as listener, site.worker("-c", "1", "--max-tasks-per-child", "1") as worker:
        told = [site.put(f"own/{n}") for n in range(5)]
        for message_id in told:
            worker.wait_event("message_settled", END_SECONDS, message_id=message_id)
            listener.wait(lambda _, i=message_id: listener.of(i, "task-progress"), END_SECONDS, "its own event")


def _host(site: Site, worker: WorkerProcess) -> str:
    replies = bridge_app.control.inspect(timeout=10.0, limit=1).ping()
    assert len(replies) == 1
    return str(next(iter(replies))).partition("@")[2]
