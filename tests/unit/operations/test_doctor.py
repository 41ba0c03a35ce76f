"""``brigade doctor`` against real servers: what it finds, that it changes nothing, and how it tells it."""

from __future__ import annotations

import json

import pytest

from bridge.local.stack import queue_policy
from bridge.operations.doctor.services import check_bus
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import counts, environment_for, receive, send


def sound(server, queues, bucket):
    """(environment, queue pair, bucket): a sound installation; with ElasticMQ the bucket notifies nobody."""
    name, pair = bucket(), queues(server)
    # Both: the time is set when it is created there, and moto forgets a policy when another attribute is set.
    policy = json.dumps(queue_policy(pair.arn, name))
    server.sqs.set_queue_attributes(QueueUrl=pair.url, Attributes={"Policy": policy})
    server.sqs.set_queue_attributes(QueueUrl=pair.dlq_url, Attributes={"MessageRetentionPeriod": "1209600"})
    if server.name == "moto":
        entry = {"Id": "ours", "QueueArn": pair.arn, "Events": ["s3:ObjectCreated:*"]}
        server.s3.put_bucket_notification_configuration(
            Bucket=name,
            NotificationConfiguration={"QueueConfigurations": [entry]},  # type: ignore[typeddict-item]  # a str is one
        )
    env = environment_for(server) | {"SQS_QUEUE_URL": pair.url}
    return env, pair, name


def findings(done, *checks: str) -> list[tuple[str, str]]:
    """(check, level) of the findings about these checks."""
    return [(f["check"], f["level"]) for f in json.loads(done.out)["findings"] if f["check"] in checks]


def test_a_sound_installation(brigade, sqs_server, queues, bucket):
    """Nothing is an error where all is well, and looking has neither received nor changed anything."""
    env, pair, name = sound(sqs_server, queues, bucket)
    if sqs_server.name == "elasticmq":
        env = {**env, "BRIDGE_ALLOWED_BUCKETS": "uploads-*"}
    before = counts(sqs_server, pair.url)
    message_id = send(sqs_server, pair.url, "a message that waits")
    arguments = ["--bucket", name] if sqs_server.name == "moto" else []

    done = brigade(env, "doctor", "--json", *arguments)

    assert done.code == 0, done.out
    counted = json.loads(done.out)["counts"]
    assert (counted["error"], counted["ok"] > 12) == (0, True)
    assert {level for _, level in findings(done, "permission", "dead letters", "receive count")} == {"ok"}
    assert counts(sqs_server, pair.url).visible == before.visible + 1
    waiting = [m for m in receive(sqs_server, pair.url) if m["MessageId"] == message_id]
    assert [m["Attributes"]["ApproximateReceiveCount"] for m in waiting] == ["1"]


def test_each_fault_is_named_with_its_remedy(brigade, moto_server, queues, bucket):
    """A low receive count, a missing policy and notification, waiting dead letters: each with what mends it."""
    name, pair = bucket(), queues(moto_server, max_receive_count=3)
    send(moto_server, pair.dlq_url, "dead")
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "BRIDGE_ALLOWED_BUCKETS": name}

    done = brigade(env, "doctor", "--json")

    assert done.code == 1
    found = findings(done, "receive count", "DLQ depth", "DLQ retention", "notification", "queue policy")
    assert found == [
        ("receive count", "error"),
        ("DLQ retention", "error"),
        ("DLQ depth", "warning"),
        ("notification", "error"),
        ("queue policy", "error"),
    ]
    wrong = [f for f in json.loads(done.out)["findings"] if f["level"] == "error"]
    assert all(f["remedy"] for f in wrong)


def test_the_table(brigade, moto_server, queues):
    """As text each finding is a line with its level first, a remedy below it, and no colours off a terminal."""
    pair = queues(moto_server, max_receive_count=3)
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url}
    done = brigade(env, "doctor", "--quiet")
    assert done.code == 1
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("error    receive count"))
    assert lines[at + 1].split()[:2] == ["→", "a"]
    assert not any(line.startswith("ok ") for line in lines)
    assert lines[-1].endswith("errors")


def test_an_output_under_the_notification(brigade, moto_server, queues, bucket):
    """A notification that covers our own output is an error, and --write-test shows whether we can write there."""
    env, _, name = sound(moto_server, queues, bucket)
    env |= {"BRIDGE_RESULTS_URL": f"s3://{name}/out/", "BRIDGE_ARCHIVE_URL": "s3://no-such-bucket/x/"}
    done = brigade(env, "doctor", "--bucket", name, "--write-test", "--json")
    assert done.code == 1
    assert findings(done, "own output", "output") == [("own output", "error"), ("output", "ok"), ("output", "error")]
    assert "Contents" not in moto_server.s3.list_objects_v2(Bucket=name)


