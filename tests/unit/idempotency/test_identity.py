"""Which deliveries are the same event, and the ids of their records."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.idempotency.identity import is_older, object_folder, of_key, of_message, of_record, task_folder
from bridge.s3.event import ObjectRecord, parse
from tests import REPOSITORY

EVENTS = REPOSITORY / "tests" / "support" / "events"
TASK = "my_files.import_csv"

hex_texts = st.text("0123456789ABCDEF", max_size=24)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
times = st.sampled_from(["2026-01-02T03:04:05.000Z", "2026-01-02T03:04:06.000Z"])
records = st.builds(
    ObjectRecord,
    bucket=st.sampled_from(["uploads", "uploads-2"]),
    key=names,
    version_id=st.none() | st.sampled_from(["v1", "v2"]),
    etag=st.none() | st.sampled_from(["e1", "e2"]),
    size=st.none() | st.integers(0, 9),
    sequencer=st.none() | hex_texts.filter(bool),
    event_name=st.sampled_from(
        ["ObjectCreated:Put", "ObjectCreated:Copy", "ObjectRemoved:Delete", "ObjectTagging:Put", "ObjectTagging:Delete"]
    ),
    event_time=times,
    region=st.none() | st.just("eu-west-1"),
)


def body(name):
    """A real body of tests/support/events, as a dict."""
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


def only(event):
    """The one record of an event."""
    (record,) = parse(json.dumps(event))
    return record


def wished(record, **options):
    """What the task claims for a record."""
    return of_record(TASK, record, **options)


def in_eventbridge_form(event, reason="PutObject"):
    """The EventBridge notification of the creation that an S3 notification tells of."""
    told = event["Records"][0]
    stored = told["s3"]["object"]
    sent = body("eventbridge_created")
    sent["time"] = "2026-03-14T09:26:55Z"  # its own, and to the second
    sent["detail"]["reason"] = reason
    sent["detail"]["bucket"]["name"] = told["s3"]["bucket"]["name"]
    names = {"eTag": "etag", "versionId": "version-id"}
    sent["detail"]["object"] = {names.get(name, name): value for name, value in stored.items()}
    return sent


@pytest.mark.parametrize(
    ("name", "reason"), [("s3_2_1_put", "PutObject"), ("s3_2_6_multipart_versioned", "CompleteMultipartUpload")]
)
def test_both_notifications_of_one_creation_are_one_event(name, reason):
    """Real bodies in both forms, with an event name and a time that each form has for itself."""
    s3 = only(body(name))
    bridged = only(in_eventbridge_form(body(name), reason))
    assert s3.event_time != bridged.event_time
    assert wished(s3) == wished(bridged)
    assert wished(s3, latest_only=True) == wished(bridged, latest_only=True)


@pytest.mark.parametrize(("s3", "bridged"), [("s3_delete", "eventbridge_deleted"), ("s3_delete_marker",) * 2])
def test_both_notifications_of_one_removal_are_one_event(s3, bridged):
    """Removals and delete markers too, as far as both forms say the same."""
    bridged = bridged.replace("s3_", "eventbridge_")
    assert wished(only(body(s3))) == wished(only(body(bridged)))


@pytest.mark.parametrize("name", ["sns_raw_delivery", "s3_2_1_put"])
def test_one_event_through_sns_and_without_is_one(name):
    """The envelope is no part of the event."""
    event = body(name)
    wrapped = {"Type": "Notification", "Message": json.dumps(event)}
    assert wished(only(event)) == wished(only(wrapped))


def test_a_removal_a_tag_change_and_a_creation_of_one_version_are_three():
    """Whatever else is the same, and also when they tell of the same sequencer."""
    creation = only(body("s3_2_1_put"))
    for sequencer in (creation.sequencer, None):
        told = [
            replace(creation, event_name=name, sequencer=sequencer)
            for name in ("ObjectCreated:Put", "ObjectRemoved:Delete", "ObjectTagging:Put", "ObjectRestore:Completed")
        ]
        assert len({wished(record).id for record in told}) == len(told)
        assert len({wished(record, latest_only=True).event for record in told}) == len(told)


def test_events_without_a_sequencer_are_told_apart_by_name_and_time():
    """A tag set, deleted and set again within a second, or at two times, are events of their own; a repeat is not."""
    tagged, untagged = only(body("s3_tagging_put")), only(body("s3_tagging_delete"))
    assert tagged.sequencer is None
    assert untagged.sequencer is None
    same_moment = replace(untagged, event_time=tagged.event_time, etag=tagged.etag, version_id=tagged.version_id)
    later = replace(tagged, event_time="2026-03-14T09:26:54.589Z")
    assert len({wished(record).id for record in (tagged, same_moment, later)}) == 3
    assert wished(tagged) == wished(only(body("s3_tagging_put")))


@given(record=records, other=records)
def test_the_same_fields_are_the_same_event_and_no_others(record, other):
    """Bucket, key, family, version, eTag and sequencer (else name and time) decide; size and region do not."""

    def fields(of):
        family = of.event_name.partition(":")[0]
        which = (family, padded(of.sequencer)) if of.sequencer else (of.event_name, of.event_time)
        return (of.bucket, of.key, of.version_id, of.etag, which)

    assert (wished(record).id == wished(other).id) == (fields(record) == fields(other))
    assert wished(record).id == wished(replace(record, size=77, region="us-east-2")).id
    same_object = (record.bucket, record.key) == (other.bucket, other.key)
    assert (wished(record, latest_only=True).id == wished(other, latest_only=True).id) == same_object


@given(record=records, latest_only=st.booleans())
def test_one_delivery_is_always_the_same_claim(record, latest_only):
    """Also for another process, which reads the record from a message of Celery's."""
    again = ObjectRecord(**json.loads(json.dumps(record.to_dict())))
    assert wished(record, latest_only=latest_only) == wished(again, latest_only=latest_only)


