"""Settling against a client that answers like boto3 and fails on demand: the order of calls, what counts as done."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from prometheus_client import REGISTRY

from bridge.delivery.heartbeat import Heartbeat
from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.settle_calls import Settlement
from bridge.delivery.settler import Settler
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn
from bridge.sqs.queues import Queue
from tests.support.servers.waiting import wait_until

SECONDS = 5.0
DELETE = "delete_message_batch"
VISIBILITY = "change_message_visibility_batch"
SEND = "send_message"


def error(code, message=""):
    """SQS's refusal of a whole call."""
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


class RecordingSqs:
    """Three calls of an SQS client. Each answers with the next of ``answers`` for it, or else that all went well.

    An answer is an exception to raise, a dict to return, or a function of the call's arguments that returns either.
    """

    def __init__(self):
        self.calls = []
        self.answers = defaultdict(deque)
        self.lock = threading.Lock()

    def names(self):
        """The names of the calls so far, in order."""
        return [name for name, _ in self.calls]

    def handles(self, name):
        """The receipt handles of each call of that name."""
        return [[entry["ReceiptHandle"] for entry in call["Entries"]] for n, call in self.calls if n == name]

    def _answer(self, name, arguments):
        with self.lock:
            self.calls.append((name, arguments))
            answer = self.answers[name].popleft() if self.answers[name] else None
        if callable(answer):
            answer = answer(arguments)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            answer = {"Successful": [{"Id": entry["Id"]} for entry in arguments.get("Entries", [])]}
        return answer

    def delete_message_batch(self, **arguments):
        return self._answer(DELETE, arguments)

    def change_message_visibility_batch(self, **arguments):
        return self._answer(VISIBILITY, arguments)

    def send_message(self, **arguments):
        return self._answer(SEND, arguments)


class Room:
    """A settler at work, with its table, its client and a queue whose counters nobody else touches."""

    def __init__(self, name):
        self.sqs = RecordingSqs()
        self.table = LeaseTable()
        self.freed = []
        self.queue = Queue(name, f"https://sqs/1/{name}", "event", dlq_url="https://sqs/1/dead")
        self.settler = Settler(self.sqs, self.table, worker="pod-1", on_slot_free=lambda: self.freed.append(1))
        self.count = 0

    def hold(self, *, running=True, age_seconds=0.0, visibility=120, message_id=None):
        """A message taken in ``age_seconds`` ago, and started unless it is said otherwise."""
        lease = self.message(age_seconds=age_seconds, visibility=visibility, message_id=message_id)
        assert self.table.take_in(lease, lease.received_at) is None
        if running:
            assert self.table.start(lease, lease.received_at)
        return lease

    def message(self, *, age_seconds=0.0, visibility=120, message_id=None):
        """A receive of a message."""
        self.count += 1
        raw = {"MessageId": message_id or f"m{self.count}", "ReceiptHandle": f"h{self.count}", "Body": "the body"}
        return Lease(
            queue=self.queue,
            raw=raw,
            received_at_epoch=time.time() - age_seconds,
            received_at=time.monotonic() - age_seconds,
            visibility_timeout_seconds=visibility,
        )

    def settled(self, outcome, reason=""):
        """How many messages of this room's queue ended so."""
        labels = {"queue": self.queue.name, "outcome": outcome, "reason": reason}
        return REGISTRY.get_sample_value("bridge_messages_settled_total", labels) or 0

    def lapsed(self):
        """How many leases of this room's queue ended before their message did."""
        return REGISTRY.get_sample_value("bridge_messages_expired_total", {"queue": self.queue.name}) or 0

    def done(self):
        """Wait until nothing is pending, and say whether that came true."""
        return self.settler.flush(SECONDS)


def renewals(result):
    """How many renewals ended so, of this process."""
    return REGISTRY.get_sample_value("bridge_lease_renewals_total", {"result": result}) or 0


@pytest.fixture
def room(request, monkeypatch):
    """A started room that pauses only a moment between tries."""
    monkeypatch.setattr("bridge.delivery.settle_calls.FIRST_PAUSE_SECONDS", 0.005)
    room = Room(request.node.name)
    room.settler.start()
    yield room
    room.settler.stop()


