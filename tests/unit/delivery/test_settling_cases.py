"""Single sequences that a random walk seldom takes: answers that come late, are lost, or mean nothing."""

from __future__ import annotations

import json
from functools import partial

import pytest

from bridge.delivery.lease import LeaseState
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn
from bridge.testing import s3_event
from tests.unit.delivery.fake_sqs import Clock, FakeSqs, Plan
from tests.unit.delivery.stepped_worker import QUEUES, SteppedWorker

QUEUE, OTHER = QUEUES


class Room:
    """A worker with its SQS and their clock; leases of "plain" last 30 s, of "quick" 6 s, of "slow" 200 s."""

    def __init__(self, stale):
        self.clock = Clock()
        self.sqs = FakeSqs(self.clock, stale)
        self.worker = SteppedWorker(self.sqs, self.clock)

    def takes(self, *kinds, queue=QUEUE):
        """Messages come in, and as many as there are processes start; their leases, in order."""
        before = self.worker.held()
        for kind in kinds:
            self.sqs.send(queue.url, json.dumps(s3_event(f"{kind}/{len(self.worker.handles)}")))
        while self.sqs.visible(queue.url):
            self.worker.receive(queue, 10)
        self.worker.main_loop()
        return [lease for lease in self.worker.held() if lease not in before]

    def wait(self, seconds):
        """The clock goes on."""
        self.clock.now += seconds

    def is_taken(self):
        """Another worker receives what is visible."""
        return self.sqs.receive(QUEUE.url, 10, 30)

    def settles(self, name):
        """The lane makes its call."""
        self.wait(0.125)
        self.worker.step(name)


@pytest.fixture(params=["fails", "ignored"])
def room(request):
    """A worker, with both of the answers to a visibility change under an expired handle."""
    room = Room(request.param)
    yield room
    room.worker.undo()


def test_an_expired_lease_is_not_revived_by_an_answer(room):
    """AWS answers a renewal with an expired handle as a success; another worker has the message all the same."""
    [lease] = room.takes("plain")
    room.wait(31)
    assert room.is_taken()
    room.worker.beat()
    room.worker.end(Delete())
    room.settles("delete")
    assert lease.state is LeaseState.GONE
    assert (room.worker.counted("settled"), room.worker.counted("lapsed")) == (0, 1)
    assert room.worker.watch.violations == []


def test_an_expired_lease_waiting_is_not_started(room):
    """A waiting message whose lease had lapsed when its renewal was answered starts nowhere here."""
    leases = room.takes(*["plain"] * 4)
    room.wait(31)
    assert len(room.is_taken()) == 4
    room.worker.beat()
    room.worker.end(Delete())
    room.worker.main_loop()
    assert leases[3].state is LeaseState.GONE
    assert room.worker.counted("lapsed") == 1


def test_a_renewal_whose_answer_was_lost_may_have_shortened_the_lease(room):
    """A task's own timeout of 6 s took effect unheard: the 30 s of the receive are not what counts any more."""
    [lease] = room.takes("quick")
    room.sqs.plans.append(Plan("lost"))
    room.worker.beat()
    assert room.sqs.changed
    room.wait(7)
    assert room.is_taken()
    assert lease.expires_at <= room.clock.now
    room.worker.end(Delete())
    room.settles("delete")
    assert room.worker.counted("settled") == 0
    assert room.worker.watch.violations == []


def test_a_delete_that_arrived_after_the_lapse_does_not_count(room):
    """The call was sent in time and slow: when it took effect, its handle was an old one."""
    room.takes("plain")
    room.wait(28)
    room.worker.end(Delete())
    room.sqs.plans.append(Plan(before=lambda: (room.wait(3), room.is_taken())))
    room.settles("delete")
    assert room.worker.counted("settled") == 0
    assert room.worker.watch.violations == []


def test_a_renewal_that_comes_just_after_its_delete_does_not_make_it_a_lapse(room):
    """The beat goes on until the delete is answered; that its message is gone by then is our own doing."""
    [lease] = room.takes("plain")
    room.wait(10)
    room.worker.end(Delete())
    room.sqs.plans.append(Plan(after=room.worker.beat))
    room.settles("delete")
    assert [change.client for change in room.sqs.changes] == ["settle", "heartbeat"]
    assert room.sqs.deleted == {lease.message_id: lease.receipt_handle}
    assert (room.worker.counted("settled"), room.worker.counted("lapsed")) == (1, 0)


