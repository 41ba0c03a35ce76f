"""The main job on what the stack made, with real processes, and the permissions that all roles' calls need.

The worker's run serves several tests: it is the slow part.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.deploy.aws.conftest import Stack
from tests.deploy.aws.seen import WatchingProxy, not_allowed, not_used
from tests.deploy.aws.template import policy_file, statements
from tests.support.servers.sqs import REGION, counts, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import PATIENCE_SECONDS, WorkerProcess
from tests.unit.cli.conftest import bury, event, letter_arguments
from tests.unit.monitoring.test_depths import ages, exporter
from tests.unit.operations.conftest import brigade as brigade

pytestmark = pytest.mark.slow

#: Statements of the policies that no run here needs, with the reason why they are there.
UNSEEN = {
    ("worker", "Key", "kms:*"): "SQS and S3 ask KMS in the caller's name, which no test server does",
    ("operator", "Key", "kms:*"): "as for the worker",
    (
        "operator",
        "Results",
        "s3:GetObject",
    ): "brigade jobs requeue, of long bodies; it needs Kubernetes (tests/unit/kubernetes)",
    (
        "operator",
        "Queue",
        "sqs:GetQueueUrl",
    ): "redrive, of a letter that SQS moved, whose queue moto does not name",
}
#: Calls that the policies do not allow, with the reason why that is right.
UNGRANTED = {
    ("worker", "s3:GetBucketNotification"): "brigade doctor asks; denied, it is a warning that says who should ask",
}

GREEN = b"a,b\n1,2\n"


def compare(role: str, stack: Stack, proxy: WatchingProxy) -> None:
    """Hold the role's policy against what its processes needed, in both directions."""
    policy = statements([policy_file(role, stack.values)])
    uses = proxy.of(role)
    assert uses, f"nobody called anything as {role}"
    denied = not_allowed(policy, uses)
    unneeded = {action for who, action in UNGRANTED if who == role} - {action for action, _ in denied}
    assert not unneeded, f"no longer called, or allowed by now: {unneeded}"
    assert not {one for one in denied if (role, one[0]) not in UNGRANTED}, "calls that the policy does not allow"
    unused = {(sid, action) for sid, action, _ in not_used(policy, uses)}
    excused = {
        (sid, action): (who, sid, glob)
        for who, sid, glob in UNSEEN
        for _, action in unused
        if who == role and fnmatchcase(action, glob)
    }
    assert not {one for one in UNSEEN if one[0] == role} - set(excused.values()), "needed by a run, so no exceptions"
    assert not unused - set(excused), "permissions that no call needs"


@pytest.fixture(scope="module")
def worked(stack: Stack, watching: WatchingProxy) -> Iterator[WorkerProcess]:
    """A worker with the stack's settings that has done all there was to do, and has left."""
    put = {
        "incoming/report.csv": GREEN,
        "incoming/bad/rows.csv": GREEN,
        "incoming/flaky/a.csv": GREEN,
        "incoming/once/a.csv": GREEN,
        "incoming/copy/a.bin": b"0" * 1000,
        "other/never-announced.csv": GREEN,
    }
    for key, body in put.items():
        stack.server.s3.put_object(Bucket=stack.bucket, Key=key, Body=body)
    # The first attempt to copy ends in the middle, and the second finds that another run has made the copy.
    watching.fail("UploadPartCopy", status=400, code="Injected")
    watching.fail("CompleteMultipartUpload", status=412, code="PreconditionFailed")
    environment = {
        **stack.environment("worker", watching.url),
        "BRIDGE_TASK_MODULES": "tests.deploy.aws.stack_tasks,tasks.describe",
        "BRIDGE_WAIT_TIME_SECONDS": "1",
    }
    with WorkerProcess(environment, "--concurrency=2") as worker:
        worker.wait_event("message_settled", outcome="dead_lettered")
        wait_until(lambda: not counts(stack.server, stack.queue_url).total, PATIENCE_SECONDS, "an empty queue")
        worker.process.terminate()
        assert worker.wait_exit() == 0
    yield worker


def test_an_object_becomes_a_result(stack: Stack, worked: WorkerProcess) -> None:
    """What is put under the event prefix is announced to the queue, run by the worker, and has its result."""
    listed = stack.server.s3.list_objects_v2(Bucket=stack.bucket, Prefix="results/")["Contents"]
    [manifest] = [entry["Key"] for entry in listed if "report.csv" in entry["Key"]]
    found = json.loads(stack.server.s3.get_object(Bucket=stack.bucket, Key=manifest)["Body"].read())
    assert (found["object"]["key"], found["size"], found["lines"]) == ("incoming/report.csv", len(GREEN), 2)
    assert not [entry["Key"] for entry in listed if "never-announced" in entry["Key"]]
    ends = [(e["outcome"], e.get("reason")) for e in worked.events if e.get("event") == "message_settled"]
    # The copy's second attempt sees that the copy is there.
    retried = [end for end in ends if end[0] == "retried"]
    assert len(retried) == 2
    assert sorted(end for end in ends if end[0] != "retried") == [
        ("dead_lettered", "permanent"),
        *[("deleted", None)] * 4,
        ("ignored", "test-event"),
    ]


def test_what_fails_for_good_lies_in_the_dead_letter_queue(stack: Stack, worked: WorkerProcess) -> None:
    """The stack's DLQ has the one message that failed for good, whole and with its cause."""
    [letter] = receive(stack.server, stack.dlq_url, visibility_timeout_seconds=0)
    cause = json.loads(letter["MessageAttributes"]["BridgeCause"]["StringValue"])
    assert (cause["reason"], cause["source_queue"]) == ("permanent", stack.prefix)
    [record] = json.loads(letter["Body"])["Records"]
    assert record["s3"]["object"]["key"].replace("%2F", "/") == "incoming/bad/rows.csv"