def test_a_delete_counts_when_sqs_confirmed_it(room):
    """Until then the message is ending and renewed; then it is gone and counted."""
    release = threading.Event()
    room.sqs.answers[DELETE].append(lambda _: release.wait(SECONDS) and None)
    lease = room.hold()
    assert room.settler.settle(lease, Delete())
    assert lease.state is LeaseState.ENDING
    assert room.settler.pending == 1
    assert room.table.due_renewals(time.monotonic() + 60) == [lease]
    assert room.settled("deleted") == 0
    release.set()
    assert room.done()
    assert lease.state is LeaseState.GONE
    assert (room.settled("deleted"), room.lapsed(), room.settler.pending) == (1, 0, 0)
    assert room.sqs.calls == [(DELETE, {"QueueUrl": room.queue.url, "Entries": [{"Id": "0", "ReceiptHandle": "h1"}]})]


def test_ten_deletes_are_one_call_with_positions_as_ids(room):
    """MessageIds as entry ids would collide when a message was received twice."""
    for _ in range(10):
        room.settler.settle(room.hold(), Delete("ignored", "test-event"))
    assert room.done()
    assert room.settled("ignored", "test-event") == 10
    [(_, arguments)] = room.sqs.calls
    assert [entry["Id"] for entry in arguments["Entries"]] == [str(n) for n in range(10)]


def test_the_first_verdict_wins(room):
    """A second one, however different, makes no call and frees no place."""
    lease = room.hold()
    assert room.settler.settle(lease, Delete())
    assert not room.settler.settle(lease, DeadLetter("permanent"))
    assert not room.settler.settle(lease, HandBack())
    assert room.done()
    assert room.sqs.names() == [DELETE]
    assert not room.settler.settle(lease, Delete())
    assert room.freed == [1]


@pytest.mark.parametrize("verdict", [Delete(), DeadLetter("permanent"), RetryIn(3, 3), HandBack()])
def test_a_place_is_free_when_its_task_has_ended(room, verdict):
    """At once, not when SQS confirms; a message that never started frees none."""
    hold = threading.Event()
    for name in (DELETE, SEND, VISIBILITY):
        room.sqs.answers[name].append(lambda _: hold.wait(SECONDS) and None)
    room.settler.settle(room.hold(), verdict)
    assert room.freed == [1]
    room.settler.settle(room.hold(running=False), verdict)
    assert room.freed == [1]
    hold.set()
    assert room.done()


def test_a_dead_letter_is_deleted_only_after_it_was_sent(room):
    """Failed sends are repeated, the lease goes on, and the delete comes after the one that was confirmed."""
    room.sqs.answers[SEND].extend([error("ServiceUnavailable"), ReadTimeoutError(endpoint_url="x")])
    states = []
    room.sqs.answers[SEND].append(lambda _: states.append(lease.state))
    lease = room.hold()
    lease.task, lease.attempts = "a.task", 3
    assert room.settler.settle(lease, DeadLetter("exhausted", "ValueError", "bad", "Traceback"))
    assert room.done()
    assert room.sqs.names() == [SEND, SEND, SEND, DELETE]
    assert states == [LeaseState.ENDING]
    arguments = room.sqs.calls[2][1]
    assert (arguments["QueueUrl"], arguments["MessageBody"]) == ("https://sqs/1/dead", "the body")
    cause = arguments["MessageAttributes"]["BridgeCause"]["StringValue"]
    for text in ('"exhausted"', '"ValueError"', '"a.task"', '"m1"', '"pod-1"', f'"{room.queue.name}"', '"attempts": 3'):
        assert text in cause
    assert room.settled("dead_lettered", "exhausted") == 1


def test_a_dead_letter_is_not_sent_again_when_only_its_delete_fails(room):
    """The send was confirmed: what is tried again is the delete alone."""
    room.sqs.answers[DELETE].extend([error("ServiceUnavailable")] * 2)
    room.settler.settle(room.hold(), DeadLetter("permanent"))
    assert room.done()
    assert room.sqs.names() == [SEND, DELETE, DELETE, DELETE]
    assert room.settled("dead_lettered", "permanent") == 1


def test_a_dead_letter_stays_renewed_until_its_delete_is_confirmed(room):
    """From the first send to the last delete the heartbeat answers for it."""
    lease = room.hold()
    due = []
    look = lambda _: due.append(lease in room.table.due_renewals(lease.next_renewal_at))  # noqa: E731 - used twice
    answered = lambda _: room.table.renewal_done(lease, lease.receipt_handle, time.monotonic(), "ok")  # noqa: E731 - twice
    room.sqs.answers[SEND].append(lambda a: (look(a), answered(a), None)[-1])
    room.sqs.answers[DELETE].append(lambda a: (look(a), answered(a), None)[-1])
    room.settler.settle(lease, DeadLetter("permanent"))
    assert room.done()
    assert due == [True, True]


