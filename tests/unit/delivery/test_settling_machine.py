"""Leases, settling and deletes under any interleaving, against an SQS that fails, delays and loses answers.

Each call to SQS may be refused, lose its answer or fail in part, and while its caller waits anything else may happen:
the clock goes on, another worker receives, a task ends, the heartbeat beats, another thread of a lane makes its call.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.delivery.lease import LeaseState
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn
from bridge.testing import s3_event
from tests.unit.delivery.fake_sqs import Clock, FakeSqs, Plan
from tests.unit.delivery.stepped_worker import HOLD_SECONDS, QUEUES, SteppedWorker

TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}
VERDICTS = (Delete(), RetryIn(2, 2.0), RetryIn(600, 600.0), DeadLetter("permanent"), HandBack("requeued"))
KINDS = ("plain", "plain", "slow", "quick", "quick", "malformed", "test event")
MEANWHILE = (
    *("1 s", "7 s", "receive", "lapse and receive", "another worker", "beat", "main loop", "close"),
    *("task ends", "task fails", "task fails at once", "delete", "visibility", "dead-letter"),
)
HELD = (LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING, LeaseState.RELEASING)
queues = st.sampled_from(QUEUES)
plans = st.tuples(
    st.sampled_from(["none", "none", "lost", "refused", "throttled"]),
    st.just(frozenset()) | st.frozensets(st.integers(0, 4), max_size=2),
    st.lists(st.sampled_from(MEANWHILE), max_size=3),
    st.lists(st.sampled_from(MEANWHILE), max_size=2),
)


class SettlingMachine(RuleBasedStateMachine):
    """One worker, two queues, and other workers that take and delete messages too."""

    stale = "fails"

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.sqs = FakeSqs(self.clock, self.stale, HOLD_SECONDS)
        self.worker = SteppedWorker(self.sqs, self.clock)
        self.sent = []

    def teardown(self):
        """Whatever happened, it ends well."""
        try:
            if sys.exc_info()[0] is None:
                self.everything_ends()
        finally:
            self.worker.undo()

    def do(self, *names):
        """Let threads make their turns, tasks end, the clock go on: in a call to SQS, or between two."""
        worker = self.worker
        actions = {
            "1 s": partial(self.pass_time, 1.0),
            "7 s": partial(self.pass_time, 7.0),
            "receive": lambda: [worker.receive(queue, 10) for queue in QUEUES],
            "lapse and receive": partial(self.do, *["7 s"] * 5, "receive"),
            "another worker": lambda: [self.another_worker(queue, deletes=False) for queue in QUEUES],
            "beat": worker.beat,
            "task ends": partial(worker.end, Delete()),
            "task fails": partial(worker.end, RetryIn(5, 5.0)),
            "task fails at once": partial(self.do, "task fails", "visibility"),
            "main loop": worker.main_loop,
            "close": worker.close,
        }
        for name in names:
            (actions.get(name) or partial(worker.step, name))()

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=12))
    def at_work(self, kinds):
        """The worker has work to begin with."""
        self.send(QUEUES[0], kinds)
        self.work()

    @rule(queue=queues, kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=12))
    def send(self, queue, kinds):
        """S3 sends messages."""
        for kind in kinds:
            number = len(self.sent)
            event = TEST_EVENT | {"n": number} if kind == "test event" else s3_event(f"{kind}/{number}")
            body = f"garbage {number}" if kind == "malformed" else json.dumps(event)
            self.sent.append(self.sqs.send(queue.url, body))

    @rule()
    def work(self):
        """The worker receives all it can get, and starts what it can."""
        for queue in QUEUES:
            self.worker.receive(queue, 10)
        self.worker.main_loop()

    @rule(queue=queues, count=st.integers(1, 10))
    def receive(self, queue, count):
        """The worker receives whatever is visible, for the first time or again."""
        self.worker.receive(queue, count)

    @rule(queue=queues, count=st.integers(1, 10))
    def receive_and_lose_the_answer(self, queue, count):
        """SQS has handed out messages that nobody knows of."""
        self.sqs.receive(queue.url, count, 30)

    @rule(queue=queues, deletes=st.booleans())
    def another_worker(self, queue, deletes):
        """Another worker receives what is visible, and may be done with it at once."""
        for raw in self.sqs.receive(queue.url, 10, 30):
            if deletes:
                self.sqs.delete(queue.url, raw["ReceiptHandle"])

    @rule(verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=3), position=st.integers(0, 2))
    def tasks_end(self, verdicts, position):
        """Tasks return, fail, give up or ask for their messages to be handed back."""
        for verdict in verdicts:
            self.worker.end(verdict, position)

    @rule(verdict=st.sampled_from(VERDICTS))
    def mishaps(self, verdict):
        """Celery loses requests, one waiting message is revoked, and what was decided is decided again."""
        worker = self.worker
        worker.main_loop(loses_requests=True)
        worker.run_queue.forget()
        for lease in worker.table.in_state(LeaseState.WAITING)[:1]:
            assert worker.settler.settle(lease, Delete("ignored", "revoked"))
        for lease in worker.verdicts:
            assert not worker.settler.settle(lease, verdict)
        worker.heartbeat.sweep()
        assert not worker.table.in_state(LeaseState.WAITING)

    @rule(caller=st.sampled_from(["delete", "visibility", "dead-letter"]), plan=plans)
    def lane_calls(self, caller, plan):
        """A thread of a lane takes a due batch, if there is one, and something may happen meanwhile."""
        self.clock.now += 0.125
        self.call(caller, *plan)

    @rule(plan=plans)
    def heartbeat_calls(self, plan):
        """A renewal has become due, and something may happen while it is under way."""
        renewed = [lease for lease in self.worker.held() if lease.state is not LeaseState.RELEASING and not lease.lost]
        self.clock.now = max(self.clock.now, min((lease.next_renewal_at for lease in renewed), default=0.0))
        self.call("beat", *plan)

    def call(self, caller, fault, failed, before, after):
        """Let a thread make its turn; its first call goes as planned."""
        self.sqs.plans.append(Plan(fault, failed, partial(self.do, *before), partial(self.do, *after)))
        self.do(caller)
        self.sqs.plans.clear()

    @rule()
    def every_thread_makes_a_turn(self):
        """As all of them do all the time."""
        self.clock.now += 0.125
        self.do("beat", "visibility", "dead-letter", "delete")

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0, 11.0, 40.0, 250.0]))
    def pass_time(self, seconds):
        """The clock goes on, and no thread of ours with it."""
        self.clock.now += seconds

    @rule()
    def outage(self):
        """SQS cannot be reached, or can be again."""
        self.sqs.outage = not self.sqs.outage

    @precondition(lambda self: len(self.worker.verdicts) > 10)
    @rule()
    def close(self):
        """The drain begins."""
        self.worker.close()

    @precondition(lambda self: self.worker.table.closed)
    @rule()
    def drain_budget_ends(self):
        """What still runs is stopped and handed back."""
        self.worker.stop_running()

    @rule(seconds=st.integers(1, 70))
    def beats_go_through(self, seconds):
        """While SQS answers, no lease lapses that is neither being let go of nor confirmed, however long that takes."""
        self.heal()
        table = self.worker.table
        kept = [
            lease
            for lease in table.in_state(LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING)
            # A renewal that failed just now is tried again after a second.
            if not lease.lost and self.clock.now + 2 < lease.expires_at and lease.room_seconds(self.clock.now + 70) > 0
        ]
        for _ in range(2 * seconds):
            self.worker.beat()
            self.clock.now += 0.5
            assert all(self.is_ours(lease) for lease in kept)

    def heal(self):
        """From now on SQS answers at once."""
        self.sqs.outage = False
        self.sqs.plans.clear()

    def everything_ends(self):
        """SQS is well again, tasks return: the worker ends all it holds and, if not draining, empties the queues."""
        self.heal()
        worker = self.worker
        for turn in range(400):
            if not worker.held() and (worker.table.closed or not any(self.sqs.queues.get(q.url) for q in QUEUES)):
                break
            if turn > 20 and not worker.held():
                self.clock.now = max(self.clock.now, self.next_visible())
            self.clock.now += 0.5
            worker.beat()
            worker.heartbeat.sweep()
            for queue in () if worker.table.closed else QUEUES:
                worker.receive(queue, 10)
            worker.main_loop()
            while worker.running:
                worker.end(Delete())
            for name in ("visibility", "dead-letter", "delete", "delete"):
                worker.step(name)
        assert not worker.held()
        assert worker.settler.pending == 0
        self.contract()
        waiting = {message.id for queue in QUEUES for message in self.sqs.queues.get(queue.url, [])}
        assert {message.id for message in self.sent} == waiting | self.sqs.deleted.keys()
        assert worker.table.closed or not waiting

    def next_visible(self):
        """When the next message can be received."""
        return min(message.visible_at for queue in QUEUES for message in self.sqs.queues.get(queue.url, []))

    @invariant()
    def contract(self):
        """One invariant of all, so that a failure's steps stay readable."""
        assert not self.worker.watch.violations
        self.each_message_is_in_one_state()
        self.what_was_decided_is_on_a_lane()
        self.the_sum_is_right()
        self.a_lease_believed_live_is_live()

    def each_message_is_in_one_state(self):
        """The states' lists are disjoint, a message has one lease at most that is not being let go of."""
        held = self.worker.held()
        assert len(held) == len(set(held)) == sum(self.worker.table.count(state) for state in HELD)
        at_work = [lease.message_id for lease in held if lease.state is not LeaseState.RELEASING]
        assert len(at_work) == len(set(at_work))

    def what_was_decided_is_on_a_lane(self):
        """And what runs is what the pool has: nothing is in neither place."""
        table = self.worker.table
        assert self.worker.settler.pending == table.count(LeaseState.ENDING, LeaseState.RELEASING)
        assert set(table.in_state(LeaseState.RUNNING)) == {run.lease for run in self.worker.running}

    def the_sum_is_right(self):
        """Received = settled + lapsed + held."""
        counted = self.worker.counted
        assert counted("received") == counted("settled") + counted("lapsed") + len(self.worker.held())

    def a_lease_believed_live_is_live(self):
        """What we believe to hold is hidden from all others, or deleted."""
        for lease in self.worker.table.in_state(LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING):
            if not lease.lost and self.clock.now < lease.expires_at:
                assert self.is_ours(lease)

    def is_ours(self, lease):
        """Nobody else can have the message now: it is hidden under our handle, or deleted with it."""
        return self.sqs.holds(lease.receipt_handle) or self.sqs.deleted.get(lease.message_id) == lease.receipt_handle


class SettlingWithSilentLapses(SettlingMachine):
    """The same where SQS answers a visibility change with an expired handle as a success that changes nothing."""

    stale = "ignored"


TestSettling = SettlingMachine.TestCase
TestSettlingWithSilentLapses = SettlingWithSilentLapses.TestCase
# Without Phase.explain, which traces every line (on Python 3.11) and takes minutes.
TestSettling.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, phases=(Phase.reuse, Phase.generate, Phase.shrink)
)
TestSettlingWithSilentLapses.settings = TestSettling.settings
