"""``max_bytes``: an object too large for its task ends as ``too-large``, unrun where its event says how large it is."""

from __future__ import annotations

import tempfile

import pytest

from bridge.celery import app
from bridge.errors import ObjectTooLarge
from bridge.task.decorators import file_task
from bridge.task.registry import _declared
from bridge.testing import run_event, s3_event, s3_object

NAME = "test_too_large.read"


@pytest.fixture
def ran():
    """The keys that the task was run for."""
    return []


@pytest.fixture(params=["open", "download"])
def read(request, ran, tmp_path, monkeypatch):
    """A task for objects of at most four bytes, which reads them either way and retries on everything."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    declared = dict(_declared)
    _declared.clear()

    @file_task("in/*", name=NAME, max_bytes=4, max_retries=5, autoretry_for=(Exception,))
    def read(obj):
        ran.append(obj.key)
        if request.param == "download":
            return obj.download().read_bytes()
        with obj.open() as body:
            return body.read()

    yield read
    _declared.clear()
    _declared.update(declared)
    del app.tasks[NAME]


def without_size(event):
    """The event as a sender writes it that does not know the size."""
    for record in event["Records"]:
        del record["s3"]["object"]["size"]
    return event


@pytest.mark.parametrize("content", [b"", b"333", b"4444"])
def test_as_large_as_allowed_is_allowed(read, ran, content):
    """With the size in the event and without."""
    event = s3_event(s3_object(content, "in/k"))
    assert run_event(event).result == content
    assert run_event(without_size(event)).result == content
    assert ran == ["in/k", "in/k"]


@pytest.mark.parametrize("receives", [1, 3, 6])
def test_too_large_by_its_event_is_dead_lettered_unrun(read, ran, receives):
    """At once, whatever receive it is, with both numbers in the error."""
    result = run_event(s3_event(s3_object(b"55555", "in/k")), receives=receives)
    assert (result.outcome, result.reason, result.delay_seconds) == ("dead_lettered", "too-large", None)
    assert result.error == f"s3://test-bucket/in/k has 5 bytes, but {NAME} takes at most 4"
    assert ran == []


@pytest.mark.parametrize("receives", [1, 3, 6])
def test_too_large_by_its_own_size_is_dead_lettered_when_it_is_read(read, ran, receives):
    """The task runs once and no more, although it retries on everything."""
    result = run_event(without_size(s3_event(s3_object(b"55555", "in/k"))), receives=receives)
    assert (result.outcome, result.reason, result.task) == ("dead_lettered", "too-large", NAME)
    assert "has 5 bytes" in result.error
    assert ran == ["in/k"]


def test_one_large_object_of_a_message_is_enough(read, ran):
    """All records share one end, so none runs: the dead letter has them all."""
    event = s3_event(s3_object(b"1", "in/small"), s3_object(b"55555", "in/large"))
    result = run_event(event)
    assert (result.outcome, result.reason) == ("dead_lettered", "too-large")
    assert "in/large" in result.error
    assert ran == []


def test_another_route_knows_no_limit(read, ran):
    """The limit is the task's that takes the object, not that of any other."""

    @file_task(name=f"{NAME}.everything")
    def everything(obj):
        return obj.size

    try:
        assert run_event(s3_event(s3_object(b"55555", "out/k"))).result == 5
        assert run_event(s3_event(s3_object(b"55555", "in/k"))).reason == "too-large"
    finally:
        del app.tasks[everything.name]


@pytest.mark.parametrize("size", [5, None])
def test_a_plain_call_raises_when_it_reads(read, ran, size):
    """The caller sees the error itself."""
    with pytest.raises(ObjectTooLarge, match=r"s3://test-bucket/in/k has 5 bytes, but its task takes at most 4"):
        read(s3_object(b"55555", "in/k", size=size))
    assert ran == ["in/k"]
    assert read(s3_object(b"4444", "in/k")) == b"4444"


def test_the_head_of_a_large_object_may_be_asked_for():
    """It has no bytes: here as with S3, so that a task can look before it reads."""
    obj = s3_object(b"55555", "in/k", max_bytes=4)
    assert obj.head()["size"] == 5
    with pytest.raises(ObjectTooLarge):
        obj.open()
