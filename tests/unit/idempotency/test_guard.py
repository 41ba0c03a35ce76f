"""A claim's own limits, and letting go of claims on behalf of runs that are gone."""

from __future__ import annotations

import threading
import time

import pytest

from bridge.errors import ClaimLost, StoreUnavailable
from bridge.idempotency import claiming
from bridge.idempotency.claiming import MAX_RESULT_BYTES, TRIES, Claim, Claimer, ClaimingRun, use_claimer
from bridge.idempotency.identity import of_key
from bridge.idempotency.record import from_json
from bridge.idempotency.store import Refused
from bridge.idempotency.transitions import Done
from bridge.worker.claim_release import MOST_WAITING, Release, Releases, release_all, release_now
from tests.support.servers.waiting import wait_until
from tests.unit.idempotency.memory_store import MemoryStore

WISH = of_key("tests.task", "k")
RUN = ClaimingRun("m1/1/w", "m1", 1, 60.0)


@pytest.fixture
def store():
    """The store in use."""
    memory = MemoryStore()
    use_claimer(Claimer(memory, ttl_seconds=86_400))
    return memory


@pytest.fixture
def claimer(store):
    """Another claimer on it, as another worker has one."""
    return Claimer(store, ttl_seconds=86_400)


def record_of(store, claim_request=WISH):
    """What is kept."""
    return from_json(store.kept[claim_request.id].text)


def test_a_completion_is_tried_again_for_a_while(claimer, store, monkeypatch):
    """The work is done: a store that is away for a moment must not have it done again."""
    pauses = []
    monkeypatch.setattr(claiming.time, "sleep", pauses.append)
    claim = claimer.acquire(WISH, RUN)
    store.fail_next("replace", times=5)
    claim.complete({"rows": 1})
    assert claimer.acquire(WISH, ClaimingRun("m2/1/w", "m2", 1, 60.0)) == Done({"rows": 1})
    assert len(pauses) == 5
    assert all(pause <= 8 for pause in pauses)


