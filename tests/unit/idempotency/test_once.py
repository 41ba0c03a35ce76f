"""A task under a claim: the decorators and Celery's tracer with a store in memory, one delivery after another."""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import dataclass
from typing import Any

import pytest
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject, Retry

from bridge.celery import app
from bridge.errors import ClaimLost, ObjectChanged, ObjectGone
from bridge.idempotency import claiming
from bridge.idempotency.claiming import Claimer, ClaimingRun, use_claimer
from bridge.idempotency.record import from_json
from bridge.messages.envelope import Delivery, for_event
from bridge.messages.retry_policy import Attempt, decide, is_poison_message, request_retries
from bridge.messages.routing import Rules, ToTask, route
from bridge.messages.verdicts import Delete
from bridge.s3.object import S3Object
from bridge.s3.progress import MAX_BYTES
from bridge.task import registry
from bridge.task.base import BridgeTask, MustWait, NothingToDo
from bridge.task.decorators import file_task, message_task
from bridge.task.registry import declared_routes
from bridge.testing import SPARE_RECEIVES, s3_event
from bridge.worker.failure import failure_of, unwrapped
from tests.unit.idempotency.memory_store import MemoryStore

NAME = "test_once.task"


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Only the tasks of a test are declared in it, and none after it."""
    declared, known = dict(registry._declared), set(app.tasks)
    registry._declared.clear()
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """A completion that the store does not take is given up at once."""
    monkeypatch.setattr(claiming, "COMPLETE_SECONDS", 0.0)


@pytest.fixture
def clock():
    """The time of all claims of a test, seconds."""
    return [1_800_000_000.0]


@pytest.fixture
def store(clock):
    """The store in use."""
    memory = MemoryStore()
    use_claimer(Claimer(memory, ttl_seconds=86_400, clock=lambda: clock[0]))
    return memory


@dataclass(frozen=True)
class Ended:
    """How a run ended: in the parent's words, and with what the parent is told."""

    outcome: str
    reason: str | None = None
    delay_seconds: int | None = None
    result: Any = None
    error: BaseException | None = None
    retries: int = 0

    @property
    def released(self):
        """Whether the parent is told that nothing is left for it to release."""
        return bool(getattr(self.error, "bridge_released", False))


def deliver(event, *, message="m1", receives=1, owner=None):
    """Run a message as a pool child does, and decide as the parent does; the exception goes through pickle to it."""
    raw = {"MessageId": message, "ReceiptHandle": f"h-{message}-{receives}", "Attributes": {}, "MessageAttributes": {}}
    raw["Body"] = event if isinstance(event, str) else json.dumps(event)
    target = route(raw["Body"], {}, Rules(declared_routes(), ("*",)))
    assert isinstance(target, ToTask), target
    task = app.tasks[target.task]
    delivery = Delivery(
        "q",
        "https://sqs/1/q",
        raw["ReceiptHandle"],
        receives,
        request_retries(receives, task.max_retries),
        time.time(),
        message_id=message,
        owner=owner or f"{message}/{receives}/worker/{next(_numbers)}",
    )
    payload = for_event(raw, target, delivery)
    args, kwargs, _ = payload["body"]
    request = {**payload["headers"], "delivery_info": payload["properties"]["delivery_info"], "is_eager": False}
    traced = build_tracer(task.name, task, app=app)(message, args, kwargs, request)
    if not traced.info:
        return Ended("deleted", result=traced.retval)
    error = pickle.loads(pickle.dumps(unwrapped(traced.retval.exception)))  # noqa: S301 - our own bytes
    failure = failure_of(traced.retval, task)
    retries = getattr(error, "bridge_retries", delivery.retries)
    attempt = Attempt(retries, task.max_retries, 0.0, task.backoff_seconds, task.backoff_max_seconds)
    verdict = Delete() if failure is None else decide(failure, attempt, jitter=1.0)
    return Ended(verdict.outcome, verdict.reason, getattr(verdict, "delay_seconds", None), None, error, retries)


_numbers = iter(range(10**9))


def event_of(*keys, sequencer="0A", event_name="ObjectCreated:Put", etag="e"):
    """An event of one record for each key."""
    objects = [S3Object(bucket="b", key=key, etag=etag, sequencer=sequencer, event_name=event_name) for key in keys]
    return s3_event(*objects)


