"""``brigade reconcile`` on moto with a store of each kind and a real worker: what it finds, and what it sends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import pytest

from bridge.idempotency import transitions
from bridge.idempotency.identity import of_key, of_record
from bridge.idempotency.record import Record, to_json
from bridge.idempotency.transitions import Claimant, Granted
from bridge.s3.event import ObjectRecord, parse
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import environment_for, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from tests.unit.operations.conftest import drained

TASKS = "tests.unit.operations.reconcile.reconcile_tasks"


def environment(server, url: str, store: str) -> dict[str, str]:
    """What a worker and the commands beside it get."""
    return environment_for(server) | {
        "SQS_QUEUE_URL": url,
        "BRIDGE_TASK_MODULES": TASKS,
        "BRIDGE_IDEMPOTENCY_URL": store,
        "BRIDGE_WAIT_TIME_SECONDS": "1",
        "BRIDGE_HEALTH_PORT": "0",
    }


def fill(server, bucket: str, *keys: str, text: str = "") -> None:
    """Put these objects; each holds its key and the text."""
    for key in keys:
        server.s3.put_object(Bucket=bucket, Key=key, Body=f"{key}{text}".encode())


def announce(server, url: str, bucket: str, *keys: str) -> None:
    """Send S3's own event for each, with a sequencer, which no listing has."""
    for number, key in enumerate(keys):
        etag = server.s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        described = {"key": key, "eTag": etag, "sequencer": f"00{number:X}A{uuid.uuid4().hex[:6].upper()}"}
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": bucket}, "object": described},
        }
        server.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [record]}))


def found(done) -> tuple[dict[str, str], dict]:
    """Status by key, and the summary, of a run with --json."""
    assert done.code == 0, done.err
    *lines, last = [json.loads(line) for line in done.out.splitlines()]
    return {line["key"].rsplit("/", 1)[-1]: line["status"] for line in lines}, last["summary"]


def counts_of(summary: dict) -> dict[str, int]:
    """How many objects have each status that any has."""
    return {status: count for status, count in summary["counts"].items() if count}


def completed(task: str, server, bucket: str, key: str, *, latest_only: bool = False) -> tuple[str, str, Record]:
    """Id, text and record of a completion of the object as it is, as a worker would have written it."""
    etag = server.s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
    event = ObjectRecord(bucket=bucket, key=key, etag=etag, sequencer="0A")
    claim_request = of_record(task, event, latest_only=latest_only)
    granted = transitions.claim(
        None, claim_request, Claimant("o", "m", time.time(), time.time() + 60, int(time.time()) + 86_400)
    )
    assert isinstance(granted, Granted)
    record = transitions.complete(granted.record, claim_request, result=None, expires_at=int(time.time()) + 86_400)
    return claim_request.id, to_json(record), record


def keep(server, store: str, record_id: str, text: str) -> None:
    """Write a record into a store in S3."""
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    server.s3.put_object(Bucket=bucket, Key=f"{prefix}/{record_id}.json", Body=text.encode())


@pytest.mark.slow
def test_from_some_to_all(brigade, moto_server, queues, bucket, store_url, tmp_path):
    """Completed, failed, overwritten and never sent objects are told apart, and --enqueue has a worker do the rest."""
    name, pair = bucket(), queues(moto_server)
    env = environment(moto_server, pair.url, store_url) | {"TMPDIR": str(tmp_path)}
    keys = [f"rec/data/{n}" for n in ("done-1", "done-2", "old", "bad")]
    fill(moto_server, name, *keys)
    (tmp_path / "broken").touch()
    announce(moto_server, pair.url, name, *keys)
    with WorkerProcess(env, "-P", "threads", "-c", "2") as worker:
        wait_until(lambda: len(worker.found("message_settled")) == 4, 45, "four ends")
        fill(moto_server, name, "rec/data/old", text=", in new words")
        fill(moto_server, name, "rec/data/never-1", "rec/data/never 2", "rec/other", "rec/plain/x")

        lines, summary = found(brigade(env, "reconcile", f"s3://{name}/rec/", "--task", "rec.take", "--json"))
        assert lines == {"bad": "failed", "never-1": "never-seen", "never 2": "never-seen", "old": "outdated"}
        assert counts_of(summary) == {"completed": 2, "failed": 1, "outdated": 1, "never-seen": 2}
        assert summary["skipped"] == {"other-task": 1, "unrouted": 1}
        assert (summary["sent"], len(worker.found("message_settled"))) == (0, 4)

        (tmp_path / "broken").unlink()
        done = brigade(env, "reconcile", f"s3://{name}/rec/", "--task", "rec.take", "--enqueue")
        assert done.code == 0, done.err
        assert done.out == (
            "rec.take: 2 of 6 objects are completed; failed 1, outdated 1, never-seen 2; skipped 2: other-task 1, "
            f"unrouted 1\nsent 4 objects (70 bytes) to {pair.url}\n"
        )
        wait_until(lambda: len(worker.found("message_settled", outcome="deleted")) == 7, 45, "seven completions")
    again = brigade(env, "reconcile", f"s3://{name}/rec/", "--task", "rec.take", "--enqueue")
    assert again.out.splitlines() == [
        "rec.take: 6 of 6 objects are completed; skipped 2: other-task 1, unrouted 1",
        f"sent 0 objects (0 bytes) to {pair.url}",
    ]
    assert len(receive(moto_server, pair.dlq_url)) == 1


