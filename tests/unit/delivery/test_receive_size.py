"""How many messages a receive asks for: never beyond the window, in tens, at once where a process would idle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.delivery.receive_size import is_surely_none, receive_size


def size(**changed):
    """A receive of an idle worker of two processes with a window of 20, but for what is said; ``held`` ones wait."""
    given = {"window": 20, "waiting": changed.pop("held", 0), "running": 0, "processes": 2, "asked": 0}
    return receive_size(**({**given, "unconfirmed": 0, "idle": True, "limit": 10} | changed))


counts = st.integers(0, 300)


@given(
    window=st.integers(1, 300),
    waiting=counts,
    running=counts,
    processes=counts,
    asked=counts,
    unconfirmed=counts,
    idle=st.booleans(),
    limit=st.integers(1, 10),
)
def test_never_more_than_the_window_and_the_limit(window, waiting, running, processes, asked, unconfirmed, idle, limit):
    """What is held, what is under way and what is asked for now fit into the window together."""
    ask = receive_size(
        window=window,
        waiting=waiting,
        running=running,
        processes=processes,
        asked=asked,
        unconfirmed=unconfirmed,
        idle=idle,
        limit=limit,
    )
    held = waiting + running
    assert 0 <= ask <= limit
    assert ask == 0 or held + asked + ask <= window
    if unconfirmed > max(100, window):
        assert ask == 0
    elif idle:
        assert ask == max(0, min(limit, window - held - asked))


@given(
    window=st.integers(1, 60),
    waiting=st.integers(0, 60),
    running=st.integers(0, 40),
    processes=st.integers(0, 40),
    asked=st.integers(0, 40),
    of_others=st.integers(0, 40),
    unconfirmed=counts,
    idle=st.booleans(),
    limit=st.integers(1, 10),
)
def test_the_short_answer_is_never_wrong(
    window, waiting, running, processes, asked, of_others, unconfirmed, idle, limit
):
    """Where the cheap question says that there is no receive, there is none, whatever other queues have asked for."""
    common = {"window": window, "waiting": waiting, "running": running, "processes": processes}
    common |= {"idle": idle, "limit": limit}
    if is_surely_none(**common, asked=asked):
        assert receive_size(**common, asked=asked + of_others, unconfirmed=unconfirmed) == 0


def test_the_short_answer_spares_most_questions():
    """A full window with a message ready for every process, as it is between two receives, needs no second look."""
    full = {"window": 128, "processes": 8, "running": 8, "limit": 10, "asked": 0, "idle": False}
    assert [is_surely_none(**full, waiting=128 - 8 - free) for free in range(12)] == [True] * 10 + [False] * 2


def test_an_idle_queue_keeps_its_long_poll_for_a_single_slot():
    """The poll that waits for work asks for whatever is free."""
    assert size(held=19) == 1
    assert size(held=20) == 0
    assert size() == 10


def test_with_work_about_a_receive_waits_for_ten_slots():
    """Ten messages cost one call, so nine free slots are not worth one while every process has its next message."""
    assert size(idle=False, held=11) == 0
    assert size(idle=False, held=10) == 10


def test_a_smaller_window_or_limit_is_enough():
    """The whole window, or the most a poll may bring, stands for the ten."""
    assert size(idle=False, window=4) == 4
    assert size(idle=False, window=4, processes=1, held=1) == 0
    assert size(idle=False, held=17, limit=3) == 3
    assert size(idle=False, held=18, limit=3) == 0


def test_a_process_that_would_run_dry_does_not_wait():
    """A free process without a next message gets a receive at once, unless one under way will bring enough."""
    assert size(idle=False, processes=16, held=15) == 5
    assert size(idle=False, processes=15, held=10, asked=5) == 0
    assert size(idle=False, processes=16, held=10, asked=5) == 5
    assert size(idle=False, window=8, processes=2, running=2, held=1) == 5
    assert size(idle=False, window=32, processes=32, running=31) == 1


def test_a_window_with_a_batch_to_spare_waits_for_the_batch():
    """With a message for every process and half as many again beyond ten, small pieces gain nothing and cost calls."""
    many = {"idle": False, "window": 64, "processes": 32, "running": 32}
    assert size(**many, held=31) == 0
    assert size(**many, held=23) == 0
    assert size(**many, held=22) == 10
    assert size(**{**many, "window": 57}, held=20) == 5


@given(
    window=st.integers(1, 300),
    processes=st.integers(1, 300),
    busy=st.integers(0, 300),
    limit=st.integers(1, 10),
)
def test_no_process_idles_while_there_is_room_for_it(window, processes, busy, limit):
    """A process without a message, and without one that waits or is asked for, means a receive at once."""
    running = min(busy, processes - 1)
    if window > running:
        assert size(idle=False, window=window, processes=processes, running=running, limit=limit) > 0


def test_too_many_unconfirmed_messages_stop_the_receiving():
    """More than a hundred finished messages, or the window if larger, await SQS: nothing new until it answers."""
    assert size(unconfirmed=100) == 10
    assert size(unconfirmed=101) == 0
    assert size(window=200, unconfirmed=200) == 10
    assert size(window=200, unconfirmed=201) == 0


@given(held=st.integers(0, 40), idle=st.booleans(), limit=st.integers(1, 10))
def test_an_empty_worker_always_receives(held, idle, limit):
    """With nothing held, asked for or unconfirmed there is a receive, whatever the queue did last."""
    assert size(held=0, idle=idle, limit=limit) > 0
    assert size(held=held, window=40, idle=True, limit=limit) == min(limit, 40 - held)