def counting(**options):
    """A task that counts its runs by key, and raises what ``ends`` has for the key, one after the other."""
    runs: list[tuple[str, int]] = []
    ends: dict[str, list[BaseException]] = {}

    @file_task("in/*", name=NAME, bind=True, retry_jitter=False, **options)
    def work(self, obj):
        runs.append((obj.key, self.request.retries))
        if ends.get(obj.key):
            raise ends[obj.key].pop(0)
        return {"key": obj.key}

    return runs, ends


def all_records(store):
    """What the store keeps."""
    return [from_json(stored.text) for stored in store.kept.values()]


def the_record(store):
    """The only record in the store."""
    (record,) = all_records(store)
    return record


# ---- once


def test_a_task_runs_once(store):
    """The first delivery runs and completes; a redelivery and a duplicate are ignored."""
    runs, _ = counting()
    first = deliver(event_of("in/a"))
    assert (first.outcome, first.result) == ("deleted", {"key": "in/a"})
    assert (the_record(store).status, the_record(store).result) == ("completed", {"key": "in/a"})
    for again in (deliver(event_of("in/a"), receives=2), deliver(event_of("in/a"), message="m2")):
        assert (again.outcome, again.reason) == ("ignored", "duplicate")
        assert isinstance(again.error, NothingToDo)
    assert runs == [("in/a", 0)]


def test_another_event_of_the_object_runs(store):
    """A new version, a removal: whatever is not the same event."""
    runs, _ = counting(events="*")
    deliver(event_of("in/a"))
    deliver(event_of("in/a", sequencer="0B", etag="f"), message="m2")
    deliver(event_of("in/a", event_name="ObjectRemoved:Delete"), message="m3")
    assert len(runs) == 3


def test_without_a_store_nothing_is_claimed():
    """And every delivery runs, with the receive count as the count of retries."""
    runs, _ = counting()
    assert deliver(event_of("in/a")).outcome == "deleted"
    assert deliver(event_of("in/a"), receives=3).outcome == "deleted"
    assert runs == [("in/a", 0), ("in/a", 2)]


def test_a_task_can_leave_the_store_alone(store):
    """``idempotent=False``: no call is made."""
    runs, _ = counting(idempotent=False)
    deliver(event_of("in/a"))
    deliver(event_of("in/a"), receives=2)
    assert len(runs) == 2
    assert store.calls == []


def test_plain_calls_and_eager_runs_claim_nothing(store):
    """They are no deliveries."""
    runs, _ = counting()
    obj = S3Object(bucket="b", key="in/a", sequencer="0A")
    task = app.tasks[NAME]
    assert task(obj) == {"key": "in/a"}
    assert task.apply(args=[obj]).get() == {"key": "in/a"}
    assert len(runs) == 2
    assert store.calls == []


def test_two_tasks_claim_the_same_event_each_for_itself(store):
    """The claim is the task's: another name is another work, as after a rename."""
    counting()
    deliver(event_of("in/a"))
    registry._declared.clear()
    runs = []

    @file_task("in/*", name=f"{NAME}2")
    def other(obj):
        runs.append(obj.key)

    assert deliver(event_of("in/a"), message="m2").outcome == "deleted"
    assert runs == ["in/a"]


@pytest.mark.parametrize(
    ("result", "kept"),
    [(None, None), (5, 5), ([1, "ü"], [1, "ü"]), ("x" * 5_000, None), (object, None), (float("nan"), None)],
    ids=["none", "number", "list", "too long", "no JSON", "nan"],
)
def test_a_result_is_kept_where_it_is_small_and_json(store, result, kept):
    """Whatever it is, the run is completed."""

    @file_task("in/*", name=NAME)
    def work(obj):
        return result

    assert deliver(event_of("in/a")).outcome == "deleted"
    assert (the_record(store).status, the_record(store).result) == ("completed", kept)


# ---- failures and retries