@pytest.mark.parametrize("verdict", [RetryIn(60, 60.0), HandBack("requeued")])
def test_a_visibility_change_after_the_lapse_does_not_count(room, verdict):
    """Whatever SQS answers, the delay was not set: another worker has the message."""
    room.takes("plain")
    room.worker.end(verdict)
    room.wait(31)
    assert room.is_taken()
    room.settles("visibility")
    assert (room.worker.counted("settled"), room.worker.counted("lapsed")) == (0, 1)


def test_received_again_during_its_delete(room):
    """The old handle's success means nothing; the new one deletes, and nothing runs again."""
    [lease] = room.takes("plain")
    room.worker.end(Delete())
    room.wait(31)
    room.sqs.plans.append(Plan(before=partial(room.worker.receive, QUEUE, 10)))
    room.settles("delete")
    assert lease.state is LeaseState.ENDING
    assert not room.sqs.deleted
    room.settles("delete")
    assert room.sqs.deleted == {lease.message_id: lease.receipt_handle}
    assert (room.worker.counted("received"), room.worker.counted("settled"), room.worker.counted("lapsed")) == (2, 1, 1)
    assert room.worker.watch.violations == []


def test_received_again_while_its_dead_letter_is_sent(room):
    """The dead letter is there once at least, and the message goes under its new handle."""
    [lease] = room.takes("plain")
    room.worker.end(DeadLetter("permanent"))
    room.wait(31)
    room.sqs.plans.append(Plan(after=partial(room.worker.receive, QUEUE, 10)))
    room.worker.step("dead-letter")
    room.settles("delete")
    assert room.worker.dead_letters() == [lease.raw["Body"]]
    assert lease.message_id in room.sqs.deleted
    assert room.worker.watch.violations == []


def test_received_again_before_its_visibility_change(room):
    """The old receive's change is not even sent: the new receive has a lease of its own, and starts."""
    [older] = room.takes("plain")
    room.worker.end(RetryIn(60, 60.0))
    room.wait(31)
    room.worker.receive(QUEUE, 10)
    room.worker.main_loop()
    room.settles("visibility")
    [run] = room.worker.running
    assert older.state is LeaseState.GONE
    assert run.lease is not older
    assert room.sqs.changes == []
    assert (room.worker.counted("received"), room.worker.counted("settled"), room.worker.counted("lapsed")) == (2, 0, 1)


def test_a_hand_back_whose_answer_was_lost_is_not_undone(room):
    """Another worker took it at once; our second try must neither hide nor show it."""
    [lease] = room.takes("plain")
    room.worker.end(HandBack("requeued"))
    room.sqs.plans.append(Plan("lost"))
    room.worker.step("visibility")
    [taken] = room.is_taken()
    room.wait(5)
    room.worker.step("visibility")
    assert lease.state is LeaseState.GONE
    assert room.sqs.holds(taken["ReceiptHandle"])


def test_a_visibility_change_waits_for_the_renewal_under_way(room):
    """Not before the beat is answered; then the delay stays what the verdict says."""
    room.takes("plain")
    room.wait(11)

    def task_fails():
        room.worker.end(RetryIn(100, 100.0))
        room.worker.step("visibility")

    room.sqs.plans.append(Plan(before=task_fails))
    room.worker.beat()
    assert [change.client for change in room.sqs.changes] == ["heartbeat"]
    room.wait(1.1)
    room.worker.step("visibility")
    room.wait(50)
    room.worker.beat()
    assert [(change.client, change.seconds) for change in room.sqs.changes] == [("heartbeat", 30), ("settle", 100)]


@pytest.mark.parametrize("fault", ["refused", "lost"])
def test_slow_failures_do_not_keep_the_heartbeat_from_the_other_leases(room, fault):
    """Each failed call takes longer than its second try may wait: still each lease has its turn, and the turn ends."""
    broken = room.takes(*["plain"] * 10)
    healthy = room.takes("plain", queue=OTHER)
    room.wait(11)

    def fails():
        assert len(room.sqs.plans) > 40, "the heartbeat's turn does not end"
        room.wait(2)

    room.sqs.plans.extend(Plan(fault, before=fails) for _ in range(50))
    room.worker.beat()
    tried = 50 - len(room.sqs.plans)
    assert tried == 2
    assert room.worker.watch.violations == []
    assert all(not lease.renewing for lease in broken + healthy)
