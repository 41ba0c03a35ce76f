"""A bucket that notifies the queue by itself: nothing here writes an event by hand. Only moto has S3 and SQS in one."""

from __future__ import annotations

import pytest

from tests.e2e.outcomes.rig import Rig
from tests.support.servers.waiting import wait_until

KEYS = ("a b+ü%25.txt", "plus+and space", "100%", "%2B", "日本/語 🪣.csv", "a&b=c;d", "quote'\"<>.txt", "~tilde~")


@pytest.fixture(scope="module")
def rig(moto_server):
    """A worker on the queue that the bucket notifies."""
    with Rig(moto_server) as rig:
        rig.server.s3.put_bucket_notification_configuration(
            Bucket=rig.bucket,
            NotificationConfiguration={
                "QueueConfigurations": [{"QueueArn": rig.queues["main"].arn, "Events": ["s3:ObjectCreated:*"]}]
            },
        )
        rig.start_worker("-c", "2")
        yield rig


@pytest.mark.parametrize("name", KEYS)
def test_the_exact_key(rig, name):
    """The task sees the very key that was put, reads the very bytes, and the message is deleted."""
    key, content = f"ok/{name}", f"content of {name}"
    rig.server.s3.put_object(Bucket=rig.bucket, Key=key, Body=content.encode())

    run = rig.worker.wait_event("run", content=content)
    assert run["key"] == key
    assert rig.course(run["message_id"]) == [("deleted", None)]
    assert [n["argsrepr"] for n in rig.notes(run["message_id"], "received")] == [f"s3://{rig.bucket}/{key}"]


def test_moto_s_test_event_was_ignored(rig):
    """Setting up the notification sent a test event; no task ran for it, and it is gone."""
    wait_until(
        lambda: rig.worker.found("message_settled", outcome="ignored", reason="test-event"), 45, "an ignored test event"
    )
    assert rig.worker.found("message_settled", outcome="dead_lettered") == []
    rig.wait_empty("main")
