"""What a one-shot worker decides: how much room it has, when it is done, and how it leaves."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.one_shot import Limits, exit_code, is_done, room

counts = st.integers(0, 50)


@given(st.integers(1, 20), st.integers(1, 20), counts, counts)
def test_it_never_takes_more_than_it_may(most: int, window: int, held: int, taken: int) -> None:
    """What a receive may bring, and what was taken before, is never more than the limit, nor the window passed."""
    size = max(0, room(Limits(most, 1.0), window=window, held=held, taken=taken) - held)
    assert taken >= most or taken + size <= most
    assert held + size <= max(window, held)


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