def test_autoretry_gives_up_after_exactly_max_retries(store):
    """Failures are counted in the record: hand-backs and lapsed leases in between cost nothing."""
    runs, ends = counting(max_retries=2)
    ends["in/a"] = [RuntimeError("busy")] * 10
    first = deliver(event_of("in/a"), receives=1)
    second = deliver(event_of("in/a"), receives=5)
    last = deliver(event_of("in/a"), receives=9)
    assert [e.outcome for e in (first, second, last)] == ["retried", "retried", "dead_lettered"]
    assert [e.delay_seconds for e in (first, second)] == [2, 4]
    assert last.reason == "exhausted"
    assert [retries for _, retries in runs] == [0, 1, 2]
    assert [e.retries for e in (first, second, last)] == [0, 1, 2]
    assert the_record(store).failures == {"m1": 3}
    assert all(e.released for e in (first, second, last))


def test_a_retry_completes_and_is_done(store):
    """With the count of the failure before; then nothing is left to do."""
    runs, ends = counting(max_retries=3)
    ends["in/a"] = [RuntimeError("busy")]
    assert deliver(event_of("in/a")).outcome == "retried"
    assert deliver(event_of("in/a"), receives=2).outcome == "deleted"
    assert deliver(event_of("in/a"), receives=3).reason == "duplicate"
    assert [retries for _, retries in runs] == [0, 1]


def test_a_redriven_message_starts_anew(store):
    """After its dead letter was sent back it is a new message, with retries of its own."""
    runs, ends = counting(max_retries=1)
    ends["in/a"] = [RuntimeError("busy")] * 4
    assert [deliver(event_of("in/a"), receives=n).outcome for n in (1, 2)] == ["retried", "dead_lettered"]
    assert [deliver(event_of("in/a"), message="m2", receives=n).reason for n in (1, 2)] == [None, "exhausted"]
    assert [retries for _, retries in runs] == [0, 1, 0, 1]


def test_a_permanent_error_releases_its_claim(store):
    """Dead-lettered at once; a redrive after the repair runs it."""
    _, ends = counting(dont_autoretry_for=(ValueError,))
    ends["in/a"] = [ValueError("bad")]
    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.reason, ended.released) == ("dead_lettered", "permanent", True)
    assert (the_record(store).status, the_record(store).failures) == ("released", {"m1": 1})
    assert deliver(event_of("in/a"), message="m2").outcome == "deleted"


def test_retry_by_hand_is_a_failure_too(store):
    """``self.retry(countdown=…)`` keeps its own delay, and counts."""
    runs = []

    @file_task("in/*", name=NAME, bind=True, max_retries=2)
    def work(self, obj):
        runs.append(self.request.retries)
        raise self.retry(countdown=77)

    ended = [deliver(event_of("in/a"), receives=n) for n in (1, 4, 7)]
    assert [e.outcome for e in ended] == ["retried", "retried", "dead_lettered"]
    assert [e.delay_seconds for e in ended[:2]] == [77, 77]
    assert isinstance(ended[0].error, Retry)
    assert runs == [0, 1, 2]
    assert all(e.released for e in ended)


@pytest.mark.parametrize("throw", [True, False])
def test_a_retry_that_celery_publishes_finds_its_event_free(store, monkeypatch, throw):
    """The new message is to do the work, also when the run at hand returns after it was sent (``throw=False``)."""
    sent = []
    monkeypatch.setattr(BridgeTask, "apply_async", lambda self, *args, **options: sent.append(options))

    @file_task("in/*", name=NAME, bind=True)
    def work(self, obj):
        if not sent:
            self.request.bridge["kind"] = "task"  # as on the task queue; on a queue of events nothing is published
            self.retry(countdown=7, priority=3, throw=throw)
        return "done"

    assert deliver(event_of("in/a")).outcome == "deleted"
    assert len(sent) == 1
    assert (the_record(store).status, the_record(store).failures) == ("released", {"m1": 1})
    assert deliver(event_of("in/a"), message="m2").result == "done"


def test_ignore_completes(store):
    """The task said that it is done with the event."""
    runs, ends = counting()
    ends["in/a"] = [Ignore()]
    assert deliver(event_of("in/a")).outcome == "deleted"
    assert the_record(store).status == "completed"
    assert deliver(event_of("in/a"), receives=2).reason == "duplicate"
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Reject("no", requeue=False), "dead_lettered", "rejected"),
        (Reject("later", requeue=True), "handed_back", "requeued"),
        (ObjectGone("gone"), "dead_lettered", "object-gone"),
        (ObjectChanged("overwritten"), "ignored", "superseded"),
    ],
)
def test_ends_that_are_no_failures(store, error, outcome, reason):
    """The claim is released and nothing is counted; the next delivery runs with no retries."""
    runs, ends = counting()
    ends["in/a"] = [error]
    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.reason) == (outcome, reason)
    assert (the_record(store).status, the_record(store).failures) == ("released", {})
    assert deliver(event_of("in/a"), receives=2).outcome == "deleted"
    assert [retries for _, retries in runs] == [0, 0]


