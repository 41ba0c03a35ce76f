"""The doctor's verdicts: what was read → ok, warning or error. No server, every case."""

from __future__ import annotations

import json

import pytest

from bridge.operations.doctor import queue
from bridge.operations.doctor.access import Probe, check_clock, check_credentials, check_permission
from bridge.operations.doctor.bucket import check_notification, check_outputs, check_policy
from bridge.s3.outputs import output_prefixes

ARN = "arn:aws:sqs:eu-west-1:123456789012:uploads"
DLQ_ARN = f"{ARN}-dlq"
DAY = 86_400


def redrive(count: int | str = 20) -> dict[str, str]:
    """Attributes with a RedrivePolicy."""
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": DLQ_ARN, "maxReceiveCount": count})}


@pytest.mark.parametrize(
    ("attributes", "dlq_url", "dlq", "level"),
    [
        (redrive(), None, {}, "ok"),
        (redrive(), None, None, "error"),
        ({}, None, None, "error"),
        ({}, "https://dlq", {}, "warning"),
        ({"RedrivePolicy": "garbage"}, None, None, "error"),
    ],
)
def test_dead_letter_queue(attributes, dlq_url, dlq, level):
    """A queue needs a DLQ that can be read; SQS_DLQ_URL alone leaves SQS's own redrive out."""
    assert queue.check_dead_letter_queue("q", attributes, dlq_url, dlq).level == level


@pytest.mark.parametrize(
    ("count", "retries", "spare", "level"),
    [
        (17, 5, 10, "ok"),
        (16, 5, 10, "warning"),
        (6, 5, 10, "warning"),
        (5, 5, 10, "error"),
        ("5", 5, 10, "error"),
        (1000, None, 10, "warning"),
    ],
)
def test_receive_count(count, retries, spare, level):
    """MaxReceiveCount must be above the runs and the spare receives; below the runs it takes retries away."""
    assert queue.check_receive_count("q", redrive(count), retries, spare).level == level


def test_no_redrive_policy_takes_no_message():
    """Without a RedrivePolicy no receive count is too low."""
    assert queue.check_receive_count("q", {}, 5, 10).level == "ok"


@pytest.mark.parametrize(
    ("own", "dlq", "level"),
    [(4 * DAY, 14 * DAY, "ok"), (4 * DAY, 4 * DAY, "error"), (14 * DAY, 4 * DAY, "error"), (None, None, "ok")],
)
def test_dlq_retention(own, dlq, level):
    """The DLQ must keep longer than the queue, since a dead letter's age counts from its first send."""
    attributes, theirs = ({} if s is None else {"MessageRetentionPeriod": str(s)} for s in (own, dlq))
    assert queue.check_dlq_retention("q", attributes, theirs).level == level


@pytest.mark.parametrize(
    ("check", "attributes", "level"),
    [
        (queue.check_retention, {"MessageRetentionPeriod": "345600"}, "ok"),
        (queue.check_retention, {"MessageRetentionPeriod": "3600"}, "warning"),
        (queue.check_retention, {}, "ok"),
        (queue.check_message_size, {"MaximumMessageSize": "65535"}, "error"),
        (queue.check_message_size, {"MaximumMessageSize": "65536"}, "ok"),
        (queue.check_message_size, {}, "ok"),
        (queue.check_dlq_depth, {"ApproximateNumberOfMessages": "3"}, "warning"),
        (queue.check_dlq_depth, {"ApproximateNumberOfMessages": "0"}, "ok"),
    ],
)
def test_simple_attributes(check, attributes, level):
    """Retention of a day, room for S3's largest event, an empty DLQ."""
    assert check("q", attributes).level == level


@pytest.mark.parametrize(
    ("attributes", "from_s3", "level"),
    [
        ({"KmsMasterKeyId": "alias/aws/sqs"}, True, "error"),
        ({"KmsMasterKeyId": "arn:aws:kms:eu-west-1:1:alias/aws/sqs"}, True, "error"),
        ({"KmsMasterKeyId": "alias/aws/sqs"}, False, "ok"),
        ({"KmsMasterKeyId": "alias/ours"}, True, "ok"),
        ({"SqsManagedSseEnabled": "false"}, True, "warning"),
        ({"SqsManagedSseEnabled": "true"}, True, "ok"),
        ({}, True, "ok"),
    ],
)
def test_encryption(attributes, from_s3, level):
    """S3 cannot send to a queue with SQS's own KMS key; without any encryption there is a warning."""
    assert queue.check_encryption("q", attributes, from_s3=from_s3).level == level


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        (None, "ok"),
        ({"redrivePermission": "allowAll"}, "ok"),
        ({"redrivePermission": "denyAll"}, "error"),
        ({"redrivePermission": "byQueue", "sourceQueueArns": [ARN]}, "ok"),
        ({"redrivePermission": "byQueue", "sourceQueueArns": [DLQ_ARN]}, "error"),
    ],
)
def test_dlq_allows(policy, level):
    """A RedriveAllowPolicy must let this queue in."""
    dlq = {} if policy is None else {"RedriveAllowPolicy": json.dumps(policy)}
    assert queue.check_dlq_allows("q", ARN, dlq).level == level