def test_claims_are_in_the_table(stack: Stack, worked: WorkerProcess) -> None:
    """The store that the stack's settings name is the stack's table, with the key and the expiry that it has."""
    session = boto3.session.Session("test", "test", region_name=REGION)
    with closing(session.client("dynamodb", endpoint_url=stack.server.s3_endpoint_url)) as client:
        items = client.scan(TableName=f"{stack.prefix}-claims")["Items"]
    ttl = stack.resolved.properties("Table")["TimeToLiveSpecification"]
    assert len(items) == 5
    assert all(item[ttl["AttributeName"]]["N"].isdigit() for item in items)


def run_once(stack: Stack, proxy: WatchingProxy, **settings: str) -> None:
    """Take two messages by ``brigade run-once`` as the worker's role."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "run-once", "--max-messages", "2", "--idle-timeout", "30"],
        env={**stack.environment("worker", proxy.url), "BRIDGE_WAIT_TIME_SECONDS": "2", **settings},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workers_policy(stack: Stack, worked: WorkerProcess, watching: WatchingProxy, brigade: Any) -> None:
    """A worker may do what describe, copy, put_once, both stores, archive, retry, dead letters and the doctor do."""
    environment = {**stack.environment("worker", watching.url), "BRIDGE_TASK_MODULES": "tests.deploy.aws.stack_tasks"}
    done = brigade(environment, "doctor", "--quiet")
    assert done.code == 0, done.out
    stack.server.s3.put_object(Bucket=stack.bucket, Key="incoming/second.csv", Body=GREEN)
    stack.server.sqs.send_message(QueueUrl=stack.queue_url, MessageBody="no event, so it is archived")
    claims = f"s3://{stack.bucket}/claims"
    run_once(stack, watching, BRIDGE_TASK_MODULES="tasks.describe,tasks.archive", BRIDGE_IDEMPOTENCY_URL=claims)
    compare("worker", stack, watching)


def test_the_exporters_policy(stack: Stack, watching: WatchingProxy, tmp_path: Path) -> None:
    """The exporter's role may ask what the exporter asks: depths, the DLQ's URL, and ages."""
    ages(stack.server, (stack.prefix, 42))
    with exporter(tmp_path, stack.environment("exporter", watching.url)) as running:
        wait_until(
            lambda: "bridge_queue_oldest_message_age_seconds{" in running.get("/metrics"), PATIENCE_SECONDS, "an age"
        )
    compare("exporter", stack, watching)


def test_kedas_policy(stack: Stack, watching: WatchingProxy) -> None:
    """KEDA's role may make the one call that its scaler is documented to make (keda.sh, AWS SQS Queue)."""
    session = boto3.session.Session("keda", "test", region_name=REGION)
    names: Any = ["", "NotVisible", "Delayed"]
    with closing(session.client("sqs", endpoint_url=watching.url)) as client:
        client.get_queue_attributes(
            QueueUrl=stack.queue_url, AttributeNames=[f"ApproximateNumberOfMessages{name}" for name in names]
        )
    compare("keda", stack, watching)


def test_the_operators_policy(
    stack: Stack, worked: WorkerProcess, watching: WatchingProxy, brigade: Any, tmp_path: Path
) -> None:
    """The operator's role may do what each command of the CLI does that an operator has."""
    environment = stack.environment("operator", watching.url)
    small, large = tmp_path / "small.csv", tmp_path / "large.bin"
    small.write_bytes(GREEN)
    large.write_bytes(b"0" * (9 * 1024 * 1024))
    letters = [
        letter_arguments(event(f"incoming/{n}.csv", stack.bucket), source_queue=stack.prefix, dlq_url=stack.dlq_url)
        for n in range(2)
    ]
    bury(stack.server, letters)
    stack.server.sqs.send_message(QueueUrl=stack.dlq_url, MessageBody="a letter without a cause")
    watching.fail("UploadPart", status=400, code="Injected")  # so that the upload is given up
    there = f"s3://{stack.bucket}/incoming/"
    for code, *command in (
        (0, "send", "{}"),
        (0, "put", str(small), there, "--event"),
        (1, "put", str(large), there),
        (0, "backfill", there, "--rate", "50", "--no-progress"),
        (0, "queue", "show"),
        (0, "dlq", "list"),
        (0, "dlq", "redrive"),
        (0, "dlq", "purge", "--older-than", "1d", "--yes"),
        (0, "dlq", "purge", "--yes"),
        (0, "queue", "purge", "--queue", stack.prefix, "--yes", stack.prefix),
    ):
        done = brigade(environment, *command)
        assert done.code == code, f"{command}: {done.out}{done.err}"
    compare("operator", stack, watching)


def test_the_doctor_finds_nothing(stack: Stack, worked: WorkerProcess, brigade: Any) -> None:
    """To whoever may read everything, the doctor has no error to tell of what the stack made."""
    environment = stack.environment("admin", stack.server.s3_endpoint_url)
    done = brigade({**environment, "BRIDGE_TASK_MODULES": "tests.deploy.aws.stack_tasks"}, "doctor", "--json")
    findings = [one for one in json.loads(done.out)["findings"] if one["level"] != "ok"]
    assert [(one["check"], one["subject"]) for one in findings if one["level"] == "error"] == []
    # "receive count" is about tasks without a limit, which other tests may have imported into this process.
    assert {one["check"] for one in findings} <= {"DLQ depth", "receive count"}, findings
