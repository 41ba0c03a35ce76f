"""``brigade backfill`` as a process: what it sends, what it leaves out, and how it goes on after it was stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from bridge.s3.event import ObjectRecord, parse
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import environment_for, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from tests.unit.operations.conftest import drained

TASKS = "tests.unit.operations.setup_tasks"


def records_in(server, url: str) -> list[ObjectRecord]:
    """The records of all events in a queue, sorted by key; the queue is empty afterwards."""
    events = [parse(body) for body in drained(server, url)]
    assert all(len(event) == 1 for event in events)
    return sorted((event[0] for event in events), key=lambda record: record.key)


def fill(server, bucket: str, *keys: str) -> None:
    """Put these objects; each holds its key."""
    for key in keys:
        server.s3.put_object(Bucket=bucket, Key=key, Body=key.encode())


def test_objects_become_events(brigade, sqs_server, queues, bucket):
    """Each object under the prefix becomes one event that names it, its eTag and its size; own output is skipped."""
    name, pair = bucket(), queues(sqs_server)
    fill(sqs_server, name, "data/a b.csv", "data/ü+%.csv", "data/note.txt", "data/out/x.csv", "other/c.csv")
    env = environment_for(sqs_server) | {"SQS_QUEUE_URL": pair.url, "BRIDGE_RESULTS_URL": f"s3://{name}/data/out/"}

    done = brigade(env, "backfill", f"s3://{name}/data/", "--include", "*.csv", "--json")

    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["objects"], summary["complete"], summary["send_calls"]) == (2, True, 1)
    assert summary["skipped"] == {"key": 1, "own-output": 1}
    found = records_in(sqs_server, pair.url)
    assert [record.key for record in found] == ["data/a b.csv", "data/ü+%.csv"]
    heads = [sqs_server.s3.head_object(Bucket=name, Key=record.key) for record in found]
    assert [(r.bucket, r.etag, r.size) for r in found] == [
        (name, head["ETag"].strip('"'), head["ContentLength"]) for head in heads
    ]
    assert all(r.event_name == "ObjectCreated:Put" and r.version_id is None for r in found)


def test_the_latest_versions_are_named(brigade, moto_server, queues, bucket):
    """In a bucket with versions the event names the latest one; older ones and deleted objects are not sent."""
    name, pair = bucket(versions=True), queues(moto_server)
    fill(moto_server, name, "a", "a", "gone", "z")
    moto_server.s3.delete_object(Bucket=name, Key="gone")
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url}

    assert brigade(env, "backfill", f"s3://{name}").code == 0
    latest = {k: moto_server.s3.head_object(Bucket=name, Key=k)["VersionId"] for k in ("a", "z")}
    assert {r.key: r.version_id for r in records_in(moto_server, pair.url)} == latest

    assert brigade(env, "backfill", f"s3://{name}", "--no-version-ids").code == 0
    assert {r.key: r.version_id for r in records_in(moto_server, pair.url)} == {"a": None, "z": None}


def test_a_dry_run_lists_and_sends_nothing(brigade, moto_server, queues, bucket):
    """--dry-run prints a line for each object that would be sent, with the total, and calls no SQS."""
    name, pair = bucket(), queues(moto_server)
    fill(moto_server, name, "a", "b\u2028c")
    with FaultProxy(moto_server.endpoint_url) as proxy:
        env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "AWS_ENDPOINT_URL_SQS": proxy.url}
        done = brigade(env, "backfill", f"s3://{name}", "--dry-run")
        assert proxy.calls == []
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split("  ")[:2] for line in lines[:2]] == [
        [f"s3://{name}/a", "1 bytes"],
        [f"s3://{name}/b\\u2028c", "5 bytes"],
    ]
    assert lines[2] == f"would send 2 objects (6 bytes) to {pair.url}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_begun_again(brigade, moto_server, queues, bucket, tmp_path, number, code):
    """Stopped by a signal it remembers what SQS has confirmed, and the same command sends exactly the rest."""
    name, pair = bucket(), queues(moto_server)
    keys = [f"k{n:02d}" for n in range(30)]
    fill(moto_server, name, *keys)
    state = tmp_path / "state.json"
    arguments = ["backfill", f"s3://{name}", "--state", str(state)]
    with FaultProxy(moto_server.endpoint_url) as proxy:
        env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "AWS_ENDPOINT_URL_SQS": proxy.url}
        slowly = [sys.executable, "-m", "bridge", *arguments, "--rate", "5"]
        process = subprocess.Popen(slowly, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        proxy.wait_for(lambda c: c.action == "SendMessageBatch" and c.finished_at is not None, 30, "a first batch")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == code, err
        assert "the same command again goes on" in err
        assert out.startswith("sent ")

        remembered = json.loads(state.read_text())
        first = [r.key for r in records_in(moto_server, pair.url)]
        assert 5 <= len(first) < 30
        assert (remembered["sent"], remembered["last_key"], remembered["complete"]) == (len(first), first[-1], False)

        done = brigade(env, *arguments)
        assert done.code == 0, done.err
    assert [r.key for r in records_in(moto_server, pair.url)] == keys[len(first) :]
    again = brigade(env, *arguments)
    assert (again.code, again.out.partition(" to ")[0]) == (0, "sent 0 objects (0 bytes)")
    assert "says that all is sent" in again.err


def test_an_error_says_how_to_go_on(brigade, moto_server, queues, bucket):
    """When SQS refuses in the middle it exits with 1 and names the key after which to go on, which then works."""
    name, pair = bucket(), queues(moto_server)
    keys = [f"k {n:02d}" for n in range(25)]
    fill(moto_server, name, *keys)
    with FaultProxy(moto_server.endpoint_url) as proxy:
        env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "AWS_ENDPOINT_URL_SQS": proxy.url}

        def refuse_after_the_first() -> None:
            proxy.wait_for(lambda call: call.finished_at is not None, 30, "the first batch")
            proxy.fail("SendMessageBatch", status=403, code="AccessDenied", times=None)

        refusing = threading.Thread(target=refuse_after_the_first)
        refusing.start()
        done = brigade(env, "backfill", f"s3://{name}", "--rate", "3")
        refusing.join()
        proxy.clear()
        sent = [record.key for record in records_in(moto_server, pair.url)]
        assert done.code == 1
        assert "AccessDenied" in done.err
        assert done.err.rstrip().endswith(f"--start-after '{sent[-1]}'")
        assert done.err.count("\n") == 1

        assert brigade(env, "backfill", f"s3://{name}", "--start-after", sent[-1]).code == 0
    assert sent + [record.key for record in records_in(moto_server, pair.url)] == keys


def test_a_queue_that_is_not_there(brigade, moto_server, bucket):
    """When not one message can be sent it ends with one line and exit code 2: there is something to mend."""
    name = bucket()
    fill(moto_server, name, "a")
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": f"{moto_server.endpoint_url}/123456789012/no-such-queue"}
    done = brigade(env, "backfill", f"s3://{name}")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_a_state_of_another_backfill_is_refused(brigade, moto_server, queues, bucket, tmp_path):
    """A state file that belongs to another prefix, or to nothing of ours, ends with one line and exit code 2."""
    name, pair = bucket(), queues(moto_server)
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url}
    state = tmp_path / "state"
    assert brigade(env, "backfill", f"s3://{name}/a/", "--state", str(state)).code == 0
    other = brigade(env, "backfill", f"s3://{name}/b/", "--state", str(state))
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "another backfill (url differ)" in other.err
    nowhere = brigade(env, "backfill", f"s3://{name}/a/", "--state", str(tmp_path / "no" / "folder"))
    assert (nowhere.code, nowhere.err.count("\n")) == (2, 1)
    state.write_text("[]")
    assert brigade(env, "backfill", f"s3://{name}/a/", "--state", str(state)).code == 2


def test_a_terminal_gets_a_bar(moto_server, queues, bucket):
    """On a terminal a bar with position and time is drawn; elsewhere there is none."""
    name, pair = bucket(), queues(moto_server)
    fill(moto_server, name, *(f"k{n}" for n in range(12)))
    env = environment_for(moto_server) | {"SQS_QUEUE_URL": pair.url, "TERM": "xterm", "COLUMNS": "100"}
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "backfill", f"s3://{name}"], env=env, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:
        pass  # how Linux says that the other end is closed
    finally:
        os.close(terminal)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, shown
    assert b"12/12" in shown
    assert out.decode() == f"sent 12 objects (26 bytes) to {pair.url}\n"


@pytest.mark.slow
def test_to_a_task_directly(brigade_process, moto_server, queues, bucket):
    """With --task a real worker runs that task for each object, off the task queue, and reads the object."""
    name, events, tasks = bucket(), queues(moto_server, prefix="events"), queues(moto_server, prefix="tasks")
    fill(moto_server, name, *(f"data/{n}" for n in range(12)), "elsewhere")
    env = environment_for(moto_server) | {
        "SQS_QUEUE_URL": events.url,
        "SQS_TASK_QUEUE_URL": tasks.url,
        "BRIDGE_TASK_MODULES": TASKS,
        "BRIDGE_WAIT_TIME_SECONDS": "1",
        "BRIDGE_HEALTH_PORT": "0",
    }
    unknown = brigade_process(env, "backfill", f"s3://{name}", "--task", "setup.tkae")
    assert (unknown.code, unknown.err) == (
        2,
        "brigade: --task setup.tkae: no file_task of this name, only setup.take\n",
    )
    done = brigade_process(env, "backfill", f"s3://{name}", "--task", "setup.take", "--json")
    assert json.loads(done.out)["send_calls"] == 2, done.err
    with WorkerProcess(env, "-P", "threads", "-c", "4") as worker:

        def ends():
            return worker.found("message_settled", outcome="deleted", task="setup.take")

        wait_until(lambda: len(ends()) == 13, 30, "thirteen runs")
    assert receive(moto_server, tasks.dlq_url) == []


def test_a_message_for_a_task_is_like_celerys(moto_server, queues):
    """What --task sends has the very fields of what .delay() sends through the transport, and the same arguments."""
    from bridge.messages.celery_message import task_body

    tasks = queues(moto_server)
    env = environment_for(moto_server) | {"SQS_TASK_QUEUE_URL": tasks.url}
    program = f"from bridge import S3Object\nfrom {TASKS} import take\ntake.delay(S3Object(bucket='b', key='k'))"
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    [theirs] = [json.loads(body) for body in drained(moto_server, tasks.url)]

    ours = json.loads(task_body(ObjectRecord(bucket="b", key="k"), "setup.take", "id", "1@here"))

    for part in (ours, theirs):
        part["body"] = json.loads(part["body"])
    assert ours["body"] == theirs["body"]
    assert ours.keys() == theirs.keys()
    varying = {"id", "root_id", "origin", "argsrepr"}
    # What the bridge itself adds to a message of .delay() (a trace, for one) is no field of Celery's.
    celerys = {name: value for name, value in theirs["headers"].items() if name in ours["headers"]}
    assert {n: v for n, v in ours["headers"].items() if n not in varying} == {
        n: v for n, v in celerys.items() if n not in varying
    }
    assert ours["headers"].keys() == celerys.keys()
    assert ours["properties"].keys() <= theirs["properties"].keys()
