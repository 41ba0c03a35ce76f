"""What provision decides: never more than is missing, never what is somebody else's, never an endless loop. Pure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.operations.provision.plan import (
    TAG,
    ExistingQueue,
    Found,
    ProvisionPlan,
    Wanted,
    plan,
    resolved,
    resolved_configuration,
)
from bridge.s3.notification import NotificationEntry, entries, merged
from bridge.s3.outputs import Output
from bridge.sqs.queue_policy import right_of_s3

WANTED = Wanted(queue="uploads", dlq="uploads-dlq", bucket="files")
KEYS = st.text("ab/ +ü%.", max_size=5)


def arn(name: str) -> str:
    """The ARN of a queue in these tests."""
    return f"arn:aws-cn:sqs:cn-north-1:123456789012:{name}"


def after(found: Found, made: ProvisionPlan) -> Found:
    """What is there when the steps have been carried out, by a model of SQS and S3."""
    there = {queue.name: queue for queue in (found.dlq, found.queue) if queue}
    notification = found.notification
    for step in made.steps:
        arns = {name: queue.arn for name, queue in there.items()}
        if step.do == "create-queue":
            attributes = {"QueueArn": arn(step.name), **resolved(step.values, arns)}
            there[step.name] = ExistingQueue(step.name, attributes, dict([TAG]))
        elif step.do == "set-attributes":
            queue = there[step.name]
            there[step.name] = replace(queue, attributes={**queue.attributes, **resolved(step.values, arns)})
        else:
            notification = resolved_configuration(step.values, arns)
    return Found(there.get(WANTED.queue), there.get(WANTED.dlq), notification)


def test_from_nothing():
    """With nothing there: DLQ, queue, policy, notification, in an order in which each finds what it names."""
    made = plan(Found(notification={}), WANTED)
    assert [(step.do, step.name) for step in made.steps] == [
        ("create-queue", "uploads-dlq"),
        ("create-queue", "uploads"),
        ("set-attributes", "uploads"),
        ("put-notification", "files"),
    ]
    found = after(Found(notification={}), made)
    assert found.dlq.attributes["MessageRetentionPeriod"] == "1209600"
    assert json.loads(found.queue.attributes["RedrivePolicy"]) == {
        "deadLetterTargetArn": arn("uploads-dlq"),
        "maxReceiveCount": 20,
    }
    assert right_of_s3(found.queue.attributes["Policy"], arn("uploads"), "arn:aws-cn:s3:::files") == "limited"
    assert right_of_s3(found.queue.attributes["Policy"], arn("uploads"), "arn:aws-cn:s3:::others") == "none"
    [entry] = entries(found.notification)
    assert (entry.arn, entry.events) == (arn("uploads"), ("s3:ObjectCreated:*",))


def test_without_a_bucket():
    """A queue for Celery's own messages needs no policy and no notification."""
    made = plan(Found(), replace(WANTED, bucket=None))
    assert [step.do for step in made.steps] == ["create-queue", "create-queue"]


STATEMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "Effect": st.just("Allow"),
            "Principal": st.sampled_from(["*", {"Service": "s3.amazonaws.com"}, {"AWS": "123456789012"}]),
            "Action": st.sampled_from(["sqs:SendMessage", "sqs:*", ["sqs:ReceiveMessage"]]),
            "Resource": st.sampled_from([arn("uploads"), "*", arn("other")]),
            "Sid": st.sampled_from(["bucket-brigade-files", "theirs"]),
        },
        optional={
            "Condition": st.sampled_from(
                [
                    {"ArnLike": {"aws:SourceArn": "arn:aws-cn:s3:::files"}},
                    {"ArnLike": {"aws:SourceArn": "arn:aws-cn:s3:::old"}},
                    {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
                ]
            )
        },
    ),
    max_size=3,
)


@st.composite
def queues(draw, name: str):
    """A queue that may be there, ours or somebody's, with any attributes that matter."""
    attributes = {"QueueArn": arn(name)}
    if draw(st.booleans()):
        attributes["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": draw(STATEMENTS)})
    if draw(st.booleans()):
        target, count = draw(st.sampled_from(["uploads-dlq", "other"])), draw(st.integers(1, 40))
        attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": arn(target), "maxReceiveCount": count})
    if draw(st.booleans()):
        attributes["MessageRetentionPeriod"] = draw(st.sampled_from(["345600", "1209600"]))
    return ExistingQueue(name, attributes, dict([TAG]) if draw(st.booleans()) else {})


