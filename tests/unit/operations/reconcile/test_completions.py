"""How an object stands by its records, and which objects a task would get at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.idempotency import transitions
from bridge.idempotency.identity import of_key, of_message, of_record
from bridge.idempotency.record import to_json
from bridge.idempotency.transitions import Claimant, Granted
from bridge.messages.routing import Route
from bridge.operations.reconcile.completions import (
    STATUSES,
    Standing,
    as_line,
    is_own_key,
    not_taken,
    place,
    slim,
    standing,
)
from bridge.s3.event import ObjectRecord

NOW = 1_800_000_000.0  # 2027-01-15
DAY = 86_400.0
OBJ = ObjectRecord(bucket="b", key="k", etag="e1", size=3, event_time="2027-01-14T00:00:00.000Z")
EVENT = ObjectRecord(bucket="b", key="k", etag="e1", sequencer="0A")


def begun(event, *, latest=False, found=None, seconds=60.0):
    """A record in progress, as ``claim`` writes it."""
    claim_request = of_record("t", event, latest_only=latest)
    decision = transitions.claim(found, claim_request, Claimant("o", "m", NOW - 10, NOW - 10 + seconds, int(NOW + DAY)))
    assert isinstance(decision, Granted), decision
    return decision.record


def completed(event, *, latest=False, found=None):
    """A record of a completed run."""
    claim_request = of_record("t", event, latest_only=latest)
    return transitions.complete(
        begun(event, latest=latest, found=found), claim_request, result=None, expires_at=int(NOW + DAY)
    )


def failed(record, times=1):
    """The same record after so many failed runs."""
    for _ in range(times):
        record = transitions.release(record, "m", failed=True)
    return record


def stands(*records, obj=OBJ, latest=False):
    """The standing of the object, by records in this order."""
    names = ["latest"] if latest else [f"e{n}" for n in range(len(records))]
    texts = [(name, to_json(record)) for name, record in zip(names, records, strict=True)]
    found = standing(obj, texts, now=NOW, remembered_seconds=30 * DAY)
    slimmed = [(name, slim(text)) for name, text in texts]
    assert standing(obj, slimmed, now=NOW, remembered_seconds=30 * DAY) == found
    return found


def test_completed_is_what_a_run_completed():
    """Of this version, whatever other records there are."""
    assert stands(completed(EVENT)) == Standing("completed")
    assert stands(failed(begun(EVENT)), completed(replace(EVENT, sequencer="0B"))).status == "completed"


def test_a_live_claim_is_in_progress_and_a_lapsed_one_is_not():
    """A claim that has ended by itself is that of a worker that died."""
    assert stands(begun(EVENT)) == Standing("in-progress")
    assert stands(begun(EVENT, seconds=5)) == Standing("released")


def test_failures_are_told():
    """Over all records of the version; a hand-back is none."""
    assert stands(failed(begun(EVENT), 2)) == Standing("failed", 2)
    assert stands(failed(begun(EVENT)), failed(begun(replace(EVENT, sequencer="0B")))) == Standing("failed", 2)
    assert stands(transitions.release(begun(EVENT), "m", failed=False)) == Standing("released")


def test_another_version_is_outdated():
    """The object was overwritten since: its eTag, or its version id, is another."""
    assert stands(completed(replace(EVENT, etag="e0"))) == Standing("outdated")
    versioned = replace(OBJ, version_id="v2")
    assert stands(completed(replace(EVENT, version_id="v1")), obj=versioned) == Standing("outdated")
    assert stands(completed(replace(EVENT, version_id="v2", etag="e0")), obj=versioned).status == "completed"


@pytest.mark.parametrize(("recorded", "listed"), [("v1", None), (None, "v1"), ("null", "v1"), (None, None)])
def test_where_a_version_id_is_missing_the_etag_decides(recorded, listed):
    """A listing without version ids, or an event of a time before the bucket had versioning."""
    obj = replace(OBJ, version_id=listed)
    assert stands(completed(replace(EVENT, version_id=recorded)), obj=obj).status == "completed"
    assert stands(completed(replace(EVENT, version_id=recorded, etag="e0")), obj=obj).status == "outdated"


def test_a_record_that_names_no_version_completes_nothing():
    """An event without eTag and version id: what it was of cannot be told."""
    assert stands(completed(replace(EVENT, etag=None))).status == "outdated"


def test_only_creations_complete_a_creation():
    """Tags set and removals are events of their own, with the same eTag."""
    tagged = replace(EVENT, event_name="ObjectTagging:Put", sequencer=None)
    assert stands(completed(tagged)) == Standing("never-seen")
    assert stands(completed(tagged), begun(EVENT)) == Standing("in-progress")


def test_latest_only_has_one_record():
    """The newest completed event counts, and what was claimed after it."""
    first = completed(EVENT, latest=True)
    assert stands(first, latest=True) == Standing("completed")
    second = replace(EVENT, etag="e2", sequencer="0B")
    obj = replace(OBJ, etag="e2")
    assert stands(first, obj=obj, latest=True) == Standing("outdated")
    trying = begun(second, latest=True, found=first)
    assert stands(trying, obj=obj, latest=True) == Standing("in-progress")
    assert stands(failed(trying), obj=obj, latest=True) == Standing("failed", 1)
    assert stands(completed(second, latest=True, found=first), obj=obj, latest=True) == Standing("completed")
    removed = replace(second, event_name="ObjectRemoved:Delete", etag=None, sequencer="0C")
    assert stands(completed(removed, latest=True, found=first), obj=obj, latest=True).status == "never-seen"
    tagged = replace(second, event_name="ObjectTagging:Put", sequencer=None)
    assert stands(completed(tagged, latest=True, found=first), obj=obj, latest=True).status == "completed"


def test_older_than_the_store_remembers():
    """Without a record, an object from before the TTL may well have been completed."""
    old = replace(OBJ, event_time="2026-12-01T00:00:00.000Z")
    assert stands(obj=old) == Standing("too-old")
    assert stands(obj=OBJ) == Standing("never-seen")
    assert stands(completed(EVENT), obj=old) == Standing("completed")


@given(text=st.text(max_size=30))
def test_an_unreadable_record_is_no_guess(text):
    """One of a newer worker, or damaged: nothing is concluded from it, nor from the others beside it."""
    beside = ("e2", to_json(completed(EVENT)))
    assert standing(OBJ, [("e1", text), beside], now=NOW, remembered_seconds=DAY) == Standing("unreadable")
    assert slim(text) == ""


names = st.text(min_size=1, max_size=8)
events = st.builds(
    ObjectRecord,
    bucket=names,
    key=names,
    etag=st.none() | st.sampled_from(["e1", "e2"]),
    version_id=st.none() | st.sampled_from(["v1", "v2"]),
    sequencer=st.none() | st.just("0A"),
    event_name=st.sampled_from(["ObjectCreated:Put", "ObjectTagging:Put", "ObjectRemoved:Delete"]),
)


@given(event=events, latest=st.booleans())
def test_what_was_completed_is_completed_for_its_own_listing(event, latest):
    """Every creation whose version is known, with and without latest_only; and never is a removal a completion."""
    obj = replace(event, sequencer=None, event_name="ObjectCreated:Put", event_time=OBJ.event_time)
    status = stands(completed(event, latest=latest), obj=obj, latest=latest).status
    assert status in STATUSES
    if event.event_name == "ObjectRemoved:Delete":
        assert status == "never-seen"
    if event.event_name == "ObjectCreated:Put":
        assert status == ("completed" if event.etag or event.version_id else "outdated")


@given(task=names, event=events, key=names)
def test_the_place_of_a_record(task, event, key):
    """All records of an object are in one folder; those of keys and messages are recognised by theirs."""
    latest, one = (of_record(task, event, latest_only=flag).id for flag in (True, False))
    assert (place(task, latest) or ())[1] == "latest"
    assert (place(task, latest) or ())[0] == (place(task, one) or ())[0]
    assert not is_own_key((place(task, one) or ("key",))[0])
    for claim_request in (of_key(task, key), of_message(task, key)):
        assert is_own_key((place(task, claim_request.id) or ("",))[0])
    assert place(task, f"{one}/more") is None


ROUTES = (
    Route(task="all-of-it", kind="message", everything=True, where=(("x", "y"),)),
    Route(task="csv", kind="file", key="in/*.csv", max_bytes=10),
    Route(task="rest", kind="file", key="in/*"),
)


@pytest.mark.parametrize(
    ("task", "key", "size", "reason"),
    [
        ("csv", "in/a.csv", 10, None),
        ("csv", "in/a.csv", 11, "too-large"),
        ("rest", "in/a.csv", 1, "other-task"),
        ("rest", "in/a.txt", 99, None),
        ("rest", "out/a", 1, "unrouted"),
    ],
)
def test_which_objects_a_task_would_get(task, key, size, reason):
    """As a worker routes: the first that takes it; an everything-task that wants attributes gets no event of S3's."""
    assert not_taken(ROUTES, task, ObjectRecord(bucket="b", key=key, size=size)) == reason


def test_an_everything_task_takes_all():
    """Then no file task gets an object."""
    routes = (Route(task="all", kind="message", everything=True), *ROUTES)
    assert not_taken(routes, "csv", ObjectRecord(bucket="b", key="in/a.csv", size=1)) == "other-task"


def test_a_json_line():
    """Has what a script needs to send the object by other means."""
    assert as_line(OBJ, Standing("failed", 2)) == (
        '{"status": "failed", "failures": 2, "bucket": "b", "key": "k", "version_id": null, "etag": "e1", "size": 3, '
        '"modified": "2027-01-14T00:00:00.000Z"}'
    )
