"""The sender of events against a real Redis that is there, full, closed, frozen, killed and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.metrics import events_dropped, monitor_connected
from bridge.monitoring import bus as bus_link
from bridge.monitoring.bus import BusAddress
from bridge.monitoring.event_sender import EventBus
from tests.e2e.monitoring.site import Listener
from tests.support.servers.redis import RedisServer
from tests.support.servers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def event(kind: str, number: int, **fields: Any) -> dict[str, Any]:
    """Make an event as the dispatcher does."""
    return {
        "type": kind,
        "uuid": str(number),
        "hostname": "celery@h",
        "pid": 1,
        "clock": number,
        "timestamp": 1.0,
        **fields,
    }


@contextmanager
def sending(url: str) -> Iterator[EventBus]:
    """A sender that ends with the test."""
    bus = EventBus(BusAddress(url, None))
    try:
        yield bus
    finally:
        bus.close(10)


def dropped() -> float:
    """How many were dropped in this process so far."""
    return float(events_dropped._value.get())


def connected() -> float:
    """Whether this process's sender says that it has a connection."""
    return float(monitor_connected.labels("events")._value.get())


def test_events_arrive_in_order(redis_server: RedisServer) -> None:
    """What is sent is heard by Celery's own receiver, all of it, in order, task and worker events mixed."""
    kinds = ["worker-online", *["task-received", "task-started", "worker-heartbeat", "task-succeeded"] * 400]
    before = dropped()
    with Listener(redis_server.url) as listener, sending(redis_server.url) as bus:
        for number, kind in enumerate(kinds):
            bus.send(event(kind, number))
        listener.wait(lambda events: len(events) >= len(kinds), 30, "all events")
    assert [(e["type"], e["uuid"]) for e in listener.events[: len(kinds)]] == [(k, str(n)) for n, k in enumerate(kinds)]
    assert dropped() == before


def test_one_event_that_is_no_json_costs_only_itself(redis_server: RedisServer) -> None:
    """A task's own event may hold anything; those sent with it arrive, and it is counted."""
    before = dropped()
    with Listener(redis_server.url) as listener, sending(redis_server.url) as bus:
        for number, value in enumerate((1, object(), 3)):
            bus.send(event("task-custom", number, value=value))
        listener.wait(lambda events: len(events) == 2, 30, "the two others")
    assert [e["value"] for e in listener.events] == [1, 3]
    assert dropped() == before + 1


def test_the_last_word_is_offline(redis_server: RedisServer) -> None:
    """Closing sends what waits, and then that the worker is gone."""
    with Listener(redis_server.url) as listener:
        with sending(redis_server.url) as bus:
            bus.send(event("worker-online", 1, freq=60))
            listener.wait(lambda events: events, 30, "online")
            bus.send(event("task-succeeded", 2))
        listener.wait(lambda events: len(events) >= 3, 30, "the last events")
    assert listener.types() == ["worker-online", "task-succeeded", "worker-offline"]


def test_heartbeats_go_on_while_the_main_loop_is_busy(redis_server: RedisServer) -> None:
    """When Celery sends no heartbeat in time, because its main loop is in a task, the sender does."""
    with Listener(redis_server.url) as listener, sending(redis_server.url) as bus:
        bus.send(event("worker-online", 1, freq=0.2, active=7))
        listener.wait(lambda events: len(events) >= 3, 30, "heartbeats")
    assert listener.types()[1:3] == ["worker-heartbeat", "worker-heartbeat"]
    assert listener.events[1]["timestamp"] > 1.0
    assert listener.events[1]["active"] == 0  # as it is now, not as it was then


