"""tasks.archive in a real worker, started with the settings of the service it takes over from, on queue and bucket."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.bad_input.bodies import event
from tests.support.fault_proxy import Call, FaultProxy
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

END_SECONDS = 45.0


class Archive:
    """The worker, its queue and bucket, and the proxies between it and both services."""

    def __init__(self, server: SqsServer, queue: QueuePair, bucket: str, sqs: FaultProxy, s3: FaultProxy) -> None:
        self.server, self.queue, self.bucket, self.sqs, self.s3 = server, queue, bucket, sqs, s3
        self.worker: WorkerProcess

    def send(self, body: str, **options: Any) -> str:
        """Send a message past the proxy and return its id."""
        return send(self.server, self.queue.url, body, **options)

    def listed(self) -> list[str]:
        """Every key of the bucket: ``aws s3 ls s3://bucket/ --recursive``."""
        listed = self.server.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [entry["Key"] for entry in listed]

    def settled(self, message_id: str) -> dict[str, Any]:
        """Wait until SQS has confirmed the deletion of a message, and return how it was settled."""
        return self.worker.wait_event("message_settled", END_SECONDS, message_id=message_id, outcome="deleted")

    def content(self, message_id: str) -> dict[str, Any]:
        """The object of a message, waited for: ``aws s3 cp s3://bucket/…/<message-id>.json -``."""
        self.settled(message_id)
        [key] = [key for key in self.listed() if key.endswith(f"/{message_id}.json")]
        found: dict[str, Any] = json.loads(self.server.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        return found

    def uploads(self, message_id: str) -> list[Call]:
        """The worker's puts of a message's object; the proxy calls the last part of a path the queue."""
        return [call for call in self.s3.calls if call.queue == f"{message_id}.json"]

    def deletions(self, message_id: str) -> list[Call]:
        """The worker's deletes of a message."""
        return [call for call in self.sqs.for_message(message_id) if call.action.startswith("DeleteMessage")]


@pytest.fixture(scope="module")
def archive(moto_server: SqsServer) -> Iterator[Archive]:
    """A worker that knows the seed's settings and our module, and nothing else."""
    queues, bucket = QueueFactory(), f"archive-{uuid.uuid4().hex[:8]}"
    queue = queues(moto_server, prefix="inbox")
    moto_server.s3.create_bucket(Bucket=bucket)
    with FaultProxy(moto_server.endpoint_url) as sqs, FaultProxy(moto_server.s3_endpoint_url) as s3:
        site = Archive(moto_server, queue, bucket, sqs, s3)
        settings = {
            "AWS_ENDPOINT_URL_SQS": sqs.url,
            "AWS_ENDPOINT_URL_S3": s3.url,
            "SQS_QUEUE_URL": queue.url,
            "S3_BUCKET_NAME": bucket,
            "POLL_INTERVAL_SECONDS": "0.2",
            "MAX_MESSAGES_PER_POLL": "10",
            "BRIDGE_TASK_MODULES": "tasks.archive",
            "BRIDGE_WAIT_TIME_SECONDS": "1",
            "BRIDGE_RETRY_BACKOFF_SECONDS": "1",
            "BRIDGE_RETRY_BACKOFF_MAX_SECONDS": "1",
            "BRIDGE_HEALTH_PORT": "0",
        }
        try:
            with WorkerProcess(
                environment_for(moto_server) | settings, "-c", "2", "--prefetch-multiplier", "5"
            ) as site.worker:
                yield site
        finally:
            queues.delete_all()


def test_the_seeds_example_ends_in_its_object(archive: Archive) -> None:
    """The message of the seed's own test ends under the hour it was sent in, with the seed's fields, and is deleted."""
    body = '{"test": "message", "timestamp": "2025-11-28T14:30:00"}'
    before = datetime.now(UTC)
    message_id = archive.send(body, attributes={"source": {"DataType": "String", "StringValue": "shell"}})

    content = archive.content(message_id)

    sent = datetime.fromtimestamp(int(content["attributes"]["SentTimestamp"]) / 1000, UTC)
    assert abs((sent - before).total_seconds()) < END_SECONDS
    assert f"sqs-messages/{sent:%Y/%m/%d/%H}/{message_id}.json" in archive.listed()
    assert list(content) == [
        "message_id",
        "body",
        "parsed_body",
        "attributes",
        "message_attributes",
        "received_at",
        "receipt_handle",
    ]
    assert (content["message_id"], content["body"]) == (message_id, body)
    assert content["parsed_body"] == {"test": "message", "timestamp": "2025-11-28T14:30:00"}
    assert content["message_attributes"]["source"]["StringValue"] == "shell"
    received = datetime.strptime(content["received_at"], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)
    assert abs((received - before).total_seconds()) < END_SECONDS
    [deletion] = archive.deletions(message_id)
    assert content["receipt_handle"] in [entry["ReceiptHandle"] for entry in deletion.request["Entries"]]
    [line] = archive.worker.found("archived", message_id=message_id)
    assert (line["bucket"], line["key"].rsplit("/", 1)[1]) == (archive.bucket, f"{message_id}.json")


def test_the_seeds_settings_are_told_with_ours(archive: Archive) -> None:
    """One line in the log for each old name says which setting of ours it stands for."""
    lines = {line["setting"]: line["use"] for line in archive.worker.found("old_setting_name")}
    assert lines == {
        "POLL_INTERVAL_SECONDS": "BRIDGE_POLL_INTERVAL_SECONDS=0.2 and BRIDGE_POLL_MODE=paced",
        "MAX_MESSAGES_PER_POLL": "BRIDGE_MAX_MESSAGES_PER_POLL=10",
        "S3_BUCKET_NAME": f"BRIDGE_ARCHIVE_URL=s3://{archive.bucket}/sqs-messages/",
    }


def test_a_message_is_deleted_after_its_upload_is_confirmed(archive: Archive) -> None:
    """On one clock: no delete begins before S3 has answered 200, also when S3 fails first or its answer is lost."""
    archive.s3.fail("", status=503, code="SlowDown", times=1)
    archive.s3.drop_response("", times=1)
    archive.s3.fail("", status=403, code="AccessDenied", times=1)

    ids = [archive.send(f'{{"n": {n}}}') for n in range(8)]

    for message_id in ids:
        archive.settled(message_id)
        deletions = archive.deletions(message_id)
        confirmed = [
            call.finished_at
            for call in archive.uploads(message_id)
            if call.status == 200 and call.outcome == "forwarded" and call.finished_at is not None
        ]
        assert min(confirmed) < min(call.started_at for call in deletions), message_id
    outcomes = {(call.outcome, call.status) for call in archive.s3.calls}
    assert {("failed", 503), ("failed", 403), ("dropped", 200), ("forwarded", 200)} <= outcomes
    assert archive.worker.found("task_retried"), "a refusal that boto3 does not try again is retried by the worker"


def test_while_s3_refuses_the_message_waits(archive: Archive) -> None:
    """However often S3 refuses, the message is retried and neither deleted nor dead-lettered; then it is archived."""
    archive.s3.fail("", status=403, code="AccessDenied", times=None)
    message_id = archive.send("patience")
    try:
        wait_until(
            lambda: len(archive.worker.found("task_retried", message_id=message_id)) >= 2, END_SECONDS, "two retries"
        )
        assert archive.deletions(message_id) == []
    finally:
        archive.s3.clear()
    assert archive.content(message_id)["body"] == "patience"
    assert counts(archive.server, archive.queue.dlq_url).total == 0


@pytest.mark.parametrize(
    "body",
    [
        "garbage",
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"}',
        json.dumps(event("incoming/a.csv")),
        '{"body": "W10=", "headers": {"task": "tasks.archive.archive", "id": "1"}, "properties": {}}',
    ],
    ids=["garbage", "test event", "S3 event", "Celery message"],
)
def test_every_body_is_archived(archive: Archive, body: str) -> None:
    """What no other task would take is archived as it is."""
    content = archive.content(archive.send(body))
    assert content["body"] == body
    assert ("parsed_body" in content) == (body != "garbage")


def test_the_archives_own_events_are_ignored(archive: Archive) -> None:
    """An event for an object under the archive makes no further object, or they would go round for ever."""
    own = event("sqs-messages/2025/11/28/14/x.json")
    own["Records"][0]["s3"]["bucket"]["name"] = archive.bucket
    message_id = archive.send(json.dumps(own))
    settled = archive.worker.wait_event("message_settled", END_SECONDS, message_id=message_id)
    assert (settled["outcome"], settled["reason"]) == ("ignored", "own-output")
    assert archive.uploads(message_id) == []


def test_without_a_target_a_worker_does_not_start(moto_server: SqsServer) -> None:
    """A worker that could archive nowhere says so in one line and exits with 2."""
    queues = QueueFactory()
    settings = {
        "SQS_QUEUE_URL": queues(moto_server).url,
        "BRIDGE_TASK_MODULES": "tasks.archive",
        "BRIDGE_HEALTH_PORT": "0",
    }
    try:
        with WorkerProcess(environment_for(moto_server) | settings, wait_ready=False) as worker:
            assert worker.wait_exit(END_SECONDS) == 2
        assert [line for line in worker.lines if "BRIDGE_ARCHIVE_URL is not set" in line] == [worker.lines[-1]]
        assert "Traceback" not in worker.output
    finally:
        queues.delete_all()
