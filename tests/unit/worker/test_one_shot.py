"""What a one-shot worker decides: how much room it has, when it is done, and how it leaves."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.run_once import poll_seconds
from bridge.worker.one_shot import Limits, exit_code, is_done, room

counts = st.integers(0, 50)


@given(st.integers(1, 20), st.integers(1, 20), counts, counts)
def test_it_never_takes_more_than_it_may(most: int, window: int, held: int, taken: int) -> None:
    """What a receive may bring, and what was taken before, is never more than the limit, nor the window passed."""
    size = max(0, room(Limits(most, 1.0), window=window, held=held, taken=taken, idle_seconds=0.0) - held)
    assert taken >= most or taken + size <= most
    assert held + size <= max(window, held)


@given(counts, st.floats(0, 40))
def test_it_begins_no_poll_before_it_leaves(held: int, idle_seconds: float) -> None:
    """With nothing held there is room until the idle time is nearly over, and none from then on."""
    size = room(Limits(100, 20.0), window=60, held=held, taken=held, idle_seconds=idle_seconds) - held
    assert (size > 0) == (held > 0 or idle_seconds < 19.0)


@given(st.floats(0, 3600), st.integers(0, 20))
def test_polls_fill_the_idle_time(idle_seconds: float, wait_seconds: int) -> None:
    """No poll waits longer than the setting says, nor do all of them together longer than the idle time."""
    seconds = poll_seconds(idle_seconds, wait_seconds)
    assert 0 <= seconds <= wait_seconds
    assert seconds <= idle_seconds
    if wait_seconds and idle_seconds >= wait_seconds:
        assert seconds >= wait_seconds // 2


@given(counts, st.integers(0, 3), st.floats(0, 100))
def test_it_ends_only_with_everything_settled(taken: int, unsettled: int, idle_seconds: float) -> None:
    """It goes on while a message is unsettled, and else ends when it has taken all or nothing came for long enough."""
    done = is_done(Limits(5, 20.0), taken=taken, unsettled=unsettled, idle_seconds=idle_seconds)
    assert done == (unsettled == 0 and (taken >= 5 or idle_seconds >= 20.0))


@pytest.mark.parametrize(
    ("settled", "runs", "polled", "told", "code"),
    [
        ({"deleted": 2}, {"succeeded": 2}, True, None, 0),
        ({}, {}, True, None, 0),
        ({"ignored": 1}, {}, True, None, 0),
        ({"retried": 1}, {"waited": 1}, True, None, 0),
        ({"retried": 1}, {"retried": 1}, True, None, 1),
        ({"dead_lettered": 1}, {"failed": 1}, True, None, 1),
        ({"dead_lettered": 1}, {}, True, None, 1),
        ({"settle_failed": 1}, {"succeeded": 1}, True, None, 1),
        ({}, {}, False, None, 1),
        ({"handed_back": 1}, {}, True, signal.SIGTERM, 143),
        ({}, {}, True, signal.SIGINT, 130),
    ],
)
def test_the_exit_code_says_how_it_went(
    settled: dict[str, int], runs: dict[str, int], polled: bool, told: int | None, code: int
) -> None:
    """0 when all is settled or none came, 1 when something failed or SQS never answered, 128 + the signal's number."""
    assert exit_code(settled, runs, polled=polled, signal=told) == code