def test_a_report_in_words(brigade, moto_server, bucket, store_url):
    """A line for each unfinished object, then the counts; without a queue, for nothing is sent."""
    name = bucket()
    fill(moto_server, name, "rec/data/a\u2028b")
    env = environment(moto_server, "", store_url)
    del env["SQS_QUEUE_URL"]
    done = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take")
    assert done.code == 0, done.err
    assert done.err == f"brigade: {store_url} has no record of rec.take: is it the workers' store?\n"
    [line, summary] = done.out.splitlines()
    assert line.startswith(f"never-seen    s3://{name}/rec/data/a\\u2028b  14 bytes  20")
    assert summary == "rec.take: 0 of 1 objects are completed; never-seen 1"
    counts = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take", "--no-list")
    assert counts.out == f"{summary}\n"


def test_a_run_at_work_is_left_alone(brigade, moto_server, queues, bucket):
    """A live claim is in progress and not sent; a record that cannot be read is told and not sent either."""
    name, pair = bucket(), queues(moto_server)
    store = f"s3://{bucket()}/claims"
    env = environment(moto_server, pair.url, store)
    fill(moto_server, name, *(f"rec/data/{n}" for n in ("busy", "newer", "done")))
    record_id, text, record = completed("rec.take", moto_server, name, "rec/data/busy")
    live = json.loads(text) | {"status": "in-progress", "claimed_until": time.time() + 600}
    keep(moto_server, store, record_id, json.dumps({k: v for k, v in live.items() if k[:5] != "done_"}))
    newer_id = completed("rec.take", moto_server, name, "rec/data/newer")[0]
    keep(moto_server, store, newer_id, '{"schema": 99}')
    keep(moto_server, store, *completed("rec.take", moto_server, name, "rec/data/done")[:2])
    keep(moto_server, store, of_key("rec.take", "k").id, to_json(record))
    keep(moto_server, store, "rec.take/a/b/c/d", "no record of ours")

    done = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take", "--enqueue", "--json")
    lines, summary = found(done)
    assert counts_of(summary) == {"completed": 1, "in-progress": 1, "unreadable": 1}
    assert "1 records of rec.take are of an idempotency_key" in done.err
    assert (lines, summary["sent"], drained(moto_server, pair.url)) == ({}, 0, [])
    only = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take", "--only", "unreadable", "--json")
    assert found(only)[0] == {"newer": "unreadable"}


def test_latest_only(brigade, moto_server, bucket):
    """Its one record an object is found and compared, under a task's name that needs quoting."""
    name, store = bucket(), f"s3://{bucket()}/claims"
    env = environment(moto_server, f"{moto_server.endpoint_url}/123456789012/q", store)
    task = "rec/latest über"
    fill(moto_server, name, "rec/latest/done", "rec/latest/old")
    for key in ("rec/latest/done", "rec/latest/old"):
        keep(moto_server, store, *completed(task, moto_server, name, key, latest_only=True)[:2])
    fill(moto_server, name, "rec/latest/old", text="!")
    lines, summary = found(brigade(env, "reconcile", f"s3://{name}", "--task", task, "--json"))
    assert (lines, counts_of(summary)) == ({"old": "outdated"}, {"completed": 1, "outdated": 1})


