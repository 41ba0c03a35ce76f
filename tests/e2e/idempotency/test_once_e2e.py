"""Once, although delivered twice: real workers, real signals, both stores.

Everything is started at the same time, for most of it waits for a claim's expiry or a backoff.
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from bridge.idempotency.identity import of_record
from bridge.idempotency.record import Record, from_json
from bridge.s3.event import parse
from bridge.s3.object import S3Object
from bridge.testing import s3_event
from tests.e2e.delivery.conftest import Scenarios, Site, running_scenarios
from tests.support.servers.sqs import SqsServer, counts
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.elasticmq]

STORES = ("s3", "dynamodb")
TASKS = "tests.e2e.idempotency.once_tasks"


class Once(Site):
    """A site whose workers have a store, and a bucket whose objects tell the effects."""

    def __init__(self, server: SqsServer, folder: Path, store: str) -> None:
        """``store`` is one of STORES."""
        super().__init__(server, folder)
        self.bucket = f"once-{uuid.uuid4().hex[:8]}"
        server.s3.create_bucket(Bucket=self.bucket)
        self.url = f"s3://{self.bucket}/claims"
        self.dynamodb: Any = None
        if store == "dynamodb":
            self.dynamodb = boto3.session.Session("test", "test", region_name="us-east-1").client(
                "dynamodb", endpoint_url=server.s3_endpoint_url
            )
            self.dynamodb.create_table(
                TableName=self.bucket,
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            self.url = f"dynamodb://{self.bucket}"

    def __exit__(self, *parts: object) -> None:
        super().__exit__(*parts)
        if self.dynamodb is not None:
            self.dynamodb.close()

    def worker(self, *args: str, **settings: str) -> WorkerProcess:
        """Start a worker with the store."""
        common = {"BRIDGE_TASK_MODULES": TASKS, "BRIDGE_IDEMPOTENCY_URL": self.url, "BRIDGE_WAIT_TIME_SECONDS": "1"}
        return self.start(*args, **common | settings)

    def object(self, key: str, **fields: Any) -> S3Object:
        """Put the object and return it as its event announces it."""
        etag = self.server.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")["ETag"].strip('"')
        given: dict[str, Any] = {"size": 1, "etag": etag, "sequencer": "0055AED6DCD90281E5"}
        return S3Object(bucket=self.bucket, key=key, **given | fields)

    def announce(self, *objects: S3Object, times: int = 1) -> list[str]:
        """Send the event of these objects; returns the MessageIds."""
        body = json.dumps(s3_event(*objects))
        return [
            self.server.sqs.send_message(QueueUrl=self.queue.url, MessageBody=body)["MessageId"] for _ in range(times)
        ]

    def record(self, task: str, obj: S3Object, *, latest_only: bool = False) -> Record:
        """Return the record of the object's event as the store has it."""
        [seen] = parse(json.dumps(s3_event(obj)))  # type: ignore[misc]  # no test event
        claim_request = of_record(f"{TASKS}.{task}", seen, latest_only=latest_only)
        if self.dynamodb is not None:
            item = self.dynamodb.get_item(
                TableName=self.bucket, Key={"id": {"S": claim_request.id}}, ConsistentRead=True
            )["Item"]
            return from_json(item["record"]["S"])
        body = self.server.s3.get_object(Bucket=self.bucket, Key=f"claims/{claim_request.id}.json")["Body"].read()
        return from_json(body.decode())

    def effects(self, key: str) -> int:
        """How many runs took effect."""
        found = self.server.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"effects/{key}/")
        return len(found.get("Contents", []))

    def settled(self, *, outcome: str, reason: str | None = None) -> int:
        """How many messages the workers settled so."""
        lines = [line for worker in self.workers for line in worker.found("message_settled", outcome=outcome)]
        return len([line for line in lines if line.get("reason") == reason])

    def retries(self, message_id: str) -> list[int]:
        """``request.retries`` of each run."""
        return [note["retries"] for note in self.begun(message_id)]

    def dead(self) -> int:
        """How many dead letters there are."""
        return counts(self.server, self.queue.dlq_url).total


