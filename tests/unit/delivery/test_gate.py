from __future__ import annotations

import os
import select
import threading
import time
from collections import deque

import pytest

from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.run_queue import RunQueue
from bridge.sqs.queues import Queue
from bridge.worker.event_loop import Waker
from tests.support.servers.waiting import wait_until

QUEUE = Queue("q", "http://sqs/1/q", "event")


class Hub:
    """The one method of Celery's event loop that a Waker uses, on select()."""

    def add_reader(self, fd, callback):
        self.fd, self.callback = fd, callback

    def turn(self, timeout_seconds):
        if select.select([self.fd], [], [], timeout_seconds)[0]:
            self.callback()


class Request:
    def __init__(self, lease):
        self.lease = lease


@pytest.fixture
def table():
    """An empty lease table."""
    return LeaseTable()


def hold(table, number):
    """A lease in the table."""
    now = time.monotonic()
    lease = Lease(QUEUE, {"MessageId": f"m{number}", "ReceiptHandle": f"h{number}"}, time.time(), now, 30)
    assert table.take_in(lease, now) is None
    return lease


def gate_for(table, *, processes=2, one_at_a_time=False):
    """A gate, and what it does: handed over, lapsed, refused, wakes."""
    handed, lapsed, refused, wakes = [], [], [], []

    def hand_to_pool(request):
        if request.lease.message_id == "m-refused":
            raise RuntimeError("the pool is closed")
        handed.append(request.lease.message_id)

    gate = RunQueue(
        table,
        processes=lambda: processes,
        hand_to_pool=hand_to_pool,
        wake=lambda: wakes.append(1),
        on_expired=lapsed.append,
        on_refused=refused.append,
        on_dropped=lambda request: None,
        one_at_a_time=one_at_a_time,
    )
    return gate, handed, lapsed, refused, wakes


def test_no_wake_is_ever_lost():
    """However wakes and turns of the loop fall together, what was there before a wake is seen."""
    waiting: deque[int] = deque()
    seen = []

    def take_all():
        while waiting:
            seen.append(waiting.popleft())

    waker, hub = Waker(take_all), Hub()
    waker.register(hub)
    rounds, threads = 3_000, 4

    def produce():
        for n in range(rounds):
            waiting.append(n)
            waker.wake()

    producers = [threading.Thread(target=produce) for _ in range(threads)]
    for producer in producers:
        producer.start()
    deadline = time.monotonic() + 30
    while len(seen) < rounds * threads and time.monotonic() < deadline:
        hub.turn(0.5)
    for producer in producers:
        producer.join()
    assert len(seen) == rounds * threads


@pytest.mark.parametrize("moment", ["before the read", "after the read"])
def test_a_wake_at_the_worst_moment_leaves_the_loop_able_to_wake(monkeypatch, moment):
    """A wake just before or just after the pipe is emptied is not swallowed, and the next one works."""
    calls = []
    waker, hub = Waker(lambda: calls.append(1)), Hub()
    waker.register(hub)
    real_read = os.read

    def read_and_wake(fd, size):
        if moment == "before the read":
            waker.wake()
        data = real_read(fd, size)
        if moment == "after the read":
            waker.wake()
        return data

    monkeypatch.setattr("bridge.worker.event_loop.os.read", read_and_wake)
    hub.turn(1)
    monkeypatch.setattr("bridge.worker.event_loop.os.read", real_read)
    hub.turn(0)
    before = len(calls)
    waker.wake()
    hub.turn(1)
    assert len(calls) == before + 1


def test_no_more_are_started_than_there_are_processes(table):
    """The rest waits in order, and starts as places become free."""
    gate, handed, *_ = gate_for(table, processes=2)
    leases = [hold(table, n) for n in range(4)]
    for lease in leases:
        gate.submit(Request(lease))
    assert handed == ["m0", "m1"]
    assert [lease.state for lease in leases] == [LeaseState.RUNNING] * 2 + [LeaseState.WAITING] * 2
    table.end(leases[1])
    gate.slot_free()
    gate.pump()
    assert handed == ["m0", "m1", "m2"]


def pool_gate(table, processes, hand_to_pool):
    """A gate whose pool's threads may hand over the next request themselves."""
    return RunQueue(
        table,
        processes=lambda: processes,
        hand_to_pool=hand_to_pool,
        wake=lambda: None,
        on_expired=lambda lease: None,
        on_refused=lambda lease: None,
        on_dropped=lambda request: None,
        one_at_a_time=False,
        may_pump=lambda: True,
    )


