"""What bridge.worker.event_loop leans on in Kombu's timer, and that it is still needed."""

from __future__ import annotations

from kombu.asynchronous.timer import Timer


def test_a_cancelled_entry_stays_in_the_heap():
    """Cancelling marks an entry and leaves it where it is; the heap is a list of (eta, priority, entry)."""
    timer = Timer()
    entry = timer.call_after(3600, print)
    entry.cancel()
    [scheduled] = timer._queue
    assert isinstance(timer._queue, list)
    assert scheduled.entry is entry
    assert entry.canceled