def test_an_object_that_may_be_gone_is_ignored(store):
    """With ``missing_ok`` as without a store."""
    _, ends = counting(missing_ok=True)
    ends["in/a"] = [ObjectGone("gone")]
    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.reason) == ("ignored", "object-gone")


# ---- several records


def test_a_message_of_several_records_repeats_only_those_not_done(store):
    """And its result has those of the earlier run in their places."""
    runs, ends = counting(max_retries=3)
    ends["in/b"] = [RuntimeError("busy")]
    event = event_of("in/a", "in/b", "in/c")
    assert deliver(event).outcome == "retried"
    ended = deliver(event, receives=2)
    assert (ended.outcome, ended.result) == ("deleted", [{"key": "in/a"}, {"key": "in/b"}, {"key": "in/c"}])
    assert [key for key, _ in runs] == ["in/a", "in/b", "in/b", "in/c"]
    assert deliver(event, receives=3).reason == "duplicate"


def test_a_busy_record_does_not_keep_the_others_from_running(store, clock):
    """The message waits for it, and then does no more than what is left."""
    runs, _ = counting()
    hold(event_of("in/a"), store, clock)
    event = event_of("in/a", "in/b")
    assert deliver(event, message="m2").reason == "in-progress"
    assert [key for key, _ in runs] == ["in/b"]
    clock[0] += 50_000
    assert deliver(event, message="m2", receives=2).outcome == "deleted"
    assert [key for key, _ in runs] == ["in/b", "in/a"]


def test_a_claim_that_a_run_could_not_end_is_left_to_the_parent(store, clock):
    """Also when another record of the message, busy elsewhere, is what the run ends with."""
    counting()
    hold(event_of("in/a"), store, clock)
    store.fail_next("replace")  # the completion of the second record
    ended = deliver(event_of("in/a", "in/b"), message="m2")
    assert ended.outcome == "retried"
    assert any(from_json(stored.text).owner.startswith("m2/") for stored in store.kept.values())
    assert not ended.released, "its claim on in/b is live, and nobody would release it before its hour is over"


def test_a_lost_completion_is_left_to_the_parent_when_a_later_record_fails(store):
    """The failing record's claim is released by the run, the first one's is not."""
    _, ends = counting()
    ends["in/b"] = [RuntimeError("busy")]
    store.fail_next("replace")
    ended = deliver(event_of("in/a", "in/b"))
    assert ended.outcome == "retried"
    assert not ended.released


# ---- waiting


def hold(event, store, clock, message="m0", seconds=3_600.0):
    """Let another run hold the claim of an event's first record."""
    from bridge.s3.event import parse

    record = parse(json.dumps(event))[0]
    (claim_request,) = app.tasks[NAME].claim_requests(record.to_dict())
    claimer = Claimer(store, ttl_seconds=86_400, clock=lambda: clock[0])
    claim = claimer.acquire(claim_request, ClaimingRun(f"{message}/1/other", message, 1, seconds))
    store.calls.clear()
    return claim


@pytest.mark.parametrize("receives", [1, 2, 3])
def test_a_live_claim_is_waited_for(store, clock, receives):
    """Longer each time; it is no attempt, and never success."""
    runs, _ = counting(max_retries=0)
    hold(event_of("in/a"), store, clock)
    ended = deliver(event_of("in/a"), message="m2", receives=receives)
    assert (ended.outcome, ended.reason) == ("retried", "in-progress")
    assert 1 <= ended.delay_seconds <= 2 * 4 ** (receives - 1)
    assert isinstance(ended.error, MustWait)
    assert ended.released
    assert runs == []
    assert len(store.calls) == 1


