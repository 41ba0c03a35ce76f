"""A run counts when the machine was the bench's own: what is waited for, done again and told, on a machine of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.runner.quiet import (
    LONGEST_WAIT_SECONDS,
    MOST_STOLEN,
    MOST_TIMES,
    PAUSE_SECONDS,
    Quiet,
    Ticks,
    loop_seconds,
    ticks,
)

RUN_SECONDS = 10.0


class Machine:
    """A machine whose host takes a share of every run, as its list says, and of every look too while it is busy."""

    def __init__(self, taken_of_runs=(), loops=()):
        self.now, self.used, self.taken = 0.0, 0, 0
        self.taken_of_runs, self.loops = list(taken_of_runs), list(loops)
        self.busy_until = 0.0
        self.runs = 0

    def spend(self, seconds, taken):
        """Let time pass, of which the host takes a share."""
        self.now += seconds
        self.used += round(seconds * 1000 * (1 - taken))
        self.taken += round(seconds * 1000 * taken)

    def look(self):
        """Take what the loop takes next."""
        self.spend(0.4, 0.5 if self.now < self.busy_until else 0.0)
        return self.loops.pop(0) if self.loops else 1.0

    def sleep(self, seconds):
        """Wait, without wanting anything."""
        self.now += seconds

    def run(self):
        """Return the number of the run, counted from 0."""
        self.spend(RUN_SECONDS, self.taken_of_runs.pop(0))
        self.runs += 1
        return self.runs - 1

    def quiet(self, patience_seconds):
        """What measures on this machine."""
        return Quiet(
            patience_seconds,
            ticks=lambda: Ticks(self.used, self.taken),
            look=self.look,
            sleep=self.sleep,
            clock=lambda: self.now,
        )


def test_a_quiet_run_counts_at_once():
    """Nothing is waited for and nothing done again where nothing is taken."""
    quiet = Machine([0.0]).quiet(60)
    assert quiet.measure(iter(["first"]).__next__) == "first"
    assert quiet.told() == {
        "stolen_median": 0.0,
        "stolen_highest": 0.0,
        "disturbed": 0,
        "measured": 1,
        "again": 0,
        "waited_seconds": 0,
        "patience_ended": False,
    }


def test_a_disturbed_run_is_done_again():
    """The first of which the host took little is the one that counts."""
    machine = Machine([0.5, 0.2, 0.01, 0.0])
    quiet = machine.quiet(60)
    assert quiet.measure(machine.run) == 2
    assert (quiet.again, quiet.told()["stolen_highest"], quiet.told()["disturbed"]) == (2, 0.01, 0)


def test_the_least_disturbed_counts_when_all_were_disturbed():
    """After the last try the best of them is taken, and told as disturbed."""
    machine = Machine([0.5, 0.4, 0.1, 0.2, 0.3])
    quiet = machine.quiet(1000)
    assert quiet.measure(machine.run) == 2
    assert (machine.runs, quiet.told()["disturbed"]) == (MOST_TIMES, 1)


def test_patience_ends():
    """Runs that are done again use it up, and then the next disturbed run counts as it is."""
    machine = Machine([0.5, 0.4, 0.3, 0.6])
    quiet = machine.quiet(2 * RUN_SECONDS)
    assert quiet.measure(machine.run) == 2
    assert quiet.measure(machine.run) == 3
    assert quiet.told()["disturbed"] == 2


def test_a_run_waits_while_the_host_is_busy():
    """It begins when a look finds nothing taken, and what was waited is told."""
    machine = Machine([0.0])
    machine.busy_until = 9.0
    quiet = machine.quiet(60)
    quiet.measure(machine.run)
    assert machine.now - RUN_SECONDS >= machine.busy_until
    assert quiet.told()["waited_seconds"] == 3 * PAUSE_SECONDS


def test_a_run_waits_while_a_loop_is_slow():
    """A neighbour on the other half of a core steals nothing, and is seen by a loop that takes longer."""
    machine = Machine([0.0, 0.0], loops=[1.0, 1.31, 2.0, 1.3])
    quiet = machine.quiet(60)
    quiet.measure(machine.run)
    quiet.measure(machine.run)
    assert (machine.loops, quiet.told()["waited_seconds"]) == ([], 2 * PAUSE_SECONDS)


def test_a_run_does_not_wait_for_ever():
    """A clock that was fast once makes every later look seem slow; that must not use up all the patience."""
    machine = Machine([0.0, 0.0], loops=[0.5, *[1.0] * 1000])
    quiet = machine.quiet(10 * LONGEST_WAIT_SECONDS)
    quiet.measure(machine.run)
    quiet.measure(machine.run)
    assert LONGEST_WAIT_SECONDS <= quiet.told()["waited_seconds"] < 2 * LONGEST_WAIT_SECONDS
    assert not quiet.told()["patience_ended"]


def test_without_patience_nothing_is_waited_for():
    """A busy machine is measured as it is, once."""
    machine = Machine([0.5])
    machine.busy_until = 100.0
    quiet = machine.quiet(0)
    assert quiet.measure(machine.run) == 0
    assert (quiet.again, quiet.told()["disturbed"], quiet.told()["waited_seconds"]) == (0, 1, 0)


def test_a_run_that_fails_says_so():
    """An error of the run is its caller's to report."""
    with pytest.raises(ZeroDivisionError):
        Machine().quiet(60).measure(lambda: 1 / 0)


@given(shares=st.lists(st.floats(0, 0.99), min_size=MOST_TIMES, max_size=MOST_TIMES), patience=st.floats(0, 100))
def test_no_run_is_chosen_over_a_less_disturbed_one(shares, patience):
    """Whatever the host takes: the answer is the least disturbed of those made, and no more are made than needed."""
    machine = Machine(shares)
    counted = machine.quiet(patience).measure(machine.run)
    made = [round(share, 3) for share in shares[: machine.runs]]
    assert made[counted] <= min(made) + 0.001
    assert all(share > MOST_STOLEN - 0.001 for share in made[:-1])


def test_the_kernels_line_is_read():
    """Used are user, nice, system and interrupts; idle and waiting are not; a guest's are in the user's."""
    stat = "cpu  100 20 30 4000 500 6 7 80 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert Ticks.of(stat) == Ticks(163, 80)
    assert Ticks(163, 80).stolen_since(Ticks(143, 60)) == 0.5
    assert Ticks(163, 80).stolen_since(Ticks(163, 80)) == 0.0


def test_this_machine_is_read():
    """The real parts: a loop takes time, and ticks do not run backwards."""
    before = ticks()
    assert 0 < loop_seconds() < 10
    assert ticks().used >= before.used