def test_a_dry_run_and_the_filters(brigade, moto_server, queues, bucket):
    """--enqueue --dry-run lists what the filters leave, says where it would go, and sends nothing."""
    name, pair = bucket(), queues(moto_server)
    env = environment(moto_server, pair.url, f"s3://{bucket()}/claims")
    fill(moto_server, name, "rec/data/a.csv", "rec/data/b.txt", "rec/data/c.csv")
    moto_server.s3.put_object(Bucket=name, Key="rec/data/large.csv", Body=b"x" * 1001)
    arguments = ["reconcile", f"s3://{name}", "--task", "rec.take", "--include", "*.csv", "--enqueue"]
    done = brigade(env, *arguments, "--dry-run", "--start-after", "rec/data/a.csv")
    assert done.code == 0, done.err
    assert [line.split("  ")[0] for line in done.out.splitlines()] == [
        "never-seen",
        "rec.take: 0 of 1 objects are completed; never-seen 1; skipped 2: key 1, too-large 1",
        f"would send 1 objects (14 bytes) to {pair.url}",
    ]
    assert drained(moto_server, pair.url) == []


def test_what_the_store_may_have_forgotten(brigade, moto_server, queues, bucket):
    """An object from before the TTL is counted and left alone, unless --only asks for it."""
    name, pair = bucket(), queues(moto_server)
    env = environment(moto_server, pair.url, f"s3://{bucket()}/claims") | {"BRIDGE_IDEMPOTENCY_TTL_SECONDS": "86400"}
    fill(moto_server, name, "rec/data/a")
    arguments = ["reconcile", f"s3://{name}", "--task", "rec.take", "--enqueue", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bridge.operations.reconcile.run.time", SimpleNamespace(time=lambda: time.time() + 2 * 86_400))
        lines, summary = found(brigade(env, *arguments))
        assert (lines, counts_of(summary), summary["sent"]) == ({}, {"too-old": 1}, 0)
        assert found(brigade(env, *arguments, "--only", "too-old"))[1]["sent"] == 1
    [body] = drained(moto_server, pair.url)
    assert [record.key for record in parse(body)] == ["rec/data/a"]


def test_to_the_task_by_its_name(brigade, moto_server, queues, bucket):
    """--direct asks no routes, and sends messages for the task to the task queue."""
    name, pair, tasks = bucket(), queues(moto_server), queues(moto_server, prefix="tasks")
    env = environment(moto_server, pair.url, f"s3://{bucket()}/claims") | {"SQS_TASK_QUEUE_URL": tasks.url}
    fill(moto_server, name, "elsewhere/a")
    done = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take", "--enqueue", "--direct")
    assert (done.code, done.out.splitlines()[-1]) == (0, "sent 1 objects (11 bytes) to task rec.take"), done.err
    [message] = [json.loads(body) for body in drained(moto_server, tasks.url)]
    assert (message["headers"]["task"], drained(moto_server, pair.url)) == ("rec.take", [])


@pytest.mark.slow
def test_stopped_and_begun_again(brigade, moto_server, queues, bucket, tmp_path):
    """SIGTERM ends it with what SQS has confirmed remembered, and the same command sends exactly the rest."""
    name, pair = bucket(), queues(moto_server)
    keys = [f"rec/data/{n:02d}" for n in range(30)]
    fill(moto_server, name, *keys)
    arguments = ["reconcile", f"s3://{name}", "--task", "rec.take", "--enqueue", "--state", str(tmp_path / "state")]
    store = f"s3://{bucket()}/claims"
    with FaultProxy(moto_server.endpoint_url) as proxy:
        env = environment(moto_server, pair.url, store) | {"AWS_ENDPOINT_URL_SQS": proxy.url}
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge", *arguments, "--rate", "5"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        proxy.wait_for(lambda c: c.action == "SendMessageBatch" and c.finished_at is not None, 30, "a first batch")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 143, err
        assert "the same command again goes on" in err
    env = environment(moto_server, pair.url, store)
    first = sorted(record.key for body in drained(moto_server, pair.url) for record in parse(body))
    assert 5 <= len(first) < 30
    assert brigade(env, *arguments).code == 0
    assert first + sorted(r.key for body in drained(moto_server, pair.url) for r in parse(body)) == keys
    again = brigade(env, *arguments)
    assert (again.code, again.out, again.err.count("\n")) == (0, "", 1)
    other = brigade(env, *arguments, "--only", "failed")
    assert (other.code, "another backfill (only differ)" in other.err) == (2, True)


def test_a_store_that_fails_in_the_middle(brigade, moto_server, queues, bucket):
    """Ends with one line and exit code 1, or 2 where it denies access; nothing unread is taken for never seen."""
    name, pair, claims_bucket = bucket(), queues(moto_server), bucket()
    fill(moto_server, name, "rec/data/a")
    record_id, text, _ = completed("rec.take", moto_server, name, "rec/data/a")
    keep(moto_server, f"s3://{claims_bucket}/claims", record_id, text)
    of_record = f"{record_id.rsplit('/', 1)[-1]}.json"
    with FaultProxy(moto_server.s3_endpoint_url) as proxy:
        env = environment(moto_server, pair.url, f"s3://{claims_bucket}/claims") | {"AWS_ENDPOINT_URL_S3": proxy.url}
        proxy.fail(status=500, code="InternalError", times=None, queue=of_record)
        done = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take", "--enqueue")
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done
        assert "InternalError" in done.err
        proxy.clear()
        proxy.fail(status=403, code="AccessDenied", times=None, queue=of_record)
        denied = brigade(env, "reconcile", f"s3://{name}", "--task", "rec.take")
        assert (denied.code, "AccessDenied" in denied.err, denied.err.count("\n")) == (2, True, 1)
    assert drained(moto_server, pair.url) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "rec.keyed"], "rec.keyed has an idempotency_key of its own"),
        (["--task", "rec.plain"], "declared idempotent=False"),
        (["--task", "rec.tkae"], "no file_task of this name"),
        ([], "Missing option '--task'"),
        (["--task", "rec.take", "--rate", "3"], "--rate is about sending"),
        (["--task", "rec.take", "--dry-run"], "--dry-run is about sending"),
        (["--task", "rec.take", "--enqueue", "--only", "completed"], "what is completed is left alone"),
        (["--task", "rec.take", "--only", "lost"], "'lost' is not one of"),
        (["--task", "rec.take", "--enqueue", "--direct"], "SQS_TASK_QUEUE_URL is not set"),
        (["--task", "rec.take", "--min-size", "2", "--max-size", "1"], "nothing can match"),
        (["--task", "rec.take", "--direct", "--enqueue", "--queue-url", "x"], "--queue-url is for events"),
    ],
)
def test_what_has_to_be_mended(brigade, moto_server, arguments, words):
    """Ends with one line and exit code 2, before anything is asked of AWS."""
    env = environment(moto_server, f"{moto_server.endpoint_url}/123456789012/q", "s3://no-such-bucket/claims")
    done = brigade(env, "reconcile", "s3://no-such-bucket/x", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert words in done.err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"BRIDGE_IDEMPOTENCY_URL": ""}, "BRIDGE_IDEMPOTENCY_URL is not set"),
        ({"BRIDGE_TASK_MODULES": ""}, "BRIDGE_TASK_MODULES is not set"),
        ({"BRIDGE_ALLOWED_BUCKETS": "others-*"}, "is not in BRIDGE_ALLOWED_BUCKETS"),
        ({"BRIDGE_IDEMPOTENCY_URL": "dynamodb://no-such-table"}, "ResourceNotFoundException"),
        ({"BRIDGE_IDEMPOTENCY_URL": "s3://no-such-bucket-of-ours/claims"}, "NoSuchBucket"),
    ],
)
def test_settings_that_have_to_be_mended(brigade, moto_server, bucket, changed, words):
    """A store that is not named or not there is never taken for an empty one: one line, exit code 2."""
    env = environment(moto_server, f"{moto_server.endpoint_url}/123456789012/q", "s3://others/claims") | changed
    done = brigade({n: v for n, v in env.items() if v}, "reconcile", f"s3://{bucket()}", "--task", "rec.take")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert words in done.err