@pytest.mark.parametrize("seconds", [3_660.0, 43_260.0], ids=["an hour", "twelve hours"])
def test_a_message_outlasts_a_claim_within_its_receives(store, clock, monkeypatch, seconds):
    """With the shortest waits that chance can bring: looking is no attempt, and must not be taken for killing pods."""
    counting()
    hold(event_of("in/a"), store, clock, seconds=seconds)
    monkeypatch.setattr("bridge.task.idempotent_run.random.uniform", lambda low, high: low)
    receives = 1
    while (ended := deliver(event_of("in/a"), message="m0", receives=receives)).reason == "in-progress":
        clock[0] += ended.delay_seconds
        receives += 1
    assert ended.outcome == "deleted"
    assert not is_poison_message(receives, app.tasks[NAME].max_retries, SPARE_RECEIVES), receives


def test_a_claim_that_has_ended_by_itself_is_taken_over(store, clock):
    """The whole worker died; its checkpoint goes on, and no failure is counted."""
    runs, _ = counting()
    hold(event_of("in/a"), store, clock).save({"part": 2})
    clock[0] += 3_601
    assert deliver(event_of("in/a"), message="m0", receives=2).outcome == "deleted"
    assert runs == [("in/a", 0)]


def test_a_claim_lasts_longer_than_the_hard_limit(store, clock):
    """The task's own, or twelve hours where nothing limits it."""
    claimed = []

    @file_task("in/*", name=NAME, time_limit=900)
    def work(obj):
        claimed.extend(r.claimed_until - clock[0] for r in all_records(store) if r.status == "in-progress")

    deliver(event_of("in/a"))
    assert 910 <= claimed[0] <= 1_000
    work.time_limit = None
    deliver(event_of("in/a", sequencer="0B"), message="m2")
    assert 43_200 < claimed[1] < 43_300


def test_a_run_that_was_overtaken_ends_without_effect(store, clock):
    """It stalled, its claim was taken over: its result counts for nothing, and its message waits for the other run."""
    others = []

    @file_task("in/*", name=NAME)
    def work(obj):
        clock[0] += 50_000
        others.append(hold(event_of("in/a"), store, clock, "m2"))
        return "late"

    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.reason, ended.released) == ("retried", "in-progress", True)
    assert the_record(store).owner == "m2/1/other"
    others[0].complete("theirs")
    assert deliver(event_of("in/a"), receives=2).reason == "duplicate"
    assert the_record(store).result == "theirs"


def test_a_store_that_cannot_be_asked_is_waited_for(store):
    """The task does not run blind; waiting grows, up to an hour, and is no attempt."""
    runs, _ = counting(max_retries=0)
    store.is_down = True
    for receives, longest in ((1, 5), (2, 10), (4, 40), (30, 3600)):
        ended = deliver(event_of("in/a"), receives=receives)
        assert (ended.outcome, ended.reason) == ("retried", "store-unavailable")
        assert longest // 2 <= ended.delay_seconds <= longest
        assert not ended.released  # the claim may have come through
    assert runs == []


def test_a_task_may_run_without_the_store(store):
    """``when_store_fails="run"``: as if there were none."""
    runs, _ = counting(when_store_fails="run")
    store.is_down = True
    ended = deliver(event_of("in/a"), receives=2)
    assert (ended.outcome, ended.result) == ("deleted", {"key": "in/a"})
    assert runs == [("in/a", 1)]


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_completion_that_cannot_be_noted(store, fault):
    """The message waits, for the work would be lost track of; if it came through after all, that is seen then."""
    runs, _ = counting()
    store.fail_next("replace", fault)
    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.reason, ended.released) == ("retried", "store-unavailable", False)
    assert the_record(store).status == ("in-progress" if fault == "before" else "completed")
    if fault == "after":
        assert deliver(event_of("in/a"), receives=2).reason == "duplicate"
        assert len(runs) == 1


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_release_that_cannot_be_noted_is_left_to_the_parent(store, fault):
    """The failure is told all the same; the parent counts it where the run could not."""
    _, ends = counting(max_retries=3)
    ends["in/a"] = [RuntimeError("busy")]
    store.fail_next("replace", fault)
    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.delay_seconds, ended.released) == ("retried", 2, False)
    assert the_record(store).failures == ({} if fault == "before" else {"m1": 1})


