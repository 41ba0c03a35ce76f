"""brigade send, put, queue and routes: what arrives in the queue, and what is said about it."""

from __future__ import annotations

import io
import json
import time
import uuid

import pytest

from bridge.s3.event import parse
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import counts, send
from tests.support.servers.waiting import wait_until
from tests.unit.cli.conftest import drain, event

#: What does not depend on the server runs on one of them.
ON_MOTO = pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)
MODULES = {"BRIDGE_TASK_MODULES": "tests.unit.cli.routes_tasks"}


@pytest.fixture
def pair(sqs_server, queues):
    """A queue and its DLQ."""
    return queues(sqs_server)


@pytest.fixture
def bucket(sqs_server):
    """A bucket of its own."""
    name = f"cli-{uuid.uuid4().hex[:8]}"
    sqs_server.s3.create_bucket(Bucket=name)
    return name


def test_send_many(sqs_server, pair, brigade):
    """Each copy arrives with its attributes, ten went with a call, and the number is told."""
    sent = brigade("send", "hé\n", "--count", "23", "--attribute", "kind=a=b", SQS_QUEUE_URL=pair.url)
    assert (sent.code, sent.out) == (0, f"sent 23 messages to {pair.name}\n")
    found = drain(sqs_server, pair.url)
    assert [m["Body"] for m in found] == ["hé\n"] * 23
    assert all(m["MessageAttributes"]["kind"]["StringValue"] == "a=b" for m in found)


def test_send_from_standard_input(sqs_server, pair, brigade, monkeypatch):
    """Whole, or a body a line without the empty ones; JSON tells the ids."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"n": 1}\n\n{"n": 2}\n'))
    told = brigade("send", "-", "--lines", "--json", "--queue", pair.name, SQS_QUEUE_URL=pair.url).json
    found = drain(sqs_server, pair.url)
    assert sorted(m["Body"] for m in found) == ['{"n": 1}', '{"n": 2}']
    assert told == {"queue": pair.url, "sent": 2, "message_ids": told["message_ids"]}
    assert sorted(told["message_ids"]) == sorted(m["MessageId"] for m in found)
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert brigade("send", "-", "--queue", pair.url).code == 0
    assert [m["Body"] for m in drain(sqs_server, pair.url)] == ["two\nlines\n"]


def test_large_bodies_are_split_into_calls(sqs_server, pair, brigade, monkeypatch):
    """Together they are more than one call may hold; all arrive."""
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 400_000))
    assert brigade("send", "-", "--count", "4", SQS_QUEUE_URL=pair.url).code == 0
    assert counts(sqs_server, pair.url).visible == 4


@ON_MOTO
def test_send_keeps_its_rate(pair, brigade):
    """Eight messages at eight a second: the ninth would have to wait a second after the first."""
    start = time.monotonic()
    assert brigade("send", "x", "--count", "9", "--rate", "8", SQS_QUEUE_URL=pair.url).code == 0
    assert time.monotonic() - start >= 1.0


def test_put_uploads_and_sends_the_event(sqs_server, pair, brigade, bucket, tmp_path):
    """A bucket that notifies nobody: the object is there, and its event names these very bytes."""
    file = tmp_path / "a b+ü.csv"
    file.write_bytes(b"id\n1\n")
    done = brigade("put", str(file), f"s3://{bucket}/in/", "--json", SQS_QUEUE_URL=pair.url)
    assert done.code == 0
    head = sqs_server.s3.head_object(Bucket=bucket, Key="in/a b+ü.csv")
    [message] = drain(sqs_server, pair.url)
    [record] = parse(message["Body"])
    assert (record.bucket, record.key, record.size) == (bucket, "in/a b+ü.csv", 5)
    assert (record.etag, record.event_name) == (head["ETag"].strip('"'), "ObjectCreated:Put")
    assert done.json["event"] == {"queue": pair.url, "message_id": message["MessageId"]}


def test_put_leaves_the_event_to_the_bucket(moto_server, queues, brigade, bucket_that_notifies, tmp_path, monkeypatch):
    """A bucket that notifies the queue: one event, the bucket's own; --event sends a second one."""
    name, pair = bucket_that_notifies
    file = tmp_path / "a.csv"
    file.write_bytes(b"x")
    done = brigade("put", str(file), f"s3://{name}/in/a.csv", SQS_QUEUE_URL=pair.url)
    assert (
        done.out == f"uploaded s3://{name}/in/a.csv (1 bytes)\nsent no event: the bucket itself notifies {pair.name}\n"
    )
    assert wait_until(lambda: drain(moto_server, pair.url), 10, "the bucket's own event")
    # What the bucket does not announce, because its rule is for another prefix, is announced by the command.
    assert "sent its event" in brigade("put", str(file), f"s3://{name}/out/", SQS_QUEUE_URL=pair.url).out
    assert len(drain(moto_server, pair.url)) == 1
    assert "no event was asked for" in brigade("put", str(file), f"s3://{name}/out/", "--no-event").out
    assert drain(moto_server, pair.url) == []


@pytest.fixture
def bucket_that_notifies(moto_server, queues, monkeypatch):
    """A bucket of moto's that tells a queue of what is put under in/."""
    from tests.support.servers.sqs import environment_for

    for variable, value in environment_for(moto_server).items():
        monkeypatch.setenv(variable, value)
    pair = queues(moto_server)
    name = f"cli-{uuid.uuid4().hex[:8]}"
    moto_server.s3.create_bucket(Bucket=name)
    rule = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}}
    entry = {"QueueArn": pair.arn, "Events": ["s3:ObjectCreated:*"], "Filter": rule}
    moto_server.s3.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration={"QueueConfigurations": [entry]}
    )
    drain(moto_server, pair.url)  # the test event
    return name, pair


