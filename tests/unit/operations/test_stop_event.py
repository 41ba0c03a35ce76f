"""The event that a signal handler may set."""

from __future__ import annotations

import os
import signal

from bridge.operations.stopping import StopEvent


def test_a_handler_may_set_it_while_its_lock_is_held():
    """A signal that comes when the main thread is inside ``wait`` sets it, and does not wait for the main thread."""
    event = StopEvent()
    before = signal.signal(signal.SIGUSR1, lambda *_: event.set_by_handler())
    try:
        with event._cond:  # as ``wait`` holds it
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not event.is_set()
        assert event.wait(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
