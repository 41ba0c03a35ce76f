"""The lease table, transition by transition: who may start, end, release and renew a message, and when."""

from __future__ import annotations

import gc
import threading

import pytest

from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.sqs.queues import Queue

QUEUE = Queue("q", "https://sqs/1/q", "event")
TWELVE_HOURS = 43_200


def received(message_id="m", handle="h1", at=0.0, visibility=120, queue=QUEUE, **fields):
    """A lease as the intake makes it for a message just received."""
    return Lease(
        queue=queue,
        raw={"MessageId": message_id, "ReceiptHandle": handle, "Body": ""},
        received_at_epoch=1_700_000_000.0 + at,
        received_at=at,
        visibility_timeout_seconds=visibility,
        **fields,
    )


class SomeRequest:
    """Anything that a weak reference can point to."""


@pytest.fixture
def table():
    """An empty, open table."""
    return LeaseTable()


@pytest.fixture
def lease(table):
    """A lease that the table holds since time 0, for 120 s."""
    lease = received()
    assert table.take_in(lease, 0.0) is None
    return lease


def test_a_lease_lasts_its_visibility_timeout_and_is_renewed_at_a_third():
    """Both count from the receive; the task id is the MessageId until Celery says otherwise."""
    lease = received(at=10.0, visibility=90, receives=3)
    assert (lease.expires_at, lease.next_renewal_at) == (100.0, 40.0)
    assert (lease.tag, lease.receipt_handle, lease.task_id, lease.attempts) == ("h1", "h1", "m", 3)
    assert lease.state is LeaseState.WAITING


def test_the_way_of_a_message_that_succeeds(table, lease):
    """Waiting, running, ending, gone: counted in one state at a time, and found by its tag until the end."""
    assert table.start(lease, 1.0)
    assert (table.count(LeaseState.RUNNING), table.count(LeaseState.WAITING)) == (1, 0)
    assert table.end(lease)
    assert table.in_state(LeaseState.ENDING) == [lease]
    assert table.get("h1") is lease
    table.drop(lease)
    assert lease.state is LeaseState.GONE
    assert table.get("h1") is None
    assert table.count(*LeaseState) == 0
    table.drop(lease)
    assert table.count(*LeaseState) == 0


def test_nothing_starts_twice(table, lease):
    """The second start of the same message is refused, in every state that follows."""
    assert table.start(lease, 1.0)
    assert not table.start(lease, 1.0)
    table.end(lease)
    assert not table.start(lease, 1.0)
    table.drop(lease)
    assert not table.start(lease, 1.0)


def test_start_and_hand_back_exclude_each_other(table, lease):
    """What was marked for handing back does not start, and what has started is not handed back as unstarted."""
    other = received("m2", "h2")
    table.take_in(other, 0.0)
    assert table.release(lease, only_waiting=True)
    assert not table.start(lease, 1.0)
    assert table.start(other, 1.0)
    assert not table.release(other, only_waiting=True)
    assert table.release(other)


@pytest.mark.parametrize("first", ["end", "release"])
@pytest.mark.parametrize("second", ["end", "release"])
@pytest.mark.parametrize("running", [True, False])
def test_the_first_end_wins(table, lease, first, second, running):
    """A message whose end was decided takes no second verdict."""
    if running:
        table.start(lease, 1.0)
    assert getattr(table, first)(lease)
    assert not getattr(table, second)(lease)


def test_a_lapsed_lease_does_not_start(table, lease):
    """At its expiry, not only after it, another worker may have the message."""
    assert not table.start(lease, 120.0)
    assert lease.state is LeaseState.WAITING
    assert table.start(lease, 119.9)


def test_a_lost_handle_does_not_start(table, lease):
    """A renewal told us that the handle is stale."""
    [_] = table.due_renewals(50.0)
    table.renewal_done(lease, "h1", 50.0, "stale")
    assert not table.start(lease, 60.0)


def test_nothing_starts_after_close(table, lease):
    """Close gives out what has not started, once, and refuses every later start; what runs goes on."""
    running, late = received("m2", "h2"), received("m3", "h3")
    table.take_in(running, 0.0)
    table.start(running, 0.0)
    assert table.close() == [lease]
    assert table.close() == []
    assert lease.state is LeaseState.RELEASING
    assert running.state is LeaseState.RUNNING
    assert table.take_in(late, 1.0) is None
    assert not table.start(late, 1.0)
    assert not table.start(lease, 1.0)
    assert table.end(running)


def test_a_beat_is_due_at_a_third_and_once_at_a_time(table, lease):
    """While a renewal is under way no second one begins; when it is done the next counts from when it was sent."""
    assert table.due_renewals(39.9) == []
    assert table.due_renewals(40.0) == [lease]
    assert table.due_renewals(80.0) == []
    table.renewal_done(lease, "h1", 40.0, "ok")
    assert (lease.expires_at, lease.next_renewal_at) == (160.0, 80.0)
    assert table.due_renewals(80.0) == [lease]


