"""bridge.testing, as a user's tests use it: objects, events, and what becomes of a message."""

from __future__ import annotations

import json

import pytest
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded, WorkerLostError

from bridge.celery import app
from bridge.errors import ObjectGone
from bridge.s3.event import parse
from bridge.s3.object import S3Object, current_source
from bridge.s3.reader import S3_SOURCE
from bridge.task import registry
from bridge.task.decorators import file_task, message_task
from bridge.testing import (
    RunResult,
    run_event,
    s3_event,
    s3_object,
)

pytest_plugins = ["pytester"]
NAME = "test_testing.task"


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Only the tasks of a test are declared in it, and none after it."""
    declared, known = dict(registry._declared), set(app.tasks)
    registry._declared.clear()
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


@pytest.fixture
def lines():
    """A task that counts the lines of an object and retries on any error but ValueError."""

    @file_task("in/*.csv", name=NAME, dont_autoretry_for=(ValueError,), max_retries=2, retry_jitter=False)
    def count_lines(obj):
        with obj.open() as stream:
            rows = list(stream)
        if not rows:
            raise ValueError("empty")
        if rows[0] == b"busy":
            raise RuntimeError("busy")
        return len(rows)

    return count_lines


def raising(error):
    """A task for in/* that raises this."""

    @file_task("in/*", name=NAME, max_retries=2, retry_jitter=False)
    def fail(obj):
        raise error

    return fail


def test_a_task_that_returns(lines):
    """The outcome is deleted, and the result is there to be looked at."""
    obj = s3_object("a\nb\n", "in/some file.csv")
    assert run_event(s3_event(obj)) == RunResult("deleted", task=NAME, result=2)


def test_every_failure_has_its_outcome_reason_and_delay(lines):
    """Retried with the delay of this attempt, then exhausted; a permanent error at once."""
    busy, empty = s3_event(s3_object("busy", "in/busy.csv")), s3_event(s3_object(b"", "in/empty.csv"))
    first, second, last = (run_event(busy, receives=n) for n in (1, 2, 3))
    assert first == RunResult("retried", delay_seconds=2, task=NAME, error="busy")
    assert (second.outcome, second.delay_seconds) == ("retried", 4)
    assert last == RunResult("dead_lettered", "exhausted", task=NAME, error="busy")
    assert run_event(busy, receives=10) == last
    assert run_event(empty) == RunResult("dead_lettered", "permanent", task=NAME, error="empty")


@pytest.mark.parametrize(
    ("error", "receives", "outcome", "reason"),
    [
        (Ignore(), 1, "deleted", None),
        (Reject("no", requeue=False), 1, "dead_lettered", "rejected"),
        (Reject("no", requeue=True), 1, "handed_back", "requeued"),
        (ObjectGone("gone"), 1, "dead_lettered", "object-gone"),
        (SoftTimeLimitExceeded(), 1, "retried", None),
        (SoftTimeLimitExceeded(), 3, "dead_lettered", "time-limit"),
        (WorkerLostError("killed"), 3, "dead_lettered", "worker-lost"),
        (SystemExit(1), 1, "retried", None),
    ],
)
def test_special_ends(error, receives, outcome, reason):
    """Celery's exceptions mean in a test what they mean in a worker."""
    raising(error)
    result = run_event(s3_event("in/k"), receives=receives)
    assert (result.outcome, result.reason) == (outcome, reason)


def test_an_object_that_was_not_made_is_gone(lines):
    """A key alone is an object that does not exist."""
    result = run_event(s3_event("in/none.csv"))
    assert (result.outcome, result.reason) == ("dead_lettered", "object-gone")
    assert "s3://test-bucket/in/none.csv" in result.error


def test_what_no_task_takes(lines):
    """Unrouted, mixed, forbidden and malformed messages end as they would in a worker."""
    assert run_event(s3_event("out/a.csv")).reason == "unrouted"
    assert run_event(s3_event("in/a.csv", "out/a.csv")).reason == "mixed"
    assert run_event(s3_event("in/a.csv", bucket="other"), allowed_buckets=("mine",)).reason == "forbidden-bucket"
    assert run_event(s3_event("in/a.csv", event_name="ObjectRemoved:Delete")).reason == "unrouted"
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}
    assert run_event(test_event) == RunResult("ignored", "test-event")


@pytest.mark.parametrize("body", [" ", "{}", "[]", "null", "5", '{"Records": []}', "garbage", "[" * 4000, {}])
def test_garbage_is_malformed(lines, body):
    """Whatever the body is, the answer is an outcome, and no task ran."""
    result = run_event(body)
    assert (result.outcome, result.reason, result.task) == ("dead_lettered", "malformed", None)
    assert result.error


def test_a_message_task_gets_what_is_no_event():
    """With the attributes that the test gave, and the count of this receive."""

    @message_task(where={"type": "note*"}, name=NAME)
    def note(msg):
        return (msg.body, msg.message_attributes["raw"]["BinaryValue"], msg.attempt)

    attributes = {
        "type": {"DataType": "String", "StringValue": "notes"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00"},
    }
    assert run_event("hello", message_attributes=attributes, receives=2).result == ("hello", b"\x00", 2)
    assert run_event("hello").reason == "malformed"


def test_a_task_for_everything_gets_every_body():
    """Events, test events, Celery's bodies and garbage alike, as they are."""

    @message_task(everything=True, name=NAME)
    def keep(msg):
        return msg.body

    event = s3_event("k")
    assert json.loads(run_event(event).result) == event
    celery = json.dumps({"body": "W10=", "headers": {"task": "t", "id": "1"}, "properties": {}})
    for body in ("", "garbage", celery, '{"Service": "Amazon S3", "Event": "s3:TestEvent"}'):
        assert run_event(body) == RunResult("deleted", task=NAME, result=body)


@pytest.mark.parametrize("key", ["plain", "a b+c%20ü/…/x", "ends/", "q?&=#", "new\nline"])
def test_an_event_names_the_object_as_s3_would(key):
    """The key is encoded as S3 does it, so that the parser gives it back; what the object knows is in the record."""
    obj = s3_object(b"data", key, bucket="some-bucket", version_id="v1", region="eu-west-1")
    [record] = parse(json.dumps(s3_event(obj)))
    assert (record.bucket, record.key, record.size, record.etag) == ("some-bucket", key, 4, obj.etag)
    assert (record.version_id, record.region, record.event_name) == ("v1", "eu-west-1", "ObjectCreated:Put")
    assert S3Object(**record.to_dict()) == obj


def test_an_event_has_a_record_for_each_object():
    """In their order; names and objects may be mixed."""
    event = s3_event(s3_object(b"", "one"), "two", bucket="b2")
    assert [(r.bucket, r.key) for r in parse(json.dumps(event))] == [("test-bucket", "one"), ("b2", "two")]


def test_content_may_be_bytes_text_or_a_file(tmp_path):
    """Each is opened, downloaded and asked for its head; a file is read where it lies."""
    path = tmp_path / "big.bin"
    path.write_bytes(b"from a file")
    contents = {"bytes": b"\x00\xff", "text": "grüße", "file": path}
    wanted = {"bytes": b"\x00\xff", "text": "grüße".encode(), "file": b"from a file"}
    for key, content in contents.items():
        obj = s3_object(content, key)
        with obj.open() as stream:
            assert stream.read() == wanted[key]
        assert obj.download(tmp_path / f"copy-{key}").read_bytes() == wanted[key]
        head = obj.head()
        assert (head["size"], head["etag"], obj.size) == (len(wanted[key]), obj.etag, len(wanted[key]))


@pytest.mark.parametrize("said", [True, False])
def test_an_object_too_large_for_its_task(said):
    """It is dead-lettered, by the size in its event, or when it is read if the event says none."""

    @file_task("in/*", name=NAME, max_bytes=3)
    def read(obj):
        with obj.open() as stream:
            return stream.read()

    obj = s3_object(b"four", "in/k")
    result = run_event(s3_event(obj if said else "in/k"))
    assert (result.outcome, result.reason) == ("dead_lettered", "too-large")
    assert run_event(s3_event(s3_object(b"333", "in/k"))).result == b"333"


def test_making_an_object_again_is_an_overwrite(lines):
    """The older object is superseded; the newer one is read."""
    old = s3_object("a\n", "in/x.csv")
    new = s3_object("a\nb\nc\n", "in/x.csv")
    assert run_event(s3_event(old)) == RunResult("ignored", "superseded", task=NAME)
    assert run_event(s3_event(new)).result == 3


def test_objects_serve_plain_calls_and_apply_too(lines):
    """A task can be tested as a function, and through Celery's own apply."""
    obj = s3_object("a\nb\n", "in/x.csv")
    assert lines(obj) == 2
    assert lines.apply(args=[obj]).get() == 2
    assert lines.apply(args=[obj.to_dict()]).get() == 2


def test_objects_end_with_their_test(pytester):
    """The next test neither sees them nor reads from memory."""
    pytester.makeconftest("from bridge.pytest_plugin import _forget_s3_objects")  # as the installed plugin does
    pytester.makepyfile(
        """
        from bridge.s3.object import current_source
        from bridge.s3.reader import S3_SOURCE
        from bridge.testing import s3_object

        def test_one():
            s3_object(b"1", "k")
            assert current_source() is not S3_SOURCE

        def test_two():
            assert current_source() is S3_SOURCE
            s3_object(b"1", "other")
            assert list(current_source().contents) == [("test-bucket", "other")]
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_a_run_leaves_the_source_as_it_was(lines):
    """run_event alone reads from memory only while it runs."""
    run_event(s3_event("in/none.csv"))
    assert current_source() is S3_SOURCE
