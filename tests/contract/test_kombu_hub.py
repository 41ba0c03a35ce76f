"""What bridge.delivery.run_queue's Waker leans on in Kombu's event loop."""

from __future__ import annotations

import os
import threading
import time

import pytest
from kombu.asynchronous import Hub


@pytest.fixture
def hub():
    """An event loop of its own, which would sleep for ten seconds a turn if nothing woke it."""
    hub = Hub()
    hub.call_later(60, print)
    yield hub
    hub.close()


@pytest.fixture
def pipe():
    """The two ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def _seconds_of_a_turn(hub):
    began = time.monotonic()
    hub.run_once()
    return time.monotonic() - began


def test_a_reader_wakes_the_loop_at_once_from_any_thread(hub, pipe):
    """add_reader's callback runs in the turn in which the file became readable, however long the loop would sleep."""
    read_fd, write_fd = pipe
    woken = []
    hub.add_reader(read_fd, lambda: woken.append(os.read(read_fd, 10)))
    threading.Timer(0.05, os.write, (write_fd, b"w")).start()
    assert _seconds_of_a_turn(hub) < 5
    assert woken == [b"w"]


def test_a_loop_without_any_reader_sleeps_a_tenth_of_a_second(hub):
    """The threads and solo pools have no file of their own: without ours each message would wait up to 0.1 s."""
    assert 0.08 < _seconds_of_a_turn(hub) < 5


def test_the_same_reader_may_be_added_again(hub, pipe):
    """The step registers again after each restart of the consumer, on a hub that may still know the file."""
    read_fd, write_fd = pipe
    first, second = [], []
    hub.add_reader(read_fd, first.append, "first")
    hub.reset()
    hub.add_reader(read_fd, lambda: second.append(os.read(read_fd, 10)))
    hub.add_reader(read_fd, lambda: second.append(os.read(read_fd, 10)))
    os.write(write_fd, b"w")
    hub.run_once()
    assert (first, second) == ([], [b"w"])


def test_call_soon_keeps_no_order(hub):
    """Callbacks wait in a set: were this a queue, the pipe would be needed for the sleep alone."""
    order = []
    for n in range(200):
        hub.call_soon(order.append, n)
    hub.run_once()
    assert sorted(order) == list(range(200))
    assert order != list(range(200))


def test_an_exception_of_a_reader_leaves_the_loop(hub, pipe):
    """It ends the worker ("Unrecoverable error"), so what runs on a wake must catch its own."""
    read_fd, write_fd = pipe

    def fail():
        raise ValueError("from a reader")

    hub.add_reader(read_fd, fail)
    os.write(write_fd, b"w")
    with pytest.raises(ValueError, match="from a reader"):
        hub.run_once()
