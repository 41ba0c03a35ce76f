"""The parser on sample payloads, on what S3-like and Celery senders really put on a queue, and on broken bodies."""

from __future__ import annotations

import ast
import base64
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from celery import Celery
from moto import mock_aws

from bridge.errors import MalformedEvent
from bridge.messages.celery_message import is_celery_message
from bridge.s3.event import ObjectRecord, TestEvent, parse
from tests import REPOSITORY

EVENTS = REPOSITORY / "tests" / "support" / "events"
ETAG = "0f343b0931126a20f133d67c2b018a3b"
EMPTY_ETAG = "d41d8cd98f00b204e9800998ecf8427e"
VERSION = "3L4kqtJlcpXroDTDmJ_brigade.nTVWQ8A1"
CREATED = "0067D3F10D8FA1B2C3"


def body_of(name: str) -> str:
    """The text of a sample file."""
    return (EVENTS / f"{name}.json").read_text(encoding="utf-8")


def expected(key: str, event_name: str = "ObjectCreated:Put", **fields: Any) -> ObjectRecord:
    """A record as the samples in S3's own form have it."""
    return ObjectRecord(
        **{
            "bucket": "uploads-prod",
            "key": key,
            "event_name": event_name,
            "event_time": "2026-03-14T09:26:53.589Z",
            "region": "eu-west-1",
            **fields,
        }
    )


def bridged(key: str, event_name: str, **fields: Any) -> ObjectRecord:
    """A record as the EventBridge samples have it: their times have no fraction."""
    return expected(key, event_name, event_time="2026-03-14T09:26:53Z", **fields)


