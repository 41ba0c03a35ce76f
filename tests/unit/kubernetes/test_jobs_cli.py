"""brigade jobs against a cluster and a queue: what is listed, requeued and deleted, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge import Message
from bridge.cli import main
from bridge.cli.jobs import age
from bridge.kubernetes.job_api import connected
from bridge.kubernetes.job_manifest import check_template, job_manifest, stored_task
from tasks.launch_job import read_template
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive
from tests.unit.kubernetes.conftest import Cluster

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(request: pytest.FixtureRequest, moto_server: SqsServer) -> SqsServer:
    """moto, or the server that a test asks for; S3 is moto's in both cases."""
    found: SqsServer = request.getfixturevalue(f"{getattr(request, 'param', 'moto')}_server")
    return found


@pytest.fixture
def run(server: SqsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``brigade jobs …`` in this process: exit code, output, errors."""
    for name, value in environment_for(server).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["brigade", "jobs", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def queue(server: SqsServer, queues: QueueFactory) -> QueuePair:
    """The queue that the messages came from."""
    return queues(server)


def launch(cluster: Cluster, number: int, queue_url: str, body: str | None = None, **options: Any) -> str:
    """Create the Job of a message as the task does, and return its name."""
    message = Message(
        id=f"00000000-0000-0000-0000-{number:012}",
        body=body or json.dumps({"target": f"h{number}", "duration": "1"}),
        queue_url=queue_url,
        receipt_handle="handle",
        received_at=datetime.now(UTC),
        message_attributes=options.pop("attributes", {}),
    )
    template = options.pop("template", None) or read_template(None)
    job = job_manifest(check_template(template), message, **options)
    cluster.create(job)
    name: str = job["metadata"]["name"]
    return name


def test_list_tells_name_command_status_age_and_message(cluster: Cluster, run: Run) -> None:
    """Jobs of each status are a line each, oldest first; an option leaves those of its status, two are an or."""
    names = [launch(cluster, n, "http://localhost/0/q") for n in range(3)]
    cluster.end(names[0], "Complete")
    cluster.end(names[1], "Failed")

    code, out, err = run("list")

    assert (code, err) == (0, "")
    head, *rows = (line.split("  ") for line in out.splitlines())
    assert [cell.strip() for cell in head if cell] == ["NAME", "COMMAND", "STATUS", "AGE", "MESSAGE ID"]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert [row[:3] for row in cells] == [
        [names[n], f"ping -c 1 -- h{n}", status] for n, status in enumerate(("completed", "failed", "running"))
    ]
    assert [row[4] for row in cells] == [name.removeprefix("task-") for name in names]
    assert all(row[3].endswith("s") for row in cells)
    for options, listed in ((["--failed"], [1]), (["--running"], [2]), (["--completed", "--failed"], [0, 1])):
        rows = json.loads(run("list", "--json", *options)[1])
        assert [row["name"] for row in rows] == [names[n] for n in listed]
        assert rows[0]["task"] == json.dumps({"target": f"h{listed[0]}", "duration": "1"})


def test_list_shows_no_line_breaks_of_a_message(cluster: Cluster, run: Run) -> None:
    """What a message put into a command is shown escaped and short: it could otherwise forge lines of the table."""
    launch(cluster, 1, "http://localhost/0/q", json.dumps({"target": "a\nb\x1b[2J" + "c" * 200, "duration": "1"}))
    _, out, _ = run("list")
    assert len(out.splitlines()) == 2
    assert "\\n" in out and "\\x1b" in out and "…" in out


def test_nothing_to_do_is_said(cluster: Cluster, run: Run) -> None:
    """Where there is no Job, each command says so and succeeds."""
    assert run("list")[:2] == (0, "NAME  COMMAND  STATUS  AGE  MESSAGE ID\n")
    assert run("requeue", "--all")[:2] == (0, "no Job to requeue\n")
    assert run("clean", "--completed", "--older-than", "1h")[:2] == (0, "no Job to delete\n")


@pytest.mark.parametrize("server", ["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)], indirect=True)
def test_requeue_all_sends_the_failed_back(cluster: Cluster, run: Run, server: SqsServer, queue: QueuePair) -> None:
    """Every failed Job's message is in its queue again, body and attributes as they were, and those Jobs are gone."""
    attributes = {
        "kind": {"DataType": "String", "StringValue": "k"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\0\1"},
    }
    names = [launch(cluster, n, queue.url, attributes=attributes) for n in range(4)]
    for name in names[:2]:
        cluster.end(name, "Failed")
    cluster.end(names[2], "Complete")

    assert run("requeue", "--all", "--dry-run")[:2] == (
        0,
        "".join(f"would requeue {name} to {queue.url}\n" for name in names[:2]),
    )
    assert counts(server, queue.url).total == 0
    code, out, err = run("requeue", "--all")

    assert (code, err) == (0, "")
    assert sorted(cluster.jobs()) == names[2:]
    found = {message["MessageId"]: message for message in receive(server, queue.url)}
    assert out == "".join(
        f"requeued {name} as {message_id}\n" for name, message_id in zip(names[:2], _in_order(found), strict=True)
    )
    for message in found.values():
        sent = message["MessageAttributes"]
        assert (sent["kind"]["StringValue"], sent["raw"]["BinaryValue"]) == ("k", b"\0\1")


def _in_order(found: dict[str, Any]) -> list[str]:
    return sorted(found, key=lambda message_id: json.loads(found[message_id]["Body"])["target"])


def test_requeue_by_name(cluster: Cluster, run: Run, server: SqsServer, queue: QueuePair) -> None:
    """A named Job that failed is requeued; one that has not only with --force; the others have their turn anyway."""
    failed, running = launch(cluster, 1, queue.url), launch(cluster, 2, queue.url)
    cluster.end(failed, "Failed")

    code, out, err = run("requeue", "nobody", running, failed, failed, "--json")

    assert code == 1
    assert err.splitlines() == [
        f"brigade: nobody: there is no such Job in {cluster.namespace}",
        f"brigade: {running}: is running, not failed; --force requeues it all the same",
    ]
    [message] = receive(server, queue.url)
    assert json.loads(out) == [{"job": failed, "queue_url": queue.url, "message_id": message["MessageId"]}]
    assert run("requeue", "--force", running)[0] == 0
    assert cluster.jobs() == {}


def test_requeue_knows_the_queue_watchers_jobs(cluster: Cluster, run: Run, server: SqsServer, queue: QueuePair) -> None:
    """A Job with the annotation task and nothing else of ours is found by --selector '' and needs --queue-url."""
    theirs = read_template(None)
    theirs["metadata"] = {"name": "theirs", "annotations": {"task": '{"target": "this.is.invalid"}'}}
    theirs["spec"]["template"]["spec"]["containers"][0]["command"] = ["ping", "this.is.invalid"]
    cluster.create(theirs)
    cluster.create({**theirs, "metadata": {"name": "no-task"}})
    for name in ("theirs", "no-task"):
        cluster.end(name, "Failed")

    assert run("requeue", "--all")[1] == "no Job to requeue\n"
    told = run("requeue", "--all", "--selector", "")
    assert (told[0], told[2]) == (1, "brigade: theirs: does not say which queue it came from: give --queue-url\n")
    assert run("requeue", "no-task")[2] == "brigade: no-task: has no annotation task: it came from no message\n"
    assert run("requeue", "--all", "-l", "", "--queue-url", queue.url)[0] == 0
    [message] = receive(server, queue.url)
    assert message["Body"] == '{"target": "this.is.invalid"}'
    assert list(cluster.jobs()) == ["no-task"]


def test_requeue_fetches_a_stored_body(cluster: Cluster, run: Run, server: SqsServer, queue: QueuePair) -> None:
    """A body that was too long for an annotation is read where the Job says it lies; if it is gone, so it is told."""
    bucket = queue.name
    server.s3.create_bucket(Bucket=bucket)
    attributes = {"raw": {"DataType": "Binary", "BinaryValue": b"\xff"}}
    long = Message(
        id="x",
        body="ü" * 1000,
        queue_url="",
        receipt_handle="",
        received_at=datetime.now(UTC),
        message_attributes=attributes,
    )
    server.s3.put_object(Bucket=bucket, Key="out/there.json", Body=stored_task(long))
    for number, key in enumerate(("out/there.json", "out/gone.json")):
        cluster.end(launch(cluster, number, queue.url, task_url=f"s3://{bucket}/{key}"), "Failed")

    code, _, err = run("requeue", "--all")

    assert code == 1 and "NoSuchKey" in err and len(err.splitlines()) == 1
    [message] = receive(server, queue.url)
    assert (message["Body"], message["MessageAttributes"]["raw"]["BinaryValue"]) == (long.body, b"\xff")
    assert len(cluster.jobs()) == 1


def test_a_job_stays_when_its_message_was_not_taken(
    cluster: Cluster, run: Run, server: SqsServer, queue: QueuePair
) -> None:
    """Without SQS's confirmation nothing is deleted, and the next Job has its turn."""
    lost, sound = launch(cluster, 1, queue.url + "-gone"), launch(cluster, 2, queue.url)
    for name in (lost, sound):
        cluster.end(name, "Failed")
    code, _, err = run("requeue", "--all")
    assert code == 1
    assert err.startswith(f"brigade: {lost}: ") and len(err.splitlines()) == 1
    assert list(cluster.jobs()) == [lost]
    assert counts(server, queue.url).total == 1


def test_a_message_is_sent_before_its_job_is_deleted(
    stand_in: Cluster, run: Run, server: SqsServer, queue: QueuePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the Job cannot be deleted, its message has been sent, and the line says both."""
    assert stand_in.stand_in is not None
    name = launch(stand_in, 1, queue.url)
    stand_in.end(name, "Failed")
    handle = stand_in.stand_in.handle

    def deletes_nothing(method: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        if method == "DELETE":
            assert counts(server, queue.url).total == 1
            stand_in.stand_in.fail(403, "may not delete")  # type: ignore[union-attr]  # asserted above
        return handle(method, *rest)

    monkeypatch.setattr(stand_in.stand_in, "handle", deletes_nothing)
    code, _, err = run("requeue", name)
    assert code == 1
    assert "its message was sent as" in err and "the Job is still there" in err and "may not delete" in err


def test_ctrl_c_finishes_the_job_at_hand(
    stand_in: Cluster, run: Run, server: SqsServer, queue: QueuePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between message and deletion, requeue still deletes that Job, leaves the next, and exits with 130."""
    assert stand_in.stand_in is not None
    names = [launch(stand_in, n, queue.url) for n in range(2)]
    for name in names:
        stand_in.end(name, "Failed")
    handle = stand_in.stand_in.handle

    def interrupted(method: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        if method == "DELETE":
            os.kill(os.getpid(), signal.SIGINT)
        return handle(method, *rest)

    monkeypatch.setattr(stand_in.stand_in, "handle", interrupted)
    code, out, _ = run("requeue", "--all")
    assert code == 130
    assert out.startswith(f"requeued {names[0]} as ") and len(out.splitlines()) == 1
    assert list(stand_in.jobs()) == names[1:]
    assert counts(server, queue.url).total == 1


def test_clean_deletes_what_ended_long_ago(cluster: Cluster, run: Run) -> None:
    """Only Jobs of the named statuses that ended before then are deleted; --dry-run deletes none."""
    names = [launch(cluster, n, "http://localhost/0/q") for n in range(3)]
    cluster.end(names[0], "Complete")
    cluster.end(names[1], "Failed")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    assert run("clean", "--completed", "--failed", "--older-than", "1h")[1] == "no Job to delete\n"
    assert run("clean", "--completed", "--older-than", tomorrow, "--dry-run")[1] == (
        f"would delete {names[0]} (completed)\n"
    )
    assert len(cluster.jobs()) == 3
    assert run("clean", "--completed", "--older-than", tomorrow)[1] == f"deleted {names[0]} (completed)\n"
    assert json.loads(run("clean", "--failed", "--older-than", tomorrow, "--json")[1]) == {
        "dry_run": False,
        "deleted": [names[1]],
    }
    assert list(cluster.jobs()) == names[2:]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["requeue"], "name the Jobs, or say --all"),
        (["requeue", "--all", "a"], "name the Jobs, or say --all"),
        (["requeue", "a", "-l", "x=y"], "it goes with --all"),
        (["requeue", "--all", "--force"], "--force is for Jobs that are named"),
        (["clean", "--older-than", "7d"], "say which: --completed, --failed or both"),
        (["clean", "--completed"], "Missing option '--older-than'"),
        (["clean", "--completed", "--older-than", "soon"], "is not a moment"),
        (["list", "--lost"], "No such option"),
        (["requeue", "--all", "--queue-url", "q.fifo"], "must be the URL of a queue"),
    ],
)
def test_wrong_arguments_are_one_line(run: Run, args: list[str], told: str) -> None:
    """What is wrong on the command line is told in one line, with exit code 2."""
    code, out, err = run(*args)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert told in err


def test_no_cluster_and_a_cluster_that_is_away(stand_in: Cluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster the exit code is 2, with one that does not answer 1; one line each, no traceback."""
    assert stand_in.stand_in is not None
    stand_in.stand_in.silent = True
    code, _, err = run("list")
    assert (code, len(err.splitlines())) == (1, 1)
    assert err.startswith("brigade: the Kubernetes API cannot be reached: ")
    monkeypatch.setenv("KUBECONFIG", "/no/such")
    connected.cache_clear()
    code, _, err = run("list")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("brigade: no Kubernetes cluster: ")


@pytest.mark.parametrize("name", ["list", "requeue", "clean"])
def test_help_has_examples(run: Run, name: str) -> None:
    """Every command's help shows how it is used."""
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"brigade jobs {name} " in out.split("Examples:")[1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (400_000, "4d")]
)
def test_age(seconds: int, text: str) -> None:
    """Ages are short; one that lies in the future is 0s, an unknown one a dash."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == text
    assert (age(now + timedelta(hours=1), now), age(None, now)) == ("0s", "-")
