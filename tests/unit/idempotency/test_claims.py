"""How a record may change: each transition of the state machine, and how long a message waits for a live claim."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.idempotency import transitions
from bridge.idempotency.identity import ClaimRequest
from bridge.idempotency.record import Record
from bridge.idempotency.transitions import MESSAGES_REMEMBERED, Busy, Claimant, Done, Granted, Outdated

NOW = 1_800_000_000.0
HOUR = 3_600.0
DAY = 86_400
WISH = ClaimRequest(id="t/o/e1", event="e1", sequencer="0B", about="s3://b/k")
LATEST = replace(WISH, id="t/o/latest", latest_only=True)


def who(owner="m1/1/w", message="m1", at=NOW, seconds=HOUR):
    """A run that claims at a moment."""
    return Claimant(owner, message, at, at + seconds, int(at) + 30 * DAY)


def granted(found, claim_request=WISH, by=None):
    """The decision, which has to be Granted."""
    decision = transitions.claim(found, claim_request, by or who())
    assert isinstance(decision, Granted), decision
    return decision


def begun(claim_request=WISH, by=None):
    """The record of a claim on an event that nobody had seen."""
    return granted(None, claim_request, by).record


def completed(claim_request=WISH, by=None, result=None):
    """The record of a completed run."""
    return transitions.complete(begun(claim_request, by), claim_request, result=result, expires_at=int(NOW) + 30 * DAY)


def test_what_nobody_has_claimed_is_granted():
    """In progress, with an owner and an end: a claim without one would last for ever, or not at all."""
    decision = granted(None)
    assert decision == Granted(
        Record(
            status="in-progress",
            event="e1",
            expires_at=int(NOW) + 30 * DAY,
            owner="m1/1/w",
            claimed_until=NOW + HOUR,
            about="s3://b/k",
        ),
        retries=0,
    )


@pytest.mark.parametrize("message", ["m1", "m2"])
def test_a_live_claim_of_another_run_is_waited_for(message):
    """Whether it is the same message's earlier run or a duplicate's; the answer says for how long at most."""
    decision = transitions.claim(begun(), WISH, who("other", message, at=NOW + 600))
    assert decision == Busy(HOUR - 600)


def test_a_claim_whose_end_has_passed_is_taken_over():
    """With its checkpoint and its count; that the owner is gone is no failure of the message's."""
    record = replace(begun(), progress={"part": 3}, failures={"m1": 2})
    decision = granted(record, by=who("m1/2/w", at=NOW + HOUR))
    assert decision.took_over
    assert decision.retries == 2
    assert (decision.record.owner, decision.record.claimed_until) == ("m1/2/w", NOW + 2 * HOUR)
    assert decision.record.progress == {"part": 3}
    assert not transitions.is_mine(decision.record, "m1/1/w")


def test_ones_own_claim_is_granted_as_it_is():
    """A run that finds its own token wrote it and lost the answer."""
    record = replace(begun(), failures={"m1": 1})
    assert granted(record, by=who(at=NOW + 5)) == Granted(record, retries=1)


def test_a_released_claim_is_free_at_once():
    """With the checkpoint of the run before, and its failure counted for its message alone."""
    released = transitions.release(replace(begun(), progress={"part": 3}), "m1", failed=True)
    assert (released.status, released.owner, released.claimed_until) == ("released", "", 0.0)
    again = granted(released, by=who("m1/2/w"))
    assert (again.retries, again.took_over) == (1, False)
    assert again.record.progress == {"part": 3}
    assert granted(released, by=who("m2/1/w", "m2")).retries == 0


def test_only_failures_are_counted():
    """A hand-back, an object that is gone and a lost worker are none."""
    record = begun()
    for failed in (True, False, True, False):
        record = granted(transitions.release(record, "m1", failed=failed)).record
    assert record.failures == {"m1": 2}


def test_the_oldest_messages_are_forgotten_first():
    """A record stays small however many messages fail on it, and a message that fails again is no old one."""
    record = begun()
    for number in range(MESSAGES_REMEMBERED):
        record = transitions.release(record, f"m{number}", failed=True)
    record = transitions.release(record, "m0", failed=True)
    record = transitions.release(record, "new", failed=True)
    assert len(record.failures) == MESSAGES_REMEMBERED
    assert record.failures["m0"] == 2
    assert record.failures["new"] == 1
    assert "m1" not in record.failures


