"""Whether a bucket announces an object by itself, read from its notification configuration."""

from __future__ import annotations

import pytest

from bridge.s3.event import ObjectRecord, parse
from bridge.s3.event_body import put_event_body
from bridge.s3.notification import announced

ARN = "arn:aws:sqs:eu-west-1:123456789012:uploads"
PUT = "ObjectCreated:Put"


def to_queue(arn=ARN, events=("s3:ObjectCreated:*",), **rules):
    """A configuration with one queue; ``rules`` are prefix and suffix."""
    entry = {"QueueArn": arn, "Events": list(events)}
    if rules:
        entry["Filter"] = {"Key": {"FilterRules": [{"Name": n.title(), "Value": v} for n, v in rules.items()]}}
    return {"QueueConfigurations": [entry]}


@pytest.mark.parametrize(
    ("configuration", "answer"),
    [
        ({}, "no"),
        (to_queue(), "yes"),
        (to_queue(events=["s3:ObjectCreated:Put"]), "yes"),
        (to_queue(events=["s3:ObjectRemoved:*"]), "no"),
        (to_queue(events=["s3:ObjectCreated:CompleteMultipartUpload"]), "no"),
        (to_queue(ARN + "-other"), "no"),
        (to_queue(prefix="in/"), "yes"),
        (to_queue(prefix="out/"), "no"),
        (to_queue(prefix="in/", suffix=".csv"), "yes"),
        (to_queue(prefix="in/", suffix=".txt"), "no"),
        ({"TopicConfigurations": [{"TopicArn": "t", "Events": ["s3:ObjectCreated:*"]}]}, "perhaps"),
        ({"TopicConfigurations": [{"TopicArn": "t", "Events": ["s3:ObjectRemoved:*"]}]}, "no"),
        ({"EventBridgeConfiguration": {}}, "perhaps"),
        ({**to_queue(), "EventBridgeConfiguration": {}}, "yes"),
    ],
)
def test_who_announces_it(configuration, answer):
    """Only a rule for this queue, this kind of event and this key counts; SNS and EventBridge may lead anywhere."""
    assert announced(configuration, "in/a.csv", PUT, ARN) == answer


def test_the_event_is_one_that_s3_could_have_sent():
    """What is parsed from the body is what was uploaded, odd characters of the key included."""
    record = ObjectRecord(
        bucket="uploads", key="in/a b+c%20ü.csv", version_id="v1", etag="e", size=3, event_name=PUT, region="eu-west-1"
    )
    assert parse(put_event_body(record)) == (record,)


@pytest.mark.parametrize(
    ("filters", "key", "answer"),
    [
        ({"prefix": "in+box/%C3%A4/"}, "in box/ä/a.csv", "yes"),
        ({"prefix": "in%20box/"}, "in box/a.csv", "yes"),
        ({"prefix": "in+box/"}, "in+box/a.csv", "no"),
        ({"prefix": "in%2Bbox/"}, "in+box/a.csv", "yes"),
        ({"suffix": "%281%29.csv"}, "in/a(1).csv", "yes"),
        ({"suffix": "(1).csv"}, "in/a(1).csv", "yes"),
        ({"suffix": "+1.csv"}, "in/a+1.csv", "no"),
    ],
)
def test_a_filter_is_compared_decoded(filters, key, answer):
    """S3 keeps filters URL-encoded, so `brigade put` decodes them: else a second event would go beside S3's own."""
    assert announced(to_queue(**filters), key, PUT, ARN) == answer
