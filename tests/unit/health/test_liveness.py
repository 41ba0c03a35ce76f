"""What counts as a dead worker, and what does not: each case in a row, and what is said at the change."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import metrics
from bridge.delivery.receivers import ReceiverState
from bridge.health.liveness import LOOP_SECONDS, Liveness, longest_call_seconds, why_dead
from bridge.sqs.clients import RECEIVE_GRACE_SECONDS

LONGEST = 75.0

receivers = st.lists(
    st.builds(ReceiverState, st.just("r"), st.none() | st.floats(0.0, 1_000.0), st.booleans()), max_size=5
)
seconds = st.floats(0.0, 1_000.0)


def receiver(call_seconds, *, alive=True, name="r"):
    """A receiver that has been in its call for so long; None: between two calls."""
    return ReceiverState(name, call_seconds, alive)


def ask(*states, loop_seconds=0.5, loop_runs_a_task=False, draining=False):
    """What is stuck."""
    return why_dead(
        states,
        longest_call_seconds=LONGEST,
        loop_seconds=loop_seconds,
        loop_runs_a_task=loop_runs_a_task,
        draining=draining,
    )


@pytest.mark.parametrize(
    ("states", "asked", "wanted"),
    [
        ((), {}, []),
        ((receiver(None), receiver(20.0)), {}, []),
        ((receiver(LONGEST),), {}, []),
        ((receiver(LONGEST + 1),), {}, ["receiver r has been in one call for 76 s"]),
        ((receiver(LONGEST + 1),), {"draining": True}, []),
        ((receiver(None, alive=False),), {}, ["receiver r has died"]),
        ((receiver(500.0, alive=False),), {}, ["receiver r has died"]),
        ((receiver(None, alive=False),), {"draining": True}, []),
        ((), {"loop_seconds": LOOP_SECONDS}, []),
        ((), {"loop_seconds": LOOP_SECONDS + 1}, ["the main loop has stood still for 61 s"]),
        ((), {"loop_seconds": 3_600.0, "loop_runs_a_task": True}, []),
        ((), {"loop_seconds": 3_600.0, "draining": True}, []),
        ((receiver(500.0),), {"loop_runs_a_task": True}, ["receiver r has been in one call for 500 s"]),
        (
            (receiver(500.0, name="a"), receiver(1.0, name="b"), receiver(None, alive=False, name="c")),
            {"loop_seconds": 100.0},
            [
                "receiver c has died",
                "receiver a has been in one call for 500 s",
                "the main loop has stood still for 100 s",
            ],
        ),
    ],
)
def test_what_is_stuck(states, asked, wanted):
    """A long call, a dead thread and a loop that stands still are named; waiting, working and draining are fine."""
    assert ask(*states, **asked) == wanted


@given(receivers, seconds, st.booleans())
def test_a_draining_worker_is_never_dead(states, loop_seconds, loop_runs_a_task):
    """Whatever hangs: the drain has budgets of its own, and a probe that kills it would cut them short."""
    assert ask(*states, loop_seconds=loop_seconds, loop_runs_a_task=loop_runs_a_task, draining=True) == []


@given(receivers, seconds, st.booleans())
def test_one_reason_for_each_thing_that_is_stuck(states, loop_seconds, loop_runs_a_task):
    """No reason without one, and none twice."""
    stuck = sum(not state.thread_alive or (state.call_seconds or 0.0) > LONGEST for state in states)
    stuck += loop_seconds > LOOP_SECONDS and not loop_runs_a_task
    assert len(ask(*states, loop_seconds=loop_seconds, loop_runs_a_task=loop_runs_a_task)) == stuck


@given(st.integers(0, 20), st.floats(0.0, 300.0))
def test_no_call_that_ends_is_stuck(wait_seconds, poll_interval_seconds):
    """Three times what the client itself allows a call, so that a slow answer and a time-out are no deaths."""
    longest = longest_call_seconds(wait_seconds, poll_interval_seconds)
    assert longest == pytest.approx(3 * (wait_seconds + 5 + poll_interval_seconds))
    assert longest > wait_seconds + RECEIVE_GRACE_SECONDS + poll_interval_seconds


def test_look_says_so_at_the_change_only(caplog):
    """``worker_stuck`` once, ``worker_unstuck`` once, and the gauge with every look."""
    answers = iter([[], ["a hangs"], ["a hangs", "b hangs"], [], []])
    liveness = Liveness(lambda: next(answers))
    with caplog.at_level(logging.DEBUG, logger="bridge.health.liveness"):
        seen = [(liveness.look(), metrics.live._value.get(), len(caplog.records)) for _ in range(5)]
    assert seen == [([], 1, 0), (["a hangs"], 0, 1), (["a hangs", "b hangs"], 0, 1), ([], 1, 2), ([], 1, 2)]
    stuck, unstuck = caplog.records
    assert (stuck.msg, stuck.levelname, stuck.error) == ("worker_stuck", "CRITICAL", "a hangs")
    assert (unstuck.msg, unstuck.levelname) == ("worker_unstuck", "WARNING")


def test_a_worker_that_starts_is_alive():
    """The gauge says so before anybody has looked, and whatever an earlier worker of this process said."""
    metrics.live.set(0)
    assert Liveness(list).reasons == []
    assert metrics.live._value.get() == 1