def test_a_completed_event_is_done():
    """For every message and for ever (until the record may go), with the result of the run that did it."""
    done = completed(result={"rows": 7})
    for by in (who("m1/2/w"), who("m2/1/w", "m2"), who("m3/1/w", "m3", at=NOW + 29 * DAY)):
        assert transitions.claim(done, WISH, by) == Done({"rows": 7})
    assert (done.progress, done.claimed_until) == (None, 0.0)
    assert done.failures == {}


def test_a_completed_record_that_may_go_is_gone():
    """DynamoDB and S3 remove it some time later, so a run must not depend on whether they have."""
    late = who("m9/1/w", "m9", at=NOW + 31 * DAY)
    found = replace(completed(result=1), failures={"m9": 4}, sequencer="FF")
    decision = granted(found, by=late)
    assert decision == granted(None, by=late)


def test_a_live_claim_is_live_even_when_its_record_may_go():
    """A store that keeps records for a shorter time than a run may take must not give it away."""
    found = replace(begun(), expires_at=int(NOW) + 60)
    assert isinstance(transitions.claim(found, WISH, who("other", at=NOW + 120)), Busy)


def test_the_version_goes_with_its_event():
    """What is claimed says which version it is of; that of the completed event is kept beside it, once."""
    first = replace(LATEST, version={"etag": "a"})
    newer = replace(LATEST, event="e2", sequencer="0C", version={"etag": "b"})
    done = completed(first)
    assert (done.version, done.completed_version, done.done_version) == ({"etag": "a"}, {"etag": "a"}, {})
    trying = granted(done, newer, who("m2/1/w", "m2")).record
    failed = transitions.release(trying, "m2", failed=True)
    again = granted(failed, newer, who("m2/2/w", "m2")).record
    third = replace(LATEST, event="e3", sequencer="0D", version={"etag": "c"})
    other = granted(failed, third, who("m3/1/w", "m3")).record
    for record, version in ((trying, "b"), (failed, "b"), (again, "b"), (other, "c")):
        assert (record.version, record.completed_version) == ({"etag": version}, {"etag": "a"})
    second = transitions.complete(again, newer, result=None, expires_at=1)
    assert (second.completed_version, second.done_version) == ({"etag": "b"}, {})


def test_the_checkpoint_of_an_event_is_no_other_events():
    """With latest_only the record is the object's; a new version does not resume the old one's work."""
    newer = replace(LATEST, event="e2", sequencer="0C")
    found = transitions.release(transitions.save_progress(begun(LATEST), {"part": 3}), "m1", failed=True)
    assert granted(found, newer, who("m2/1/w", "m2")).record.progress is None
    assert granted(found, LATEST, who("m1/2/w")).record.progress == {"part": 3}


def test_the_checkpoint_of_another_event_is_not_resumed_after_a_lost_release():
    """Two records of one message and one object, the release of the first failed: the second begins anew."""
    newer = replace(LATEST, event="e2", sequencer="0C")
    unreleased = transitions.save_progress(begun(LATEST), {"part": 3})
    decision = granted(unreleased, newer, who())
    assert decision.record.progress is None
    assert decision.record.event == "e2"


def test_an_older_event_is_outdated_once_a_newer_one_is_completed():
    """And not before: until then the newer one may still fail."""
    older = replace(LATEST, event="e0", sequencer="0A")
    begun_newer = begun(LATEST)
    released = transitions.release(begun_newer, "m1", failed=True)
    assert granted(released, older, who("m0/1/w", "m0")).record.event == "e0"
    done = completed(LATEST)
    assert transitions.claim(done, older, who("m0/1/w", "m0")) == Outdated("0B")
    assert transitions.claim(done, replace(older, latest_only=False), who("m0/1/w", "m0")) != Outdated("0B")


