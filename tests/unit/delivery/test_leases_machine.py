"""The lease table under any order of receives, starts, ends, releases, renewals and sweeps, on a fake clock."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.sqs.queues import Queue

QUEUES = (Queue("q", "https://sqs/1/q", "event"), Queue("p", "https://sqs/1/p", "task"))
HELD = (LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING, LeaseState.RELEASING)
TWELVE_HOURS = 43_200


class LeaseTableMachine(RuleBasedStateMachine):
    """The model beside the table is what each lease's state must be, written down from the answers of the table."""

    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.table = LeaseTable()
        self.now = 0.0
        self.handles = 0
        self.states = {}
        self.by_message = {}
        self.started = Counter()
        self.in_flight = []
        self.closed = False

    def receive(self, queue, message_id, visibility):
        """A message as a receive brings it, under a handle never seen before."""
        self.handles += 1
        raw = {"MessageId": message_id, "ReceiptHandle": f"h{self.handles}", "Body": ""}
        return Lease(
            queue=queue,
            raw=raw,
            received_at_epoch=self.now,
            received_at=self.now,
            visibility_timeout_seconds=visibility,
            time_limit_seconds=60.0,
        )

    @rule(
        target=leases,
        queue=st.sampled_from(QUEUES),
        message_id=st.sampled_from("abcd"),
        visibility=st.sampled_from([6, 120, 43_200]),
    )
    def take_in(self, queue, message_id, visibility):
        """A message is received, for the first time or again: it is a lease of its own unless one of it is at work."""
        lease = self.receive(queue, message_id, visibility)
        known = self.by_message.get((queue.url, message_id))
        older = self.table.take_in(lease, self.now)
        if known is not None and self.states[known] is LeaseState.RELEASING:
            assert known.lost  # its visibility change must not reach the new receive
            known = None
        assert older is known
        if older is None:
            self.states[lease] = LeaseState.WAITING
            self.by_message[queue.url, message_id] = lease
            return lease
        assert older.receipt_handle == lease.receipt_handle
        assert older.received_at == self.now
        assert not older.lost
        assert self.table.get(lease.tag) is None
        return older

    @rule(lease=leases)
    def start(self, lease):
        """It starts only if it waits, is still ours, and nothing is closed."""
        may = self.states[lease] is LeaseState.WAITING and not self.closed
        may = may and not lease.lost and self.now < lease.expires_at
        assert self.table.start(lease, self.now) == may
        if may:
            self.states[lease] = LeaseState.RUNNING
            self.started[lease] += 1

    @rule(lease=leases)
    def end(self, lease):
        """An end is accepted once, from waiting or running."""
        may = self.states[lease] in (LeaseState.WAITING, LeaseState.RUNNING)
        assert self.table.end(lease) == may
        if may:
            self.states[lease] = LeaseState.ENDING

    @rule(lease=leases, only_waiting=st.booleans())
    def release(self, lease, only_waiting):
        """So is a release; one for unstarted messages does not touch a running one."""
        state = self.states[lease]
        may = state is LeaseState.WAITING or (state is LeaseState.RUNNING and not only_waiting)
        assert self.table.release(lease, only_waiting=only_waiting) == may
        if may:
            self.states[lease] = LeaseState.RELEASING

    @rule(lease=leases)
    def drop(self, lease):
        """A drop is final, and forgetting twice is harmless."""
        self.table.drop(lease)
        if self.by_message.get((lease.queue.url, lease.message_id)) is lease:
            del self.by_message[lease.queue.url, lease.message_id]
        self.states[lease] = LeaseState.GONE

    @rule()
    def beat(self):
        """Renewed is what is due, and only that: never what is released or gone, never twice at once."""
        renewing = {lease for lease, _, _ in self.in_flight}
        expected = {
            lease
            for lease, state in self.states.items()
            if state in (LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING)
            and lease not in renewing
            and not lease.lost
            and lease.next_renewal_at <= self.now < lease.expires_at
            and self.now - lease.received_at + 1 <= TWELVE_HOURS - 5
        }
        due = self.table.due_renewals(self.now)
        assert len(due) == len(set(due))
        assert set(due) <= expected
        assert len({lease.queue.url for lease in due}) <= 1  # they go into one call
        assert bool(due) == bool(expected)
        assert len(due) == min(10, sum(lease.queue.url == due[0].queue.url for lease in expected)) if due else True
        for lease in due:
            assert 0 < lease.room_seconds(self.now) <= TWELVE_HOURS - 5 - (self.now - lease.received_at)
        self.in_flight += [(lease, lease.receipt_handle, self.now) for lease in due]

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), result=st.sampled_from(["ok", "ok", "stale", "failed"]))
    def renewal_done(self, data, result):
        """An answer counts for the handle it was asked about, and for no newer one."""
        lease, handle, sent_at = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        before = (lease.expires_at, lease.lost)
        self.table.renewal_done(lease, handle, sent_at, result)
        assert not lease.renewing
        if handle != lease.receipt_handle:
            assert (lease.expires_at, lease.lost) == before
        elif result == "stale":
            assert lease.lost
        elif result == "ok":
            assert lease.expires_at > sent_at

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0, 200.0, 43_000.0]))
    def pass_time(self, seconds):
        """The clock goes on."""
        self.now += seconds

    @rule(lease=leases)
    def deliver(self, lease):
        """Celery was given the message and made no request of it."""
        lease.delivered = True

    @rule()
    def sweep(self):
        """Swept is what nobody answers for, and what has waited too long."""
        expected = {
            lease
            for lease, state in self.states.items()
            if (state is LeaseState.WAITING and (lease.delivered or self.now - lease.received_at + 60 > TWELVE_HOURS))
            or (
                state is LeaseState.RUNNING and lease.delivered and not self.closed
            )  # during a drain it is stopped first
        }
        assert set(self.table.orphaned(self.now)) == expected
        for lease in expected:
            self.states[lease] = LeaseState.RELEASING

    @rule()
    def close(self):
        """The close gives out exactly what waits."""
        expected = {lease for lease, state in self.states.items() if state is LeaseState.WAITING}
        assert set(self.table.close()) == expected
        self.closed = True
        for lease in expected:
            self.states[lease] = LeaseState.RELEASING

    @invariant()
    def each_message_is_in_exactly_one_state(self):
        """The lists of all states are disjoint and together everything held; the counts are their lengths."""
        for state in HELD:
            members = self.table.in_state(state)
            assert len(members) == len(set(members)) == self.table.count(state)
            assert set(members) == {lease for lease, s in self.states.items() if s is state}
        assert self.table.count(LeaseState.GONE) == 0
        assert all(lease.state is state for lease, state in self.states.items())

    @invariant()
    def a_message_is_found_while_it_is_held(self):
        """Its tag leads to it until it is gone, and of its leases at most one is not being let go of."""
        held = [lease for lease, state in self.states.items() if state is not LeaseState.GONE]
        assert all(self.table.get(lease.tag) is lease for lease in held)
        assert all(self.table.get(lease.tag) is None for lease in self.states if lease not in held)
        at_work = [lease for lease in held if self.states[lease] is not LeaseState.RELEASING]
        assert len({(lease.queue.url, lease.message_id) for lease in at_work}) == len(at_work)

    @invariant()
    def nothing_started_twice(self):
        """A lease is started at most once in its life."""
        assert all(times == 1 for times in self.started.values())

    @invariant()
    def only_renewals_under_way_are_marked(self):
        """A mark left behind would hold up the hand-back for ever, and stop the renewing."""
        assert {lease for lease in self.states if lease.renewing} == {lease for lease, _, _ in self.in_flight}


TestLeaseTable = LeaseTableMachine.TestCase
TestLeaseTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