def test_a_record_that_cannot_be_read_stops_nothing_else(store):
    """The message waits, the record stays as it is, and other objects go on."""
    runs, _ = counting()
    deliver(event_of("in/a"))
    (record_id,) = store.kept
    store.put(record_id, '{"schema": 2}')
    ended = deliver(event_of("in/a"), receives=2)
    assert (ended.outcome, ended.reason) == ("retried", "store-unavailable")
    assert store.kept[record_id].text == '{"schema": 2}'
    assert deliver(event_of("in/b"), message="m2").outcome == "deleted"
    assert [key for key, _ in runs] == ["in/a", "in/b"]


# ---- keys of one's own, latest_only, messages


def test_what_has_the_same_key_is_done_once(store):
    """Whatever object and event it comes with."""
    runs, _ = counting(idempotency_key=lambda obj: obj.key.rpartition("/")[2])
    assert deliver(event_of("in/x/a")).outcome == "deleted"
    assert deliver(event_of("in/y/a", etag="other"), message="m2").reason == "duplicate"
    assert deliver(event_of("in/y/b"), message="m3").outcome == "deleted"
    assert [key for key, _ in runs] == ["in/x/a", "in/y/b"]


@pytest.mark.parametrize("key", [lambda obj: "", lambda obj: None, lambda obj: 1 / 0])
def test_a_key_that_fails_is_the_tasks_own_error(store, key):
    """Retried like any other, without a claim."""
    runs, _ = counting(idempotency_key=key)
    assert deliver(event_of("in/a")).outcome == "retried"
    assert runs == []
    assert store.kept == {}


def test_latest_only_skips_what_is_older(store):
    """A late event is ignored as outdated, a newer one runs, and both again are nothing new."""
    runs, _ = counting(latest_only=True)
    assert deliver(event_of("in/a", sequencer="0B", etag="2"), message="m2").outcome == "deleted"
    late = deliver(event_of("in/a", sequencer="0A", etag="1"), message="m1")
    assert (late.outcome, late.reason) == ("ignored", "outdated")
    assert deliver(event_of("in/a", sequencer="0C", etag="3"), message="m3").outcome == "deleted"
    assert deliver(event_of("in/a", sequencer="0B", etag="2"), message="m2", receives=2).reason == "outdated"
    assert deliver(event_of("in/a", sequencer="0C", etag="3"), message="m9").reason == "duplicate"
    assert deliver(event_of("in/b", sequencer="0A"), message="m4").outcome == "deleted"
    assert len(runs) == 3


def test_latest_only_lets_one_run_of_an_object_at_a_time(store, clock):
    """So that the older of two cannot finish after the newer."""
    runs, _ = counting(latest_only=True)
    hold(event_of("in/a", sequencer="0A"), store, clock)
    assert deliver(event_of("in/a", sequencer="0B"), message="m2").reason == "in-progress"
    assert runs == []


def test_a_message_task_runs_each_message_once(store):
    """Asked to, by its MessageId; another message with the same body is another one."""
    runs = []

    @message_task(everything=True, name=NAME, idempotent=True)
    def take(msg):
        runs.append(msg.id)
        return msg.body

    assert deliver("hello").result == "hello"
    assert deliver("hello", receives=2).reason == "duplicate"
    assert deliver("hello", message="m2").outcome == "deleted"
    assert runs == ["m1", "m2"]


def test_a_message_task_by_a_key_of_its_own(store):
    """``idempotency_key`` alone is asking for it."""
    runs = []

    @message_task(everything=True, name=NAME, idempotency_key=lambda msg: msg.body)
    def take(msg):
        runs.append(msg.id)

    deliver("hello")
    assert deliver("hello", message="m2").reason == "duplicate"
    assert runs == ["m1"]


def test_a_message_task_claims_nothing_unasked(store):
    """Its messages may be of a kind that is meant to be repeated."""

    @message_task(everything=True, name=NAME)
    def take(msg):
        return None

    deliver("hello")
    assert store.calls == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"idempotent": False, "latest_only": True}, "latest_only=True and idempotent=False contradict"),
        ({"idempotent": False, "idempotency_key": str}, "idempotency_key and idempotent=False contradict"),
        ({"latest_only": True, "idempotency_key": str}, "takes no idempotency_key"),
        ({"idempotency_key": "etag"}, "idempotency_key is a function"),
        ({"when_store_fails": "ignore"}, "must be 'wait' or 'run'"),
    ],
)
def test_options_that_contradict_are_refused(options, words):
    """At import, in one line."""
    with pytest.raises(ValueError, match=words):
        file_task("in/*", name=NAME, **options)


