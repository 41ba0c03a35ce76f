"""What a backfill chooses, and the messages it makes: pure, so shown with many inputs."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.messages.celery_message import open_celery_message, task_body
from bridge.operations.backfill.selection import Selection, chosen, record_of
from bridge.s3.event import parse
from bridge.s3.event_body import event_body
from bridge.s3.object import S3Object
from bridge.s3.types import Listed

MARCH = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300)


def listed(key="a.csv", size=10, modified=MARCH, **fields):
    """One listed object."""
    return Listed(key=key, size=size, modified=modified, etag="e1", **fields)


@given(
    key=KEYS,
    size=st.integers(0, 2**40),
    modified=st.datetimes(timezones=st.just(UTC)),
    version=st.none() | st.text("abc012._", min_size=1),
    region=st.none() | st.just("eu-west-1"),
)
def test_what_is_sent_reads_as_what_was_listed(key, size, modified, version, region):
    """The parser of the worker reads every synthetic event back as the very record it was made from."""
    record = record_of("uploads", Listed(key=key, size=size, modified=modified, etag="e", version_id=version), region)
    assert parse(event_body(record)) == (record,)
    assert record.key == key
    assert record.sequencer is None


def test_the_event_has_the_form_of_s3():
    """Name, time, encoded key, eTag, size and version id stand where S3 puts them, and the origin can be told."""
    [record] = json.loads(event_body(record_of("b", listed("a b/ü+.csv", version_id="v1"), "eu-west-1")))["Records"]
    assert record == {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-03-01T12:30:15.250Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "brigade-backfill",
            "bucket": {"name": "b", "arn": "arn:aws:s3:::b"},
            "object": {"key": "a+b/%C3%BC%2B.csv", "size": 10, "eTag": "e1", "versionId": "v1"},
        },
    }


def test_the_time_of_the_event_is_in_utc():
    """A listing with another offset gives the same moment, written in UTC."""
    there = MARCH.astimezone(timezone(timedelta(hours=5)))
    assert record_of("b", listed(modified=there), None).event_time == "2026-03-01T12:30:15.250Z"


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ({}, None),
        ({"include": ("*.csv",)}, None),
        ({"include": ("*.txt", "in/*")}, None),
        ({"include": ("*.txt",)}, "key"),
        ({"exclude": ("in/*",)}, "key"),
        ({"exclude": ("*.txt",)}, None),
        ({"min_size": 10}, None),
        ({"min_size": 11}, "size"),
        ({"max_size": 10}, None),
        ({"max_size": 9}, "size"),
        ({"max_size": 0}, "size"),
        ({"since": MARCH}, None),
        ({"since": MARCH + timedelta(microseconds=1)}, "modified"),
        ({"until": MARCH}, "modified"),
        ({"until": MARCH + timedelta(microseconds=1)}, None),
        ({"own_outputs": (("b", "in/"),)}, "own-output"),
        ({"own_outputs": (("b", "out/"), ("other", "in/"))}, None),
    ],
)
def test_each_filter(selection, reason):
    """Each filter lets through what its documentation says, ends of ranges included, and names itself otherwise."""
    assert Selection(bucket="b", **selection).skips(listed("in/a.csv")) == reason


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_archived_objects(storage_class):
    """What a task could not read is left out, unless it is asked for."""
    assert Selection(bucket="b").skips(listed(storage_class=storage_class)) == "archived"
    assert Selection(bucket="b", archived=True).skips(listed(storage_class=storage_class)) is None


@given(st.lists(st.tuples(KEYS, st.integers(0, 20))))
def test_every_object_is_sent_or_counted(objects):
    """What is chosen and what is counted as skipped is together what was listed, in its order."""
    skipped = Counter()
    listing = [listed(key, size) for key, size in objects]
    selection = Selection(bucket="b", exclude=("a*",), min_size=5, own_outputs=(("b", "0"),))
    sent = list(chosen(iter(listing), selection, None, skipped))
    assert len(sent) + skipped.total() == len(listing)
    assert [r.key for r in sent] == [item.key for item in listing if selection.skips(item) is None]


@given(key=KEYS)
def test_a_message_for_a_task_is_one_that_the_worker_opens(key):
    """The worker's own reader finds the task, the id and the object in a message for --task."""
    record = record_of("b", listed(key, version_id="v"), "eu-west-1")
    message = open_celery_message(task_body(record, "my_files.take", "id-1", "1@here"))
    [[argument], kwargs, _] = json.loads(message.body)
    assert (message.task, message.id, kwargs) == ("my_files.take", "id-1", {})
    assert S3Object.from_dict(argument).to_dict() == S3Object(**record.to_dict()).to_dict()