@pytest.mark.parametrize("answer", ["before the delete's", "after the delete's"])
def test_a_renewal_that_comes_to_sqs_after_the_delete_tells_of_no_loss(room, caplog, answer):
    """Renewals go on until the delete is confirmed, so their handle may be stale by then: nothing was lost."""
    lease, other = room.hold(), room.hold()
    lease.next_renewal_at = 0.0
    heart = Heartbeat(room.sqs, room.table, lambda _: None, renew=True)

    def late(_):
        # The renewal is with SQS when the delete is sent.
        if answer == "after the delete's":
            room.settler.settle(lease, Delete())
            assert room.done()
        else:
            room.sqs.answers[DELETE].append(lambda _: beaten.wait(SECONDS) and None)
            room.settler.settle(lease, Delete())
            wait_until(lambda: DELETE in room.sqs.names(), SECONDS, "the delete on its way")
        return {"Failed": [{"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": ""}]}

    beaten = threading.Event()
    room.sqs.answers[VISIBILITY].append(late)
    ended, stale = (renewals(result) for result in ("ended", "stale"))
    heart.beat()
    beaten.set()
    assert room.done()
    assert (renewals("ended"), renewals("stale")) == (ended + 1, stale)
    assert (room.settled("deleted"), room.lapsed()) == (1, 0)
    assert "lease_lost" not in caplog.text
    # The same answer for a message that still runs is a loss, and is told of.
    other.next_renewal_at = 0.0
    room.sqs.answers[VISIBILITY].append({"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "Message": ""}]})
    heart.beat()
    assert renewals("stale") == stale + 1
    assert "lease_lost" in caplog.text


@pytest.mark.parametrize(
    ("answer", "comes_to"),
    [
        (error("AccessDenied"), "stale"),
        ({"Failed": [{"Id": "0", "Code": "InternalError"}]}, "stale"),
        ({}, "ended"),
        (ReadTimeoutError(endpoint_url="u"), "ended"),
    ],
    ids=["refused", "failed", "not answered", "timed out"],
)
def test_after_a_delete_that_sqs_refused_a_stale_renewal_tells_of_a_loss(room, answer, comes_to):
    """A refused delete took no effect, so the message is another's; of one without an answer nobody knows."""
    room.sqs.answers[DELETE].append(answer)
    lease = room.hold()
    heart = Heartbeat(room.sqs, room.table, lambda _: None, renew=True)
    go_on = threading.Event()
    room.sqs.answers[DELETE].append(lambda _: go_on.wait(SECONDS) and None)
    before = renewals(comes_to)
    meanwhile = []

    def renew():
        # The delete that is tried again is not sent yet when the renewal is answered.
        lease.next_renewal_at = 0.0
        room.sqs.answers[VISIBILITY].append({"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "Message": ""}]})
        heart.beat()
        meanwhile.append(renewals(comes_to))

    original = Settlement.again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settlement, "again", lambda self: (renew(), original(self))[-1])
        room.settler.settle(lease, Delete())
        wait_until(lambda: meanwhile, SECONDS, "the renewal")
        go_on.set()
        assert room.done()
    assert meanwhile == [before + 1]


@pytest.mark.parametrize("verdict", [RetryIn(30, 30), HandBack("requeued")])
def test_no_visibility_change_while_a_renewal_is_under_way(room, verdict):
    """A renewal that arrived later would overwrite it: the call is made only after the renewal's answer."""
    lease = room.hold()
    sent_at = time.monotonic() + 60
    assert room.table.due_renewals(sent_at) == [lease]
    assert room.settler.settle(lease, verdict)
    assert not room.settler.flush_hand_backs(0.1)
    assert room.sqs.calls == []
    assert room.table.due_renewals(sent_at + 60) == []
    room.table.renewal_done(lease, lease.receipt_handle, sent_at, "ok")
    assert room.settler.flush_hand_backs(SECONDS)
    assert room.sqs.names() == [VISIBILITY]


def test_a_retry_hides_the_message_for_its_delay(room):
    """The delay is the entry's VisibilityTimeout, cut again to what SQS allows at this moment."""
    old = room.hold(running=False, age_seconds=3000.0, visibility=3600)
    room.settler.settle(room.hold(), RetryIn(30, 30))
    assert room.done()
    room.settler.settle(old, RetryIn(43_195, 50_000))
    assert room.done()
    timeouts = [call["Entries"][0]["VisibilityTimeout"] for _, call in room.sqs.calls]
    assert timeouts[0] == 30
    assert 43_195 - 3000 - 3 <= timeouts[1] <= 43_195 - 3000
    assert room.settled("retried") == 2


def test_a_hand_back_is_visible_at_once(room):
    """VisibilityTimeout 0, counted with its reason."""
    room.settler.settle(room.hold(running=False), HandBack("draining"))
    assert room.done()
    assert room.sqs.calls[0][1]["Entries"] == [{"Id": "0", "ReceiptHandle": "h1", "VisibilityTimeout": 0}]
    assert room.settled("handed_back", "draining") == 1


def test_what_the_table_already_released_is_carried_out(room):
    """A close marks what waits; each of these is handed back without a further decision."""
    for _ in range(3):
        room.hold(running=False)
    for lease in room.table.close():
        room.settler.carry_out(lease, HandBack("draining"))
    assert room.settler.flush_hand_backs(SECONDS)
    assert room.settled("handed_back", "draining") == 3
    assert room.table.count(*LeaseState) == 0


@pytest.mark.parametrize(
    ("name", "verdict", "outcome"),
    [(DELETE, Delete(), "deleted"), (VISIBILITY, HandBack(), "handed_back")],
)
def test_only_failed_entries_are_tried_again(room, name, verdict, outcome):
    """Of a batch the failed and the unanswered entries come again; those confirmed do not."""
    answer = {
        "Successful": [{"Id": "0"}, {"Id": "2"}],
        "Failed": [{"Id": "1", "Code": "InternalError", "Message": "", "SenderFault": False}],
    }
    room.sqs.answers[name].append(lambda a: answer if len(a["Entries"]) == 4 else error("Split"))
    leases = [room.hold() for _ in range(4)]
    for lease in leases:
        room.table.end(lease) if isinstance(verdict, Delete) else room.table.release(lease)
    with room.settler._deletes._condition, room.settler._visibility._condition:  # so that they go as one batch
        for lease in leases:
            room.settler.carry_out(lease, verdict)
    assert room.done()
    assert room.sqs.handles(name)[0] == ["h1", "h2", "h3", "h4"]
    assert sorted(h for call in room.sqs.handles(name)[1:] for h in call) == ["h2", "h4"]
    assert room.settled(outcome) == 4


STALE = [
    {"Code": "ReceiptHandleIsInvalid", "Message": "The input receipt handle is invalid."},
    {"Code": "AWS.SimpleQueueService.MessageNotInflight", "Message": ""},
    {"Code": "InvalidParameterValue", "Message": "Value x for parameter ReceiptHandle is invalid. Reason: expired."},
]


@pytest.mark.parametrize("failed", STALE)
@pytest.mark.parametrize(("name", "verdict"), [(DELETE, Delete()), (VISIBILITY, RetryIn(1, 1))])
def test_a_stale_handle_is_no_settlement(room, name, verdict, failed):
    """The message is no longer ours: nothing is claimed for it, and nothing is tried again."""
    room.sqs.answers[name].append({"Failed": [{"Id": "0", "SenderFault": True, **failed}]})
    lease = room.hold()
    room.settler.settle(lease, verdict)
    assert room.done()
    assert room.sqs.names() == [name]
    assert (lease.state, room.lapsed(), room.settled(verdict.outcome)) == (LeaseState.GONE, 1, 0)


def test_a_delete_confirmed_after_the_lease_lapsed_is_not_claimed(room):
    """Another worker may have received it since, and then a delete with our handle succeeds without deleting."""
    room.settler.settle(room.hold(age_seconds=10.0, visibility=6), Delete())
    lost = room.hold()
    room.table.due_renewals(time.monotonic() + 60)
    room.table.renewal_done(lost, lost.receipt_handle, time.monotonic(), "stale")
    room.settler.settle(lost, Delete())
    assert room.done()
    assert (room.lapsed(), room.settled("deleted"), room.table.count(*LeaseState)) == (2, 0, 0)


def test_received_again_during_the_delete_means_again_with_the_new_handle(room):
    """The answer is about the old handle; the call is made once more, and only that one counts."""
    lease = room.hold()

    def meanwhile(_):
        again = room.message(message_id="m1")
        assert room.table.take_in(again, again.received_at) is lease

    room.sqs.answers[DELETE].append(meanwhile)
    room.settler.settle(lease, Delete())
    assert room.done()
    assert room.sqs.handles(DELETE) == [["h1"], ["h2"]]
    assert (room.settled("deleted"), room.lapsed()) == (1, 0)


def test_handed_back_and_received_again_before_the_answer_is_a_new_message(room):
    """The quickest receiver may be our own: its new lease is not touched by the old one's end."""
    news = []

    def meanwhile(_):
        news.append(room.message(message_id="m1"))
        assert room.table.take_in(news[0], news[0].received_at) is None

    room.sqs.answers[VISIBILITY].append(meanwhile)
    room.settler.settle(room.hold(), HandBack())
    assert room.done()
    assert room.sqs.handles(VISIBILITY) == [["h1"]]
    assert (room.settled("handed_back"), room.lapsed()) == (1, 0)
    assert room.table.in_state(LeaseState.WAITING) == news


def test_a_visibility_change_not_yet_sent_is_dropped_when_its_message_is_here_again(room):
    """It would hide or show the new receive; the others of its batch are carried out, and nothing stays pending."""
    leases = [room.hold() for _ in range(3)]
    sent_at = time.monotonic() + 60
    assert len(room.table.due_renewals(sent_at)) == 3  # a renewal under way keeps the changes waiting
    with room.settler._visibility._condition:  # so that they go as one batch
        for lease in leases:
            room.settler.settle(lease, RetryIn(30, 30))
    again = room.message(message_id=leases[1].message_id)
    assert room.table.take_in(again, again.received_at) is None
    for lease in leases:
        room.table.renewal_done(lease, lease.receipt_handle, sent_at, "ok")
    flushed = room.settler.flush_hand_backs(1.0)
    assert room.sqs.handles(VISIBILITY) == [["h1", "h3"]]
    assert (room.settled("retried"), room.lapsed()) == (2, 1)
    assert room.table.in_state(LeaseState.WAITING) == [again]
    assert (flushed, room.settler.pending) == (True, 0)


def test_received_again_before_the_call_means_the_new_handle_alone(room):
    """A message that came again while its task ran is deleted by its newest handle."""
    lease = room.hold(age_seconds=10.0, visibility=6)
    again = room.message(message_id="m1")
    assert room.table.take_in(again, again.received_at) is lease
    room.settler.settle(lease, Delete())
    assert room.done()
    assert room.sqs.handles(DELETE) == [["h2"]]
    assert (room.settled("deleted"), room.lapsed()) == (1, 0)


def test_a_dead_letter_received_again_during_its_send_is_deleted_by_the_new_handle(room):
    """The copy that came back must not outlive the dead letter."""
    lease = room.hold()

    def meanwhile(_):
        again = room.message(message_id="m1")
        assert room.table.take_in(again, again.received_at) is lease

    room.sqs.answers[SEND].append(meanwhile)
    room.settler.settle(lease, DeadLetter("permanent"))
    assert room.done()
    assert (room.sqs.names(), room.sqs.handles(DELETE)) == ([SEND, DELETE], [["h2"]])


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        (VISIBILITY, RetryIn(5, 5), "retried"),
        (VISIBILITY, HandBack("draining"), "draining"),
        (SEND, DeadLetter("exhausted"), "exhausted"),
        (SEND, DeadLetter("permanent", "ValueError", "bad"), "permanent"),
    ],
)
def test_what_cannot_be_settled_before_the_lease_ends_is_given_up(room, name, verdict, reason):
    """SQS gives the message to somebody by itself: counted as settle_failed, and never deleted."""
    room.sqs.answers[name].append(error("ServiceUnavailable"))
    lease = room.hold(age_seconds=10.0, visibility=6)
    room.settler.settle(lease, verdict)
    assert room.done()
    assert room.sqs.names() == [name]
    assert (lease.state, room.settled("settle_failed", reason)) == (LeaseState.GONE, 1)


@pytest.mark.parametrize(
    ("name", "verdict"), [(DELETE, Delete()), (VISIBILITY, RetryIn(5, 5)), (SEND, DeadLetter("permanent"))]
)
@pytest.mark.parametrize("failure", [error("AccessDenied"), error("RequestThrottled"), ConnectionResetError("peer")])
def test_any_failure_of_a_call_is_tried_again_while_the_lease_lasts(room, name, verdict, failure):
    """403, throttling and a broken connection cost tries and no message."""
    room.sqs.answers[name].extend([failure] * 3)
    room.settler.settle(room.hold(), verdict)
    assert room.done()
    assert room.sqs.names().count(name) == 4
    assert room.settled(verdict.outcome, verdict.reason or "") == 1


def test_flush_covers_dead_letters_and_their_deletes(room):
    """When it returns, nothing of any kind is pending; with no time it says so."""
    hold = threading.Event()
    room.sqs.answers[SEND].append(lambda _: hold.wait(SECONDS) and None)
    for verdict in (Delete(), RetryIn(1, 1), DeadLetter("permanent")):
        room.settler.settle(room.hold(), verdict)
    assert not room.settler.flush(0.05)
    hold.set()
    assert room.done()
    assert room.settler.pending == 0
    assert room.table.count(*LeaseState) == 0