# ---- progress


def test_a_checkpoint_is_there_on_the_next_attempt(store):
    """Saved twice, loaded by the retry, gone when the work is done."""
    loaded = []

    @file_task("in/*", name=NAME)
    def work(obj):
        loaded.append(obj.progress.load())
        if not loaded[-1]:
            obj.progress.save({"part": 1})
            obj.progress.save({"part": 2, "ids": ["a"]})
            assert obj.progress.load() == {"part": 2, "ids": ["a"]}
            raise RuntimeError("busy")

    assert deliver(event_of("in/a")).outcome == "retried"
    assert deliver(event_of("in/a"), receives=2).outcome == "deleted"
    assert loaded == [{}, {"part": 2, "ids": ["a"]}]
    assert the_record(store).progress is None


def test_only_what_was_saved_is_a_checkpoint(store):
    """A loaded one that the task changes and does not save is not kept by the release of its failed run."""
    loaded = []

    @file_task("in/*", name=NAME)
    def work(obj):
        progress = obj.progress.load()
        loaded.append(json.dumps(progress))
        if not progress:
            obj.progress.save({"done": ["a"]})
            obj.progress.load()["done"].append("b, which is not done")
            raise RuntimeError("busy")

    deliver(event_of("in/a"))
    deliver(event_of("in/a"), receives=2)
    assert loaded == ["{}", '{"done": ["a"]}']


def test_each_record_of_a_message_has_its_own_checkpoint(store):
    """And a run without a store keeps it in memory."""
    loaded = []

    @file_task("in/*", name=NAME)
    def work(obj):
        loaded.append(obj.progress.load())
        obj.progress.save({"of": obj.key})
        loaded.append(obj.progress.load())

    deliver(event_of("in/a", "in/b"))
    use_claimer(None)
    deliver(event_of("in/a"), receives=2)
    assert loaded == [{}, {"of": "in/a"}, {}, {"of": "in/b"}, {}, {"of": "in/a"}]


def test_what_cannot_be_a_checkpoint_is_refused(store):
    """Too large, no dict, no JSON: an error at the call, and the one before stays."""
    refused = []

    @file_task("in/*", name=NAME)
    def work(obj):
        room = MAX_BYTES - len('{"a": ""}')
        obj.progress.save({"a": "x" * room})
        for value in ({"a": "x" * (room + 1)}, {"a": "ü" * MAX_BYTES}, ["a"], None, {"a": object()}, {"a": 1e999}):
            try:
                obj.progress.save(value)
            except (TypeError, ValueError) as error:
                refused.append(str(error))
        return len(obj.progress.load()["a"])

    assert deliver(event_of("in/a")).result == MAX_BYTES - 9
    assert len(refused) == 6
    assert "at most 65536 are allowed" in refused[0]


def test_an_overtaken_run_cannot_save(store, clock):
    """It raises ClaimLost in the task, which ends it; the other run's checkpoint stays."""
    seen = []

    @file_task("in/*", name=NAME)
    def work(obj):
        clock[0] += 50_000
        hold(event_of("in/a"), store, clock, "m2").save({"part": 9})
        try:
            obj.progress.save({"part": 1})
        except ClaimLost as error:
            seen.append(str(error))
            raise

    ended = deliver(event_of("in/a"))
    assert (ended.outcome, ended.reason) == ("retried", "in-progress")
    assert seen == ["s3://b/in/a: this run's claim expired and another run has taken it over"]
    assert the_record(store).progress == {"part": 9}


def test_a_store_that_fails_a_save_does_not_end_the_task(store):
    """It may go on and save later; unsaved work is done again, no more."""

    @file_task("in/*", name=NAME)
    def work(obj):
        store.fail_next("replace", "after")
        with pytest.raises(Exception, match="the answer was lost"):
            obj.progress.save({"part": 1})
        obj.progress.save({"part": 2})
        return obj.progress.load()

    assert deliver(event_of("in/a")).result == {"part": 2}
    assert the_record(store).status == "completed"