ORDERS: dict[str, Any] = {"etag": ETAG, "size": 1024, "sequencer": CREATED}
MARKER: dict[str, Any] = {"etag": EMPTY_ETAG, "version_id": "marker.XyZ7brigade", "sequencer": "0067D3F3A1B0C0FFEF"}
SCAN: dict[str, Any] = {
    "etag": "7d793037a0760186574b0282f2f435e7-768",
    "size": 6442450944,
    "sequencer": "0067D3F2A06C1122AA",
}
TAR: dict[str, Any] = {"etag": ETAG, "size": 52428800, "version_id": VERSION}
ODD_KEYS = (
    "in/two words.txt",
    "in/a+b.txt",
    "in/Größe 日本 🪣.txt",
    "in/100%25.txt",
    "in/a%2Bb.txt",
    "in/sub/file.txt",
    "in/a&b=c?d#e.txt",
)
SPACED = (expected("incoming/march orders+more.csv", etag=ETAG, size=2048, sequencer=CREATED),)
SAMPLES: dict[str, tuple[ObjectRecord, ...] | TestEvent] = {
    "s3_2_1_put": (expected("incoming/orders.csv", **ORDERS),),
    "s3_2_2_replication_failed": (
        expected("incoming/orders.csv", "Replication:OperationFailedReplication", version_id=VERSION, **ORDERS),
    ),
    "s3_2_6_multipart_versioned": (
        expected("incoming/scan.tiff", "ObjectCreated:CompleteMultipartUpload", version_id=VERSION, **SCAN),
    ),
    "s3_several_records": (
        expected("incoming/orders.csv", **ORDERS),
        expected("incoming/copy.csv", "ObjectCreated:Copy", etag=EMPTY_ETAG, size=0, sequencer="0067D3F10D8FA1B2C4"),
        expected(
            "incoming/form.csv",
            "ObjectCreated:Post",
            etag="9e107d9d372bb6826bd81d3542a419d6",
            size=77,
            sequencer="0067D3F10D8FA1B2C5",
        ),
    ),
    "s3_delete": (expected("incoming/orders.csv", "ObjectRemoved:Delete", sequencer="0067D3F3A1B0C0FFEE"),),
    "s3_delete_marker": (expected("incoming/orders.csv", "ObjectRemoved:DeleteMarkerCreated", **MARKER),),
    "s3_restore_completed": (expected("archive/2019.tar", "ObjectRestore:Completed", **TAR),),
    "s3_tagging_put": (expected("incoming/orders.csv", "ObjectTagging:Put", etag=ETAG, version_id=VERSION),),
    "s3_tagging_delete": (expected("incoming/orders.csv", "ObjectTagging:Delete", etag=ETAG),),
    "s3_lifecycle_expiration": (expected("tmp/old.log", "LifecycleExpiration:Delete", sequencer="0067D3F4000000000A"),),
    "s3_lifecycle_transition": (expected("archive/2024.tar", "LifecycleTransition", **TAR),),
    "s3_odd_keys": tuple(
        expected(key, etag="acbd18db4cc2f85cedef654fccc4a4d8", size=3, sequencer=f"0067D3F10D8FA1B2D{number}")
        for number, key in enumerate(ODD_KEYS)
    ),
    "sns_envelope": SPACED,
    "sns_raw_delivery": SPACED,
    "eventbridge_created": (
        bridged("incoming/100%25 done+x größe.csv", "ObjectCreated:Put", version_id=VERSION, **ORDERS),
    ),
    "eventbridge_created_event_version": (
        bridged("incoming/scan.tiff", "ObjectCreated:CompleteMultipartUpload", **SCAN),
    ),
    "eventbridge_deleted": (bridged("incoming/orders.csv", "ObjectRemoved:Delete", sequencer="0067D3F3A1B0C0FFEE"),),
    "eventbridge_delete_marker": (bridged("incoming/orders.csv", "ObjectRemoved:DeleteMarkerCreated", **MARKER),),
    "eventbridge_lifecycle_expiration": (
        bridged(
            "tmp/old.log",
            "LifecycleExpiration:DeleteMarkerCreated",
            etag=EMPTY_ETAG,
            version_id="marker.Old1brigade",
            sequencer="0067D3F4000000000A",
        ),
    ),
    "eventbridge_restore_completed": (bridged("archive/2019.tar", "ObjectRestore:Completed", **TAR),),
    "eventbridge_tags_added": (bridged("incoming/orders.csv", "ObjectTagging:Put", etag=ETAG, version_id=VERSION),),
    "eventbridge_in_sns": (bridged("incoming/100%25 done+x.csv", "ObjectCreated:Copy", **ORDERS),),
    "test_event": TestEvent("uploads-prod"),
    "test_event_in_sns": TestEvent("uploads-prod"),
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_sample_payload_is_read(name: str) -> None:
    """Every sample payload gives exactly the records, or the test event, written down for it."""
    assert parse(body_of(name)) == SAMPLES[name]


def test_every_sample_file_is_checked() -> None:
    """No sample lies in the folder without an expectation."""
    assert {path.stem for path in EVENTS.glob("*.json")} == set(SAMPLES)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_records_survive_json(name: str) -> None:
    """A record survives to_dict and JSON, which is how it travels to the pool as a Celery argument."""
    parsed = parse(body_of(name))
    for record in parsed if isinstance(parsed, tuple) else ():
        assert None not in record.to_dict().values()
        assert ObjectRecord(**json.loads(json.dumps(record.to_dict()))) == record


CREATED_DETAIL = {"bucket": {"name": "b"}, "object": {"key": "k"}}


@pytest.mark.parametrize(
    ("detail_type", "more", "event_name"),
    [
        ("Object Created", {"reason": "PutObject"}, "ObjectCreated:Put"),
        ("Object Created", {"reason": "POST Object"}, "ObjectCreated:Post"),
        ("Object Created", {"reason": "CopyObject"}, "ObjectCreated:Copy"),
        ("Object Created", {"reason": "CompleteMultipartUpload"}, "ObjectCreated:CompleteMultipartUpload"),
        ("Object Created", {"reason": "SomethingNew"}, "ObjectCreated:Other"),
        ("Object Created", {}, "ObjectCreated:Other"),
        ("Object Deleted", {"deletion-type": "Permanently Deleted"}, "ObjectRemoved:Delete"),
        ("Object Deleted", {"deletion-type": "Delete Marker Created"}, "ObjectRemoved:DeleteMarkerCreated"),
        ("Object Deleted", {"reason": "DeleteObject"}, "ObjectRemoved:Other"),
        (
            "Object Deleted",
            {"reason": "Lifecycle Expiration", "deletion-type": "Permanently Deleted"},
            "LifecycleExpiration:Delete",
        ),
        ("Object Restore Initiated", {}, "ObjectRestore:Post"),
        ("Object Restore Completed", {}, "ObjectRestore:Completed"),
        ("Object Restore Expired", {}, "ObjectRestore:Delete"),
        ("Object Tags Added", {}, "ObjectTagging:Put"),
        ("Object Tags Deleted", {}, "ObjectTagging:Delete"),
        ("Object ACL Updated", {}, "ObjectAcl:Put"),
        ("Object Storage Class Changed", {}, "LifecycleTransition"),
        ("Object Access Tier Changed", {}, "IntelligentTiering"),
    ],
)
def test_eventbridge_type_becomes_the_s3_event_name(detail_type: str, more: dict[str, str], event_name: str) -> None:
    """Each EventBridge detail-type, with its reason and deletion-type, has S3's own event name."""
    event = {"source": "aws.s3", "detail-type": detail_type, "detail": {**CREATED_DETAIL, **more}}
    assert parse(json.dumps(event)) == (ObjectRecord(bucket="b", key="k", event_name=event_name),)


NAME = "event_name"


@pytest.mark.parametrize(
    ("path", "value", "field", "read"),
    [
        ("s3.object.eTag", f'"{ETAG}"', "etag", ETAG),
        ("s3.object.eTag", '""', "etag", None),
        ("s3.object.eTag", None, "etag", None),
        ("s3.object.versionId", None, "version_id", None),
        ("s3.object.versionId", "", "version_id", None),
        ("s3.object.versionId", "null", "version_id", "null"),
        ("s3.object.size", 0, "size", 0),
        ("s3.object.size", 2**63 - 1, "size", 2**63 - 1),
        ("eventName", "s3:ObjectCreated:Put", NAME, "ObjectCreated:Put"),
        ("eventName", "ObjectInvented:Later", NAME, "ObjectInvented:Later"),
        ("eventVersion", "2.19", NAME, "ObjectCreated:Put"),
        ("awsRegion", None, "region", None),
    ],
)
def test_tolerated_value_is_read(path: str, value: object, field: str, read: object) -> None:
    """Quoted eTags, null and empty optional fields, and names and minor versions that are new to us are no fault."""
    parsed = parse(json.dumps(changed(path, value)))
    assert isinstance(parsed, tuple)
    assert getattr(parsed[0], field) == read


def changed(path: str, value: object, sample: str = "s3_2_1_put") -> dict[str, Any]:
    """The sample with one value replaced, or removed where the value is Ellipsis; the path is that of the record."""
    event: dict[str, Any] = copy.deepcopy(json.loads(body_of(sample)))
    *parents, last = path.split(".")
    holder = event["Records"][0] if "Records" in event else event
    for name in parents:
        holder = holder[name]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return event


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("eventVersion", "3.0", "eventVersion of record 1 is '3.0', but only 2.x is supported"),
        ("eventVersion", "20.1", "eventVersion of record 1 is '20.1', but only 2.x is supported"),
        ("eventVersion", 2.1, "eventVersion of record 1 is not text"),
        ("eventVersion", ..., "record 1 has no eventVersion"),
        ("eventSource", "minio:s3", "eventSource of record 1 is 'minio:s3', but only 'aws:s3' is supported"),
        ("eventSource", ..., "record 1 has no eventSource"),
        ("eventName", ..., "record 1 has no eventName"),
        ("eventTime", 1700000000, "eventTime of record 1 is not text"),
        ("s3", ..., "record 1 has no s3"),
        ("s3", [], "s3 of record 1 is not an object"),
        ("s3.bucket", ..., "record 1 has no s3.bucket"),
        ("s3.bucket.name", ..., "record 1 has no s3.bucket.name"),
        ("s3.bucket.name", "", "s3.bucket.name of record 1 is empty"),
        ("s3.bucket.name", 5, "s3.bucket.name of record 1 is not text"),
        ("s3.bucket.name", "b\ud800", "s3.bucket.name of record 1 contains a lone surrogate: 'b\\ud800'"),
        ("s3.object", ..., "record 1 has no s3.object"),
        ("s3.object.key", ..., "record 1 has no s3.object.key"),
        ("s3.object.key", None, "record 1 has no s3.object.key"),
        ("s3.object.key", "", "s3.object.key of record 1 is empty"),
        ("s3.object.key", ["k"], "s3.object.key of record 1 is not text"),
        ("s3.object.key", "a%00b", "s3.object.key of record 1 contains NUL: 'a\\x00b'"),
        ("s3.object.key", "a\0b", "s3.object.key of record 1 contains NUL: 'a\\x00b'"),
        ("s3.object.key", "a\udfffb", "s3.object.key of record 1 contains a lone surrogate: 'a\\udfffb'"),
        ("s3.object.key", "a%FFb", "record 1 has an s3.object.key that does not decode to UTF-8: 'a%FFb'"),
        ("s3.object.key", "%ED%A0%80", "record 1 has an s3.object.key that does not decode to UTF-8: '%ED%A0%80'"),
        ("s3.object.key", "k" * 1025, f"s3.object.key of record 1 is longer than S3's 1024 bytes: '{'k' * 40}'…"),
        ("s3.object.size", "1024", "s3.object.size of record 1 is not a number of bytes"),
        ("s3.object.size", 10.0, "s3.object.size of record 1 is not a number of bytes"),
        ("s3.object.size", True, "s3.object.size of record 1 is not a number of bytes"),
        ("s3.object.size", -1, "s3.object.size of record 1 is not a number of bytes"),
        ("s3.object.size", 2**63, "s3.object.size of record 1 is not a number of bytes"),
        ("s3.object.eTag", 17, "s3.object.eTag of record 1 is not text"),
        ("s3.object.versionId", {}, "s3.object.versionId of record 1 is not text"),
        ("s3.object.sequencer", 17, "s3.object.sequencer of record 1 is not text"),
    ],
)
def test_broken_s3_record_is_malformed(path: str, value: object, message: str) -> None:
    """A broken record is malformed, and the text names the record, the field and the fault."""
    with pytest.raises(MalformedEvent) as caught:
        parse(json.dumps(changed(path, value)))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("source", "aws.ec2", "source of the EventBridge event is 'aws.ec2', but only 'aws.s3' is supported"),
        ("detail", ..., "the EventBridge event has no detail"),
        (
            "detail.event-version",
            "2.0",
            "detail.event-version of the EventBridge event is '2.0', but only 1.x is supported",
        ),
        ("detail.object.key", "", "detail.object.key of the EventBridge event is empty"),
        ("detail.object.key", "a\0", "detail.object.key of the EventBridge event contains NUL: 'a\\x00'"),
        ("detail.bucket.name", ..., "the EventBridge event has no detail.bucket.name"),
        ("detail.reason", 5, "detail.reason of the EventBridge event is not text"),
        ("time", 17, "time of the EventBridge event is not text"),
        (
            "detail-type",
            "AWS API Call via CloudTrail",
            "the EventBridge event has detail-type 'AWS API Call via CloudTrail', which is not an event of an object",
        ),
    ],
)
def test_broken_eventbridge_event_is_malformed(path: str, value: object, message: str) -> None:
    """A broken EventBridge event, or one that tells of no object, is malformed and says where."""
    with pytest.raises(MalformedEvent) as caught:
        parse(json.dumps(changed(path, value, "eventbridge_created")))
    assert str(caught.value) == message