@ON_MOTO
def test_put_without_a_url(sqs_server, pair, brigade, bucket, tmp_path):
    """The one bucket that is allowed, and the file's name."""
    file = tmp_path / "report.csv"
    file.write_bytes(b"x")
    settings = {"SQS_QUEUE_URL": pair.url, "BRIDGE_ALLOWED_BUCKETS": bucket}
    assert f"uploaded s3://{bucket}/report.csv" in brigade("put", str(file), **settings).out


@ON_MOTO
def test_put_tells_when_only_the_event_failed(sqs_server, pair, brigade, bucket, tmp_path):
    """The object is there and the queue does not know: what is wrong, and that the object has to be put again."""
    file = tmp_path / "a.csv"
    file.write_bytes(b"x")
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        proxy.fail("SendMessage", code="AccessDenied", times=None)
        done = brigade("put", str(file), f"s3://{bucket}/", SQS_QUEUE_URL=pair.url, AWS_ENDPOINT_URL_SQS=proxy.url)
    assert (done.code, done.out) == (2, "")
    assert f"s3://{bucket}/a.csv is uploaded, and no event is known to be sent: put it again" in done.err
    assert "AccessDenied" in done.err
    assert sqs_server.s3.head_object(Bucket=bucket, Key="a.csv")["ContentLength"] == 1
    assert drain(sqs_server, pair.url) == []


@ON_MOTO
def test_put_into_a_bucket_that_is_not_there(pair, brigade, tmp_path):
    """One line, exit code 2, and no event."""
    file = tmp_path / "report.csv"
    file.write_bytes(b"x")
    for flag in ("--event", "--no-event"):
        refused = brigade("put", str(file), "s3://no-such-bucket-here/x", flag, SQS_QUEUE_URL=pair.url)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "NoSuchBucket" in refused.err


def test_queue_show(sqs_server, pair, brigade):
    """Depths, DLQ and redrive policy, for a person and for a machine."""
    send(sqs_server, pair.url, "x")
    send(sqs_server, pair.dlq_url, "y")
    [told] = brigade("queue", "show", "--json", SQS_QUEUE_URL=pair.url).json
    assert told["messages"] == {"visible": 1, "in_flight": 0, "delayed": 0}
    assert told["dlq"]["url"] == pair.dlq_url
    assert told["dlq"]["messages"]["visible"] == 1
    assert int(told["redrive_policy"]["maxReceiveCount"]) == 20
    assert told["attributes"]["QueueArn"] == pair.arn
    text = brigade("queue", "show", SQS_QUEUE_URL=pair.url).out
    assert "1 visible, 0 in flight, 0 delayed" in text
    assert pair.dlq_url in text
    assert "20 receives" in text


def test_queue_purge_wants_the_name(sqs_server, pair, brigade, monkeypatch):
    """Neither nobody nor a wrong name empties a queue; the right one does."""
    send(sqs_server, pair.url, "x")
    for extra in ([], ["--yes", "uploads"]):
        refused = brigade("queue", "purge", *extra, SQS_QUEUE_URL=pair.url)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert counts(sqs_server, pair.url).visible == 1
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: pair.name)
    assert brigade("queue", "purge", SQS_QUEUE_URL=pair.url).out == f"purged {pair.name}\n"
    wait_until(lambda: counts(sqs_server, pair.url).total == 0, 10, "an empty queue")


def test_routes_of_a_key(brigade):
    """The taker, the one that comes too late and the one that does not match, each with its reason."""
    shown = brigade("routes", "s3://uploads-eu/incoming/a.csv", **MODULES)
    assert shown.code == 0
    assert shown.out.splitlines() == [
        "s3://uploads-eu/incoming/a.csv  ObjectCreated:Put",
        "  tests.unit.cli.routes_tasks.csv    yes",
        "  tests.unit.cli.routes_tasks.small  would, but tests.unit.cli.routes_tasks.csv comes first",
        "  tests.unit.cli.routes_tasks.order  no: takes messages that are not S3 events (everything=True takes all)",
        "",
        "→ tests.unit.cli.routes_tasks.csv",
    ]


def test_routes_that_lead_nowhere(brigade):
    """What would be dead-lettered or ignored is said with its reason, and exit code 1."""
    for args, settings, reason in (
        (["s3://other/incoming/a.csv", "--size", "11"], {}, "too-large"),
        (["s3://other/x"], {}, "unrouted"),
        (["s3://other/x"], {"BRIDGE_UNROUTED": "ignore"}, "unrouted"),
        (["x", "--bucket", "other"], {"BRIDGE_ALLOWED_BUCKETS": "uploads-*"}, "forbidden-bucket"),
        (["s3://results/out/x"], {"BRIDGE_RESULTS_URL": "s3://results/out/"}, "own-output"),
        (["s3://up/incoming/x", "--event", "s3:ObjectRemoved:Delete"], {}, "unrouted"),
    ):
        shown = brigade("routes", *args, "--json", **MODULES, **settings)
        assert (shown.code, shown.json["task"], shown.json["reason"]) == (1, None, reason)


def test_routes_of_a_body(brigade, tmp_path, monkeypatch):
    """A body from a file or from standard input, with the attributes that came along."""
    body = tmp_path / "body.json"
    body.write_text(event("incoming/x", "other"))
    assert (
        brigade("routes", "--body", str(body), "--json", **MODULES).json["task"] == "tests.unit.cli.routes_tasks.small"
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no JSON\n")))
    taken = brigade("routes", "--body", "-", "--attribute", "kind=order-7", "--json", **MODULES)
    assert json.loads(taken.out)["task"] == "tests.unit.cli.routes_tasks.order"