@pytest.mark.parametrize(("visibility", "soon"), [(120, 1.0), (2, 2 / 3)])
def test_a_failed_beat_is_tried_again_soon(table, visibility, soon):
    """After a passing error the renewal is due again after a second, and the expiry stays what it was."""
    lease = received(visibility=visibility)
    table.take_in(lease, 0.0)
    now = visibility / 2
    assert table.due_renewals(now) == [lease]
    table.renewal_done(lease, "h1", now, "failed")
    assert lease.expires_at == visibility
    assert lease.next_renewal_at == pytest.approx(now + soon)


def test_a_stale_handle_stops_the_beat_and_not_the_task(table, lease):
    """The lease is no longer renewed; the message stays where it is and can still end."""
    table.start(lease, 0.0)
    table.due_renewals(40.0)
    table.renewal_done(lease, "h1", 40.0, "stale")
    assert table.due_renewals(90.0) == []
    assert lease.state is LeaseState.RUNNING
    assert table.end(lease)


def test_a_stale_handle_after_a_delete_was_asked_for_is_no_loss(table, lease):
    """The delete came first: the renewal comes to ``ended``, and nothing is renewed that may be gone."""
    table.start(lease, 0.0)
    table.end(lease)
    table.due_renewals(40.0)
    lease.delete_asked_with = "h1"
    assert table.renewal_done(lease, "h1", 40.0, "stale") == "ended"
    assert table.due_renewals(90.0) == []
    # Received again: the delete had not taken effect, and under the new handle none was asked for yet.
    table.take_in(received(handle="h2", at=200.0), 200.0)
    table.due_renewals(240.0)
    assert table.renewal_done(lease, "h2", 240.0, "stale") == "stale"


@pytest.mark.parametrize("state", [LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING])
def test_a_lease_is_renewed_until_its_end_is_confirmed(table, lease, state):
    """Waiting, running and awaiting its delete alike."""
    if state is not LeaseState.WAITING:
        table.start(lease, 0.0)
    if state is LeaseState.ENDING:
        table.end(lease)
    assert table.due_renewals(40.0) == [lease]


def test_no_beat_begins_after_a_release(table, lease):
    """A renewal would overwrite the delay or the hand-back."""
    table.release(lease)
    assert table.due_renewals(119.0) == []


def test_a_release_waits_for_the_beat_under_way(table, lease):
    """await_beat returns only after the renewal's answer is in."""
    table.due_renewals(40.0)
    table.release(lease)
    order = []
    waiter = threading.Thread(target=lambda: (table.await_renewal([lease]), order.append("released")))
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    order.append("answered")
    table.renewal_done(lease, "h1", 40.0, "ok")
    waiter.join(5)
    assert order == ["answered", "released"]
    table.await_renewal([lease])  # and with nothing under way it returns at once


def test_no_renewal_passes_the_twelve_hours(table, lease):
    """The last renewals are shorter, and then there is none, for SQS would refuse the call."""
    lease.expires_at = TWELVE_HOURS  # it was renewed all the while
    assert lease.room_seconds(0.0) == 120
    assert lease.room_seconds(TWELVE_HOURS - 65.0) == 60
    assert lease.room_seconds(TWELVE_HOURS - 5.5) == 0
    assert table.due_renewals(TWELVE_HOURS - 5.5) == []
    assert table.due_renewals(TWELVE_HOURS - 6.0) == [lease]


def test_a_lapsed_lease_is_not_renewed(table, lease):
    """Some servers hide the message again for an old handle: it would never come back with a new one."""
    assert table.due_renewals(119.9) == [lease]
    table.renewal_done(lease, "h1", 119.9, "failed")
    assert table.due_renewals(121.0) == []


def test_a_shortened_renewal_is_not_counted_at_full_length(table, lease):
    """A renewal near the twelve hours asks for less than the visibility timeout, so the lease ends that much sooner."""
    sent_at = TWELVE_HOURS - 65.0
    lease.expires_at = sent_at + 1.0
    assert table.due_renewals(sent_at) == [lease]
    asked = lease.room_seconds(sent_at)
    table.renewal_done(lease, "h1", sent_at, "ok")
    assert lease.expires_at <= sent_at + asked


def test_the_same_message_again_is_no_second_lease(table, lease):
    """Its new handle and the new twelve hours replace the old; its tag, by which Kombu knows it, stays."""
    table.start(lease, 0.0)
    again = received(handle="h2", at=200.0)
    assert table.take_in(again, 200.0) is lease
    assert (lease.receipt_handle, lease.tag, lease.received_at) == ("h2", "h1", 200.0)
    assert (lease.expires_at, lease.next_renewal_at) == (320.0, 240.0)
    assert table.get("h1") is lease
    assert table.get("h2") is None
    assert table.count(LeaseState.RUNNING) == table.count(*LeaseState) == 1