ENTRIES = st.builds(
    NotificationEntry,
    id=st.sampled_from(["bucket-brigade-uploads", "theirs", "x"]),
    target=st.just("queue"),
    arn=st.sampled_from([arn("uploads"), arn("other")]),
    events=st.sampled_from([("s3:ObjectCreated:*",), ("s3:ObjectCreated:Put",), ("s3:ObjectRemoved:*",)]),
    prefix=KEYS,
    suffix=KEYS,
)


@given(
    queue=st.none() | queues("uploads"),
    dlq=st.none() | queues("uploads-dlq"),
    there=st.lists(ENTRIES, max_size=3, unique_by=lambda entry: entry.id),
    prefix=KEYS,
    suffix=KEYS,
    force=st.booleans(),
)
def test_carried_out_there_is_nothing_left_to_do(queue, dlq, there, prefix, suffix, force):
    """Whatever was there: a plan that is not refused leads to a state whose own plan is empty, and touches no other."""
    wanted = replace(WANTED, prefix=prefix, suffix=suffix)
    topic = {"Id": "t", "TopicArn": "arn", "Events": ["s3:ObjectRestore:*"]}
    configuration = {
        "TopicConfigurations": [topic],
        "EventBridgeConfiguration": {},
        "QueueConfigurations": [entry.to_configuration() for entry in there],
    }
    found = Found(queue, dlq, configuration)
    made = plan(found, wanted, force=force)
    if not force:
        changed = {step.name for step in made.steps if step.do == "set-attributes"}
        assert not [q for q in (queue, dlq) if q and not q.ours and q.name in changed]
    if made.refusals:
        return
    result = after(found, made)
    again = plan(result, wanted, force=force)
    assert (again.steps, again.refusals) == ([], [])
    assert result.notification["TopicConfigurations"] == [topic]
    assert "EventBridgeConfiguration" in result.notification
    kept = [entry for entry in there if entry.id != "bucket-brigade-uploads"]
    assert [e for e in entries(result.notification) if e in kept] == kept


def test_what_is_not_ours_is_refused():
    """A queue without our tag that would have to change is refused with what and why, and changed with --force."""
    theirs = ExistingQueue("uploads", {"QueueArn": arn("uploads")}, {})
    refused = plan(Found(theirs, None, {}), WANTED)
    assert [("RedrivePolicy, Policy" in text, "--force" in text) for text in refused.refusals] == [(True, True)]
    assert plan(Found(theirs, None, {}), WANTED, force=True).refusals == []


@pytest.mark.parametrize(
    ("prefix", "suffix", "refused", "noted"),
    [("", "", 1, 0), ("out/", "", 1, 0), ("in/", "", 0, 0), ("", ".csv", 0, 1), ("", ".json", 1, 0)],
)
def test_no_notification_over_our_output(prefix, suffix, refused, noted):
    """One that covers our output is refused even with --force; one for a suffix that we never write is told."""
    wanted = replace(WANTED, prefix=prefix, suffix=suffix, outputs=(Output("BRIDGE_RESULTS_URL", "files", "out/"),))
    made = plan(Found(notification={}), wanted, force=True)
    assert (len(made.refusals), len(made.notes)) == (refused, noted)


def test_an_overlap_is_refused():
    """S3 takes no two entries that overlap, so provision says which one is in the way."""
    other = NotificationEntry("theirs", "queue", arn("other"), ("s3:ObjectCreated:Put",), prefix="in")
    configuration = {"QueueConfigurations": [other.to_configuration()]}
    assert "theirs" in plan(Found(notification=configuration), WANTED).refusals[0]
    assert plan(Found(notification=configuration), replace(WANTED, prefix="out")).refusals == []


@given(ENTRIES)
def test_an_entry_survives_its_encoding(entry):
    """Filters are written encoded, as S3 wants them, and read back as they were."""
    assert entries(merged({}, entry)) == (entry,)


@given(ENTRIES, ENTRIES)
def test_overlapping_is_mutual(one, other):
    """Overlapping works both ways, and what includes another overlaps it."""
    assert one.overlaps(other) == other.overlaps(one)
    if one.includes(other):
        assert one.overlaps(other)