def test_a_newer_event_runs_after_an_older_one_and_keeps_it_in_mind():
    """While it runs, and when it fails, the older one is still done."""
    newer = replace(LATEST, event="e2", sequencer="0C")
    running = granted(completed(LATEST), newer, who("m2/1/w", "m2")).record
    assert (running.done_event, running.sequencer) == ("e1", "0B")
    failed = transitions.release(running, "m2", failed=True)
    assert transitions.claim(failed, LATEST, who("m9/1/w", "m9")) == Done(None)
    done = transitions.complete(running, newer, result=2, expires_at=int(NOW) + DAY)
    assert (done.done_event, done.sequencer, done.result) == ("e2", "0C", 2)
    assert transitions.claim(done, LATEST, who("m9/1/w", "m9")) == Outdated("0C")


def test_a_creation_stays_done_when_a_tag_change_is_completed_after_it():
    """An event without a sequencer in between must not let a completed one run again."""
    tagged = replace(LATEST, event="tags", sequencer=None)
    running = granted(completed(LATEST), tagged, who("m2/1/w", "m2")).record
    done = transitions.complete(running, tagged, result=None, expires_at=int(NOW) + DAY)
    assert done.sequencer == "0B"
    assert not isinstance(transitions.claim(done, LATEST, who("m9/1/w", "m9")), Granted)


def test_a_completion_forgets_no_other_messages_failures():
    """With latest_only the record is shared: a newer event that keeps failing has its retries counted all the same."""
    older = replace(LATEST, event="e0", sequencer="0A")
    failed_newer = transitions.release(begun(LATEST), "m1", failed=True)
    running = granted(failed_newer, older, who("m0/1/w", "m0")).record
    done = transitions.complete(running, older, result=None, expires_at=int(NOW) + DAY)
    assert granted(done, LATEST, who("m1/2/w")).retries == 1


def test_the_completed_sequencer_never_goes_down():
    """Whatever order events come in, one without a sequencer included."""
    record = completed(LATEST)
    for event, sequencer, expected in (("a", None, "0B"), ("b", "0C0", "0C0"), ("c", "0B", "0C0")):
        claim_request = replace(LATEST, event=event, sequencer=sequencer)
        running = replace(record, status="in-progress", event=event, owner="o", claimed_until=NOW + 1)
        record = transitions.complete(running, claim_request, result=None, expires_at=record.expires_at)
        assert record.sequencer == expected


@pytest.mark.parametrize(
    ("found", "mine"),
    [
        (None, False),
        (begun(), True),
        (begun(by=who("other")), False),
        (completed(), False),
        (transitions.release(begun(), "m1", failed=False), False),
    ],
)
def test_whose_claim_it_is(found, mine):
    """In progress and with this run's token; the clock says nothing about it."""
    assert transitions.is_mine(found, "m1/1/w") is mine


@given(limit=st.floats(1, 43_200))
def test_a_claim_outlasts_the_hard_limit(limit):
    """By ten seconds at least and a minute at most: what clocks differ by and a kill may take."""
    assert 10 <= transitions.claim_seconds(limit) - limit + 1e-6 <= 61


def looks_to_outlast(seconds):
    """How often a message comes again until a claim of this length has ended."""
    looks, left = 0, seconds
    while left > 0:
        looks += 1
        left -= transitions.wait_seconds(left, looks)
    return looks


@pytest.mark.parametrize(("seconds", "looks"), [(60, 4), (HOUR + 60, 7), (12 * HOUR + 60, 8)])
def test_how_often_a_message_looks_at_a_live_claim(seconds, looks):
    """Every look is a receive, and the queue's maxReceiveCount (20 as provisioned) bounds those."""
    assert looks_to_outlast(seconds) == looks


@given(busy=st.floats(0, 43_260), receives=st.integers(-1, 10_000))
def test_a_message_never_waits_much_longer_than_the_claim(busy, receives):
    """A second beyond its end; and never no time at all, which would be a busy loop."""
    wait = transitions.wait_seconds(busy, receives)
    assert 1.0 <= wait <= busy + 1.0
    assert wait <= transitions.wait_seconds(busy, receives + 1)


@given(busy=st.floats(0, 43_260), longer=st.floats(0, 43_260))
def test_a_longer_claim_is_waited_for_longer(busy, longer):
    """Or as long, while the wait is short anyway."""
    short, long = sorted([busy, longer])
    assert transitions.wait_seconds(short, 3) <= transitions.wait_seconds(long, 3)