def test_killed_and_back(make_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that dies loses what was sent meanwhile at most; once it is back, events arrive again by themselves."""
    monkeypatch.setattr(bus_link, "MAX_PAUSE_SECONDS", 0.5)
    redis = make_redis()
    redis.start()
    with sending(redis.url) as bus:
        with Listener(redis.url) as listener:
            bus.send(event("task-started", 1))
            listener.wait(lambda events: events, 30, "the first")
        redis.kill()
        before = dropped()
        bus.send(event("task-lost", 2))
        wait_until(lambda: dropped() == before + 1, 30, "the loss")
        redis.start()
        with Listener(redis.url) as listener:
            for number in range(3, 100):
                bus.send(event("task-started", number))
                time.sleep(0.05)
                if listener.events:
                    break
            listener.wait(lambda events: events, 30, "events after the return")


def test_wrong_password(make_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture) -> None:
    """A password that is refused is told once, without it, and nothing else suffers."""
    redis = make_redis(password="right")
    redis.start()
    with sending(f"redis://:wrong@127.0.0.1:{redis.port}") as bus, caplog.at_level("WARNING"):
        bus.send(event("worker-online", 1))
        wait_until(lambda: "bus_lost" in caplog.text, 30, "the warning")
        time.sleep(1.5)  # long enough for two more tries, which must not be told
        assert len(bus.buffer) == 1
    assert caplog.text.count("bus_lost") == 1
    assert "wrong@" not in caplog.text


def test_a_bus_that_is_away_is_sent_no_old_heartbeats(make_redis: Callable[..., RedisServer]) -> None:
    """They say nothing later, and would push out how tasks ended; the bus is found again without any event."""
    redis = make_redis()
    before = dropped()
    with sending(redis.url) as bus:
        bus.send(event("worker-online", 1, freq=0.5))
        wait_until(lambda: bus._link.is_lost, 30, "the loss")
        assert connected() == 0
        for number in range(50):
            bus.send(event("worker-heartbeat", number, freq=0.5))
        bus.send(event("task-succeeded", 51))
        assert len(bus.buffer) == 2
        redis.start()
        wait_until(lambda: connected() == 1, 30, "the return")
        with Listener(redis.url) as listener:
            listener.wait(lambda _: "worker-heartbeat" in listener.types(), 30, "a heartbeat of now")
        assert dropped() == before
    assert connected() == 0


def test_what_is_left_at_the_end_is_counted(make_redis: Callable[..., RedisServer]) -> None:
    """Events that wait for a bus that is away when the process ends are dropped ones, and closing waits for nothing."""
    redis = make_redis()
    before = dropped()
    with sending(redis.url) as bus:
        for number in range(5):
            bus.send(event("task-started", number))
        wait_until(lambda: bus._link.is_lost, 30, "the loss")
    assert dropped() == before + 5


def test_frozen(make_redis: Callable[..., RedisServer]) -> None:
    """A bus that hangs holds up neither the sending nor, beyond its budget, the closing; thawed, it is used again."""
    redis = make_redis()
    redis.start()
    bus = EventBus(BusAddress(redis.url, None))
    with Listener(redis.url) as listener:
        bus.send(event("task-started", 1))
        listener.wait(lambda events: events, 30, "the first")
        redis.freeze()
        began = time.monotonic()
        for number in range(2, 1000):
            bus.send(event("task-started", number))
        assert time.monotonic() - began < 5
        redis.thaw()
        heard = len(listener.events)
        bus.send(event("task-started", 5000))
        listener.wait(lambda events: len(events) > heard, 30, "events after the thaw")
        redis.freeze()
        bus.send(event("task-started", 5001))
        began = time.monotonic()
        bus.close(0.5)
        assert time.monotonic() - began < 5
        redis.thaw()


def test_full(make_redis: Callable[..., RedisServer]) -> None:
    """A Redis that is out of memory still carries events: nothing of them is stored."""
    redis = make_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    redis.start()
    app_url = redis.url
    with sending(app_url) as bus:
        before = dropped()
        bus.send(event("task-started", 1))
        wait_until(lambda: not bus.buffer and bus._producer is not None, 30, "sent")
        assert dropped() == before