def deep(levels: int) -> str:
    """Lists inside lists."""
    return "[" * levels + "]" * levels


NO_EVENT = "not an S3 event: it has neither Records nor detail-type, and it is not an s3:TestEvent"
NOT_OBJECT = "JSON, but not an object"
TOO_LONG = "JSON that cannot be read: a number has too many digits"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("", "not JSON: Expecting value at line 1, column 1", id="empty"),
        pytest.param(" ", "not JSON: Expecting value at line 1, column 2", id="one space"),
        pytest.param("{}", NO_EVENT, id="empty object"),
        pytest.param("[]", NOT_OBJECT, id="list"),
        pytest.param("17", NOT_OBJECT, id="number"),
        pytest.param("null", NOT_OBJECT, id="null"),
        pytest.param('"Records"', NOT_OBJECT, id="string"),
        pytest.param('{"Records": [', "not JSON: Expecting value at line 1, column 14", id="truncated"),
        pytest.param("lorem " * 42_000, "not JSON: Expecting value at line 1, column 1", id="250 KB of text"),
        pytest.param("NaN", "not JSON: NaN is not a JSON number", id="NaN"),
        pytest.param('{"Records": -Infinity}', "not JSON: -Infinity is not a JSON number", id="infinity"),
        pytest.param("9" * 5_000, TOO_LONG, id="huge integer"),
        pytest.param(
            "\ufeff{}", "not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at line 1, column 1", id="BOM"
        ),
        pytest.param("\ud800", "not JSON: Expecting value at line 1, column 1", id="lone surrogate"),
        pytest.param('{"properties": {}}', NO_EVENT, id="properties"),
        pytest.param('{"properties": null}', NO_EVENT, id="properties null"),
        pytest.param('{"properties": "x"}', NO_EVENT, id="properties text"),
        pytest.param('{"properties": {}, "body": 5}', NO_EVENT, id="properties with a number as body"),
        pytest.param('{"Records": []}', "Records is empty", id="no records"),
        pytest.param('{"Records": "x"}', "Records is not a list", id="records text"),
        pytest.param('{"Records": null}', "Records is not a list", id="records null"),
        pytest.param('{"Records": [null]}', "record 1 is not an object", id="record null"),
        pytest.param('{"Event": "s3:TestEvent"}', NO_EVENT, id="test event of no service"),
        pytest.param(
            '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": 5}',
            "Bucket of the test event is not text",
            id="test event with a number as bucket",
        ),
        pytest.param(
            '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Records": []}',
            "Records is empty",
            id="records that pose as a test event",
        ),
        pytest.param(
            '{"Type": "Notification", "Message": "hello"}',
            "in the SNS Message: not JSON: Expecting value at line 1, column 1",
            id="SNS Message is not JSON",
        ),
        pytest.param('{"Type": 5, "Message": "{}"}', NO_EVENT, id="SNS Type is a number"),
        pytest.param(
            '{"Type": "Notification", "Message": "{}", "Records": []}',
            "Records is empty",
            id="records that pose as an SNS envelope",
        ),
        pytest.param(
            '{"Type": "Notification", "Message": {}}',
            "the Message of the SNS Notification is not text",
            id="SNS Message is an object",
        ),
        pytest.param(
            '{"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe"}',
            "SNS sent a 'SubscriptionConfirmation', not a Notification",
            id="SNS subscription confirmation",
        ),
        pytest.param(
            json.dumps({"Type": "Notification", "Message": body_of("sns_envelope")}),
            "in the SNS Message: an SNS envelope inside an SNS envelope",
            id="SNS in SNS",
        ),
    ],
)
def test_body_that_is_no_event_is_malformed(body: str, message: str) -> None:
    """A body that is no S3 event in a form we know is malformed, and the text says why."""
    with pytest.raises(MalformedEvent) as caught:
        parse(body)
    assert str(caught.value) == message


