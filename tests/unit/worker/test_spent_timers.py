"""The timers of ended tasks are forgotten, and those of running ones still fire, in their order."""

from __future__ import annotations

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from bridge.worker.event_loop import LEAST, SpentTimers, forget_spent


@pytest.fixture
def hub():
    """An event loop of its own."""
    hub = Hub()
    yield hub
    hub.close()


def due(timer):
    """What the timer gives to its loop now."""
    found = []
    for _, entry in timer:
        if entry is None:
            return found
        found.append(entry.args[0])
    return found


def test_only_cancelled_timers_are_forgotten():
    """Of thousands of timers only those stay whose task has not ended, and they come in the order of their time."""
    timer = Timer()
    entries = [timer.call_after(-n, print, (n,)) for n in range(3 * LEAST)]
    for n, entry in enumerate(entries):
        if n % 100:
            entry.cancel()
    forget_spent(timer)
    assert len(timer) == 3 * LEAST // 100
    assert due(timer) == [n for n in reversed(range(3 * LEAST)) if not n % 100]


def test_a_short_heap_is_left_alone():
    """With few timers there is nothing to gain."""
    timer = Timer()
    for n in range(LEAST):
        timer.call_after(60, print, (n,)).cancel()
    forget_spent(timer)
    assert len(timer) == LEAST


def test_timers_may_be_forgotten_while_the_loop_goes_through_them(hub):
    """The entry that cleans is one of the heap's own, and those that are due behind it still fire."""
    ran = []
    hub.call_later(-3, ran.append, "first")
    hub.call_later(-2, forget_spent, hub.timer)
    hub.call_later(-1, ran.append, "last")
    for _ in range(2 * LEAST):
        hub.call_later(3600, print).cancel()
    hub.fire_timers(min_delay=1, max_delay=10, propagate=())
    assert ran == ["first", "last"]
    assert len(hub.timer) == 0


def test_a_restart_of_the_consumer_does_not_double_it(hub):
    """However often it is registered, one repeated entry is at work."""
    spent = SpentTimers()
    for _ in range(3):
        spent.register(hub)
    assert [scheduled.entry.canceled for scheduled in hub.timer.queue].count(False) == 1