def twenty_at_once(server: SqsServer, folder: Path, store: str) -> None:
    """The same event twenty times, to four workers."""
    with Once(server, folder, store) as site:
        for _ in range(4):
            site.worker("-P", "threads", "-c", "2", "--prefetch-multiplier", "2")
        obj = site.object("work/1")
        ids = site.announce(obj, times=20)
        site.await_empty(60)
        assert sum(len(site.begun(id_)) for id_ in ids) == 1
        assert site.effects(obj.key) == 1
        assert site.settled(outcome="deleted") == 1
        assert site.settled(outcome="ignored", reason="duplicate") == 19
        assert site.dead() == 0
        record = site.record("work", obj)
        assert (record.status, record.result, record.failures) == ("completed", "worked", {})


def owner_killed(server: SqsServer, folder: Path, store: str) -> None:
    """The worker that has claimed the event is killed; another one completes it after the claim's expiry."""
    with Once(server, folder, store) as site:
        first = site.worker("-c", "1")
        obj = site.object("short/2")
        [message_id] = site.announce(obj)
        site.await_begun(message_id)
        claimed_until = site.record("short", obj).claimed_until
        first.kill_group()
        second = site.worker("-c", "1")
        site.await_empty(60)
        assert [len(worker.found("began")) for worker in (first, second)] == [1, 1]
        assert [len(worker.found("worked")) for worker in (first, second)] == [0, 1]
        assert site.effects(obj.key) == 1
        assert second.found("claim_taken_over")
        assert time.time() > claimed_until
        assert site.retries(message_id) == [0, 0], "a worker that died is no failed attempt"
        assert site.record("short", obj).status == "completed"
        assert site.dead() == 0


def owner_stalled(server: SqsServer, folder: Path, store: str) -> None:
    """The worker that has claimed the event stands still, is overtaken, and wakes up."""
    with Once(server, folder, store) as site:
        first = site.worker("-P", "threads", "-c", "1")
        obj = site.object("short/1")
        [message_id] = site.announce(obj)
        site.await_begun(message_id)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            second = site.worker("-c", "1")
            second.wait_event("message_settled", 60, message_id=message_id, outcome="deleted")
            winner = site.record("short", obj)
            assert winner.status == "completed"
        finally:
            os.kill(first.pid, signal.SIGCONT)
        first.wait_event("claim_lost", 20)
        assert site.record("short", obj) == winner
        assert not first.found("message_settled", outcome="deleted")
        assert not first.found("task_succeeded")
        site.await_empty(30)
        assert site.dead() == 0


def failures_counted(server: SqsServer, folder: Path, store: str) -> None:
    """Failures count exactly, stopped runs not at all, and nobody waits for an expiry."""
    with Once(server, folder, store) as site:
        first = site.worker("-c", "1", BRIDGE_DRAIN_SECONDS="1")
        held = site.object("held/1")
        [stopped] = site.announce(held)
        site.await_begun(stopped)
        first.process.terminate()
        assert first.wait_exit(30) == 0
        record = site.record("held", held)
        assert (record.status, record.failures) == ("released", {})
        assert first.found("message_settled", message_id=stopped, outcome="handed_back")

        (site.folder / "gate").touch()
        began_at = time.monotonic()
        worker = site.worker("-c", "2")
        worker.wait_event("message_settled", 30, message_id=stopped, outcome="deleted")
        assert site.retries(stopped) == [0, 0], "a run that was stopped is no failed attempt"

        failing, lost, late = (site.announce(site.object(key))[0] for key in ("fails/1", "killed/1", "limit/1"))
        for message_id in (failing, lost):
            worker.wait_event("message_settled", 60, message_id=message_id, outcome="dead_lettered")
        worker.wait_event("message_settled", 60, message_id=late, outcome="deleted")
        assert site.retries(failing) == [0, 1, 2, 3]
        assert site.retries(lost) == [0, 1, 2]
        assert site.retries(late) == [0, 1]
        assert [line["reason"] for line in worker.found("message_settled", outcome="dead_lettered")].count(
            "worker-lost"
        ) == 1
        assert time.monotonic() - began_at < 90, "somebody waited for the expiry of a claim"
        assert not worker.found("claim_taken_over")
        assert not worker.found("message_settled", reason="in-progress")
        [record] = [site.record("fails", site.object("fails/1"))]
        assert record.failures == {failing: 4}


def resumes(server: SqsServer, folder: Path, store: str) -> None:
    """A long job goes on where it stopped: after an error, and after the loss of its child."""
    with Once(server, folder, store) as site:
        worker = site.worker("-c", "1")
        obj = site.object("steps/1")
        [message_id] = site.announce(obj)
        worker.wait_event("message_settled", 60, message_id=message_id, outcome="deleted")
        assert [note["step"] for note in worker.found("step")] == [1, 2, 3, 4, 5, 6]
        assert site.retries(message_id) == [0, 1, 2]
        record = site.record("steps", obj)
        assert (record.status, record.progress) == ("completed", None)


