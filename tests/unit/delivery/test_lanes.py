"""Batches lose and repeat nothing; a lane retries until done, counts exactly, and its flush waits for everything."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.delivery.batcher import Again, Batcher, Batches

SECONDS = 5.0


class Job:
    """One job; equal only to itself, as settlements are."""

    def __init__(self, number):
        self.number = number

    def __repr__(self):
        return f"job {self.number}"


class Calls:
    """The call of a lane, in memory: notes each batch, and asks again for what ``plan`` says, so many times."""

    def __init__(self, plan=None, delay_seconds=0.0):
        self.batches = []
        self.plan = dict(plan or {})
        self.delay_seconds = delay_seconds
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, batch):
        self.entered.set()
        assert self.gate.wait(SECONDS)
        with self.lock:
            self.batches.append([job.number for job in batch])
            again = [job for job in batch if self.plan.get(job.number, 0) > 0]
            for job in again:
                self.plan[job.number] -= 1
        return [Again(job, self.delay_seconds) for job in again]


def poll(condition):
    """Wait until a condition holds; the assertion after it says what was waited for."""
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


@pytest.fixture
def batchers():
    """Makes started lanes, and ends their threads after the test."""
    made = []

    def make(call, **options):
        batcher = Batcher("test", call, **options)
        made.append(batcher)
        batcher.start()
        return batcher

    yield make
    for batcher in made:
        batcher.stop()
        for thread in batcher._threads:
            thread.join(SECONDS)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab"), st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0])),
        st.tuples(st.just("pass"), st.sampled_from([0.01, 0.1, 1.0])),
        st.tuples(st.just("take"), st.booleans()),
    ),
    max_size=80,
)


@given(operations, st.integers(1, 10), st.sampled_from([0.0, 0.1]))
def test_everything_added_comes_out_once_in_order_by_key(steps, batch_size, linger):
    """Batches are of one key and at most the size; nothing is lost, repeated or early; equals keep their order."""
    batches, now, number = Batches(batch_size, linger), 0.0, 0
    added, keys, taken, prompt = {}, {}, [], defaultdict(list)

    def take(flush):
        batch = batches.take(now, flush=flush)
        assert len(batch) <= batch_size
        assert len({keys[job] for job in batch}) <= 1
        assert all(added[job] <= now for job in batch)
        if batch and not flush and len(batch) < batch_size:
            assert any(now - added[job] >= linger for job in batch)
        taken.extend(batch)
        return batch

    for step in steps:
        if step[0] == "add":
            keys[number], added[number] = step[1], now + step[2]
            batches.add(step[1], number, now, step[2])
            if not step[2]:
                prompt[step[1]].append(number)
            number += 1
        elif step[0] == "pass":
            now += step[1]
        else:
            take(step[1])
    now += 10.0
    while take(flush=True):
        pass
    assert sorted(taken) == list(range(number))
    assert batches.due_in(now) is None
    for key, jobs in prompt.items():
        assert [job for job in taken if keys[job] == key and job in set(jobs)] == jobs


def test_a_batch_waits_for_others_but_not_longer():
    """It is due when full, or when its oldest job has waited its time."""
    batches = Batches(2, 0.1)
    batches.add("a", 1, 0.0)
    assert batches.take(0.05) == []
    assert batches.due_in(0.05) == pytest.approx(0.05)
    batches.add("a", 2, 0.06)
    assert batches.take(0.06) == [1, 2]
    batches.add("a", 3, 1.0)
    assert batches.take(1.1) == [3]
    assert batches.due_in(2.0) is None


def test_a_delayed_job_is_not_taken_early_even_by_a_flush():
    """A pause after an error is kept, or a flush would hammer an SQS that throttles."""
    batches = Batches(10, 0.0)
    batches.add("a", 1, 0.0, delay_seconds=2.0)
    assert batches.take(1.9, flush=True) == []
    assert batches.due_in(0.5) == pytest.approx(1.5)
    assert batches.take(2.0) == [1]


def test_a_busy_queue_does_not_starve_another():
    """After a batch of one key the other keys have their turn."""
    batches = Batches(2, 0.0)
    for n in range(6):
        batches.add("busy", n, 0.0)
    batches.add("calm", "x", 0.0)
    assert [batches.take(0.0) for _ in range(5)] == [[0, 1], ["x"], [2, 3], [4, 5], []]


def test_a_job_is_pending_until_its_call_returned(batchers):
    """In the batch, in the call and waiting to be tried again, a job counts, and once done it does not."""
    calls = Calls({1: 1}, delay_seconds=0.2)
    calls.gate.clear()
    batcher = batchers(calls)
    batcher.add("a", Job(1))
    assert calls.entered.wait(SECONDS)
    assert batcher.pending == 1
    batcher.add("a", Job(2))
    assert batcher.pending == 2
    calls.gate.set()
    assert poll(lambda: [2] in calls.batches)
    assert poll(lambda: batcher.pending == 1)  # the first waits for its second try
    assert poll(lambda: batcher.pending == 0)
    assert calls.batches == [[1], [2], [1]]


def test_failures_are_tried_until_done(batchers):
    """Each job is in as many calls as its failures ask for, and one more."""
    plan = {n: n % 4 for n in range(50)}
    calls = Calls(plan, delay_seconds=0.01)
    batcher = batchers(calls, threads=3)
    for n in range(50):
        batcher.add("ab"[n % 2], Job(n))
    assert batcher.flush(SECONDS)
    tries = [n for batch in calls.batches for n in batch]
    assert all(tries.count(n) == n % 4 + 1 for n in range(50))
    assert all(len(batch) <= 10 and len({n % 2 for n in batch}) == 1 for batch in calls.batches)


def test_a_call_that_raises_keeps_all_its_jobs(batchers):
    """A bug of ours costs a second and no job."""
    seen = []

    def call(batch):
        seen.append([job.number for job in batch])
        if len(seen) == 1:
            raise RuntimeError("bug")
        return []

    batcher = batchers(call)
    batcher.add("a", Job(1))
    assert poll(lambda: len(seen) == 1)
    assert batcher.pending == 1
    assert batcher.flush(SECONDS)
    assert seen == [[1], [1]]


def test_a_call_may_be_a_generator_that_raises_midway(batchers):
    """What it had asked for before is not counted twice: the jobs are tried again once each."""
    seen = []

    def call(batch):
        seen.append([job.number for job in batch])
        if len(seen) == 1:
            yield Again(batch[0], 0.0)
            raise RuntimeError("bug")

    batcher = batchers(call)
    batcher.add("a", Job(1))
    assert batcher.flush(SECONDS)
    assert batcher.pending == 0
    assert seen == [[1], [1]]


def test_flush_does_not_linger_and_waits_for_the_call(batchers):
    """A lane that would collect for a minute sends at once, and flush returns only after the answer."""
    calls = Calls()
    calls.gate.clear()
    batcher = batchers(calls, linger_seconds=60.0)
    batcher.add("a", Job(1))
    assert batcher.flush(0.05) is False
    assert calls.entered.is_set()
    assert batcher.pending == 1
    calls.gate.set()
    assert batcher.flush(SECONDS)
    assert calls.batches == [[1]]


def test_flush_waits_for_what_is_to_be_tried_again(batchers):
    """A job between two tries is nowhere in sight, and still it is not done."""
    calls = Calls({1: 1}, delay_seconds=0.2)
    batcher = batchers(calls)
    batcher.add("a", Job(1))
    assert batcher.flush(SECONDS)
    assert calls.batches == [[1], [1]]


def test_ten_jobs_are_one_call(batchers):
    """A lane that lingers makes one call for ten jobs of a queue, and one for each queue."""
    calls = Calls()
    batcher = batchers(calls, linger_seconds=0.1)
    for n in range(10):
        batcher.add("a", Job(n))
    batcher.add("b", Job(10))
    assert poll(lambda: batcher.pending == 0)
    assert sorted(calls.batches) == [list(range(10)), [10]]


def test_jobs_from_many_threads_are_all_done(batchers):
    """Adding is safe from any thread, and nothing is lost or done twice."""
    calls = Calls()
    batcher = batchers(calls, threads=4, linger_seconds=0.001)

    def add(start):
        for n in range(start, start + 100):
            batcher.add("a", Job(n))

    adders = [threading.Thread(target=add, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in adders:
        thread.start()
    for thread in adders:
        thread.join(SECONDS)
    assert batcher.flush(SECONDS)
    assert sorted(n for batch in calls.batches for n in batch) == list(range(400))


def test_stop_ends_the_threads_and_leaves_the_rest(batchers):
    """A stopped lane makes no further call; what is pending stays counted."""
    calls = Calls()
    batcher = batchers(calls, linger_seconds=60.0)
    batcher.add("a", Job(1))
    batcher.stop()
    for thread in batcher._threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert batcher.pending == 1
    assert calls.batches == []