def test_a_write_test_leaves_no_version(brigade, moto_server, queues, bucket):
    """In a bucket with versions the test object is deleted for good, without a delete marker."""
    name, pair = bucket(versions=True), queues(moto_server)
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "BRIDGE_RESULTS_URL": f"s3://{name}/out/"}
    done = brigade(env, "doctor", "--write-test", "--json")
    assert findings(done, "output") == [("output", "ok")]
    listed = moto_server.s3.list_object_versions(Bucket=name)
    assert "Versions" not in listed
    assert "DeleteMarkers" not in listed


def test_denied_actions(brigade, moto_server, queues):
    """What SQS denies is named, action by action, for the queue and its DLQ."""
    pair = queues(moto_server)
    with FaultProxy(moto_server.endpoint_url) as proxy:
        for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"):
            proxy.fail(action, status=403, code="AccessDenied", queue=pair.name)
        proxy.fail("SendMessageBatch", status=403, code="AccessDenied", queue=f"{pair.name}-dlq")
        env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "AWS_ENDPOINT_URL_SQS": proxy.url}
        done = brigade(env, "doctor", "--json")
    denied = [f["remedy"] for f in json.loads(done.out)["findings"] if f["check"] == "permission"]
    assert denied == [
        f"allow sqs:ReceiveMessage on {pair.arn}",
        f"allow sqs:DeleteMessage on {pair.arn}",
        f"allow sqs:ChangeMessageVisibility on {pair.arn}",
        f"allow sqs:SendMessage on {pair.dlq_arn}",
    ]


@pytest.mark.slow
def test_task_modules(brigade_process, moto_server, queues, bucket):
    """The modules are imported as a worker would: their routes are listed, their retries count, an error is told."""
    name, pair = bucket(), queues(moto_server, max_receive_count=14)
    env = environment_for(moto_server) | {
        "SQS_QUEUE_URL": pair.url,
        "BRIDGE_TASK_MODULES": "tests.unit.operations.setup_tasks",
    }
    done = brigade_process(env, "doctor", "--json", "--bucket", name)
    tasks = [f for f in json.loads(done.out)["findings"] if f["check"] == "tasks"]
    assert [(f["subject"], f["level"]) for f in tasks] == [("setup.take", "ok")]
    # Three retries and ten spare receives: fourteen are one too few.
    assert findings(done, "receive count") == [("receive count", "warning")]

    broken = brigade_process({**env, "BRIDGE_TASK_MODULES": "tests.e2e.startup.broken"}, "doctor", "--json")
    assert broken.code == 1
    assert findings(broken, "tasks") == [("tasks", "error")]


@pytest.mark.parametrize(
    ("env", "check"),
    [
        ({"SQS_QUEUE_URL": "nonsense"}, "settings"),
        ({}, "queue"),
        ({"SQS_QUEUE_URL": "http://127.0.0.1:1/123456789012/no-such-queue"}, "queue"),
        ({"SQS_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/q"}, "queue"),
    ],
)
def test_it_always_gives_a_table(brigade, moto_server, env, check):
    """Wrong settings and a queue that is not there are findings like others: exit code 1, never a traceback."""
    done = brigade(environment_for(moto_server) | env, "doctor", "--json")
    assert done.code == 1
    assert (check, "error") in findings(done, check)


def test_a_missing_store(brigade, moto_server, queues, bucket):
    """A store that answers is ok, one in a bucket that does not exist is an error, none is a warning."""
    name, pair = bucket(), queues(moto_server)
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url}
    for url, level in ((f"s3://{name}/claims", "ok"), ("s3://no-such-bucket/claims", "error"), (None, "warning")):
        done = brigade({**env, "BRIDGE_IDEMPOTENCY_URL": url} if url else env, "doctor", "--json")
        assert findings(done, "store") == [("store", level)], url


def test_the_bus():
    """No bus is fine, one that does not answer is a warning without its password: no task depends on it."""
    assert check_bus(None).level == "ok"
    finding = check_bus("redis://:secret@127.0.0.1:1/0")
    assert finding.level == "warning"
    assert "secret" not in f"{finding}"