def notification(prefix="", suffix="", arn=ARN):
    """A configuration with one entry for the queue."""
    rules = [{"Name": "Prefix", "Value": prefix}, {"Name": "Suffix", "Value": suffix}]
    entry = {"Id": "x", "QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": rules}}}
    return {"QueueConfigurations": [entry]}


@pytest.mark.parametrize(
    ("configuration", "level"),
    [
        (notification(), "ok"),
        (notification(arn=DLQ_ARN), "error"),
        ({}, "error"),
        ({"TopicConfigurations": [{"TopicArn": "t", "Events": ["s3:ObjectCreated:*"]}]}, "warning"),
        ({"EventBridgeConfiguration": {}}, "warning"),
    ],
)
def test_notification(configuration, level):
    """Something must tell our queue; a topic or EventBridge may, which cannot be seen from here."""
    assert check_notification("b", configuration, [ARN]).level == level


@pytest.mark.parametrize(
    ("configuration", "level"),
    [
        (notification(), "error"),
        (notification(prefix="out/"), "error"),
        (notification(prefix="out/deep/"), "error"),
        (notification(prefix="ou"), "error"),
        (notification(prefix="in/"), "ok"),
        (notification(suffix=".csv"), "warning"),
        (notification(suffix=".json"), "error"),
        (notification(suffix="n"), "error"),
        (notification(arn=DLQ_ARN), "ok"),
    ],
)
def test_outputs(configuration, level):
    """A notification that covers our own output is an error; for a suffix that we never write, a warning."""
    outputs = output_prefixes(results_url="s3://b/out/", archive_url="s3://other/", idempotency_url="dynamodb://table")
    [finding] = check_outputs("b", configuration, [ARN], outputs)
    assert finding.level == level


def test_every_output_is_known():
    """Results, archive and a store in S3 are outputs, each with one slash at its end; a table is none."""
    found = output_prefixes(results_url="s3://a/r/", archive_url="s3://b/x/", idempotency_url="s3://c/claims")
    assert [output.url for output in found] == ["s3://a/r/", "s3://b/x/", "s3://c/claims/"]


def statement(**fields):
    """A policy with one statement, that of the S3 user guide with these changes."""
    base = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "SQS:SendMessage",
        "Resource": ARN,
        "Condition": {
            "ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:uploads"},
            "StringEquals": {"AWS:SourceAccount": "123456789012"},
        },
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [base | fields]})


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        (statement(), "ok"),
        (statement(Action=["sqs:*"], Principal="*"), "ok"),
        (statement(Resource="arn:aws:sqs:*:*:up*"), "ok"),
        (None, "error"),
        ("garbage", "error"),
        (json.dumps({"Statement": []}), "error"),
        (statement(Action="sqs:ReceiveMessage"), "error"),
        (statement(Resource=DLQ_ARN), "error"),
        (statement(Principal={"Service": "sns.amazonaws.com"}), "error"),
        (statement(Principal={"AWS": "arn:aws:iam::123456789012:root"}), "error"),
        (statement(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:s3:::other"}}), "error"),
        (statement(Effect="Deny", Condition={}), "error"),
        (statement(Condition={}), "warning"),
        (statement(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:s3:::uploads"}}), "warning"),
        (statement(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), "warning"),
    ],
)
def test_policy(policy, level):
    """The policy must let S3 send for this bucket, and should name the bucket and its account."""
    if policy is not None and "arn:aws:s3:*:*:uploads" in policy:
        policy = policy.replace("arn:aws:s3:*:*:uploads", "arn:aws:s3:*:*:*")
    assert check_policy("uploads", policy, ARN, "uploads").level == level


@pytest.mark.parametrize(
    ("code", "level"),
    [
        (None, "ok"),
        ("ReceiptHandleIsInvalid", "ok"),
        ("AWS.SimpleQueueService.ReceiptHandleIsInvalid", "ok"),
        ("AccessDenied", "error"),
        ("403", "error"),
        ("ExpiredToken", "error"),
        ("Throttling", "warning"),
    ],
)
def test_permission(code, level):
    """Denied is an error with the action to allow; refused for its arguments is a permission; the rest is open."""
    finding = check_permission(Probe("sqs:DeleteMessage", "q", code, frozenset({"ReceiptHandleIsInvalid"}), ARN))
    assert finding.level == level
    assert code != "AccessDenied" or finding.remedy == f"allow sqs:DeleteMessage on {ARN}"


@pytest.mark.parametrize(("skew", "level"), [(None, "ok"), (-30, "ok"), (90, "warning"), (-280, "error")])
def test_clock(skew, level):
    """A clock that AWS would refuse soon is an error."""
    assert check_clock(skew).level == level


def test_credentials():
    """None at all, and refused ones, are errors; where they come from is told."""
    assert check_credentials(None, None, None).level == "error"
    assert check_credentials("env", None, "refused").level == "error"
    assert "from iam-role, as arn:x" in check_credentials("iam-role", "arn:x", None).text