def test_a_completion_is_not_tried_for_ever(claimer, store, monkeypatch):
    """About a minute, whatever the store does."""
    now = [0.0]
    monkeypatch.setattr(claiming.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claiming.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    claim = claimer.acquire(WISH, RUN)
    store.is_down = True
    with pytest.raises(StoreUnavailable):
        claim.complete(None)
    assert 50 <= now[0] <= 60


def test_a_lost_claim_is_not_tried_again(claimer, store):
    """Taken over is taken over: no waiting, and nothing is written."""
    claim = claimer.acquire(WISH, ClaimingRun("m1/1/w", "m1", 1, -1.0))
    other = claimer.acquire(WISH, ClaimingRun("m2/1/w", "m2", 1, 60.0))
    kept = store.kept[WISH.id]
    for change in (
        lambda: claim.complete(1),
        lambda: claim.save({"a": 1}),
        lambda: claim.release(failed=True),
    ):
        with pytest.raises(ClaimLost, match="k: this run's claim expired and another run has taken it over"):
            change()
    assert store.kept[WISH.id] == kept
    other.complete(None)


def test_a_record_that_has_vanished_is_a_lost_claim(claimer, store):
    """A lifecycle rule of a day under a run of two: its completion must not pass for written."""
    claim = claimer.acquire(WISH, RUN)
    store.kept.clear()
    with pytest.raises(ClaimLost):
        claim.complete(None)
    assert store.kept == {}


@pytest.mark.parametrize("size", [MAX_RESULT_BYTES - 2, MAX_RESULT_BYTES - 1])
def test_results_up_to_the_limit_are_kept(claimer, store, size):
    """The record is no place for data."""
    claimer.acquire(WISH, RUN).complete("x" * size)
    assert record_of(store).result == ("x" * size if size + 2 <= MAX_RESULT_BYTES else None)


class Restless(MemoryStore):
    """Every record has just been changed when it is written."""

    def create(self, record_id, text, expires_at):
        self.calls.append(("create", record_id))
        return Refused()

    def replace(self, record_id, text, tag, expires_at):
        return self.create(record_id, text, expires_at)


def test_a_record_that_never_rests_is_unavailable():
    """A few tries, each with a new read, and no guess in the end."""
    store = Restless()
    claimer = Claimer(store, ttl_seconds=86_400)
    with pytest.raises(StoreUnavailable, match=f"changed {TRIES} times"):
        claimer.acquire(WISH, RUN)
    assert store.kept == {}
    assert len([call for call in store.calls if call[0] == "create"]) == TRIES


def test_the_end_of_a_claim_and_of_its_record(store):
    """Reckoned from the claimer's clock."""
    claimer = Claimer(store, ttl_seconds=100_000, clock=lambda: 1_000.5)
    claimer.acquire(WISH, RUN)
    assert record_of(store).claimed_until == 1_060.5
    assert record_of(store).expires_at == 101_000


# ---- on behalf of runs that are gone


def test_a_lost_run_is_released_and_counted(claimer, store):
    """By its token: the count of its message is told, and the claim is free."""
    claimer.acquire(WISH, RUN)
    assert release_now(Release(lambda: [WISH], RUN, failed=True)) == 1
    again = claimer.acquire(WISH, ClaimingRun("m1/2/w", "m1", 2, 60.0))
    assert isinstance(again, Claim)
    assert again.retries == 1
    assert not again.took_over


def test_only_the_runs_own_claims_are_released(claimer, store):
    """Of a message of several records: those that it holds, and no other run's."""
    others, done, absent = (of_key("tests.task", key) for key in ("others", "done", "absent"))
    claimer.acquire(WISH, RUN)
    claimer.acquire(others, ClaimingRun("m2/1/w", "m2", 1, 60.0))
    claimer.acquire(done, RUN).complete(None)
    assert release_now(Release(lambda: [others, WISH, done, absent], RUN, failed=True)) == 1
    assert [record_of(store, claim_request).status for claim_request in (WISH, others, done)] == [
        "released",
        "in-progress",
        "completed",
    ]
    assert absent.id not in store.kept
    assert release_now(Release(lambda: [others, WISH, done, absent], RUN, failed=True)) is None


def test_without_a_store_there_is_nothing_to_release():
    """And no error."""
    use_claimer(None)
    assert release_now(Release(lambda: [WISH], RUN, failed=True)) is None


def test_the_message_is_told_when_its_claim_is_free(claimer, store):
    """Once, with the count."""
    claimer.acquire(WISH, RUN)
    told = []
    Releases().add(Release(lambda: [WISH], RUN, failed=True, then=told.append))
    wait_until(lambda: told, 20, "the count")
    assert told == [1]
    assert record_of(store).status == "released"


def test_a_store_that_is_down_does_not_hold_the_message(claimer, store):
    """It is told at once that nobody knows; the claim is released when the store is back, and counted once."""
    claimer.acquire(WISH, RUN)
    store.is_down = True
    told = []
    releases = Releases()
    releases.add(Release(lambda: [WISH], RUN, failed=True, then=told.append))
    wait_until(lambda: told, 20, "an answer")
    assert told == [None]
    store.is_down = False
    wait_until(lambda: record_of(store).status == "released", 30, "the release")
    assert record_of(store).failures == {"m1": 1}
    assert told == [None]


def test_claims_of_a_drain_are_released_in_time(claimer, store):
    """All of them, side by side; a store that hangs costs no more than the budget."""
    claim_requests = [of_key("tests.task", f"k{n}") for n in range(5)]
    for claim_request in claim_requests:
        claimer.acquire(claim_request, RUN)
    release_all(
        (
            Release(lambda claim_request=claim_request: [claim_request], RUN, failed=False)
            for claim_request in claim_requests
        ),
        seconds=20,
    )
    assert {record_of(store, claim_request).status for claim_request in claim_requests} == {"released"}
    assert all(record_of(store, claim_request).failures == {} for claim_request in claim_requests)

    blocked = threading.Event()
    store.read = lambda record_id: blocked.wait(60)
    began = time.monotonic()
    release_all([Release(lambda: [WISH], RUN, failed=False)], seconds=0.2)
    assert time.monotonic() - began < 20
    assert not blocked.is_set()
    store.read = lambda record_id: None
    blocked.set()


def test_a_release_that_fails_does_not_end_the_drain(claimer, store):
    """Whatever the store raises."""

    def broken(record_id):
        raise RuntimeError("a bug")

    store.read = broken
    release_all([Release(lambda: [WISH], RUN, failed=False)], seconds=5)


@pytest.fixture
def releases():
    """Ended with the test: what it leaves behind would ask the next test's store."""
    made = Releases()
    yield made
    made._batcher.stop()


def test_releases_may_begin_in_several_threads_at_once(claimer, store, releases):
    """As the runs of a threads pool end: the threads that release are started once."""
    told = []
    start, begin = releases._batcher.start, threading.Barrier(4)

    def slow_start():
        time.sleep(0.05)  # the others come in meanwhile
        start()

    releases._batcher.start = slow_start

    def end(number):
        begin.wait()
        releases.add(Release(lambda: [WISH], RUN, failed=True, then=lambda count: told.append(number)))

    threads = [threading.Thread(target=end, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sorted(told) == [0, 1, 2, 3], 20, "all answers")


def test_releases_do_not_pile_up_while_the_store_is_away(claimer, store, releases):
    """Each message that waits for the store leaves one: beyond a bound they are left to the claims' own ends."""
    store.is_down = True
    told = []
    for _ in range(MOST_WAITING + 50):
        releases.add(Release(lambda: [WISH], RUN, failed=False))
    assert releases._batcher.pending == MOST_WAITING
    releases.add(Release(lambda: [WISH], RUN, failed=True, then=told.append))
    assert told == [None], "a killed run's message must not wait for what will not be done"


def test_a_killed_runs_message_does_not_wait_behind_the_others(claimer, store, releases):
    """Its place in the pool is taken until it is told, and a store that hangs may have many others in line."""
    calls, go_on = [], threading.Event()
    store.read = lambda record_id: (go_on.wait(60), calls.append(record_id))[1]
    told = []
    for _ in range(20):
        releases.add(Release(lambda: [WISH], RUN, failed=False))
    releases.add(Release(lambda: [WISH], RUN, failed=True, then=lambda count: told.append(len(calls))))
    go_on.set()
    wait_until(lambda: told, 20, "the answer")
    assert told[0] <= 6, "it came after those that were there before"