@pytest.mark.parametrize("levels", [4_000, 100_000])
def test_json_nested_deeply_is_malformed(levels: int) -> None:
    """Deep nesting raises no RecursionError; the wording depends on where Python's own limit lies."""
    for body in (deep(levels), '{"Records": ' + deep(levels) + "}", '{"a": ' * levels + "1" + "}" * levels):
        with pytest.raises(MalformedEvent):
            parse(body)
        assert not is_celery_message(body)


def test_second_record_is_named() -> None:
    """The position in the text is the record's, and one bad record makes the whole event malformed."""
    event = json.loads(body_of("s3_several_records"))
    del event["Records"][1]["s3"]["object"]["key"]
    with pytest.raises(MalformedEvent, match=r"^record 2 has no s3\.object\.key$"):
        parse(json.dumps(event))


def test_test_event_without_a_bucket() -> None:
    """A test event need not name its bucket."""
    assert parse('{"Service": "Amazon S3", "Event": "s3:TestEvent"}') == TestEvent(None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("%41" * 350_000, id="text"),
        pytest.param(deep(524_288), id="lists"),
        pytest.param("9" * 2**20, id="digits"),
        pytest.param('{"Records": [' + ",".join(["{}"] * 349_000) + "]}", id="empty records"),
        pytest.param(json.dumps(changed("s3.object.key", "%C3%BC" * 170_000)), id="long key"),
        pytest.param(json.dumps(changed("s3.object.key", "%zz+é" * 130_000)), id="long key, broken escapes"),
        pytest.param(json.dumps(changed("eventVersion", "1." * 500_000)), id="long version"),
        pytest.param(json.dumps({"Type": "Notification", "Message": '"' * 500_000}), id="quotes in SNS"),
        pytest.param(base64.b64encode(b'{"a": 1' + b" " * 780_000 + b"}").decode(), id="base64"),
    ],
)
def test_one_mebibyte_is_refused_quickly(body: str) -> None:
    """The largest body SQS carries (1 MiB) is refused within two seconds of computing, with a short text."""
    started = time.process_time()
    with pytest.raises(MalformedEvent) as caught:
        parse(body)
    is_celery_message(body)
    assert time.process_time() - started < 2
    assert len(str(caught.value)) < 200


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run moto in this process, with credentials that open nothing."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("through", ["Queue", "Topic"])
def test_moto_notification_is_read(through: str) -> None:
    """The test event and the events that moto's S3 sends, straight to SQS or through SNS, give back the keys put."""
    sqs, sns, s3 = boto3.client("sqs"), boto3.client("sns"), boto3.client("s3")
    queue_url = sqs.create_queue(QueueName="uploads")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    if through == "Topic":
        topic = sns.create_topic(Name="uploads")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        arn = topic
    s3.create_bucket(Bucket="uploads", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_notification_configuration(
        Bucket="uploads",
        NotificationConfiguration={
            f"{through}Configurations": [{f"{through}Arn": arn, "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    for key in ODD_KEYS:
        s3.put_object(Bucket="uploads", Key=key, Body=b"foo")
    received: list[object] = []
    while messages := sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages", []):
        received += [parse(message["Body"]) for message in messages]
    records = [read[0] for read in received if isinstance(read, tuple)]
    assert [read for read in received if not isinstance(read, tuple)] == [TestEvent("uploads")]
    assert {record.key for record in records} == set(ODD_KEYS)
    assert {(record.bucket, record.size, record.etag, record.event_name, record.region) for record in records} == {
        ("uploads", 3, "acbd18db4cc2f85cedef654fccc4a4d8", "ObjectCreated:Put", "eu-west-1")
    }


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("encoded", [True, False])
def test_what_celery_sends_is_a_celery_message(protocol: int, encoded: bool) -> None:
    """What Celery really sends through Kombu's SQS transport is recognised, and is no S3 event."""
    sqs = boto3.client("sqs")
    queue_url = sqs.create_queue(QueueName="celery")["QueueUrl"]
    app = Celery(broker="sqs://", set_as_current=False)
    app.conf.update(
        task_protocol=protocol,
        broker_transport_options={
            "region": "eu-west-1",
            "sqs_base64_encoding": encoded,
            "predefined_queues": {"celery": {"url": queue_url, "region": "eu-west-1"}},
        },
    )
    with app.connection_for_write() as connection:
        app.send_task("shop.charge", args=[1], kwargs={"key": "ü"}, connection=connection)
    (message,) = sqs.receive_message(QueueUrl=queue_url)["Messages"]
    assert message["Body"].startswith("{") is not encoded
    assert is_celery_message(message["Body"])
    with pytest.raises(MalformedEvent):
        parse(message["Body"])


@pytest.mark.parametrize(
    ("body", "expectation"),
    [
        ('{"task": "t", "id": "1", "args": [], "kwargs": {}}', True),
        ('{"task": "t", "args": []}', False),
        ('{"task": 5, "id": "1", "args": []}', False),
        ('{"body": "W10=", "headers": {"task": "t"}, "properties": {}}', True),
        ('{"body": "W10=", "headers": {"task": "t"}, "properties": null}', False),
        ('{"body": "W10=", "headers": {}, "properties": {}}', False),
        ('{"body": "W10=", "headers": null, "properties": {}}', False),
        ('{"body": 5, "headers": {"task": "t"}, "properties": {}}', False),
        ('{"properties": {}, "body": 5}', False),
        ("!" + base64.b64encode(b'{"task": "t", "id": "1", "args": []}').decode(), False),
        ("", False),
        (" ", False),
        ("null", False),
        ("bm90IGpzb24=", False),
        ("/////w==", False),
        ("not base64!", False),
        ("\ud800", False),
        ("9" * 5_000, False),
    ],
)
def test_celery_message_is_told_from_others(body: str, expectation: bool) -> None:
    """Task messages of both protocols are recognised plain and in base64 with blanks around; nothing else is."""
    assert is_celery_message(body) is expectation
    wrapped = base64.b64encode(body.encode(errors="replace")).decode()
    assert is_celery_message(f" {wrapped}\n") is expectation


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_s3_event_is_no_celery_message(name: str) -> None:
    """No S3 event is taken for a Celery message."""
    assert not is_celery_message(body_of(name))


def test_parser_is_pure() -> None:
    """The parser imports the standard library and bridge.errors only, and no clock and no files."""
    source = Path(sys.modules[parse.__module__].__file__ or "").read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    imported = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert imported - {"bridge.errors"} <= sys.stdlib_module_names | {"urllib.parse"}
    assert not imported & {"time", "datetime", "os", "pathlib", "io"}