def test_a_received_again_message_waits_and_starts_under_its_new_handle(table, lease):
    """One that waited through an outage may start again once it is ours again."""
    assert not table.start(lease, 150.0)
    table.take_in(received(handle="h2", at=200.0), 200.0)
    assert table.start(lease, 201.0)


def test_a_lost_lease_is_renewed_again_under_its_new_handle(table, lease):
    """The stale handle is history once the message came back here."""
    table.start(lease, 0.0)
    table.due_renewals(40.0)
    table.renewal_done(lease, "h1", 40.0, "stale")
    table.take_in(received(handle="h2", at=200.0), 200.0)
    assert table.due_renewals(240.0) == [lease]


def test_an_answer_about_the_old_handle_is_not_taken_for_the_new(table, lease):
    """A renewal sent before the message came again says nothing about the new handle, whatever its result."""
    for result in ("ok", "stale", "failed"):
        lease.next_renewal_at = 0.0
        assert table.due_renewals(110.0) == [lease]
        old = lease.receipt_handle
        table.take_in(received(handle=f"after-{result}", at=200.0), 200.0)
        table.renewal_done(lease, old, 110.0, result)
        assert (lease.lost, lease.renewing, lease.expires_at, lease.next_renewal_at) == (False, False, 320.0, 240.0)


def test_the_same_message_again_lasts_as_long_as_its_receive_asked_for(table):
    """A task's longer visibility timeout was set by renewals; a new receive starts again with the configured one."""
    lease = received(visibility=120)
    table.take_in(lease, 0.0)
    lease.visibility_timeout_seconds = 3600  # the intake, for a task declared with visibility_timeout=3600
    table.start(lease, 0.0)
    table.take_in(received(handle="h2", at=5000.0, visibility=120), 5000.0)
    assert lease.expires_at <= 5120.0
    assert lease.next_renewal_at <= 5040.0


def test_a_message_that_comes_back_while_it_is_let_go_of_starts_anew(table, lease):
    """That it is here again says that its hand-back worked; the old lease may not change the new receive any more."""
    table.release(lease)
    again = received(handle="h2", at=1.0)
    assert table.take_in(again, 1.0) is None
    assert (lease.state, lease.lost, again.state) == (LeaseState.RELEASING, True, LeaseState.WAITING)
    table.drop(lease)
    assert table.get("h2") is again
    assert table.take_in(received(handle="h3", at=2.0), 2.0) is again
    assert table.start(again, 3.0)


def test_equal_message_ids_on_two_queues_are_two_messages(table, lease):
    """The identity of a message is its queue and its id."""
    other = received(handle="h2", queue=Queue("p", "https://sqs/1/p", "event"))
    assert table.take_in(other, 0.0) is None
    assert table.count(LeaseState.WAITING) == 2


def test_a_dropped_message_can_be_received_again(table, lease):
    """Once it is gone, the same message is a new lease."""
    table.drop(lease)
    assert table.take_in(received(handle="h2"), 0.0) is None
    assert table.count(LeaseState.WAITING) == 1


def test_a_message_whose_request_is_gone_is_handed_back(table, lease):
    """Delivered to Celery and no longer known to it: nothing answers for it."""
    import weakref

    assert table.orphaned(1.0) == []  # in a buffer of ours
    request = SomeRequest()
    lease.request, lease.delivered = weakref.ref(request), True
    assert table.orphaned(1.0) == []  # reserved
    del request
    gc.collect()
    assert table.orphaned(1.0) == [lease]
    assert lease.state is LeaseState.RELEASING
    assert table.orphaned(1.0) == []


def test_a_message_that_celery_never_made_a_request_of_is_handed_back(table, lease):
    """The strategy failed without settling it."""
    lease.delivered = True
    assert table.orphaned(1.0) == [lease]


def test_an_unstarted_message_too_old_for_its_time_limit_is_handed_back(table, lease):
    """A run to its time limit would pass the twelve hours; a running one is left to its end."""
    running = received("m2", "h2", time_limit_seconds=3600.0)
    lease.time_limit_seconds = 3600.0
    table.take_in(running, 0.0)
    table.start(running, 0.0)
    assert table.orphaned(TWELVE_HOURS - 3600.0) == []
    assert table.orphaned(TWELVE_HOURS - 3599.0) == [lease]


def test_every_change_is_told_to_who_waits_for_room(table, lease):
    """Receivers without room hear of each change of a state, under the table's lock, and look again."""
    seen = []
    table.on_change = lambda: seen.append((table.count(LeaseState.WAITING), table.count(LeaseState.RUNNING)))
    for step in (lambda: table.start(lease, 0.0), lambda: table.end(lease), lambda: table.drop(lease), table.close):
        step()
    assert seen == [(0, 1), (0, 0), (0, 0), (0, 0)]