def test_many_threads_fill_every_place_and_no_more(table):
    """Whichever threads end tasks, submit and ask at the same time: never too many run, and in the end all have run."""
    processes, number = 4, 2_000
    handed, most, tickets = [], [0], threading.Semaphore(0)
    waiting: deque[Lease] = deque()

    def hand_to_pool(request):
        handed.append(request.lease.message_id)
        most[0] = max(most[0], table.count(LeaseState.RUNNING))
        waiting.append(request.lease)
        tickets.release()

    gate = pool_gate(table, processes, hand_to_pool)

    def run_tasks():
        while tickets.acquire(timeout=10) and waiting:
            table.end(waiting.popleft())
            gate.slot_free()

    threads = [threading.Thread(target=run_tasks) for _ in range(processes)]
    for thread in threads:
        thread.start()
    leases = [hold(table, n) for n in range(number)]
    for lease in leases:
        gate.submit(Request(lease))
    wait_until(lambda: table.count(LeaseState.ENDING) == number, 60, "the end of all")
    for _ in threads:
        tickets.release()
    for thread in threads:
        thread.join(20)
    assert sorted(handed) == sorted(lease.message_id for lease in leases)
    assert 1 <= most[0] <= processes


def test_nothing_starts_after_the_table_was_closed(table):
    """What waits is handed back by the drain: the gate lets it fall."""
    gate, handed, lapsed, *_ = gate_for(table, processes=1)
    leases = [hold(table, n) for n in range(2)]
    for lease in leases:
        gate.submit(Request(lease))
    assert table.close() == [leases[1]]
    table.end(leases[0])
    gate.pump()
    assert (handed, lapsed) == (["m0"], [])


def test_a_lapsed_message_does_not_start(table):
    """Another worker may have it by now."""
    gate, handed, lapsed, *_ = gate_for(table)
    lease = hold(table, 1)
    lease.expires_at = time.monotonic() - 1
    gate.submit(Request(lease))
    assert (handed, lapsed) == ([], [lease])


def test_what_the_pool_refuses_does_not_keep_the_others(table):
    """An error in handing over costs that message a detour, and nobody else."""
    gate, handed, _, refused, _ = gate_for(table)
    bad = hold(table, "-refused")
    gate.submit(Request(bad))
    gate.submit(Request(hold(table, 1)))
    assert refused == [bad]
    assert handed == ["m1"]


def test_solo_breathes_between_two_tasks(table):
    """Handing over runs the task there, so one is started a turn, and the loop is asked to come back."""
    gate, handed, _, _, wakes = gate_for(table, processes=1, one_at_a_time=True)
    leases = [hold(table, n) for n in range(3)]
    for lease in leases:
        gate.submit(Request(lease))
    assert handed == []
    gate.pump()
    assert handed == ["m0"]
    table.end(leases[0])
    wakes.clear()
    gate.pump()
    assert handed == ["m0", "m1"]
    assert wakes == [1]


def test_the_line_is_not_voided_while_a_thread_takes_from_it(table):
    """Celery's consumer restarts while a pool thread hands over: that thread ends its turn, then the line is empty."""
    inside, go_on, handed = threading.Event(), threading.Event(), []

    def hand_to_pool(request):
        handed.append(request.lease.message_id)
        inside.set()
        go_on.wait(20)

    gate = pool_gate(table, 1, hand_to_pool)
    taking = threading.Thread(target=gate.submit, args=(Request(hold(table, 1)),))
    taking.start()
    assert inside.wait(20)
    gate._waiting.append((lease := hold(table, 2), Request(lease)))
    voiding = threading.Thread(target=gate.forget)
    voiding.start()
    voiding.join(0.2)
    assert len(gate._waiting) == 1
    go_on.set()
    for thread in (taking, voiding):
        thread.join(20)
    assert (handed, len(gate._waiting)) == (["m1"], 0)


def test_a_restart_of_the_consumer_voids_the_line(table):
    """Celery's requests from before are not started; their messages are found unanswered and handed back."""
    gate, handed, *_ = gate_for(table, processes=0)
    gate.submit(Request(hold(table, 1)))
    gate.forget()
    gate.pump()
    assert handed == []