@given(first=records, task=names, other=names)
def test_two_tasks_never_share_a_record(first, task, other):
    """Nor does one task's name lead into another's folder."""
    ids = {of_record(name, first).id for name in {task, other}}
    assert len(ids) == len({task, other})
    folders = [object_folder(name, first.bucket, first.key) for name in {task, other}]
    assert not any(a.startswith(b) for a, b in permutations(folders, 2))


@given(record=records, latest_only=st.booleans())
def test_all_records_of_an_object_are_in_its_folder(record, latest_only):
    """So that a person finds them, and a lifecycle rule or a policy may name a task."""
    assert wished(record, latest_only=latest_only).id.startswith(object_folder(TASK, record.bucket, record.key))


@given(task=names, key=names, record=records)
@example(task="..", key="k", record=ObjectRecord(bucket="b", key="k"))
@example(task="team/über tasks: csv?#%2F", key="k", record=ObjectRecord(bucket="b", key="../../k"))
def test_ids_are_safe_as_keys(task, key, record):
    """Only characters that S3 calls safe, no empty part, none that a path would climb by, and short."""
    for claim_request in (of_record(task, record), of_record(task, record, latest_only=True), of_key(task, key)):
        assert re.fullmatch(r"[A-Za-z0-9_.~%/-]+", claim_request.id)
        parts = claim_request.id.split("/")
        assert len(parts) == 3
        assert not {"", ".", ".."} & set(parts)
        assert len(claim_request.id) <= 9 * len(task.encode()) + 80


@given(a=names, b=names)
def test_keys_of_ones_own(a, b):
    """The same text is the same claim, another text is another; a message id never meets either."""
    assert (of_key(TASK, a) == of_key(TASK, b)) == (a == b)
    assert (of_message(TASK, a) == of_message(TASK, b)) == (a == b)
    assert of_key(TASK, a).id != of_message(TASK, a).id


@pytest.mark.parametrize("key", ["", None, 5, b"bytes", ["a"]])
def test_a_key_that_is_no_text_is_refused(key):
    """An empty one too: it would make all objects one."""
    with pytest.raises(TypeError, match="idempotency_key must return a non-empty str"):
        of_key(TASK, key)


def padded(sequencer, length=24):
    """As AWS says it: zeros on the right, up to the same length."""
    return sequencer.upper().ljust(length, "0")


@given(a=hex_texts, b=hex_texts)
def test_sequencers_compare_as_aws_says(a, b):
    """Against the padded comparison of AWS's own words."""
    assert is_older(a, b) == (padded(a) < padded(b))
    assert is_older(a.lower(), b) == is_older(a, b)


@given(a=hex_texts, zeros=st.integers(0, 8))
def test_zeros_on_the_right_are_no_difference(a, zeros):
    """Neither in order nor in identity."""
    longer = a + "0" * zeros
    assert not is_older(a, longer)
    assert not is_older(longer, a)
    record = ObjectRecord(bucket="b", key="k", sequencer=a + "1")
    assert wished(record).id == wished(replace(record, sequencer=f"{a}1{'0' * zeros}")).id


@pytest.mark.parametrize(("a", "b"), [(None, "0A"), ("0A", None), (None, None)])
def test_an_unknown_sequencer_is_not_older(a, b):
    """What cannot be ordered is not held back."""
    assert is_older(a, b) is False


@given(record=records, latest_only=st.booleans())
def test_the_version_is_what_a_listing_can_be_held_to(record, latest_only):
    """Family, version id and eTag, those that the event has; and all of a task's records are in its folder."""
    claim_request = wished(record, latest_only=latest_only)
    wanted = {"version_id": record.version_id, "etag": record.etag, "family": record.event_name.split(":")[0]}
    assert claim_request.version == {name: value for name, value in wanted.items() if value}
    assert claim_request.id.startswith(task_folder(TASK))
    assert task_folder(TASK).count("/") == 1


def test_the_record_says_what_it_is_of():
    """For the person who opens it."""
    record = only(body("s3_2_1_put"))
    assert wished(record).about == "s3://uploads-prod/incoming/orders.csv"
    assert of_key(TASK, "k" * 500).about == "k" * 200
    assert of_message(TASK, "m-1").about == "sqs:m-1"
