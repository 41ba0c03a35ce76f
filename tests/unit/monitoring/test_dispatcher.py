"""What Celery knows as its event dispatcher: it never waits, and does nothing where there is no bus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.celery import app
from bridge.metrics import events_dropped
from bridge.monitoring.bus import BusAddress
from bridge.monitoring.dispatcher import BusDispatcher
from bridge.monitoring.event_sender import EventBus, event_bus

REFUSED = "redis://127.0.0.1:1"


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A dispatcher whose bus refuses connections."""
    monkeypatch.setenv("BRIDGE_MONITOR_URL", REFUSED)
    dispatcher = app.events.Dispatcher(hostname="celery@test")
    buffer = event_bus(BusAddress(REFUSED, None)).buffer
    buffer.take(len(buffer))
    yield dispatcher
    buffer.take(len(buffer))


def waiting() -> list[dict[str, Any]]:
    """Take what waits for the bus."""
    buffer = event_bus(BusAddress(REFUSED, None)).buffer
    return buffer.take(len(buffer))


def test_without_bus_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No BRIDGE_MONITOR_URL: the dispatcher is disabled, which saves Celery the making of events."""
    monkeypatch.delenv("BRIDGE_MONITOR_URL", raising=False)
    dispatcher = app.events.Dispatcher(hostname="celery@test")
    assert isinstance(dispatcher, BusDispatcher)
    assert not dispatcher.enabled
    dispatcher.send("task-started", uuid="1")
    dispatcher.enable()
    assert not dispatcher.enabled


def test_event_has_celerys_fields(dispatcher: Any) -> None:
    """An event carries its type, host, process, clock and time beside its own fields."""
    before = app.clock.value
    dispatcher.send("task-started", uuid="1")
    dispatcher.publish("task-sent", {"uuid": "2"}, producer=None, blind=True)
    started, sent = waiting()
    assert (started["type"], started["uuid"], started["hostname"]) == ("task-started", "1", "celery@test")
    assert started["clock"] > before
    assert abs(started["timestamp"] - time.time()) < 60
    assert (sent["type"], sent["clock"]) == ("task-sent", None)


def test_groups_and_last_words(dispatcher: Any) -> None:
    """``disable_events`` silences the tasks and not the worker; Celery's early "offline" is not passed on."""
    dispatcher.groups.discard("task")
    for kind in ("task-started", "worker-heartbeat", "worker-offline", "custom-event"):
        dispatcher.send(kind)
    assert [event["type"] for event in waiting()] == ["worker-heartbeat", "custom-event"]
    dispatcher.disable()
    dispatcher.send("worker-heartbeat")
    assert waiting() == []


def test_overflow_is_counted_and_never_waits(dispatcher: Any) -> None:
    """With the bus refusing, 12,000 events cost next to nothing; what the buffer cannot hold is counted."""
    before = events_dropped._value.get()
    began = time.monotonic()
    for number in range(12_000):
        dispatcher.send("task-started", uuid=str(number))
    seconds = time.monotonic() - began
    assert len(waiting()) + events_dropped._value.get() - before == 12_000
    assert events_dropped._value.get() - before == 2_000
    assert seconds < 10  # one connection that is waited for would take longer than that


def test_close_does_not_wait_for_a_bus_that_is_not_there() -> None:
    """Without a connection there is nothing to flush, and closing returns at once."""
    bus = EventBus(BusAddress(REFUSED, None))
    bus.send({"type": "worker-online", "hostname": "h"})
    began = time.monotonic()
    bus.close(30)
    assert time.monotonic() - began < 15