def newest_wins(server: SqsServer, folder: Path, store: str) -> None:
    """An older event after a newer one is ignored, and a newer one after an older one is not."""
    with Once(server, folder, store) as site:
        worker = site.worker("-c", "1")
        versions = {"old": "0055AED6DCD90281E5", "new": "0055AED6DCD90281E6", "newest": "0055AED6DCD90281E61"}
        settled = []
        for name in ("new", "old", "new", "newest", "old"):
            obj = site.object("latest/1", sequencer=versions[name], etag=None)
            [message_id] = site.announce(obj)
            line = worker.wait_for(
                lambda e, id_=message_id: e.get("event") == "message_settled" and e.get("message_id") == id_,
                30,
                "the end",
            )
            settled.append((name, line["outcome"], line.get("reason")))
        assert settled == [
            ("new", "deleted", None),
            ("old", "ignored", "outdated"),
            ("new", "ignored", "duplicate"),
            ("newest", "deleted", None),
            ("old", "ignored", "outdated"),
        ]
        assert [note["sequencer"] for note in worker.found("version")] == [versions["new"], versions["newest"]]


def several_records(server: SqsServer, folder: Path, store: str) -> None:
    """A message of several records repeats only those that are not done."""
    with Once(server, folder, store) as site:
        worker = site.worker("-c", "1")
        objects = [site.object(key) for key in ("records/a", "records/bad", "records/c")]
        [message_id] = site.announce(*objects)
        worker.wait_event("message_settled", 30, message_id=message_id, outcome="deleted")
        runs = [(note["key"], note["retries"]) for note in site.begun(message_id)]
        assert runs == [("records/a", 0), ("records/bad", 0), ("records/bad", 1), ("records/c", 0)]
        assert [site.effects(obj.key) for obj in objects] == [1, 1, 1]


SCENARIOS = {
    "owner stalled": owner_stalled,
    "owner killed": owner_killed,
    "failures": failures_counted,
    "twenty": twenty_at_once,
    "resumes": resumes,
    "newest": newest_wins,
    "records": several_records,
}


@pytest.fixture(scope="module")
def once(elasticmq_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Every scenario with both stores at the same time: the longest wait for a claim of 16 s."""
    folder = tmp_path_factory.mktemp("once")
    with running_scenarios() as scenarios:
        for name, scenario in SCENARIOS.items():
            for store in STORES:
                scenarios.start(f"{name} {store}", scenario, elasticmq_server, folder, store)
        yield scenarios


both_stores = pytest.mark.parametrize("store", STORES)


@both_stores
def test_twenty_deliveries_take_effect_once(once: Scenarios, store: str) -> None:
    """The same event twenty times to four workers at once: one effect, 20 messages deleted, none dead-lettered."""
    once.result(f"twenty {store}")


@both_stores
def test_a_killed_owner_is_replaced_after_its_expiry(once: Scenarios, store: str) -> None:
    """With the first owner SIGKILLed mid-run there is exactly one completion, by the second, after the expiry."""
    once.result(f"owner killed {store}")


@both_stores
def test_a_stalled_owner_cannot_complete(once: Scenarios, store: str) -> None:
    """An owner that wakes up after it was overtaken changes nothing: its result is discarded, its message lives on."""
    once.result(f"owner stalled {store}")


@both_stores
def test_failures_are_counted_exactly(once: Scenarios, store: str) -> None:
    """Errors, lost children and hard limits count once each and retry at once; runs that were stopped do not count."""
    once.result(f"failures {store}")


@both_stores
def test_a_long_job_resumes(once: Scenarios, store: str) -> None:
    """What ``obj.progress`` saved is there on the next attempt, after an error and after a SIGKILL alike."""
    once.result(f"resumes {store}")


@both_stores
def test_only_the_latest_event_takes_effect(once: Scenarios, store: str) -> None:
    """With ``latest_only=True`` an event older than one completed for its key is ignored as ``outdated``."""
    once.result(f"newest {store}")


@both_stores
def test_only_records_not_done_are_repeated(once: Scenarios, store: str) -> None:
    """One failing record of three is run again alone, with its own count of failures."""
    once.result(f"records {store}")
